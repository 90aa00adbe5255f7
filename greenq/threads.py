"""Native threads: what runtime.py asks for, in a process that gevent has not patched."""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections.abc import Callable
from typing import Any


class _Task:
    def __init__(self, run: Callable[[], Any], name: str) -> None:
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()


def _call_later(seconds: float, call: Callable[[], Any]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


class _Guard:
    """Interrupts are asynchronous exceptions: raised at the thread's next bytecode.

    Such an exception is set by one thread and raised in another one some time later, so
    leave() has to withdraw one that is under way. It may be raised inside leave() itself;
    then leave() starts again and swallows it: the actor has already ended.
    """

    def __init__(self) -> None:
        self._ident = threading.get_ident()
        self._lock = threading.Lock()
        self._inside = False

    def enter(self) -> None:
        self._inside = True

    def leave(self) -> None:
        while True:
            try:
                with self._lock:
                    self._inside = False
                    _raise_in_thread(self._ident, None)
                return
            except BaseException:  # noqa: S112 - the interrupt itself, late; see above
                continue

    def interrupt(self, exception: type[BaseException]) -> bool:
        with self._lock:
            if self._inside:
                _raise_in_thread(self._ident, exception)
            return self._inside


def _raise_in_thread(ident: int, exception: type[BaseException] | None) -> None:
    raised = ctypes.py_object(exception) if exception is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), raised)


class _Request:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def answer(self) -> None:
        self._lock.release()


class ThreadRuntime:
    name = "threads"
    most_slots: int | None = 64

    def spawn(self, run: Callable[[], Any], *, name: str) -> _Task:
        return _Task(run, name)

    event = staticmethod(threading.Event)
    queue = staticmethod(queue.SimpleQueue)
    lock = staticmethod(threading.RLock)
    guard = staticmethod(_Guard)
    call_later = staticmethod(_call_later)
    sleep = staticmethod(time.sleep)
    request = staticmethod(_Request)

    def answer(self, requests: list[_Request]) -> None:
        for request in requests:
            request.answer()

    def start_native_thread(self, run: Callable[[], None], *, name: str) -> None:
        threading.Thread(target=run, name=name, daemon=True).start()

    native_lock = staticmethod(threading.Lock)


runtime = ThreadRuntime()
