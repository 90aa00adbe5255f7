"""Native threads: what runtime.py asks for, in a process that gevent has not patched."""

from __future__ import annotations

import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from .thread_guard import ThreadGuard, guard_here

if TYPE_CHECKING:
    import asyncio


class _Task:
    def __init__(self, run: Callable[[], Any], name: str) -> None:
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        self._thread.join(timeout)
        return self.has_ended()

    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def frame(self) -> FrameType | None:
        return sys._current_frames().get(self._thread.ident or 0)


def _call_later(seconds: float, call: Callable[[], Any]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


def _guard() -> ThreadGuard:
    return ThreadGuard(threading.get_ident(), threading.Lock())


class _JobThread:
    def __init__(self, name: str) -> None:
        threading.current_thread().name = name
        self._is_woken = threading.Semaphore(0)
        self._ident = threading.get_ident()

    guard = staticmethod(_guard)

    def wait(self) -> None:
        self._is_woken.acquire()

    def wake(self) -> None:
        self._is_woken.release()

    def frame(self) -> FrameType | None:
        return sys._current_frames().get(self._ident)

    def close(self) -> None:
        pass


class _Request:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def answer(self) -> None:
        self._lock.release()


class _Queue(queue.SimpleQueue[Any]):
    def drain(self) -> list[Any]:
        """Take out all that is there. Others may be taking, too."""
        items: list[Any] = []
        while True:
            try:
                items.append(self.get_nowait())
            except queue.Empty:
                return items


class ThreadRuntime:
    name = "threads"
    most_slots: int | None = 64
    kills: tuple[type[BaseException], ...] = ()

    def spawn(self, run: Callable[[], Any], *, name: str) -> _Task:
        return _Task(run, name)

    def task_name(self) -> str:
        return threading.current_thread().name

    event = staticmethod(threading.Event)

    def queue(self) -> _Queue:
        return _Queue()

    lock = staticmethod(threading.RLock)
    guard = staticmethod(_guard)
    guard_here = staticmethod(guard_here)
    call_later = staticmethod(_call_later)
    sleep = staticmethod(time.sleep)
    request = staticmethod(_Request)

    def answer(self, requests: list[_Request]) -> None:
        for request in requests:
            request.answer()

    def start_event_loop(
        self, serve: Callable[[asyncio.AbstractEventLoop], None], *, name: str
    ) -> tuple[asyncio.AbstractEventLoop, _Task]:
        import asyncio

        loop = asyncio.new_event_loop()
        try:
            return loop, _Task(lambda: serve(loop), name)
        except RuntimeError:  # no more threads
            loop.close()
            raise

    def watch_switches(self, every_s: float, tick: Callable[[], object]) -> None:
        return None

    def start_native_thread(self, run: Callable[[], None], *, name: str) -> None:
        threading.Thread(target=run, name=name, daemon=True).start()

    native_lock = staticmethod(threading.Lock)
    native_rlock = staticmethod(threading.RLock)
    job_thread = staticmethod(_JobThread)

    def main_hub(self) -> None:
        return None

    native_poll = staticmethod(select.poll)
    native_socket = staticmethod(socket.socket)


runtime = ThreadRuntime()
