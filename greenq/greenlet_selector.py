"""Lets greenlets of one thread run asyncio loops of their own.

asyncio keeps one mark a thread of the operating system: "this loop runs here". All greenlets
of a process share that thread, so while one of them waits inside ``asyncio.run()`` every
other one would be told that a loop runs already, and could not start its own. The selector
is where a loop waits, so it takes the mark away there and puts it back afterwards. The same
goes for the hooks by which a loop hears of asynchronous generators, to close them.

Does not import asyncio: most workers never need it.
"""

from __future__ import annotations

import selectors
import sys
from typing import Any, NamedTuple

from gevent.selectors import GeventSelector


class LoopMarks(NamedTuple):
    """What asyncio keeps for a thread of the operating system, and is a greenlet's own here."""

    running_loop: Any
    firstiter: Any
    finalizer: Any

    @classmethod
    def now(cls) -> LoopMarks:
        """Those of the greenlet that runs."""
        events = sys.modules.get("asyncio.events")
        return cls(None if events is None else events._get_running_loop(), *sys.get_asyncgen_hooks())

    def set(self) -> None:
        """Have these from here on."""
        events = sys.modules.get("asyncio.events")
        if events is not None:
            events._set_running_loop(self.running_loop)
        sys.set_asyncgen_hooks(self.firstiter, self.finalizer)


#: Those of a greenlet that runs no loop.
NO_MARKS = LoopMarks(None, None, None)


class SharingSelector(GeventSelector):
    """gevent's selector for a loop that is not the only one of its thread."""

    #: The marks that others had left where this loop began its turn.
    _outside = NO_MARKS

    def select(self, timeout: float | None = None) -> list[Any]:
        """Wait for events, seconds at most. Switches, with no loop marked as running."""
        inside = LoopMarks.now()
        self._outside.set()
        try:
            return super().select(timeout)
        finally:
            self._outside = LoopMarks.now()
            inside.set()


def install() -> None:
    """Have ``asyncio.run()`` in any greenlet of this process use it."""
    selectors.DefaultSelector = SharingSelector  # type: ignore[misc,assignment] # a patch
