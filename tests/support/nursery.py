"""Workers and senders that are there at once, and are killed at a chosen call to their broker.

Each is a fork of one process that has imported everything, so that a test of a kill takes no
longer than the kill and what comes of it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import posix  # its fork and waitpid are not gevent's, and know no hub
import random
import select
import threading
from pathlib import Path
from typing import Any

import greenq

from .deaths import die_at, die_sometime, points
from .ledger import LONGEST_S, Ledger
from .places import KINDS, Place
from .processes import end_with_this_process
from .waiting import PATIENCE_S

#: A script that reads what workers to run, one at a time.
NURSERY = """
from tests.support.nursery import run_nursery
run_nursery()
"""


def run_nursery() -> None:
    """Run a worker for each line, and tell how it ended; with ``again`` one after the other, for ever."""
    end_with_this_process()  # the one that started it: it has no other end
    for kind in KINDS:
        points(kind)  # imports what it has to, once for all forks
    while line := os.read(0, 10_000):
        order = json.loads(line)
        again = order.pop("again", False)
        while True:
            pid = posix.fork()
            if not pid:
                end_with_this_process()
                faulthandler.dump_traceback_later(PATIENCE_S / 2)  # whoever waits for its death is told why it lives
                _live(**order)
            _, status = posix.waitpid(pid, 0)
            if not again:
                break
        print(os.waitstatus_to_exitcode(status), flush=True)


def _live(
    place: list[Any],
    path: str,
    *,
    death: str | None = None,
    lives_s: float = 0,
    once_it_runs_one: bool = False,
    **order: Any,
) -> None:
    """Be a worker, or a sender, until this process dies or is told to stop."""
    where, ledger = Place(*place), Ledger(Path(path))
    if death is not None:
        broker = where.open(ledger, until=threading.Event())
        die_at(where.kind, death, broker, ledger, once_it_runs_one=once_it_runs_one)
    else:
        random.seed()  # each fork would die the same death
        broker = where.open(ledger, longest_s=LONGEST_S)
        die_sometime(where.kind, lives_s, broker, ledger)
    if "sends" in order:
        broker.get_actor("work").send(order["sends"])
    else:
        _work(broker, **order)
    broker.close()
    os._exit(0)


def _work(broker: greenq.Broker, slots: int, queues: list[str], takes_back: str | None = None) -> None:
    worker = greenq.Worker(broker, queues=set(queues), worker_threads=slots)
    worker.start()
    if takes_back is not None:
        broker.take_back(takes_back)
    select.select([0], [], [])  # not a read, which would stop a hub
    os.read(0, 100)
    worker.stop(5000)
