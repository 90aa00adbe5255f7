"""The asyncio loop that async actors run on: one for all of them, beside the greenlets.

In a process that gevent has patched it is a greenlet of the hub; in any other a native thread
of its own. Rooms that hand coroutines over read the same in both worlds. Knows no messages:
see worker/async_jobs.py. asyncio is imported when a loop starts.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .cpu import of_context
from .logging import get_logger
from .runtime import Event, Runtime, Task

if TYPE_CHECKING:
    import asyncio

R = TypeVar("R")

#: How long the clean-up of a coroutine may take, when whoever waits for it is interrupted.
CLEAN_UP_S = 1.0
#: A native thread that waits for a coroutine looks this often for an interrupt, which cannot
#: reach it while it waits.
_LOOK_EVERY_S = 0.05

#: The loops of the workers that run, the newest last. Nearly always one: a process has one worker.
_offered: list[EventLoop] = []


class EventLoop:
    """A loop that is started when it is first needed.

    Parameters:
      runtime(Runtime): The world.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.logger = get_logger(__name__, type(self))
        self._runtime = runtime
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: Task | None = None

    def start(self) -> asyncio.AbstractEventLoop:
        """Start it, unless it runs; return asyncio's loop."""
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._loop is None:
                # Not in the context of the job that happens to be the first.
                self._loop, self._task = contextvars.Context().run(
                    self._runtime.start_event_loop, self._serve, name="asyncio"
                )
            return self._loop

    def frame(self) -> FrameType | None:
        """The innermost frame of whoever blocks the loop; None if it does not run."""
        return None if self._task is None else self._task.frame()

    def offer(self) -> None:
        """Have async actors that are called in place run on it, until it is stopped."""
        _offered.append(self)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                loop.run_forever()
            except BaseException:
                # A SystemExit in a task that a job has started, or a time-out of gevent's that
                # struck this greenlet. The coroutines of other jobs must not suffer.
                self.logger.critical("Something struck the asyncio loop; it goes on.", exc_info=True)
            else:
                if self._loop is not loop:  # stop() lets go of it first
                    break
                self.logger.error(
                    "A coroutine called stop() of the asyncio loop that it shares with others; it goes on."
                )
        loop.close()

    def interrupt(self, task: asyncio.Task[Any], exception: type[BaseException]) -> None:
        """Cancel a task, with an instance of this as the message of its CancelledError.

        Where the task blocks the loop, so that it cannot be cancelled, the exception itself is raised at the
        call that blocks; not in a process that gevent has not patched. From any thread; does not wait.
        """
        loop = self._loop
        if loop is None:
            return

        def cancel() -> None:
            task.cancel(msg=exception())

        interrupt = getattr(loop, "interrupt", None)
        if interrupt is None or not interrupt(task, exception, cancel):
            loop.call_soon_threadsafe(cancel)

    def stop(self, timeout_s: float) -> bool:
        """Cancel what still runs on it, and end it; False if that took too long. Switches.

        What swallows its cancellation keeps the loop alive, until it ends by itself.
        """
        if self in _offered:
            _offered.remove(self)
        with self._lock:
            loop, task, self._loop, self._task = self._loop, self._task, None, None
        if loop is None or task is None:
            return True
        loop.call_soon_threadsafe(self._begin_to_end, loop)
        if task.join(timeout_s):
            return True
        self.logger.warning("Coroutines that ignore their cancellation keep the asyncio loop alive.")
        return False

    def _begin_to_end(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ending = loop.create_task(_end(loop))

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop; return what it returns, or raise what it raises.

        It runs in a copy of the caller's context. If the caller is interrupted, the coroutine is
        cancelled and may take a second to clean up.

        Raises:
          RuntimeError: It was called by a coroutine on the loop, which has to await instead. Or the
            caller was interrupted, and the clean-up took longer.

        Switches.
        """
        loop = self.start()
        import asyncio

        if asyncio._get_running_loop() is loop:
            coroutine.close()
            raise RuntimeError("A coroutine that runs on this loop cannot wait for another one so: await it.")
        run = _Run(coroutine, self._runtime.event())
        context = contextvars.copy_context()
        caller = self._runtime.guard_here()
        if caller is not None:
            # What a job waits for here is run for it, and on its time.
            context.run(of_context.set, cast("Any", caller))
        loop.call_soon_threadsafe(run.start, loop, context=context)
        try:
            self._wait(run.ended)
        except BaseException as interrupt:
            loop.call_soon_threadsafe(run.cancel)
            if not run.ended.wait(CLEAN_UP_S):
                raise RuntimeError(
                    f"A coroutine was cancelled and has not ended within {CLEAN_UP_S:g} s; it still runs."
                ) from interrupt
            raise
        result: R = run.result()
        return result

    def _wait(self, ended: Event) -> None:
        if self._runtime.most_slots is None:
            ended.wait()
        else:
            while not ended.wait(_LOOK_EVERY_S):
                pass


class _Run:
    """One coroutine that a greenlet or a thread waits for."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], ended: Event) -> None:
        self.ended = ended
        self._coroutine = coroutine
        self._task: asyncio.Task[None] | None = None
        self._result: Any = None
        self._exception: BaseException | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._main())
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self) -> Any:
        exception, self._exception = self._exception, None
        if exception is None:
            return self._result
        try:
            raise exception
        finally:
            del exception  # it keeps this frame alive, which keeps it

    async def _main(self) -> None:
        try:
            self._result = await self._coroutine
        except BaseException as error:  # a SystemExit, too, which would end the loop
            self._exception = error

    def _end(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():  # before it began
            import asyncio

            self._coroutine.close()
            self._exception = asyncio.CancelledError()
        self.ended.set()


def is_waited_for() -> bool:
    """Whether the task that runs now is one of which a greenlet or a thread waits for the end. On the loop."""
    import asyncio

    task = asyncio.current_task()
    return task is not None and getattr(task.get_coro(), "cr_code", None) is _Run._main.__code__


def run_in_place(function: Callable[..., Coroutine[Any, Any, R]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    """Call an async function on the loop of this process's worker; return what it returns. Switches.

    Raises:
      RuntimeError: There is no such loop, or this is called by a coroutine on it.
    """
    name = getattr(function, "__qualname__", repr(function))
    loops = list(_offered)
    if not loops:
        raise RuntimeError(
            f"{name} is an async function, and no worker runs in this process. Call it by "
            "asyncio.run(actor.fn(...)), or inside of a coroutine by await actor.fn(...)."
        )
    return loops[-1].run(function(*args, **kwargs))


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    try:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()
    finally:
        loop.stop()
