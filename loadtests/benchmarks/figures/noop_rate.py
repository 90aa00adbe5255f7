"""No-op jobs a second: all of them wait when the worker starts.

Counted inside the worker, from the first job's start to the last job's end, so without start-up.
"""

from __future__ import annotations

from peers import Installed, Peer
from running import Sizes, running
from runs import Figures


def measure(peer: Peer, installed: Installed, sizes: Sizes) -> Figures:
    """How many it runs, and what CPU each takes of its worker and of Redis."""
    count = sizes.noops if peer.is_quick else sizes.noops_of_slow
    with running(peer, installed, sizes, count) as queue:
        queue.produce("fill", "noop", count)
        queue.start_worker()
        stretch = queue.queue.read_stretch(queue.server.cpu_s)
    return {
        "noop": count / stretch["seconds"],
        "noop_cpu_us": stretch["cpu_s"] / count * 1e6,
        "noop_redis_cpu_us": stretch["probed"] / count * 1e6,
    }
