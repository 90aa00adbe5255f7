"""Many delayed messages: what they take of an idle worker's memory, and how late others are beside them.

Many are stored that are due in an hour, then a thousand that are all due at one instant, some
seconds ahead. Memory is measured just before it, lateness from it to the first line of the job.
"""

from __future__ import annotations

import math
import sys
import time

from peers import Installed, Peer
from processes import Silent
from running import Sizes, running
from runs import Figures

HOUR_S = 3600
#: So late is late enough: a worker may take in all that is due later first.
LATE_S = 30


def measure(peer: Peer, installed: Installed, sizes: Sizes) -> Figures:
    """The growth of the worker, and the lateness of what is due."""
    with running(peer, installed, sizes, sizes.due) as queue:
        worker = queue.start_idle_worker()
        before = worker.memory_info().rss
        queue.produce("later", "noop", sizes.delayed, _ms(time.time() + HOUR_S))
        # A whole second: some queues count in these.
        due_s = math.ceil(time.time() + sizes.ahead_s)
        queue.produce("later", "due", sizes.due, _ms(due_s))
        spare_s = due_s - time.time()
        if spare_s < 0:
            raise SystemExit(f"{sizes.due} delayed messages took longer than {sizes.ahead_s} s to be stored.")
        time.sleep(spare_s * 0.9)
        growth = worker.memory_info().rss - before
        try:
            late = queue.queue.read(spare_s + LATE_S)
            while "p50_ms" not in late:  # SAQ may run the first job again
                late = queue.queue.read(LATE_S)
        except Silent as silent:
            print(f"\n{silent}", file=sys.stderr)
            late = {"p50_ms": math.inf, "p99_ms": math.inf}
    return {"delayed_mib": growth / 2**20, "late_p50": late["p50_ms"], "late_p99": late["p99_ms"]}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
