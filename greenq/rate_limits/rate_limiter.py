"""How a limiter is used: a block that is entered if the limit allows it."""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from ..errors import ConnectionError, RateLimitExceeded
from ..logging import get_logger
from ..runtime import current
from .backend import RateLimiterBackend
from .line import LONGEST_PAUSE_S, Line

R = TypeVar("R")

#: Between two looks of one who waits and is not told, in seconds: growing, with jitter.
_SHORTEST_PAUSE_S = 0.01
_MOST_PAUSE_S = 0.25


class RateLimiter:
    """Base class of rate limiters.

        with limiter.acquire(raise_on_failure=False) as acquired:
            if not acquired:
                return
            ...

    One limiter may be used by many threads and greenlets at once.

    Parameters:
      backend(RateLimiterBackend): Where it counts.
      key(str): What is limited: all limiters with this key, of all processes, share the limit.

    Raises:
      AssertionError: The limit, or what else says how many or how long, is less than 1.
    """

    def __init__(self, backend: RateLimiterBackend, key: str) -> None:
        self.logger = get_logger(__name__, type(self))
        self.backend = backend
        self.key = key
        self._line = Line(backend, key)

    @contextlib.contextmanager
    def acquire(self, *, raise_on_failure: bool = True, wait: float | None = None) -> Iterator[bool]:
        """Enter a block under this limit. May switch.

        Parameters:
          raise_on_failure(bool): If False, the block runs in any case, and is given whether the
            limit allows it. Default: True.
          wait(int): Milliseconds for which to wait until the limit allows it; only this greenlet
            or thread waits, and of several in a process the first who came is the first to enter.
            Default: none.

        Raises:
          RateLimitExceeded: The limit does not allow it, and raise_on_failure is set.
          ConnectionError: The backend is away.
        """
        attempt = _Attempt(self, wait)
        try:
            is_acquired = attempt.run()
        except BaseException:
            # Interrupted, or without an answer: it may have a slot and not know it.
            attempt.release()
            raise
        if not is_acquired and raise_on_failure:
            raise RateLimitExceeded(f"Rate limit exceeded for key {self.key!r}.")
        try:
            yield is_acquired
        finally:
            if is_acquired:
                attempt.release()

    @contextlib.asynccontextmanager
    async def aacquire(self, *, raise_on_failure: bool = True, wait: float | None = None) -> AsyncIterator[bool]:
        """``acquire`` for code that runs on an asyncio loop (``async with``), which nothing blocks meanwhile."""
        import asyncio

        loop = asyncio.get_running_loop()
        attempt = _Attempt(self, wait)
        try:
            is_acquired = await attempt.arun()
        except BaseException:
            await asyncio.shield(loop.run_in_executor(None, attempt.release))
            raise
        if not is_acquired and raise_on_failure:
            raise RateLimitExceeded(f"Rate limit exceeded for key {self.key!r}.")
        try:
            yield is_acquired
        finally:
            if is_acquired:
                await asyncio.shield(loop.run_in_executor(None, attempt.release))

    # -- what a limiter is

    def _acquire(self, holder: str) -> bool:
        """Try to enter, once. The holder is new for each block."""
        raise NotImplementedError

    def _release(self, holder: str) -> None:
        """Leave. Also called when it is not known whether the holder entered."""

    def _pause_s(self, refusals: int) -> float:
        """Seconds after which it is worth to try again, after so many earlier refusals."""
        return min(_SHORTEST_PAUSE_S * 1.5 ** min(refusals, 20), _MOST_PAUSE_S) * random.uniform(0.5, 1)


class _Attempt:
    """One attempt to enter, from the first try to the end of the block."""

    def __init__(self, limiter: RateLimiter, wait_ms: float | None) -> None:
        self._limiter = limiter
        self._line = limiter._line
        self._holder = secrets.token_hex(16)
        self._wait_s = (wait_ms or 0) / 1000
        self._deadline = time.monotonic() + self._wait_s
        self._refusals = 0

    def run(self) -> bool:
        if not self._wait_s:
            return self._limiter._acquire(self._holder)
        event = current().event()
        place = self._line.join(event.set)
        try:
            while True:
                event.clear()
                is_acquired, pause_s = self._try(self._line.is_first(place))
                if pause_s is None:
                    return is_acquired
                event.wait(pause_s)
        finally:
            self._line.leave(place)

    async def arun(self) -> bool:
        from ..loop_event import LoopEvent

        if not self._wait_s:
            return await _in_thread(self._limiter._acquire, self._holder)
        event = LoopEvent()
        place = self._line.join(event.set)
        try:
            while True:
                event.clear()
                is_acquired, pause_s = await _in_thread(self._try, self._line.is_first(place))
                if pause_s is None:
                    return is_acquired
                await event.wait(pause_s)
        finally:
            self._line.leave(place)

    def _try(self, is_first: bool) -> tuple[bool, float | None]:
        """Whether it has entered, and the seconds until the next try; None if this was the last."""
        left_s = self._deadline - time.monotonic()
        # Whoever is not first, and out of time, asks at least once.
        is_acquired = (is_first or left_s <= 0) and self._limiter._acquire(self._holder)
        if is_acquired or left_s <= 0:
            return is_acquired, None
        pause_s = LONGEST_PAUSE_S
        if is_first:
            pause_s = min(pause_s, self._limiter._pause_s(self._refusals))
            self._refusals += 1
        return False, min(left_s, pause_s)

    def release(self) -> None:
        try:
            self._limiter._release(self._holder)
        except ConnectionError as error:
            # What the block did is done. The slot comes free when its lease is over.
            self._limiter.logger.warning("A slot of %r could not be given back: %s", self._limiter.key, error)
        self._line.ring()


async def _in_thread(call: Callable[..., R], *args: Any) -> R:
    """The answer of a function that waits, run in another thread."""
    import asyncio

    future = asyncio.get_running_loop().run_in_executor(None, call, *args)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        # The thread goes on: what it takes can only be given back after it.
        await asyncio.wait([future])
        raise
