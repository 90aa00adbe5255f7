"""Jobs that wait for 100 ms, as for an answer from the network, a thousand at once.

In percent of the ideal, in which each slot runs ten a second.
"""

from __future__ import annotations

from peers import Installed, Peer
from running import Sizes, running
from runs import Figures

NAP_S = 0.1


def measure(peer: Peer, installed: Installed, sizes: Sizes) -> Figures:
    """How near it comes to the ideal."""
    with running(peer, installed, sizes, sizes.naps) as queue:
        queue.produce("fill", "nap", sizes.naps)
        queue.start_worker()
        seconds = queue.queue.read_stretch()["seconds"]
    return {"nap": sizes.naps / sizes.concurrency * NAP_S / seconds * 100}
