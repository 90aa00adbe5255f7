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
    was not patched) at its next line of Python. One that never waits is interrupted there by the
    system's timer, one that goes on all the same is killed with its process: see docs/time-limits.md.

    Parameters:
      time_limit(float): Milliseconds; ``float("inf")`` for no limit. Default: 10 minutes. A
        message's option ``time_limit`` comes first, then the actor's; 0 counts as not given.
      interval(int): Accepted for the API's sake. Limits are kept by timers, not by checks.
      soft_time_limit(float): Milliseconds after which a WARNING tells, once, where the actor is. Default:
        none. A message's option ``soft_time_limit`` comes first, then the actor's; 0 counts as not given.
    """

    def __init__(
        self, *, time_limit: float = 600_000, interval: int = 1000, soft_time_limit: float | None = None
    ) -> None:
        self.time_limit = time_limit
        self.interval = interval
        self.soft_time_limit = soft_time_limit

    @property
    def actor_options(self) -> set[str]:
        return {"time_limit", "soft_time_limit"}

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return {"time_limit": (int, float, type(None)), "soft_time_limit": (int, float, type(None))}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        inner = message._message
        given, declared = inner.options, broker.actors[inner.actor_name].options
        message.time_limit_ms = given.get("time_limit") or declared.get("time_limit") or self.time_limit
        soft_ms = given.get("soft_time_limit") or declared.get("soft_time_limit") or self.soft_time_limit
        if soft_ms:
            message.soft_time_limit_ms = soft_ms
