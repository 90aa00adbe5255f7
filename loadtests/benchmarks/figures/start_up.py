"""From the command to the first line of a job that waits already."""

from __future__ import annotations

from peers import Installed, Peer
from running import Sizes, running
from runs import Figures


def measure(peer: Peer, installed: Installed, sizes: Sizes) -> Figures:
    """How long that takes."""
    with running(peer, installed, sizes) as queue:
        queue.produce("fill", "ping", 1)
        started = queue.start_worker()
        return {"start": queue.queue.read()["started"] - started}
