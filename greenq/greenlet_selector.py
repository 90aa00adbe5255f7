"""Lets greenlets of one thread run asyncio loops of their own.

asyncio keeps one mark a thread of the operating system: "this loop runs here". All greenlets
of a process share that thread, so while one of them waits inside ``asyncio.run()`` every
other one would be told that a loop runs already, and could not start its own. The selector
is where a loop waits, so it takes the mark away there and puts it back afterwards.

Does not import asyncio: most workers never need it.
"""

from __future__ import annotations

import selectors
import sys
from typing import Any

from gevent.selectors import GeventSelector


class SharingSelector(GeventSelector):
    """gevent's selector for a loop that is not the only one of its thread."""

    #: The mark that others had left where this loop began its turn.
    _mark_outside: Any = None

    def select(self, timeout: float | None = None) -> list[Any]:
        """Wait for events, seconds at most. Switches, with no loop marked as running."""
        events = sys.modules.get("asyncio.events")
        if events is None:
            return super().select(timeout)
        mark = events._get_running_loop()
        events._set_running_loop(self._mark_outside)
        try:
            return super().select(timeout)
        finally:
            self._mark_outside = events._get_running_loop()
            events._set_running_loop(mark)


def install() -> None:
    """Have ``asyncio.run()`` in any greenlet of this process use it."""
    selectors.DefaultSelector = SharingSelector  # type: ignore[misc,assignment] # a patch
