"""Joins what many store at the same time into one step, without a thread of its own.

Whoever comes first writes; what comes while that is under way gathers, and its first one
writes all of it next. So nothing waits when little happens, and much costs little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ...errors import ConnectionClosed, ConnectionError
from ...runtime import Event, current

#: Of one step.
_MOST = 200
_MOST_BYTES = 1024 * 1024
#: Seconds after which one who writes for others counts as gone.
_LONGEST_WAIT_S = 30.0


class Value(NamedTuple):
    """What is to be stored."""

    key: str
    data: bytes
    ttl_ms: int


class Writer:
    """Stores values for all tasks and threads of a process.

    Parameters:
      write(Callable): Stores a list of values, all of them or none.
    """

    def __init__(self, write: Callable[[list[Value]], None]) -> None:
        self._write = write
        self.start_over()

    def start_over(self) -> None:
        """Forget who waits: in a forked child, where they do not."""
        self._guard = current().native_lock()
        self._pending: deque[_Place] = deque()
        self._is_writing = False

    def put(self, value: Value) -> None:
        """Store a value, with others or alone. May switch.

        Raises:
          ConnectionError: It may be stored or not.
        """
        place = _Place(value)
        with self._guard:
            self._pending.append(place)
            if self._is_writing:
                place.told = current().event()
            self._is_writing = True
        if place.told is not None:
            try:
                place.told.wait(_LONGEST_WAIT_S)
            except BaseException:  # interrupted
                self._withdraw(place)
                raise
        while not place.is_done:
            if not self._write_portion():
                raise ConnectionClosed("Whoever stores this together with other values does not come back.")
        if place.error is not None:
            self._raise_or_repeat(place)

    def _raise_or_repeat(self, place: _Place) -> None:
        error = place.error
        if isinstance(error, ConnectionError):
            # An error of one's own: one for all would gather the tracebacks of all.
            raise type(error)(str(error)) from error
        # Another one's value is unacceptable, or the one that wrote was interrupted.
        self._write([place.value])

    def _withdraw(self, place: _Place) -> None:
        with self._guard:
            if place in self._pending:
                self._pending.remove(place)
            following = self._next() if place.is_first and not place.is_done else None
        if following is not None:
            following.set()

    def _write_portion(self) -> bool:
        """Store what has gathered, and let the first of the rest store the next portion; False if there is nothing."""
        portion = self._take()
        error: BaseException | None = _Interrupted()
        try:
            if portion:
                self._write([place.value for place in portion])
            error = None
        except Exception as raised:
            error = raised
        finally:
            # Also after an interrupt, which goes on from here.
            for place in portion:
                place.error = error
                place.is_done = True
                if place.told is not None:
                    place.told.set()
            with self._guard:
                following = self._next()
            if following is not None:
                following.set()
        return bool(portion)

    def _next(self) -> Event | None:
        self._is_writing = bool(self._pending)
        if not self._pending:
            return None
        self._pending[0].is_first = True
        return self._pending[0].told

    def _take(self) -> list[_Place]:
        portion: list[_Place] = []
        size = 0
        with self._guard:
            while self._pending and len(portion) < _MOST:
                size += len(self._pending[0].value.data)
                if portion and size > _MOST_BYTES:
                    break
                portion.append(self._pending.popleft())
        return portion


class _Place:
    __slots__ = ("error", "is_done", "is_first", "told", "value")

    def __init__(self, value: Value) -> None:
        self.value = value
        self.told: Event | None = None
        #: Whether it is now the one that writes.
        self.is_first = False
        self.is_done = False
        self.error: BaseException | None = None


class _Interrupted(Exception):
    """Whoever wrote was interrupted, so nobody knows."""
