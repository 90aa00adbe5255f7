"""Waiting for the results of several messages, so that a failure among them is known at once."""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..errors import ConnectionError
from ..runtime import current
from ..stores.values import ValueStore, Watch

#: Between two looks while the store is away, in seconds.
_AWAY_S = 0.5


class Gathering:
    """The values of several keys, in the order in which they come.

    Parameters:
      store(ValueStore): Where they are.
      read(Callable): Makes a result of a key's value. What it raises ends the gathering.
    """

    def __init__(self, store: ValueStore, read: Callable[[str, bytes], Any]) -> None:
        self._store = store
        self._read = read
        self._event = current().event()
        self._rung: deque[str] = deque()
        self._watches: dict[str, Watch] = {}
        self._look_at: dict[str, float] = {}
        self._results: dict[str, Any] = {}

    @contextlib.contextmanager
    def of(self, keys: list[str]) -> Iterator[None]:
        """Watch these keys inside the block. Switches."""
        try:
            for key in dict.fromkeys(keys):
                self._watches[key] = self._store.watch(key, partial(self._ring, key))
                self._look_at[key] = 0.0
            yield
        finally:
            for watch in self._watches.values():
                watch.close()

    def _ring(self, key: str) -> None:  # in any thread
        self._rung.append(key)
        self._event.set()

    def get(self, key: str, deadline: float) -> Any:
        """The result of a key once it is there.

        Raises:
          TimeoutError: It did not come in time, which is by ``time.monotonic()``.
          Exception: What another one's result raised when it was read.

        Switches.
        """
        while key not in self._results:
            self._event.clear()
            self._look(key)
            if key in self._results:
                break
            now = time.monotonic()
            if now >= deadline:
                raise TimeoutError
            self._event.wait(max(0.0, min(deadline, *self._look_at.values()) - now))
        return self._results[key]

    def _look(self, wanted: str) -> None:
        rung = set()
        while self._rung:
            rung.add(self._rung.popleft())
        now = time.monotonic()
        due = [key for key, at in self._look_at.items() if key in rung or key == wanted or at <= now]
        for key in due:
            watch = self._watches[key]
            try:
                data = watch.look()
                self._look_at[key] = time.monotonic() + watch.pause_s()
            except ConnectionError:
                # For each of a thousand keys it would take a time-out.
                self._look_at = dict.fromkeys(self._look_at, time.monotonic() + _AWAY_S * random.uniform(0.5, 1))
                return
            if data is not None:
                del self._look_at[key]
                self._results[key] = self._read(key, data)
