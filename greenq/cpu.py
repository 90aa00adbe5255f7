"""Who has the CPU: for which job the main thread works, kept at every switch of greenlets.

    hub ---switch---> slot's greenlet ---begin(job)---> ... ---switch---> hub
    hub ---switch---> asyncio's greenlet ---takes(job) for each step---> ... ---switch---> hub

Three read it: the supervisor, in the shared page, after a death; the alarm, which must interrupt
nobody but the job that is overdue; and the watch, which tells who keeps the others waiting. Knows
neither gevent nor messages. Only where gevent has patched: a job in a native thread keeps nobody.

What is here runs at every switch and twice a job, and is written for speed: with it, a switch takes
some 0.3 microseconds more, and a job some 0.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic
from typing import Any, NamedTuple, Protocol

#: Steps of coroutines come by the hundred in one turn of their loop: one in so many looks at the clock. A
#: power of two, less one.
_STEPS = 15

#: Stretches that nobody has asked for are forgotten, the oldest first.
_MOST_STRETCHES = 1000


class Job(Protocol):
    """What may have the CPU."""

    #: The message that it is the job of.
    message: Any
    #: The message's id, as ``shared_page.name_bytes`` has it.
    shown: bytes

    @property
    def is_inside(self) -> bool:
        """Whether the actor's own code is under way, where it may be interrupted."""
        ...

    #: The last interrupt that was sent; None if there was none.
    interrupted_by: type[BaseException] | None
    #: When its time limit passes, in monotonic seconds; None without one.
    ends_at: float | None
    #: When its soft time limit passes; None without one, or once that was told.
    soft_at: float | None
    #: For how long it has kept all others waiting at worst, in seconds; 0.0 if never for long.
    blocked_s: float

    def struck(self) -> None:
        """The alarm interrupts, at its time limit, what has the CPU for it. Called there, by a signal's handler."""
        ...


class Stretch(NamedTuple):
    """A time in which nobody else had a turn, and which was too long.

    Attributes:
      job(Job | None): Whose; None if it was no job's.
      task(Any): The greenlet that had the CPU.
      since, until(float): Monotonic seconds.
    """

    job: Job | None
    task: Any
    since: float
    until: float


class Cpu:
    """The main thread's CPU.

    Attributes:
      task(Any): The greenlet that has it.
      job(Job | None): The job that it works for. One that has ended counts until the next one
        begins or its greenlet waits, whichever comes first.
      since(float): Since when, in monotonic seconds, to be set by whoever knows; 0.0 if nobody has looked yet.
      is_long(bool): Whether the watch has seen that it may be too long already: then the clock is looked at
        when it ends.
      jobs(dict): By greenlet, the job that it works for when it has the CPU. Written by its guard.
      sign(Any): Its ``value`` is set to the id of the message whose job has the CPU, and to ``b""`` for nobody's.
      hub(Any): The greenlet that has it when there is nothing to do.
      here(Callable): The greenlet that calls this.
      thread(int): The main thread, as the operating system has it.
      long_s(float): A stretch that is longer is noted.
      stretches(deque[Stretch]): Those that were, for whoever takes them out.
    """

    __slots__ = (
        "_steps",
        "here",
        "hub",
        "is_long",
        "job",
        "jobs",
        "long_s",
        "sign",
        "since",
        "stretches",
        "task",
        "thread",
    )

    def __init__(self) -> None:
        self.hub: Any = None
        self.here: Callable[[], Any] = lambda: None
        self.thread = 0
        self.task: Any = None
        self.job: Job | None = None
        self.since = 0.0
        self.is_long = False
        self._steps = 0
        self.jobs: dict[Any, Job] = {}
        self.long_s = float("inf")
        self.stretches: deque[Stretch] = deque(maxlen=_MOST_STRETCHES)
        self.sign: Any = _Nowhere()

    def switched(self, event: str, switch: tuple[Any, Any]) -> None:
        """A greenlet gives the CPU to another; as ``greenlet.settrace`` calls it."""
        if self.is_long:
            self.note()
        self.task = task = switch[1]
        job = self.jobs.get(task)
        # The clock is the dearest of all this, so it is looked at for jobs alone.
        self.since = 0.0 if job is None else monotonic()
        if job is not self.job:
            self.job = job
            self.sign.value = b"" if job is None else job.shown

    def takes(self, job: Job | None) -> None:
        """The greenlet that has the CPU works for this job from here on (None for nobody's), and not the first time."""
        if self.is_long:
            self.note()
        self._steps += 1
        if self.since == 0.0 or not self._steps & _STEPS:
            self.since = monotonic()
        if job is not self.job:
            self.job = job
            self.sign.value = b"" if job is None else job.shown

    def note(self) -> None:
        """Note what has lasted until now, if it is too long, and begin anew."""
        self.is_long = False
        now = monotonic()
        since, self.since = self.since, now
        if since == 0.0 or now - since <= self.long_s:
            return
        job = self.job
        if job is not None:
            job.blocked_s = max(job.blocked_s, now - since)
        self.stretches.append(Stretch(job, self.task, since, now))

    def forget(self) -> None:
        """Have nobody shown, and nothing noted, from now on."""
        self.sign = _Nowhere()
        self.job = None
        self.since, self.long_s, self.is_long = 0.0, float("inf"), False
        self.stretches.clear()


class _Nowhere:
    """The sign of a process that nobody looks at."""

    value = b""


#: This process's.
cpu = Cpu()

#: The job that a coroutine works for, and the tasks that it starts.
of_context: ContextVar[Job | None] = ContextVar("greenq_job", default=None)
