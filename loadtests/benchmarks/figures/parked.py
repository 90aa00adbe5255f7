"""Memory a parked job: of a worker in which so many sleep, less that of an idle one.

The idle one is started for ten jobs at once: some queues make a place for each job that might come when
they start, and it takes memory, too.
"""

from __future__ import annotations

from peers import Installed, Peer
from running import Sizes, running
from runs import Figures

FEW = 10


def measure(peer: Peer, installed: Installed, sizes: Sizes) -> Figures:
    """What the place of a job and the job in it take."""
    with running(peer, installed, sizes) as queue:
        idle = queue.start_idle_worker(FEW).memory_info().rss
    with running(peer, installed, sizes, sizes.parked) as queue:
        worker = queue.start_idle_worker(sizes.parked)
        queue.produce("fill", "park", sizes.parked)
        queue.queue.read()
        full = worker.memory_info().rss
    return {"parked": (full - idle) / sizes.parked / 1024}
