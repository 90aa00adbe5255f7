"""Which job a log record was made in: what the JSON lines of the log are marked with.

A worker process sets it for each of its jobs; see worker/job_marks.py, and JsonFormatter in
log_lines.py, which reads it. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

#: The attribute of a record that is made outside its job, and has the marks itself.
FIELD = "greenq_job"

_NOTHING: Mapping[str, Any] = {}


class LoggedJob:
    """A job that is logged.

    Parameters:
      fields(Mapping[str, Any]): What its records are marked with.

    Attributes:
      is_over(bool): Whether it has ended. Its own records are still marked, as those that
        follow from its end; those of threads and greenlets that it has started are not any
        more: a client's background thread may have been started by whichever job came first.
    """

    __slots__ = ("_fields", "_origin", "is_over")

    def __init__(self, fields: Mapping[str, Any], origin: LoggedJob | None = None) -> None:
        self._fields = fields
        self._origin = origin
        self.is_over = False

    @property
    def fields(self) -> Mapping[str, Any]:
        """What a record made now is marked with."""
        return _NOTHING if self._origin is not None and self._origin.is_over else self._fields

    def seen_below(self) -> LoggedJob:
        """The same as threads and greenlets see it that it starts."""
        return LoggedJob(self._fields, self._origin or self)


current: ContextVar[LoggedJob | None] = ContextVar("greenq_logged_job", default=None)
