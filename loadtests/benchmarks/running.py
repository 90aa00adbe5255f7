"""A queue on an empty Redis of its own, with its worker and its producer: what all figures are taken from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import psutil
from peers import Installed, Peer
from processes import Bench, bench, json_of
from redis_server import Server, redis_server
from runs import Figures


class Sizes(NamedTuple):
    """How much of everything.

    Attributes:
      noops, noops_of_slow(int): No-op jobs; the second for queues that run some thousand a second.
      naps(int): Jobs of 100 ms.
      singles, bulk(int): Messages sent one by one, and in bulk.
      pings, pings_s(int): Messages whose latency is measured; not longer than so many seconds.
      parked(int): Jobs that are parked.
      delayed(int): Messages delayed by an hour.
      due(int): Messages that are due at one instant, beside them.
      ahead_s(int): So long after the first of these is sent.
      concurrency(int): Of a worker.
    """

    noops: int = 100_000
    noops_of_slow: int = 10_000
    naps: int = 10_000
    singles: int = 5_000
    bulk: int = 20_000
    pings: int = 500
    pings_s: int = 12
    parked: int = 1_000
    delayed: int = 100_000
    due: int = 1_000
    ahead_s: int = 5
    concurrency: int = 1_000


#: To try the benchmark itself; its figures mean little.
QUICK = Sizes(
    noops=5_000,
    noops_of_slow=2_000,
    naps=1_000,
    singles=500,
    bulk=2_000,
    pings=20,
    pings_s=3,
    parked=500,
    delayed=2_000,
    due=100,
    ahead_s=10,
    concurrency=500,
)


class Running:
    """A queue that is measured.

    Parameters:
      peer(Peer): Which one.
      installed(Installed): Where it is.
      queue(Bench): What was started ends with it.
      server(Server): Empty at first.
      sizes(Sizes): How much of everything.
    """

    def __init__(self, peer: Peer, installed: Installed, queue: Bench, server: Server, sizes: Sizes) -> None:
        self.peer = peer
        self.queue = queue
        self.server = server
        self.sizes = sizes
        self._installed = installed

    def produce(self, *arguments: object) -> Figures:
        """Have its producer do something; what it measured."""
        program, *script = self._installed.producer
        return json_of([*script, *map(str, arguments)], self.queue.environment, program)

    def start_worker(self, concurrency: int | None = None) -> float:
        """Start its worker; when that was."""
        command = self.peer.worker_command(self._installed, concurrency or self.sizes.concurrency)
        return self.queue.start(command)

    def start_idle_worker(self, concurrency: int | None = None) -> psutil.Process:
        """Start its worker and have it run one job; the process that ran it."""
        self.produce("fill", "ping", 1)
        self.start_worker(concurrency)
        return psutil.Process(int(self.queue.read()["pid"]))


@contextlib.contextmanager
def running(peer: Peer, installed: Installed, sizes: Sizes, count: int = 0) -> Iterator[Running]:
    """The queue with nothing in it, and no worker; what was started on it has ended afterwards.

    Parameters:
      count(int): How many jobs its worker tells of at once.
    """
    with redis_server() as server, bench(count, url=server.url, environment=installed.environment) as queue:
        yield Running(peer, installed, queue, server, sizes)
