"""Starts the asyncio loop of async actors with the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..worker import Worker


class AsyncIO(Middleware):
    """Starts the asyncio loop with the worker, whether or not an async actor is declared.

    For the API's sake, and for middleware that uses ``worker.event_loop``: async actors need
    none, their loop starts by itself.
    """

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        worker.event_loop.start()
