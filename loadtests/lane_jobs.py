"""What workers run whose lanes are measured: the same no-op in each of them.

A worker imports it as ``lane_jobs:broker``, and so do the processes of its lane. A middleware of the
worker counts the jobs: what runs elsewhere could not.
"""

from __future__ import annotations

import os
import time
from typing import Any

from telling import Stretch, expected, tell

import greenq

__all__ = ["broker"]

broker = greenq.get_broker()


class Count(greenq.Middleware):
    """Tells when the first job begins, and when the last has ended."""

    def __init__(self) -> None:
        self._stretch = Stretch(expected)

    def before_process_message(self, broker: greenq.Broker, message: greenq.MessageProxy) -> None:
        if message.actor_name.startswith("noop"):
            self._stretch.begin()

    def after_process_message(
        self,
        broker: greenq.Broker,
        message: greenq.MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        if message.actor_name.startswith("noop"):
            self._stretch.end()


broker.add_middleware(Count())


@greenq.actor
def noop(number: int) -> None:
    """Return at once."""


@greenq.actor(lane="thread")
def noop_thread(number: int) -> None:
    """Return at once, in a native thread."""


@greenq.actor(lane="process")
def noop_process(number: int) -> None:
    """Return at once, in a process."""


@greenq.actor
def ping(number: int) -> None:
    """Tell that there is a worker."""
    tell(pid=os.getpid(), started=time.monotonic())


@greenq.actor(lane="process")
def ping_process(number: int) -> None:
    """Tell that there is a process."""
    tell(pid=os.getpid(), started=time.monotonic())
