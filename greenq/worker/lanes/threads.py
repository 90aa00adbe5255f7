"""A native thread in which jobs of ``lane="thread"`` run, one after another.

Only where gevent has patched. Blocking calls that gevent knows wait in a hub of the thread's own;
all others block the thread, and nobody else. It ends after an interrupted job, so that no late
interrupt reaches the next one.
"""

from __future__ import annotations

import contextvars
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..outcome import Outcome

if TYPE_CHECKING:
    from ...actor import Actor
    from ...runtime import Guard, JobThread, Place, Request, Runtime
    from .job import LaneJob


class ThreadHost:
    """One such thread; it starts with its first job.

    Parameters:
      runtime(Runtime): The world.
      number(int): For its name in the log.
    """

    has_own_process = False

    def __init__(self, runtime: Runtime, number: int) -> None:
        self.is_spent = False
        self._runtime = runtime
        self._number = number
        self._thread: JobThread | None = None
        self._failure: Exception | None = None
        #: What it is to do next; None to end.
        self._errand: _Errand | None = None
        self._guard: Guard | None = None
        self._has_ended = False
        #: Of whoever waits for that.
        self._end: Request | None = None

    # -- the slot's side

    def prepare(self) -> None:
        if self._thread is not None:
            return
        started = self._runtime.request()
        self.is_spent = True  # unless all goes well
        self._runtime.start_native_thread(lambda: self._serve(started), name=f"lane {self._number}")
        started.wait()
        if self._failure is not None:
            raise self._failure
        self.is_spent = False

    def perform(self, job: LaneJob, context: contextvars.Context) -> Outcome:
        message = job.message._message
        errand = _Errand(job.actor, message.args, message.kwargs, context, self._runtime.request())
        assert self._thread is not None
        self._errand = errand
        self._thread.wake()
        try:
            errand.request.wait()
        except BaseException:  # somebody killed the slot, and the thread works for nobody
            self.is_spent = True
            raise
        assert errand.outcome is not None
        self.is_spent = errand.is_interrupted
        return errand.outcome

    def interrupt(self, exception: type[BaseException]) -> bool:
        guard = self._guard
        return guard is not None and guard.interrupt(exception)

    def stack(self) -> list[Place]:
        guard = self._guard
        return [] if guard is None else guard.stack()

    def frame(self) -> FrameType | None:
        return None if self._thread is None else self._thread.frame()

    def kill(self) -> None:
        pass  # nobody can kill a thread

    def close(self) -> None:
        if self._thread is not None:
            end = self._end = self._runtime.request()
            if not self._has_ended:
                self._thread.wake()
                end.wait()

    # -- the thread's side

    def _serve(self, started: Request) -> None:
        try:
            self._thread = thread = self._runtime.job_thread(f"lane {self._number}")
        except Exception as error:  # no more files, which a hub needs
            self._failure = error
            return
        finally:
            self._runtime.answer([started])
        try:
            while self._run_next(thread):
                pass
        finally:
            thread.close()
            self._has_ended = True
            if self._end is not None:
                self._runtime.answer([self._end])

    def _run_next(self, thread: JobThread) -> bool:
        """Wait for an errand and run it; False if it was to end instead."""
        thread.wait()
        errand, self._errand = self._errand, None
        if errand is None:
            return False
        self._guard = guard = thread.guard()
        try:
            errand.run(guard)
        finally:
            self._guard = None
            self._runtime.answer([errand.request])
        return True


class _Errand:
    """What a thread is told of a job, and how that ended."""

    def __init__(
        self,
        actor: Actor[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: contextvars.Context,
        request: Request,
    ) -> None:
        self._actor, self._args, self._kwargs, self._context = actor, args, kwargs, context
        self.request = request
        self.outcome: Outcome | None = None
        self.is_interrupted = False

    def run(self, guard: Guard) -> None:
        """Run it; whatever it raises is its outcome."""
        try:
            result = self._context.run(self._actor.run_guarded, guard.run, self._args, self._kwargs)
            self.outcome = Outcome(result)
        except BaseException as error:
            self.outcome = Outcome(exception=error)
        self.is_interrupted = guard.interrupted_by is not None
