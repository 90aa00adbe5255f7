"""Jobs whose actors are coroutines: tasks on the asyncio loop, which hold a slot but no greenlet.

A slot's greenlet prepares the job (hooks may wait) and leaves; when the task has ended,
whichever greenlet is free carries it to its verdict, in the same context. Between the two a
job is what is in this room.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..actor import Actor
from ..consumer import MessageProxy
from ..cpu import of_context
from ..errors import TimeLimitExceeded
from ..event_loop import CLEAN_UP_S, EventLoop
from ..logging import get_logger
from ..runtime import Place, coroutine_places
from ..shared_page import name_bytes
from .deadlines import Deadlines
from .outcome import Outcome

if TYPE_CHECKING:
    import asyncio

    from .consumer import ConsumerThread

_logger = get_logger(__name__, "AsyncJob")


class AsyncJob:
    """One such job. It is its own guard: an interrupt cancels the task.

    Parameters:
      message(MessageProxy): The message, announced to the middleware.
      consumer(ConsumerThread): Through whom the verdict goes.
      actor(Actor): Whose coroutine to run.
      deadlines(Deadlines): Keeps the time limit.
    """

    __slots__ = (
        "_deadlines",
        "_event_loop",
        "_is_over",
        "_looking",
        "_loop",
        "_on_end",
        "_task",
        "actor",
        "blocked_s",
        "consumer",
        "context",
        "ends_at",
        "interrupted_by",
        "is_inside",
        "message",
        "outcome",
        "shown",
        "soft_at",
    )

    def __init__(
        self, message: MessageProxy, consumer: ConsumerThread, actor: Actor[Any, Any], deadlines: Deadlines
    ) -> None:
        self.message: MessageProxy = message
        self.consumer: ConsumerThread = consumer
        self.actor = actor
        #: The last interrupt that cancelled the task; None if there was none.
        self.interrupted_by: type[BaseException] | None = None
        #: As of every job: see cpu.py.
        self.is_inside = False
        self.ends_at: float | None = None
        self.soft_at: float | None = None
        self.blocked_s = 0.0
        self.shown = name_bytes(message._message.message_id)
        #: How it ended; None until then.
        self.outcome: Outcome | None = None
        #: What the hooks before and after it run in.
        self.context: contextvars.Context | None = None
        self._deadlines = deadlines
        self._event_loop: EventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._on_end: Callable[[AsyncJob], None] | None = None
        self._is_over = False

    @property
    def guard(self) -> AsyncJob:
        return self

    def start(self, event_loop: EventLoop, context: contextvars.Context, on_end: Callable[[AsyncJob], None]) -> None:
        """Have it run in a copy of this context; ``on_end(job)`` is called on the loop. Does not wait."""
        self.context = context
        self._on_end = on_end
        self._event_loop = event_loop
        self._loop = event_loop.start()
        self._loop.call_soon_threadsafe(self._start, context=context)

    def _start(self) -> None:
        assert self._loop is not None
        # Inherited by the tasks that it starts. As of here, because its first step counts as well.
        of_context.set(self)
        self.is_inside = True
        # The name of whoever logs, and a string that exists already: ten thousand tasks may wait.
        self._task = self._loop.create_task(self._run(), name=self.message._message.message_id)
        self._task.add_done_callback(self._end)

    async def _run(self) -> None:
        deadline = None
        try:
            if self.interrupted_by is not None:
                raise self.interrupted_by
            # The clock runs while the actor does and no longer.
            deadline = self._deadlines.start(self, self.message.time_limit_ms, self.message.soft_time_limit_ms)
            inner = self.message._message
            self.outcome = Outcome(await self.actor.coroutine(inner.args, inner.kwargs))
        except BaseException as error:  # a SystemExit, too, which would end the loop
            self.outcome = Outcome(exception=self._told(error))
        finally:
            if deadline is not None:
                self._deadlines.stop(deadline)

    def _told(self, error: BaseException) -> BaseException:
        """What the middleware is told of: of a cancellation of ours, why."""
        import asyncio

        if self.interrupted_by is None or not isinstance(error, asyncio.CancelledError):
            return error
        return self.interrupted_by().with_traceback(error.__traceback__)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self.is_inside = False
        if self._looking is not None:
            self._looking.cancel()
        if self.outcome is None:  # somebody cancelled all tasks, this one before it began
            import asyncio

            self.outcome = Outcome(exception=self._told(asyncio.CancelledError()))
        assert self._on_end is not None
        self._on_end(self)

    def coroutine(self) -> Any:
        """The coroutine of its task; None before that has begun, and after it has ended."""
        return None if self._task is None else self._task.get_coro()

    def take_outcome(self) -> Outcome:
        """How it ended. Not kept: an exception keeps this job alive, which kept the exception."""
        self._is_over = True  # first, for nothing interrupts it any more
        outcome, self.outcome = self.outcome, None
        self._loop = None
        assert outcome is not None
        return outcome

    # -- interrupts

    def interrupt(self, exception: type[BaseException]) -> bool:
        """Cancel the task, with this as the reason; False if it has ended. From any thread; does not wait."""
        if self._is_over or self.outcome is not None:
            return False
        is_first = self.interrupted_by is None
        self.interrupted_by = exception  # first, for a task that begins just now looks here
        loop, event_loop, task = self._loop, self._event_loop, self._task  # it may end in another thread
        if loop is None or event_loop is None:
            return True  # on its way to the loop
        with contextlib.suppress(RuntimeError):  # the loop was closed, which it is after all jobs have ended
            if task is not None:
                event_loop.interrupt(task, exception)
            if is_first:
                loop.call_soon_threadsafe(self._look_later, exception)
        return True

    def struck(self) -> None:
        """The alarm interrupts a step of its task; or of one that it has started, of which it may never hear."""
        import asyncio

        if asyncio.current_task(self._loop) is not self._task:
            self.interrupt(TimeLimitExceeded)

    def stack(self) -> list[Place]:
        """Where the coroutine is, the innermost first; empty if it has ended."""
        task, loop = self._task, self._loop
        if task is None or loop is None:
            return []
        stack_of: Callable[[asyncio.Task[None]], list[Place]] | None = getattr(loop, "stack_of", None)
        return coroutine_places(task.get_coro()) if stack_of is None else stack_of(task)

    def _look_later(self, exception: type[BaseException]) -> None:
        if self._task is not None and self._loop is not None:
            self._looking = self._loop.call_later(CLEAN_UP_S, self._look_after, exception)

    def _look_after(self, exception: type[BaseException]) -> None:
        inner = self.message._message
        _logger.warning(
            "Message %s of actor %s was cancelled (%s) %g s ago and still runs. It keeps its slot until it ends.",
            inner.message_id,
            inner.actor_name,
            "its time limit" if exception is TimeLimitExceeded else "its worker stops",
            CLEAN_UP_S,
        )
