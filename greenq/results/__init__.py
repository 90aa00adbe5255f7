"""What actors return, kept for whoever asks.

The middleware stores, a backend keeps (see backends/). Does not know brokers.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import ResultError, ResultFailure, ResultMissing, ResultTimeout
from .backend import ResultBackend
from .middleware import Results

__all__ = [
    "ResultBackend",
    "ResultError",
    "ResultFailure",
    "ResultMissing",
    "ResultTimeout",
    "Results",
]


def __getattr__(name: str) -> Any:
    if name == "backends":
        return importlib.import_module(f"{__name__}.backends")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
