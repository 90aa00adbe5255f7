"""What watches and steers messages on their way. One class, one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Interrupt, MiddlewareError, Shutdown, SkipMessage, TimeLimitExceeded
from .age_limit import AgeLimit
from .async_io import AsyncIO
from .callbacks import Callbacks
from .current_message import CurrentMessage
from .group_callbacks import GroupCallbacks
from .middleware import Middleware
from .pipelines import Pipelines
from .retries import Retries
from .shutdown import ShutdownNotifications
from .time_limit import TimeLimit

if TYPE_CHECKING:
    from .prometheus import Prometheus

__all__ = [
    "AgeLimit",
    "AsyncIO",
    "Callbacks",
    "CurrentMessage",
    "GroupCallbacks",
    "Interrupt",
    "Middleware",
    "MiddlewareError",
    "Pipelines",
    "Prometheus",
    "Retries",
    "Shutdown",
    "ShutdownNotifications",
    "SkipMessage",
    "TimeLimit",
    "TimeLimitExceeded",
    "default_middleware",
]

#: The middleware of a broker that was given none, in order.
default_middleware: list[type[Middleware]] = [
    AgeLimit,
    TimeLimit,
    ShutdownNotifications,
    Callbacks,
    Pipelines,
    Retries,
]


def __getattr__(name: str) -> Any:
    # Most processes serve no metrics, and need not load what counts them.
    if name == "Prometheus":
        from .prometheus import Prometheus

        return Prometheus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
