"""Limits on how often, or by how many at once, something is done: over all processes and machines.

Each limiter keeps what it knows under a key of a backend (see backends/), which changes it in
one step. Does not know actors or messages: limiters work anywhere.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import RateLimiterBusy, RateLimitExceeded
from .backend import RateLimiterBackend
from .barrier import Barrier
from .bucket import BucketRateLimiter
from .concurrent import ConcurrentRateLimiter
from .rate_limiter import RateLimiter
from .window import WindowRateLimiter

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


def __getattr__(name: str) -> Any:
    if name == "backends":
        return importlib.import_module(f"{__name__}.backends")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
