"""Limits on how often, or by how many at once, something is done: over all processes and machines.

Each limiter keeps what it knows under a key of a backend (see backends/), which changes it in
one step. Does not know actors or messages: limiters work anywhere.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import RateLimiterBusy, RateLimitExceeded
from .backend import RateLimiterBackend
from .barrier import Barrier
from .bucket import BucketRateLimiter
from .concurrent import ConcurrentRateLimiter
from .rate_limiter import RateLimiter
from .window import WindowRateLimiter

if TYPE_CHECKING:
    from . import backends as backends

__all__ = [
    "Barrier",
    "BucketRateLimiter",
    "ConcurrentRateLimiter",
    "RateLimitExceeded",
    "RateLimiter",
    "RateLimiterBackend",
    "RateLimiterBusy",
    "WindowRateLimiter",
]


def _load(name: str) -> Any:
    if name == "backends":
        return importlib.import_module(f"{__name__}.backends")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:  # they are told the names, and are to see what is none of them
    __getattr__ = _load
