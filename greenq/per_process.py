"""What one process has of a server or a file: made at its first use, never shared with a forked child.

Does not know what it is: brokers hand in how theirs is made, and let go of in a child.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .runtime import current

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Something of which each process has its own.

    Parameters:
      make: Makes it; called by the first who needs it, while the others wait. Must not switch.
      let_go: Called with the parent's in a forked child, which must not touch what they share.
    """

    def __init__(self, make: Callable[[], T], *, let_go: Callable[[T], None] | None = None) -> None:
        self._make = make
        self._let_go = let_go
        self._guard = current().native_lock()
        #: What there is now; None before the first use and after ``take``.
        self.made: T | None = None
        _all.add(self)

    def get(self) -> T:
        """What this process has, made if it has none yet."""
        made = self.made
        if made is None:
            with self._guard:
                made = self.made
                if made is None:
                    made = self.made = self._make()
        return made

    def take(self) -> T | None:
        """What there is, which is the caller's to close; None if nothing. The next use makes another one."""
        with self._guard:
            made, self.made = self.made, None
        return made

    def _forget(self) -> None:
        # In a child, whose parent may have held the old lock at the fork.
        made, self.made = self.made, None
        self._guard = current().native_lock()
        if made is not None:
            _left_to_the_parent.append(made)
            if self._let_go is not None:
                self._let_go(made)


_all: weakref.WeakSet[PerProcess[Any]] = weakref.WeakSet()
#: Kept alive in a child: to delete a connection would close it, or drop its parent's locks.
_left_to_the_parent: list[Any] = []


def _forget_in_child() -> None:
    for each in list(_all):
        each._forget()


os.register_at_fork(after_in_child=_forget_in_child)
