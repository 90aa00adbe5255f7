"""What actors return, kept for whoever asks.

The middleware stores, a backend keeps (see backends/). Does not know brokers.
"""

from __future__ import annotations

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
