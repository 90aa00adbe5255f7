"""Watches who has the CPU of a worker: interrupts a job that never waits, tells of one that keeps the others waiting.

    cpu.py       kept at every switch: which job has the CPU, and since when; notes what takes long
    alarm.py     interrupts the one that is overdue and never waits
    _look        a native thread, twenty times a second: goes on while the hub is busy. Sees at which line
                 a job is that keeps the CPU, beats on the shared page, and says there when to kill
    _turn        in the hub, as often: shows that it turns, and has told what was noted meanwhile

Only where gevent has patched: a job in a native thread keeps nobody waiting, and is interrupted at
its next line anyway. The thread never logs: a log's locks belong to greenlets.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..alarm import GRACE_S, alarm
from ..cpu import Job, Stretch, cpu
from ..errors import HubBlocked, TimeLimitExceeded
from ..logging import get_logger
from ..runtime import Guard, Interruptible, Runtime, places
from ..settings import BLOCK_ERROR
from .deadlines import Deadlines
from .job_marks import marked
from .lanes import LaneJob
from .outcome import Outcome
from .whereabouts import whereabouts

if TYPE_CHECKING:
    from ..consumer import MessageProxy
    from ..shared_page import SharedPage
    from .async_jobs import AsyncJob

_LOOK_EVERY_S = 0.05

#: What has kept the CPU for so long is told while it does, by the supervisor.
_TELL_AT_ONCE_S = 5.0

#: A greenlet that is no job's has to keep the CPU for so long before the limits of those count that it keeps waiting.
_NOBODYS_S = 1.0

#: Of one actor, a line so often. What is not told then is counted in the next.
_TELL_EVERY_S = 1.0

#: The alarm's work is to be over before a process is killed instead, however short --hard-limit is.
_LEAST_HARD_MS = 500.0

#: So many stretches are remembered with their places; as many take a minute at least.
_MOST_PLACES = 1000

#: What is too long in test suites, where nobody has said.
DEFAULT_BLOCK_WARN_MS = 100.0

#: So that a report is written in one piece.
_LONGEST_TEXT = 600


class Watch:
    """The watch of one worker. But for soft limits, of no effect where gevent has not patched, and in any but the
    main thread.

    Parameters:
      runtime(Runtime): The world.
      deadlines(Deadlines): Of the worker's jobs.

    Attributes, to be set before the start:
      block_warn_ms(float): What keeps the others waiting for longer is told; 0 for never, which is the default.
      hard_limit_ms(float | None): How long after its limit a job that goes on is told to the supervisor.
        Default: None, for never.
      page(SharedPage | None): What the supervisor sees of this process. Default: none.
      report(Callable | None): Tells the supervisor something; may be called by a native thread. Default: none.
      on_block(list[Callable]): Called with each message whose job kept the others waiting, and for how many
        milliseconds.
      fails_blockers(bool): Whether such jobs fail. Default: GREENQ_BLOCK_ERROR.
    """

    def __init__(self, runtime: Runtime, deadlines: Deadlines) -> None:
        self.logger = get_logger(__name__, type(self))
        self._runtime = runtime
        self._deadlines = deadlines
        self.fails_blockers = BLOCK_ERROR.get()
        self.block_warn_ms = DEFAULT_BLOCK_WARN_MS if self.fails_blockers else 0.0
        self.hard_limit_ms: float | None = None
        self.page: SharedPage | None = None
        self.report: Callable[..., bool] | None = None
        self.on_block: list[Callable[[MessageProxy, float], None]] = []
        deadlines.on_soft = self._tell_soft_limit
        self._end_switches: Callable[[], None] | None = None
        self._ending = runtime.native_lock()
        self._ending.acquire()
        self._turns = self._seen_turns = 0
        #: Of the latest stretch that was looked at: when it began, and where it was.
        self._seen: tuple[float, str] = (0.0, "")
        #: Where each of the latest was, by when it began: of jobs that block one after the other, all are told
        #: when the last of them is over.
        self._places: dict[float, str] = {}
        self._told_since = 0.0
        #: What the native thread wants logged: a message, if it is about one, and a text.
        self._news: deque[tuple[MessageProxy | None, str]] = deque(maxlen=100)
        self._tellers: dict[str, _Teller] = {}
        self._is_telling = False

    def start(self) -> None:
        """Begin, with the worker. Does not wait."""
        self._end_switches = self._runtime.watch_switches(_LOOK_EVERY_S, self._turn)
        if self._end_switches is None:
            return
        if alarm.start():
            self._deadlines.arm_alarm = alarm.arm
        if self.page is not None:
            cpu.sign = self.page.sign
            # Before any job: one may hold the interpreter before the native thread has looked around once, and a
            # page without a beat is taken for one of a worker that does not beat.
            self.page.beat()
        if self.block_warn_ms:
            cpu.long_s = self.block_warn_ms / 1000
        if self.hard_limit_ms is not None and self.report is not None:
            self.hard_limit_ms = max(self.hard_limit_ms, _LEAST_HARD_MS)
            self._deadlines.hard_ms = self.hard_limit_ms
            self._deadlines.on_overdue = self._report_overdue
        self._runtime.start_native_thread(self._look_around, name="watch")

    def stop(self) -> None:
        """End, once the worker's jobs have. Does not wait.

        Where there is a page, the native thread goes on as long as the process does: its beats say that it lives.
        """
        if self._end_switches is None:
            return
        alarm.stop()
        self._end_switches()
        self._end_switches = None
        self._tell()
        if self.page is None:
            self._ending.release()

    # -- in the native thread

    def _look_around(self) -> None:
        while not self._ending.acquire(True, _LOOK_EVERY_S):
            try:
                self._look()
            except Exception as error:  # without its beats the process would be killed
                self._news.append((None, f"The watch could not look around: {error!r}"))

    def _look(self) -> None:
        page, now = self.page, time.monotonic()
        if page is not None:
            page.beat()
        has_turned, self._seen_turns = self._turns != self._seen_turns, self._turns
        since, task, job = cpu.since, cpu.task, cpu.job
        kept_s, is_nobodys = now - since, False
        if task is cpu.hub or cpu.task is not task:
            job = None
        elif since == 0.0:
            cpu.since, job = now, None  # it is watched from now on
        elif kept_s < _LOOK_EVERY_S:
            job = None
        else:
            cpu.is_long, is_nobodys = True, job is None
            self._seen = (since, whereabouts(places(sys._current_frames().get(cpu.thread))))
            self._places[since] = self._seen[1]
            if len(self._places) > _MOST_PLACES:
                self._places.pop(next(iter(self._places)))
            if kept_s >= _TELL_AT_ONCE_S and self._told_since != since:
                self._told_since = since
                text = (
                    f"{_who(job, task)} has kept the CPU for {kept_s:.0f} s and still does: {_why(job, self._seen[1])}"
                )
                self._tell_now(job, text)
        if page is not None:
            kill_at = 0.0
            if job is not None and not has_turned:
                kill_at = self._kill_at(job)
            elif is_nobodys and kept_s >= _NOBODYS_S and not has_turned:
                # No interrupt reaches it, and as long as it lasts none reaches the others.
                kill_at = min(filter(None, map(self._kill_at, self._deadlines.guards())), default=0.0)
            if page.kill_at != kill_at:
                page.kill_at = kill_at
        if job is None or not job.is_inside:
            return
        if job.soft_at is not None and now > job.soft_at + GRACE_S:
            job.soft_at = None
            self._tell_now(job, _soft_limit(job.message, f"at {self._seen[1]}"))
        if job.ends_at is not None and now > job.ends_at + 2 * GRACE_S and job.interrupted_by is not TimeLimitExceeded:
            alarm.knock()

    def _kill_at(self, job: Job | Interruptible) -> float:
        if not job.is_inside or job.ends_at is None or self.hard_limit_ms is None:
            return 0.0
        if isinstance(job, LaneJob) and job.is_elsewhere:
            return 0.0  # see _report_overdue
        return job.ends_at + self.hard_limit_ms / 1000

    def _tell_now(self, job: Job | None, text: str) -> None:
        if self.report is None or not self.report(event="news", level=logging.WARNING, text=text[:_LONGEST_TEXT]):
            self._news.append((None if job is None else job.message, text))

    # -- in the hub

    def _turn(self) -> None:
        self._turns += 1
        page = self.page
        if page is not None:
            page.turn()
            if page.kill_at:
                page.kill_at = 0.0
        if (cpu.stretches or self._news or self._tellers) and not self._is_telling:
            self._is_telling = True
            self._runtime.spawn(self._tell_all, name="watch")

    def _report_overdue(self, guard: Interruptible) -> None:
        assert self.report is not None
        if isinstance(guard, LaneJob) and guard.is_elsewhere:
            return  # its own process is killed, by who keeps that
        message: MessageProxy = guard.message
        inner = message._message
        self.report(
            event="overdue", message_id=inner.message_id, actor=inner.actor_name, limit_ms=message.time_limit_ms
        )

    def _tell_soft_limit(self, guard: Interruptible) -> None:
        # A log must not wait here; where the job is has to be looked at now.
        pid = guard.pid if isinstance(guard, LaneJob) else None
        text = _soft_limit(guard.message, f"at {whereabouts(guard.stack())}" if pid is None else f"in process {pid}")
        self._runtime.spawn(lambda: self._log(guard.message, text), name="soft time limit")

    # -- in a greenlet of its own

    def _tell_all(self) -> None:
        try:
            self._tell()
        finally:
            self._is_telling = False

    def _tell(self) -> None:
        while self._news:
            self._log(*self._news.popleft())
        while cpu.stretches:
            self._account(cpu.stretches.popleft())
        now = time.monotonic()
        for name, teller in list(self._tellers.items()):
            if teller.next_at <= now and teller.untold:
                self._log(None, teller.rest(name))
                teller.next_at = now + _TELL_EVERY_S
            elif teller.next_at <= now:
                del self._tellers[name]

    def _account(self, stretch: Stretch) -> None:
        job, ms = stretch.job, (stretch.until - stretch.since) * 1000
        message: MessageProxy | None = None if job is None else job.message
        name = "" if message is None else message._message.actor_name
        if message is not None:
            for call in self.on_block:
                call(message, ms)
        now = time.monotonic()
        teller = self._tellers.setdefault(name, _Teller())
        if teller.next_at > now:
            teller.untold += 1
            teller.untold_ms += ms
            return
        teller.next_at = now + _TELL_EVERY_S
        where = self._places.get(stretch.since, "")
        self._log(message, f"{_who(job, stretch.task)} kept the CPU for {ms:.0f} ms: {_why(job, where)}")

    def _log(self, message: MessageProxy | None, text: str) -> None:
        self.logger.warning("%s", text, extra=None if message is None else marked(message._message))

    # -- for the processor

    def outcome_of(self, job: Guard | AsyncJob | LaneJob, outcome: Outcome) -> Outcome:
        """The outcome of a job; where ``fails_blockers``, a failure if it has kept the others waiting."""
        if cpu.job is job:
            cpu.note()  # what has not ended yet
        kept_ms = job.blocked_s * 1000
        if not kept_ms or outcome.exception is not None or outcome.skipped_by is not None:
            return outcome
        is_seen = any(stretch.job is job and stretch.since == self._seen[0] for stretch in cpu.stretches)
        where = f" at {self._seen[1]}" if is_seen else ""
        return Outcome(
            exception=HubBlocked(
                f"The job kept the CPU for {kept_ms:.0f} ms without waiting once{where}, and "
                f"{cpu.long_s * 1000:.0f} ms are allowed while GREENQ_BLOCK_ERROR is set: in a worker all other jobs "
                "stand still meanwhile. Do it in steps, or give the actor a lane: see docs/lanes.md."
            )
        )


class _Teller:
    """What is told of one actor."""

    def __init__(self) -> None:
        self.next_at = 0.0
        self.untold = 0
        self.untold_ms = 0.0

    def rest(self, name: str) -> str:
        """What was not told one by one, which is forgotten."""
        text = (
            f"{f'Jobs of actor {name}' if name else 'Greenlets'} kept the CPU {self.untold} more times since the last "
            f"line about it, for {self.untold_ms:.0f} ms in all."
        )
        self.untold, self.untold_ms = 0, 0.0
        return text


def _who(job: Job | None, task: Any) -> str:
    if job is None:
        return f"Greenlet {getattr(task, 'name', 'MainThread')}"
    inner = job.message._message
    return f"Message {inner.message_id} of actor {inner.actor_name}"


def _why(job: Job | None, where: str) -> str:
    place = f"at {where}" if where else "where could not be seen"
    remedy = "" if job is None else " Code that blocks belongs into an actor with lane='thread' or lane='process'."
    return f"{place}. Nothing else in this worker ran meanwhile.{remedy}"


def _soft_limit(message: MessageProxy, where: str) -> str:
    inner = message._message
    return (
        f"Message {inner.message_id} of actor {inner.actor_name} still runs after its soft time limit of "
        f"{message.soft_time_limit_ms:g} ms: {where}."
    )
