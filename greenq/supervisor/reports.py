"""What workers may report, as data, and how what they report is read.

A worker runs other people's code, which may close the wrong descriptor and write anything into its
report pipe. The supervisor must survive it: what is not as it is written here is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import NoneType
from typing import Any

from ..json_lines import Decoder

#: Each event, with the fields that it must have and their types. Others are as the event's reader takes them.
EVENTS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "ready": {"worker_id": (str, NoneType), "lease_ms": (int, NoneType)},
    "worker_id": {"worker_id": (str, NoneType)},
    "job_done": {},
    "taken_back": {"worker_id": (str,)},
    "gave_back": {},
    "worn": {"reason": (str,)},
    "alone": {"message_id": (str, NoneType)},
    "overdue": {"message_id": (str,), "actor": (str,), "limit_ms": (int, float, NoneType)},
    "answer": {"ask": (int,)},
    "consuming": {"is_on": (bool,)},
    "waiting": {"reason": (str,)},
    "remark": {"level": (int,), "text": (str,)},
    "news": {"level": (int,), "text": (str,)},
    "changed": {"what": (str,)},
    "failed": {"reason": (str,)},
}

#: Bytes that are read at once at most: who writes without end must not keep the supervisor from the others.
_MOST_AT_ONCE = 1 << 20


class Reports:
    """The supervisor's end of a report pipe, which does not block.

    Parameters:
      fd(int): Its descriptor, which is the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decoder = Decoder()

    def read(self) -> list[dict[str, Any]] | None:
        """What was reported since the last call, or a part of it; None when nothing more will be."""
        reports: list[dict[str, Any]] = []
        unread = _MOST_AT_ONCE
        while unread > 0:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return reports
            if not data:
                return reports or None
            unread -= len(data)
            reports += filter(is_understood, self._decoder.feed(data))
        return reports


def is_understood(report: Mapping[str, Any]) -> bool:
    """Whether it is one of EVENTS, with its fields."""
    event = report.get("event")
    fields = EVENTS.get(event) if isinstance(event, str) else None
    return fields is not None and all(isinstance(report.get(name), types) for name, types in fields.items())
