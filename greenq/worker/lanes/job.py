"""One job of an actor that has a lane, from the wait for a host to its outcome.

Does not know what a host is: see threads.py and processes.py.
"""

from __future__ import annotations

import contextvars
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from ...cpu import of_context
from ...errors import TimeLimitExceeded
from ...event_loop import is_waited_for
from ...shared_page import name_bytes
from ..outcome import Outcome

if TYPE_CHECKING:
    from ...actor import Actor
    from ...consumer import MessageProxy
    from ...runtime import Place, Runtime
    from ..consumer import ConsumerThread
    from ..deadlines import Deadlines
    from .places import Places


class Host(Protocol):
    """Something in which one job at a time can run."""

    #: Whether it takes no other job.
    is_spent: bool
    has_own_process: bool

    def prepare(self) -> None:
        """Be ready for a job. Switches the first time, perhaps for seconds.

        Raises:
          LaneDied: It cannot be made ready.
        """
        ...

    def perform(self, job: LaneJob, context: contextvars.Context) -> Outcome:
        """Run the actor's own code in this context. Switches until that has ended."""
        ...

    def interrupt(self, exception: type[BaseException]) -> bool:
        """Raise this in the job, or end what it prepares; False if there is nothing to interrupt. Does not wait."""
        ...

    def stack(self) -> list[Place]:
        """Where its job is, the innermost first; empty where that cannot be told."""
        ...

    def frame(self) -> FrameType | None:
        """The innermost frame of its job; None if that is in another process."""
        ...

    def kill(self) -> None:
        """Have its job end now, if that can be done. Does not wait."""
        ...

    def close(self) -> None:
        """End it, which is idle. May switch."""
        ...


class LaneJob:
    """One such job. It is its own guard: an interrupt goes to its host.

    Parameters:
      runtime(Runtime): The world.
      message(MessageProxy): The message, announced to the middleware.
      consumer(ConsumerThread): Through whom the verdict goes.
      actor(Actor): What to run.
      places(Places): Where.
      deadlines(Deadlines): Keeps the time limit.

    Attributes:
      interrupted_by(type[BaseException] | None): The last interrupt that was sent.
    """

    def __init__(
        self,
        runtime: Runtime,
        message: MessageProxy,
        consumer: ConsumerThread,
        actor: Actor[Any, Any],
        places: Places,
        deadlines: Deadlines,
    ) -> None:
        self.message: MessageProxy = message
        self.consumer: ConsumerThread = consumer
        self.actor = actor
        self.interrupted_by: type[BaseException] | None = None
        self.ends_at: float | None = None
        self.soft_at: float | None = None
        self.blocked_s = 0.0
        self.shown = name_bytes(message._message.message_id)
        self._places = places
        self._deadlines = deadlines
        #: Held while an interrupt is sent, so that it cannot come to the next job of the same host.
        self._lock = runtime.native_lock()
        self._news = runtime.event()
        #: Where it runs, or will at once; None while it waits, and after its end.
        self.host: Host | None = None
        self._performs = False
        self._is_over = False
        self._outcome: Outcome | None = None

    # -- the slot's side

    def run(self, context: contextvars.Context) -> None:
        """Run it to its end, in this context. Switches: it may have to wait for its turn first."""
        host = self._places.take(self)
        if host is None:
            self._outcome = self._not_begun()
            self._is_over = True
            return
        try:
            self._outcome = self._run_in(host, context)
        finally:
            with self._lock:
                self.host, self._is_over = None, True
            self._places.give_back(host)

    def _run_in(self, host: Host, context: contextvars.Context) -> Outcome:
        try:
            if self.interrupted_by is None:
                host.prepare()
        except Exception as error:
            return Outcome(exception=error) if self.interrupted_by is None else self._not_begun()
        with self._lock:
            if self.interrupted_by is not None:
                return self._not_begun()
            self._performs = True
        # The clock runs while the actor does: not while it waits for a host.
        context.run(of_context.set, self)
        deadline = self._deadlines.start(self, self.message.time_limit_ms, self.message.soft_time_limit_ms)
        try:
            return host.perform(self, context)
        finally:
            if deadline is not None:
                self._deadlines.stop(deadline)

    def _not_begun(self) -> Outcome:
        """The outcome of a job that was interrupted before it began: its worker stops."""
        assert self.interrupted_by is not None
        self.message.give_back()  # whatever the middleware makes of an interrupt
        return Outcome(exception=self.interrupted_by())

    def take_outcome(self) -> Outcome:
        """How it ended. Not kept: an exception may keep this job alive, which kept the exception."""
        outcome, self._outcome = self._outcome, None
        assert outcome is not None
        return outcome

    def frame(self) -> FrameType | None:
        """The innermost frame of the actor's own code; None if that does not run, or runs in another process."""
        host = self.host
        return host.frame() if host is not None and self._performs else None

    @property
    def pid(self) -> int | None:
        """The process that the actor's own code runs in, if that is another one."""
        return getattr(self.host, "pid", None)

    # -- the places' side

    def wait_for_host(self) -> Host | None:
        """Wait until there is one, or an interrupt came first. Switches."""
        self._news.wait()
        return self.host

    def assign(self, host: Host) -> bool:
        """Give it a host; False if it was interrupted while it waited, and will take none."""
        with self._lock:
            if self.interrupted_by is not None:
                return False
            self.host = host
        self._news.set()
        return True

    @property
    def is_inside(self) -> bool:
        """Whether the actor's own code is under way."""
        return self._performs and not self._is_over

    @property
    def is_elsewhere(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.host is not None and self.host.has_own_process

    # -- interrupts

    def stack(self) -> list[Place]:
        """Where it is, the innermost first; empty where that cannot be told."""
        host = self.host
        return [] if host is None else host.stack()

    def interrupt(self, exception: type[BaseException]) -> bool:
        """Interrupt it, with this as the reason; False if it does not run. From any thread; does not wait."""
        with self._lock:
            if self._is_over:
                return False
            if self._performs:
                if self.host is None or not self.host.interrupt(exception):
                    return False
                self.interrupted_by = exception
                return True
            # First, because the slot looks here as soon as its wait has ended.
            self.interrupted_by = exception
            if self.host is not None:
                self.host.interrupt(exception)
            self._news.set()
            return True

    def struck(self) -> None:
        # Of a task that a coroutine has started which it waits for it may never hear.
        if not is_waited_for():
            self.interrupt(TimeLimitExceeded)
