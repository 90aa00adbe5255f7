"""What greenq asks of the process it runs in: to start things, to wait, to interrupt.

Two modules answer, with the same words: greenlets.py in a process that gevent has
patched (a worker of ``greenq-worker`` always is), threads.py in any other. A room that
waits takes its words from ``current()`` and reads the same in both worlds.

Imports gevent only where the process has already been patched by it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio


class Event(Protocol):
    """A flag to wait for. ``set`` may be called from any thread of the process."""

    def set(self) -> None: ...
    def clear(self) -> None: ...
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool:
        """Wait, seconds at most; answer whether the flag is set. Switches."""
        ...


class Queue(Protocol):
    """A first-in-first-out queue between the tasks of one worker."""

    def put(self, item: Any) -> None: ...
    def get(self) -> Any:
        """The next item. Switches only if there is none."""
        ...

    def qsize(self) -> int: ...
    def drain(self) -> list[Any]:
        """Take out all items, without waiting."""
        ...


class Lock(Protocol):
    """Guards lines that must not be separated. Never held over a wait."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *args: Any) -> Any: ...


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...


class Task(Protocol):
    """Something that was started."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end, seconds at most; answer whether it has ended. Switches."""
        ...

    def has_ended(self) -> bool:
        """Whether it has ended. Does not switch."""
        ...


class Interruptible(Protocol):
    """Actor's code that runs, and can be interrupted."""

    #: The last interrupt that was sent; None if there was none.
    interrupted_by: type[BaseException] | None

    def interrupt(self, exception: type[BaseException]) -> bool:
        """Interrupt it, with this as the reason; False if it does not run."""
        ...


class Guard(Interruptible, Protocol):
    """The stretch of a task in which it may be interrupted: the actor's own code.

    An interrupt is raised inside ``run`` or not at all: never in what comes after it.
    """

    def run(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call this function; interrupts may be raised in it. Called by the task itself."""
        ...


class JobThread(Protocol):
    """What a native thread needs in which jobs run. For that thread alone."""

    def guard(self) -> Guard:
        """A guard for its next job."""
        ...

    def close(self) -> None:
        """It ends, and runs no job any more."""
        ...


class Request(Protocol):
    """An answer that a native thread owes to the task that asked."""

    def wait(self) -> None:
        """Wait until it is answered. Switches."""
        ...


class Runtime(Protocol):
    """One of the two worlds."""

    name: str
    #: The most jobs that can be under way at once; None for no such limit.
    most_slots: int | None
    #: What is raised in a task that somebody ends from outside.
    kills: tuple[type[BaseException], ...]

    def spawn(self, run: Callable[[], Any], *, name: str) -> Task: ...
    def task_name(self) -> str:
        """The name of the task that calls this, for the log."""
        ...

    def event(self) -> Event: ...
    def queue(self) -> Queue: ...
    def lock(self) -> Lock: ...
    def guard(self) -> Guard:
        """A guard for the task that calls this."""
        ...

    def call_later(self, seconds: float, call: Callable[[], Any]) -> Timer:
        """Call a function that does not wait, once, after this time."""
        ...

    def sleep(self, seconds: float) -> None: ...
    def request(self) -> Request:
        """A request made by the task that calls this."""
        ...

    def answer(self, requests: list[Any]) -> None:
        """Answer requests of tasks; called by a native thread."""
        ...

    def start_event_loop(
        self, serve: Callable[[asyncio.AbstractEventLoop], None], *, name: str
    ) -> tuple[asyncio.AbstractEventLoop, Task]:
        """A new asyncio loop, and the task that calls ``serve(loop)``, which runs it."""
        ...

    def start_native_thread(self, run: Callable[[], None], *, name: str) -> None:
        """Run a function in a real thread of the operating system.

        It goes on while the hub is busy. It must not touch anything that waits in greenlets:
        its locks are ``native_lock()``, its clock is ``time.monotonic()``.
        """
        ...

    def job_thread(self, name: str) -> JobThread:
        """For the native thread that calls this, by its name in the log: it will run jobs, which may wait."""
        ...

    def main_hub(self) -> Any:
        """gevent's hub of the main thread, where the calling thread's may be one of a pool; None among threads.

        Raises:
          RuntimeError: It is not known.
        """
        ...

    def native_lock(self) -> Any:
        """A lock of the operating system, with ``acquire(blocking, timeout)`` and ``release``."""
        ...

    def native_socket(self, family: int, kind: int) -> Any:
        """A socket of the operating system, for native threads: its calls block."""
        ...


def is_patched() -> bool:
    """Whether gevent has made this process's threads greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def current() -> Runtime:
    """The world of this process."""
    if is_patched():
        from . import greenlets

        return greenlets.runtime
    from . import threads

    return threads.runtime
