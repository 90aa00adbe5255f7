"""From enqueueing in one process to the first line of the job in another, where the worker has nothing else to do."""

from __future__ import annotations

from peers import Installed, Peer
from running import Sizes, running
from runs import Figures


def measure(peer: Peer, installed: Installed, sizes: Sizes) -> Figures:
    """The latencies of some hundred messages, one at a time."""
    with running(peer, installed, sizes) as queue:
        queue.start_idle_worker()
        measured = queue.produce("latency", sizes.pings, sizes.pings_s)
    return {"latency_p50": measured["p50_ms"], "latency_p99": measured["p99_ms"], "latency_count": measured["count"]}
