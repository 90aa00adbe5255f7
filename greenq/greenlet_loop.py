"""asyncio's loop as one greenlet among others, on gevent's hub.

    job's greenlet --call_soon_threadsafe--> loop's greenlet <--events-- hub

Where the loop waits, the hub goes on, and so do all other greenlets; a coroutine that blocks
(``time.sleep``, a send) blocks the loop, which is told in the log, and one that computes blocks
the hub, as any greenlet does. Knows nothing of jobs: see event_loop.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import Executor
from types import FrameType
from typing import TYPE_CHECKING, Any

import gevent
from gevent.monkey import get_original
from gevent.selectors import GeventSelector
from greenlet import getcurrent

from .cpu import cpu, of_context
from .greenlet_selector import NO_MARKS, LoopMarks
from .logging import get_logger
from .runtime import Place, coroutine_places, places

if TYPE_CHECKING:
    _Greenlet = gevent.Greenlet[..., Any]
    _Handle: Any = asyncio.Handle  # what is private of it
    _TimerHandle: Any = asyncio.TimerHandle
else:
    _Greenlet = gevent.Greenlet
    _Handle = asyncio.Handle
    _TimerHandle = asyncio.TimerHandle

_get_running_loop = asyncio.events._get_running_loop
_get_ident = get_original("_thread", "get_ident")

#: A coroutine that blocks the loop for longer is told, once in a while. Both in seconds.
_LONG_BLOCK_S = 0.1
_TELL_EVERY_S = 60.0

#: A loop that always has something to do gives way to the other greenlets after this long.
_TURN_S = 0.001


class GreenletLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that a greenlet runs; see LoopGreenlet."""

    def __init__(self) -> None:
        self._waiting = _Selector()
        self._hub = gevent.get_hub()
        self._native_thread = _get_ident()
        self.greenlet: LoopGreenlet | None = None
        super().__init__(self._waiting)

    @property
    def is_waiting(self) -> bool:
        """Whether the loop waits for events, where nothing of a coroutine's is on its stack."""
        return self._waiting.is_waiting

    def interrupt(self, task: asyncio.Task[Any], exception: type[BaseException], cancel: Callable[[], None]) -> bool:
        """Raise this in a task that blocks the loop, at the call that blocks; False if it does not.

        Parameters:
          cancel(Callable): Called on the loop instead, if by then it does not block any more.
        """
        if not self._is_blocked_by(task):
            return False
        # In the hub, and not from a greenlet, which would only go on once the loop waits again.
        self._hub.loop.run_callback(self._throw, task, exception, cancel)
        return True

    def _throw(self, task: asyncio.Task[Any], exception: type[BaseException], cancel: Callable[[], None]) -> None:
        if self.greenlet is not None and self._is_blocked_by(task):
            self.greenlet.throw(exception)
        else:
            self.call_soon_threadsafe(cancel)

    def stack_of(self, task: asyncio.Task[Any]) -> list[Place]:
        """Where a task is that does not run just now, the innermost first."""
        if self.greenlet is not None and self._is_blocked_by(task):
            return places(self.greenlet.gr_frame, _Step._run.__code__)
        return coroutine_places(task.get_coro())

    def _is_blocked_by(self, task: asyncio.Task[Any]) -> bool:
        return (
            self.greenlet is not None
            and getcurrent() is not self.greenlet
            and not self.is_waiting
            and asyncio.current_task(self) is task
        )

    def call_soon_threadsafe(  # type: ignore[override] # typeshed names its arguments by a TypeVarTuple, which 3.10 has not
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call this in the loop's next turn. From any greenlet, and any thread of the process."""
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        # Newer Pythons do not wake the loop if the caller is of its own thread, because then it
        # cannot be asleep; with greenlets it can.
        self._wake()
        return handle

    def _call_soon(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> asyncio.Handle:
        # asyncio's own, with handles of ours. Each step of a task comes this way.
        handle = _Step(callback, args, self, context)
        traceback = getattr(handle, "_source_traceback", None)  # of its debug mode
        if traceback:
            del traceback[-1]
        self._ready.append(handle)  # type: ignore[attr-defined]  # private to asyncio, and in every loop of its own
        return handle

    # What is called at a time, or for a socket, asyncio makes handles of itself: they are made ours.

    def call_at(  # type: ignore[override] # typeshed names its arguments by a TypeVarTuple, which 3.10 has not
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's own."""
        handle = super().call_at(when, callback, *args, context=context)
        handle.__class__ = _StepAtATime
        return handle

    def _add_callback(self, handle: Any) -> None:
        if type(handle) is asyncio.Handle:
            handle.__class__ = _Step
        super()._add_callback(handle)  # type: ignore[misc]  # private to asyncio, as above

    def _write_to_self(self) -> None:
        self._wake()

    def _wake(self) -> None:
        # In place of a byte through asyncio's pair of sockets, which is two system calls and two
        # turns of the hub.
        if _get_ident() == self._native_thread:
            self._waiting.wake()
        else:
            hub_loop = self._hub.loop
            if hub_loop is not None:
                hub_loop.run_callback_threadsafe(self._waiting.wake)

    def run_in_executor(  # type: ignore[override] # typeshed names its arguments by a TypeVarTuple, which 3.10 has not
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function beside the loop: without an executor, in a greenlet of its own."""
        # A native thread would have a hub of its own, and a socket (of somebody's connection
        # pool, or of a broker) belongs to the hub it was made in. asyncio's own pool would be of
        # greenlets too, but of a few, and whoever waits in one would keep the others waiting.
        if executor is not None or self._default_executor is not None:  # type: ignore[attr-defined] # private
            return super().run_in_executor(executor, func, *args)
        future = self.create_future()
        gevent.spawn(self._run_beside, future, func, args)
        return future

    def _run_beside(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = func(*args)
        except StopIteration as stop:  # which a future cannot raise
            error = RuntimeError("A function that ran beside the loop raised StopIteration.")
            error.__cause__ = stop
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self.call_soon_threadsafe(_settle, future, result, error)
        del error  # it keeps this frame alive, which keeps it


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return  # whoever waited was cancelled
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class _Step(_Handle):  # type: ignore[misc]  # Any to mypy, which knows nothing of its private parts
    """What the loop does at a time, of which it tells for whom that is: a job, or a task that one has started."""

    __slots__ = ()

    def _run(self) -> None:
        job = self._context.get(of_context)
        cpu.takes(job if job is not None and job.is_inside else None)
        super()._run()


class _StepAtATime(_Step, _TimerHandle):  # type: ignore[misc]  # as above
    __slots__ = ()


class _Selector(GeventSelector):
    """Where the loop waits."""

    _ready: Any  # gevent's event: something came, or somebody woke the loop
    _turn_ends = 0.0
    is_waiting = False

    def wake(self) -> None:
        """End a wait that is under way, or the next one."""
        self._ready.set()

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is not None and timeout <= 0 and time.monotonic() < self._turn_ends:
            return []
        self.is_waiting = True
        try:
            return super().select(timeout)
        finally:
            self.is_waiting = False
            self._turn_ends = time.monotonic() + _TURN_S


class LoopGreenlet(_Greenlet):
    """Runs a loop, and keeps asyncio's marks of the running loop for itself.

    They are the same for all greenlets of a thread, see greenlet_selector.py. They are set while
    this greenlet runs, and as others left them while they do: also while a coroutine blocks, which
    no selector hears of.

    Parameters:
      serve(Callable): Called with the loop.
      loop(GreenletLoop): The loop.
    """

    _inside = NO_MARKS
    _outside = NO_MARKS
    _blocked_since: float | None = None
    _told_at = float("-inf")

    def __init__(self, serve: Callable[[asyncio.AbstractEventLoop], None], loop: GreenletLoop) -> None:
        super().__init__(serve, loop)
        self.logger = get_logger(__name__, type(self))
        self._loop = loop
        loop.greenlet = self

    def task_name(self) -> str:
        """The name of the asyncio task that runs, for the log."""
        task = asyncio.current_task() if _get_running_loop() is not None else None
        return task.get_name() if task is not None else str(self.name)

    def switch(self, *args: Any) -> Any:
        self._enter()
        return super().switch(*args)

    def throw(self, *args: Any) -> Any:
        self._enter()
        return super().throw(*args)

    def switch_out(self) -> None:
        """Called by gevent before it switches to the hub."""
        if self._loop.is_waiting:
            cpu.jobs.pop(self, None)
        else:
            self._blocked_since = time.monotonic()
            # What blocks goes on in the middle of its step, for the same job.
            if cpu.job is None:
                cpu.jobs.pop(self, None)
            else:
                cpu.jobs[self] = cpu.job
        self._inside = LoopMarks.now()
        self._outside.set()

    def _enter(self) -> None:
        if self._blocked_since is not None:
            blocked_s, self._blocked_since = time.monotonic() - self._blocked_since, None
            if blocked_s >= _LONG_BLOCK_S:
                self._tell(blocked_s)
        self._outside = LoopMarks.now()
        self._inside.set()

    def _tell(self, blocked_s: float) -> None:
        now = time.monotonic()
        if now - self._told_at < _TELL_EVERY_S:
            return
        self._told_at = now
        # A log must not wait here, in the hub; and its record is to be of the task's own time.
        where = _coroutine_on(self.gr_frame)
        task = asyncio.current_task(self._loop)
        gevent.spawn(
            self.logger.warning,
            "A coroutine blocked the asyncio loop, and all others on it, for %.0f ms: %s, in task %s. Await instead, "
            "or call what blocks by asyncio.to_thread().",
            blocked_s * 1000,
            where,
            "(none)" if task is None else task.get_name(),
        )


def _coroutine_on(frame: FrameType | None) -> str:
    """The line of the coroutine that blocks, of a suspended stack: where the application's own code begins."""
    found = "an unknown place"
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] == "asyncio":
            break
        if not module.startswith("greenq."):
            found = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return found
