"""greenq: background jobs on greenlets, with the API of Dramatiq.

The front door. A producer that imports it gets actors, messages and the contracts,
and neither gevent nor any broker's client: those come with what needs them. Worker is
loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .broker import Broker, Consumer, MessageProxy, get_broker, set_broker
from .composition import group, pipeline
from .current_job import progress
from .encoder import Encoder, JSONEncoder, PickleEncoder
from .errors import (
    ActorNotFound,
    BrokerConnectionError,
    BrokerError,
    BrokerUnusable,
    ConnectionClosed,
    ConnectionError,
    ConnectionFailed,
    DecodeError,
    DramatiqError,
    EnqueueManyFailed,
    GreenqError,
    HubBlocked,
    Interrupt,
    LaneDied,
    MessageTooLarge,
    MiddlewareError,
    QueueJoinTimeout,
    QueueMismatch,
    QueueNotFound,
    RateLimiterBusy,
    RateLimitExceeded,
    ResultError,
    ResultFailure,
    ResultMissing,
    ResultTimeout,
    Retry,
    Shutdown,
    SkipMessage,
    StorageError,
    TimeLimitExceeded,
)
from .logging import get_logger
from .message import Message, get_encoder, set_encoder
from .middleware import Middleware
from .time_left import remaining_ms

# Last, and by assignment, because `actor` is also the name of a submodule: whatever imports
# that submodule first would leave the module under the decorator's name.
from .actor import Actor, actor  # isort: skip
from .generic import GenericActor  # isort: skip

if TYPE_CHECKING:
    from . import rate_limits as rate_limits
    from . import results as results
    from .worker import Worker

__version__ = "0.1.0"

__all__ = [
    "Actor",
    "ActorNotFound",
    "Broker",
    "BrokerConnectionError",
    "BrokerError",
    "BrokerUnusable",
    "ConnectionClosed",
    "ConnectionError",
    "ConnectionFailed",
    "Consumer",
    "DecodeError",
    "DramatiqError",
    "Encoder",
    "EnqueueManyFailed",
    "GenericActor",
    "GreenqError",
    "HubBlocked",
    "Interrupt",
    "JSONEncoder",
    "LaneDied",
    "Message",
    "MessageProxy",
    "MessageTooLarge",
    "Middleware",
    "MiddlewareError",
    "PickleEncoder",
    "QueueJoinTimeout",
    "QueueMismatch",
    "QueueNotFound",
    "RateLimitExceeded",
    "RateLimiterBusy",
    "ResultError",
    "ResultFailure",
    "ResultMissing",
    "ResultTimeout",
    "Retry",
    "Shutdown",
    "SkipMessage",
    "StorageError",
    "TimeLimitExceeded",
    "Worker",
    "actor",
    "get_broker",
    "get_encoder",
    "get_logger",
    "group",
    "pipeline",
    "progress",
    "remaining_ms",
    "set_broker",
    "set_encoder",
]


def _load(name: str) -> Any:
    if name == "Worker":
        from .worker import Worker

        return Worker
    if name in ("rate_limits", "results"):
        import importlib

        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:  # they are told the names, and are to see what is none of them
    __getattr__ = _load
