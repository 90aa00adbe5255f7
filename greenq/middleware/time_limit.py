"""How long an actor may run. The limit is decided here and kept by worker/deadlines.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy


class TimeLimit(Middleware):
    """Interrupts actors that run for too long, by raising TimeLimitExceeded in them.

    The clock runs only while the actor itself does. On greenlets the interrupt comes at the
    limit, as soon as the actor waits for something; on threads (a Worker in a process that
    was not patched) at its next line of Python.

    Parameters:
      time_limit(float): Milliseconds; ``float("inf")`` for no limit. Default: 10 minutes. A
        message's option ``time_limit`` comes first, then the actor's; 0 counts as not given.
      interval(int): Accepted for the API's sake. Limits are kept by timers, not by checks.
    """

    def __init__(self, *, time_limit: float = 600_000, interval: int = 1000) -> None:
        self.time_limit = time_limit
        self.interval = interval

    @property
    def actor_options(self) -> set[str]:
        return {"time_limit"}

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return {"time_limit": (int, float, type(None))}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        inner = message._message
        limit = inner.options.get("time_limit") or broker.actors[inner.actor_name].options.get("time_limit")
        message.time_limit_ms = limit or self.time_limit
