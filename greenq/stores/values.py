"""Values by key, each until its time is over, which one can wait for.

What result backends and barriers are made of. Does not know what a value means. Who waits
gives a bell: it is rung, in any thread, when the key may have been filled; nothing depends
on it, because whoever waits also looks for itself now and then.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import ConnectionError
from ..runtime import current

R = TypeVar("R")

Bell = Callable[[], object]

#: Between two looks where nothing rings, in seconds: doubling, with jitter.
SHORTEST_LOOK_S = 0.1
LONGEST_LOOK_S = 2.0
#: Between two looks of one who waits while the store is away.
_AWAY_S = 0.5


class ValueStore:
    """Base class of stores of values. All calls may come from any thread; all may switch."""

    def put(self, key: str, data: bytes, ttl_ms: int) -> None:
        """Store a value in place of what the key had, and ring for those who wait for it.

        Parameters:
          ttl_ms(int): Milliseconds after which it is gone, 1 or more.

        Raises:
          ConnectionError: It may be stored or not: storing it again does no harm.
        """
        raise NotImplementedError

    def get(self, key: str) -> bytes | None:
        """The value of a key; None if there is none, or none any more. Raises ConnectionError."""
        raise NotImplementedError

    def delete(self, key: str) -> None:
        """Remove a value, if there is one. Raises ConnectionError."""
        raise NotImplementedError

    def watch(self, key: str, bell: Bell) -> Watch:
        """Have this bell rung from now on when the key may have been filled. Close the watch in the end."""
        return Watch(self, key)

    def close(self) -> None:
        """End connections and threads. A store that is used again opens them again."""


class Watch:
    """One who waits for a key. This one looks again and again; others are told."""

    def __init__(self, store: ValueStore, key: str) -> None:
        self._store = store
        self._key = key
        self._pause_s = SHORTEST_LOOK_S

    def look(self) -> bytes | None:
        """The value; None if there is none yet. Raises ConnectionError."""
        return self._store.get(self._key)

    def pause_s(self) -> float:
        """Seconds until the next look, if no bell is rung before."""
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_LOOK_S)
        return pause_s * random.uniform(0.5, 1)

    def close(self) -> None:
        """End it. Does not wait."""


def wait_for(store: ValueStore, key: str, timeout_ms: float) -> bytes | None:
    """The value of a key once there is one; None if there was none in time. Switches.

    A store that goes away in the meantime is waited for as well.

    Raises:
      ConnectionError: The store was still away when the time was over.
    """
    event = current().event()
    pauses = _Pauses(timeout_ms)
    with contextlib.closing(store.watch(key, event.set)) as watch:
        while True:
            event.clear()
            data, pause_s = pauses.look(watch)
            if pause_s is None:
                return data
            event.wait(pause_s)


async def await_for(store: ValueStore, key: str, timeout_ms: float) -> bytes | None:
    """``wait_for`` for code that runs on an asyncio loop: nothing blocks it meanwhile."""
    import asyncio

    from ..loop_event import LoopEvent

    loop = asyncio.get_running_loop()
    event = LoopEvent()
    pauses = _Pauses(timeout_ms)
    opening = loop.run_in_executor(None, store.watch, key, event.set)
    try:
        watch = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # The thread goes on: what it opens can only be closed after it.
        await asyncio.wait([opening])
        if opening.exception() is None:
            opening.result().close()
        raise
    with contextlib.closing(watch):
        while True:
            event.clear()
            data, pause_s = await loop.run_in_executor(None, pauses.look, watch)
            if pause_s is None:
                return data
            await event.wait(pause_s)


def text(value: str) -> str:
    """The text without half characters, which JSON allows and stores do not."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


class _Pauses:
    """What is the same in all ways to wait: when to look, and when to give up."""

    def __init__(self, timeout_ms: float) -> None:
        self._deadline = time.monotonic() + timeout_ms / 1000

    def look(self, watch: Watch) -> tuple[bytes | None, float | None]:
        """The value, and the seconds until the next look; None if this was the last one."""
        try:
            data = watch.look()
            pause_s = watch.pause_s()
        except ConnectionError:
            data, pause_s = None, _AWAY_S * random.uniform(0.5, 1)
            if time.monotonic() >= self._deadline:
                raise
        left_s = self._deadline - time.monotonic()
        if data is not None or left_s <= 0:
            return data, None
        return None, min(left_s, pause_s)
