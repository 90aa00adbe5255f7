"""What actors return, kept for whoever asks.

The middleware stores, a backend keeps (see backends/). Does not know brokers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import ResultError, ResultFailure, ResultMissing, ResultTimeout
from .backend import ResultBackend
from .middleware import Results

if TYPE_CHECKING:
    from . import backends as backends

__all__ = [
    "ResultBackend",
    "ResultError",
    "ResultFailure",
    "ResultMissing",
    "ResultTimeout",
    "Results",
]


def _load(name: str) -> Any:
    if name == "backends":
        return importlib.import_module(f"{__name__}.backends")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:  # they are told the names, and are to see what is none of them
    __getattr__ = _load
