"""Messages a second that one process can store, while no worker runs."""

from __future__ import annotations

from peers import Installed, Peer
from redis_server import cores_apart
from running import Sizes, running
from runs import Figures


def measure_single(peer: Peer, installed: Installed, sizes: Sizes) -> Figures:
    """One after the other."""
    with running(peer, installed, sizes) as queue, cores_apart(queue.server):
        return {"single": queue.produce("single", sizes.singles)["per_s"]}


def measure_bulk(peer: Peer, installed: Installed, sizes: Sizes) -> Figures:
    """By its call for many, a thousand at a time; or by many coroutines at once, where that is its way."""
    with running(peer, installed, sizes) as queue, cores_apart(queue.server):
        return {"bulk": queue.produce("bulk", sizes.bulk)["per_s"]}
