"""The errors of results, under the path that some applications import them from. They live in ../errors.py."""

from __future__ import annotations

from ..errors import ResultError, ResultFailure, ResultMissing, ResultTimeout

__all__ = ["ResultError", "ResultFailure", "ResultMissing", "ResultTimeout"]
