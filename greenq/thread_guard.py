"""The guard of a job in a native thread: interrupts are raised at the thread's next line of Python.

An asynchronous exception is set by one thread and raised in another some time later, so the end of
the stretch has to withdraw one that is still under way. Works in both worlds: who makes a guard
says what names the thread, and what locks there.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any

from .runtime import Place, places

#: The guard of the thread's job.
_here = threading.local()


class ThreadGuard:
    """A guard for the thread that makes it.

    Parameters:
      ident(int): The thread, as the operating system's own ``get_ident`` has it.
      lock: One of the operating system's.
    """

    def __init__(self, ident: int, lock: Any) -> None:
        self._ident = ident
        self._lock = lock
        self._is_inside = False
        self.interrupted_by: type[BaseException] | None = None
        self.ends_at: float | None = None
        self.soft_at: float | None = None
        self.blocked_s = 0.0
        self.message: Any = None

    def begin(self, message: Any, message_id: str) -> None:
        self.message = message
        _here.guard = self

    def end(self) -> None:
        _here.guard = None

    def stack(self) -> list[Place]:
        return places(sys._current_frames().get(self._ident), ThreadGuard.run.__code__)

    @property
    def is_inside(self) -> bool:
        """Whether the stretch is under way."""
        return self._is_inside

    def run(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            try:
                self._is_inside = True
                return call(*args, **kwargs)
            finally:
                self._leave()
        finally:
            # Once more, because the interrupt may have been raised on the way into the
            # first _leave(), before it could do anything.
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._is_inside = False
            if self.interrupted_by is not None:
                _raise_in_thread(self._ident, None)

    def interrupt(self, exception: type[BaseException]) -> bool:
        with self._lock:
            if self._is_inside:
                self.interrupted_by = exception
                _raise_in_thread(self._ident, exception)
            return self._is_inside


def guard_here() -> ThreadGuard | None:
    """The guard in which this thread runs now."""
    guard: ThreadGuard | None = getattr(_here, "guard", None)
    return guard if guard is not None and guard.is_inside else None


def _raise_in_thread(ident: int, exception: type[BaseException] | None) -> None:
    raised = ctypes.py_object(exception) if exception is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), raised)
