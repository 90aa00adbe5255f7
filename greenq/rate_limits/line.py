"""Those of this process who wait for the same limiter: only the first of them asks the backend.

A thousand greenlets that each asked four times a second would keep a server busy with refusing.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..runtime import current

if TYPE_CHECKING:
    from .backend import RateLimiterBackend

Bell = Callable[[], object]

#: Seconds between two tries of the first one, at most, and until it counts as gone. One that is
#: torn out of its wait by an interrupt may leave its place behind.
LONGEST_PAUSE_S = 1.0
_GONE_AFTER_S = 30.0


class Place:
    """A place in a line. The bell is rung, in any thread, when it is worth to look again."""

    __slots__ = ("bell", "seen_at")

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.seen_at = time.monotonic()


_lines: weakref.WeakKeyDictionary[RateLimiterBackend, dict[str, deque[Place]]] = weakref.WeakKeyDictionary()
_guard = current().native_lock()


class Line:
    """The line for one key of a backend.

    Parameters:
      backend(RateLimiterBackend): The backend.
      key(str): The key.
    """

    def __init__(self, backend: RateLimiterBackend, key: str) -> None:
        self._backend = backend
        self._key = key

    def join(self, bell: Bell) -> Place:
        """Stand at the end."""
        place = Place(bell)
        with _guard:
            _lines.setdefault(self._backend, {}).setdefault(self._key, deque()).append(place)
        return place

    def is_first(self, place: Place) -> bool:
        """Whether it is this one's turn to ask."""
        now = place.seen_at = time.monotonic()
        with _guard:
            line = _lines.setdefault(self._backend, {}).setdefault(self._key, deque())
            while line and line[0] is not place and now - line[0].seen_at > _GONE_AFTER_S:
                line.popleft()
            if place not in line:
                line.append(place)  # it was taken for gone
            return line[0] is place

    def leave(self, place: Place) -> None:
        """Go away, and tell the one who is first now."""
        with _guard:
            lines = _lines.get(self._backend, {})
            line = lines.get(self._key, deque())
            if place in line:
                line.remove(place)
            if not line:
                lines.pop(self._key, None)
        self.ring()

    def ring(self) -> None:
        """Tell the first one that there may be room."""
        with _guard:
            line = _lines.get(self._backend, {}).get(self._key)
            first = line[0] if line else None
        if first is not None:
            first.bell()


def _start_over() -> None:
    # In a forked child, where nobody waits and the lock may have been held at the fork.
    global _guard
    _guard = current().native_lock()
    _lines.clear()


os.register_at_fork(after_in_child=_start_over)
