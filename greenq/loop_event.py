"""An event that any thread may set, and for which a coroutine waits."""

from __future__ import annotations

import asyncio
import contextlib


class LoopEvent:
    """Belongs to the asyncio loop that runs where it is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake who waits, or let the next wait return at once. From any thread, also when the loop is closed."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._event.set)

    def clear(self) -> None:
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Wait until it is set, for so many seconds at most.

        Not by ``asyncio.wait_for``: up to Python 3.11 that loses a cancellation which comes
        together with the event.
        """
        timer = self._loop.call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()
