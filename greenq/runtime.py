"""What greenq asks of the process it runs in: to start things, to wait, to interrupt.

Two modules answer, with the same words: greenlets.py in a process that gevent has
patched (a worker of ``greenq-worker`` always is), threads.py in any other. A room that
waits takes its words from ``current()`` and reads the same in both worlds.

Imports gevent only where the process has already been patched by it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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

    def frame(self) -> FrameType | None:
        """The innermost frame of its stack, while it waits; None if it has none. Not to be kept over a switch."""
        ...


class Place(NamedTuple):
    """A line of a running program."""

    filename: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.filename}:{self.line} in {self.function}"


def places(frame: FrameType | None, end: CodeType | None = None) -> list[Place]:
    """The places of a stack, the innermost first, up to the first frame that runs this code."""
    found = []
    while frame is not None and frame.f_code is not end:
        # A frame that has not begun has no line.
        found.append(Place(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name))
        frame = frame.f_back
    return found


def coroutine_places(coroutine: Any) -> list[Place]:
    """The places of a coroutine that waits, the innermost first, of all that it awaits one in the other."""
    found = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            found.append(Place(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return found[::-1]


class Interruptible(Protocol):
    """Actor's code that runs, and can be interrupted."""

    #: The message that it is the job of, for whoever tells of it.
    message: Any
    #: The last interrupt that was sent; None if there was none.
    interrupted_by: type[BaseException] | None
    #: When its time limit passes, in monotonic seconds; None without one.
    ends_at: float | None
    #: When its soft time limit passes; None without one, or once that was told.
    soft_at: float | None

    @property
    def is_inside(self) -> bool:
        """Whether it is under way."""
        ...

    def interrupt(self, exception: type[BaseException]) -> bool:
        """Interrupt it, with this as the reason; False if it does not run."""
        ...

    def stack(self) -> list[Place]:
        """Where it is, the innermost first; empty if that cannot be told."""
        ...


class Guard(Interruptible, Protocol):
    """The stretch of a task in which it may be interrupted: the actor's own code.

    An interrupt is raised inside ``run`` or not at all: never in what comes after it.
    """

    #: For how long it has kept all others waiting at worst, in seconds; 0.0 if never for long, or in a thread.
    blocked_s: float

    @property
    def is_inside(self) -> bool:
        """Whether it is in ``run``."""
        ...

    def begin(self, message: Any, message_id: str) -> None:
        """The task works for this message from here on. Called by the task itself."""
        ...

    def end(self) -> None:
        """It does no more."""
        ...

    def run(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call this function; interrupts may be raised in it. Called by the task itself."""
        ...


class JobThread(Protocol):
    """What a native thread needs in which jobs run. For that thread alone."""

    def guard(self) -> Guard:
        """A guard for its next job."""
        ...

    def wait(self) -> None:
        """Wait until it is woken; what its jobs have left behind goes on meanwhile."""
        ...

    def wake(self) -> None:
        """End its wait, or the next one. For any other thread."""
        ...

    def frame(self) -> FrameType | None:
        """The innermost frame of the job that runs in it. For other threads, too."""
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

    def guard_here(self) -> Guard | None:
        """The guard in which the task that calls this runs now."""
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

    def watch_switches(self, every_s: float, tick: Callable[[], object]) -> Callable[[], None] | None:
        """Keep ``cpu.cpu``, and call a function in the hub over and over; what ends both.

        None, and nothing done, among threads; also if this is not the main thread, or somebody else watches
        switches already. The function must not wait.
        """
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

    def native_rlock(self) -> Any:
        """The same that the thread which holds it may acquire again; greenlets of one thread are no others to it."""
        ...

    def native_poll(self) -> Any:
        """As ``select.poll()``: it never switches."""
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
