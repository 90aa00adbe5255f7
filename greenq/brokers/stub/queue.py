"""A queue in memory, and how one waits for a change of it.

Knows bytes, priorities and times. Does not know what becomes of a message: see consumer.py.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from queue import Empty
from typing import Any, NamedTuple

from ...runtime import Event, current


class Entry(NamedTuple):
    """A message in a queue. Compares as it is to be handed out."""

    rank: int
    number: int
    priority: int
    payload: bytes


class StubQueue:
    """Encoded messages, lowest rank first, and first come, first served among equals.

    The rank is the priority or, in a delay queue, the time when the message is due. To
    tests it looks like a queue.Queue of bytes.

    Attributes:
      unfinished_tasks(int): Messages that were put in and are not done.
    """

    def __init__(
        self, lock: Any, place: Callable[[bytes], tuple[int, int | None]], *, is_ordered_by_due: bool = False
    ) -> None:
        self.unfinished_tasks = 0
        self._lock = lock
        self._place = place
        self._is_ordered_by_due = is_ordered_by_due
        self._numbers = itertools.count()
        self._heap: list[Entry] = []
        self._taken = 0
        self._watchers: set[Event] = set()

    def put(self, payload: bytes) -> None:
        """Put encoded bytes in, as a producer in another language would."""
        priority, due_ms = self._place(payload)
        with self._lock:
            self.add(payload, priority, due_ms)

    def get(self, block: bool = True, timeout: float | None = None) -> bytes:
        """Take the next message out; it stays unfinished until ``task_done``. May switch.

        Parameters:
          block(bool): Whether to wait for one.
          timeout(float): Seconds, as for a queue.Queue. Default: no limit.

        Raises:
          queue.Empty: There is none.
        """
        wait_s = 0 if not block else math.inf if timeout is None else timeout
        deadline = time.monotonic() + wait_s
        event = current().event()
        while True:
            with self._lock:
                if self._heap:
                    return heapq.heappop(self._heap).payload
            if time.monotonic() >= deadline:
                raise Empty
            wait([self], event, lambda: 0 if self._heap else deadline - time.monotonic())

    def qsize(self) -> int:
        """How many messages wait here."""
        return len(self._heap)

    def task_done(self) -> None:
        """Note that a message which was taken out with ``get`` is done."""
        with self._lock:
            if self.unfinished_tasks <= self._taken:
                raise ValueError("task_done() was called more often than messages were taken out.")
            self.unfinished_tasks -= 1
            self._changed()

    # -- for the broker and its consumers, who hold the lock

    def add(self, payload: bytes, priority: int, due_ms: int | None) -> None:
        """Add a message at the end of its equals."""
        rank = (due_ms or 0) if self._is_ordered_by_due else priority
        heapq.heappush(self._heap, Entry(rank, next(self._numbers), priority, payload))
        self.unfinished_tasks += 1
        self._changed()

    def first(self) -> Entry | None:
        """The next message, left where it is."""
        return self._heap[0] if self._heap else None

    def take(self) -> Entry:
        """Take the next message out; it stays unfinished until ``done`` or ``put_back``."""
        self._taken += 1
        return heapq.heappop(self._heap)

    def done(self) -> None:
        """A message that was taken is done."""
        self._taken -= 1
        self.unfinished_tasks -= 1
        self._changed()

    def put_back(self, entry: Entry) -> None:
        """A message that was taken goes back to its place."""
        self._taken -= 1
        heapq.heappush(self._heap, entry)
        self._changed()

    def empty(self) -> None:
        """Drop what waits here."""
        self._heap.clear()
        self.unfinished_tasks = self._taken
        self._changed()

    def _changed(self) -> None:
        for event in self._watchers:
            event.set()

    @contextmanager
    def watched_by(self, event: Event) -> Iterator[None]:
        """Set the event at each change of the queue. Takes the lock itself."""
        with self._lock:
            self._watchers.add(event)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.discard(event)


def wait(queues: Iterable[StubQueue], event: Event, left_s: Callable[[], float]) -> None:
    """Wait, asking at each change of these queues, until no more seconds are left. Switches."""
    with ExitStack() as watches:
        for queue in queues:
            watches.enter_context(queue.watched_by(event))
        while True:
            event.clear()
            wait_s = left_s()
            if wait_s <= 0:
                return
            event.wait(None if wait_s == math.inf else wait_s)
