"""The jobs of a small shop, on the broker that GREENQ_BROKER_URL names."""

from __future__ import annotations

import time

import humanize

import greenq
from greenq.middleware.prometheus import Prometheus

greenq.get_broker().add_middleware(Prometheus())


@greenq.actor(max_retries=5, time_limit=60_000)
def confirm(order: int, cents: int) -> None:
    """Tell the buyer that the order is there."""
    time.sleep(0.1)  # or a mail server: what waits, waits in a greenlet
    print(f"order {order} of {humanize.intcomma(cents / 100, 2)} is confirmed", flush=True)
