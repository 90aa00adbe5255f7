"""Slots: as many jobs as may be under way at once, and the greenlets that carry them.

A slot is a number first: a consumer takes free ones before it fetches as many messages.
The greenlets (WorkerThread, as the API calls them) are made when there is work for them,
and live on: each takes the next message without a switch if there is one. A job that is a
coroutine keeps its slot and leaves its greenlet; see async_jobs.py.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..broker import Broker
from ..consumer import MessageProxy
from ..errors import Shutdown, describe
from ..event_loop import EventLoop
from ..logging import get_logger
from ..runtime import Interruptible, Runtime, Task
from ..verdict import NACK, REQUEUE, Verdict
from .async_jobs import AsyncJob
from .job_marks import marked
from .lanes import LaneJob
from .outcome import Outcome
from .processor import Processor

if TYPE_CHECKING:
    from .consumer import ConsumerThread

#: A slot that finds message after message without ever waiting gives way to the rest of
#: the process, timers and fetching included, after this long.
_TURN_S = 0.01

#: How often who waits for all other jobs looks at the latest: of two who wait for room, one may miss it.
_LOOK_FOR_ROOM_EVERY_S = 0.2

#: How long a message is held that needs the asyncio loop, if that could not be started.
_NO_LOOP_PAUSE_S = 1.0

#: How a slot's greenlet parts from a message: its verdict was handed over; it runs on the asyncio
#: loop now; something struck the greenlet, which takes no other.
_SETTLED, _ON_LOOP, _SPOILT = range(3)


class Slots:
    """All slots of a worker.

    Parameters:
      runtime(Runtime): The world.
      broker(Broker): For the hooks of the slots' beginning and end.
      processor(Processor): What a slot does with a message.
      count(int): How many there are.
    """

    def __init__(self, runtime: Runtime, broker: Broker, processor: Processor, count: int) -> None:
        self.logger = get_logger(__name__, type(self))
        self.count = count
        self.runtime = runtime
        self.broker = broker
        self.processor = processor
        self.threads: set[WorkerThread] = set()
        #: What coroutines run on; it starts with the first one.
        self.event_loop = EventLoop(runtime)
        self._on_loop: set[AsyncJob] = set()
        self._free = count
        # Greenlets that wait for a message or are on their way to, less messages that wait
        # for a greenlet. Below zero, greenlets are missing.
        self._surplus = 0
        self._number = 0
        #: A greenlet that was made and has not begun.
        self._starting: WorkerThread | None = None
        self._is_short = False
        self._is_closed = False
        #: Whether none is given out, because somebody wants to be alone.
        self.is_shut = False
        self._lock = runtime.lock()
        #: For the slots: messages with those who fetched them, coroutines' jobs that have ended, and None for each
        #: slot that is to end.
        self.ready = runtime.queue()
        self._room = runtime.event()
        self._room_is_awaited = False
        self._all_free = runtime.event()
        self._all_free.set()

    # -- the consumers' side

    @property
    def in_flight(self) -> int:
        """How many messages have been fetched, or are about to be, and not handed over."""
        return self.count - self._free

    def take(self, most: int, timeout_s: float) -> int:
        """Take free slots, at least one and no more than this; 0 if none came free in time.

        Switches if none is free.
        """
        if self._free <= 0 or self.is_shut:
            self._clear_room()
            if self._free <= 0 or self.is_shut:
                self._room.wait(timeout_s)
        with self._lock:
            taken = min(most, self._free)
            if taken <= 0 or self.is_shut:
                return 0
            self._free -= taken
            self._all_free.clear()
            return taken

    def give_back(self, count: int) -> None:
        """Return slots for which there was no message."""
        if not count:
            return
        with self._lock:
            self._free += count
            if self._free == self.count:
                self._all_free.set()
        self._room.set()

    def shut(self) -> bool:
        """Give out no slots until ``reopen``; False if that was so already."""
        with self._lock:
            was_shut, self.is_shut = self.is_shut, True
        return not was_shut

    def reopen(self) -> None:
        """Give out slots again."""
        self.is_shut = False
        self._room.set()

    def wait_until_one(self, timeout_s: float, is_wanted: Callable[[], bool]) -> bool:
        """Wait until no more than one slot is taken; False if it was not in time, or is not wanted any more.

        Switches.
        """
        deadline = time.monotonic() + timeout_s
        while self.in_flight > 1:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not is_wanted():
                return False
            self._clear_room()
            if self.in_flight > 1:
                self._room.wait(min(left_s, _LOOK_FOR_ROOM_EVERY_S))
        return True

    def deliver(self, messages: list[MessageProxy], consumer: ConsumerThread) -> None:
        """Have these messages run, each in a slot that was taken for it."""
        with self._lock:
            self._surplus -= len(messages)
        for message in messages:
            self.ready.put((message, consumer))
        self.make_up()

    def make_up(self) -> None:
        """Start a greenlet if one is missing. To be called now and then: one that cannot be had now is tried again."""
        if self._surplus >= 0 and self._starting is None:
            return
        try:
            with self._lock:
                self._pass_over_the_dead()
                # One at a time, the next by the one that begins: jobs that do not wait, and coroutines on
                # their way to the loop and back, need a greenlet or two however many there are.
                if self._surplus < 0 and self._starting is None and len(self.threads) < self.count:
                    thread = WorkerThread(self, self._number + 1)  # first, because it may fail
                    self._starting = thread
                    self._surplus += 1
                    self._number += 1
                    self._is_short = False
                    self.threads.add(thread)
        except Exception as error:
            if not self._is_short:
                self._is_short = True
                self.logger.error(
                    "No more than %d slots could be started: %r. It is tried again until it works.",
                    len(self.threads),
                    error,
                )

    def _pass_over_the_dead(self) -> None:
        # One that was killed before it began has told nobody.
        thread = self._starting
        if thread is not None and thread.task.has_ended():
            self._starting = None
            self.threads.discard(thread)
            self._surplus -= 1

    def begun(self, thread: WorkerThread) -> None:
        """A slot's greenlet has begun to run."""
        with self._lock:
            if self._starting is thread:
                self._starting = None
        self.make_up()

    def wake(self) -> None:
        """End waits for a free slot."""
        self._room_is_awaited = False
        self._room.set()

    def _clear_room(self) -> None:
        # To be followed by a look at what is free: who frees a slot looks at the mark after that, so one of the two
        # sees what the other has done.
        self._room.clear()
        self._room_is_awaited = True

    # -- the slots' side

    def done(self) -> None:
        """A slot's greenlet has handed its message over and will ask for the next."""
        with self._lock:
            self._surplus += 1
            self._free += 1
            if self._free == self.count:
                self._all_free.set()
        if self._room_is_awaited:
            self.wake()

    def has_loop(self) -> bool:
        """Whether the asyncio loop runs, or could be started now. If not, this takes a while, and switches."""
        try:
            self.event_loop.start()
        except Exception as error:  # no more threads, or files
            self.logger.error("The asyncio loop could not be started, so a message goes back to its queue: %r.", error)
            self.runtime.sleep(_NO_LOOP_PAUSE_S)  # the message is fetched again at once, and may meet the same
            return False
        return True

    def leave_to_the_loop(self, job: AsyncJob, context: contextvars.Context, thread: WorkerThread) -> None:
        """Start a coroutine's job. It keeps the slot; the greenlet will ask for the next message."""
        with self._lock:
            thread.message = None
            self._on_loop.add(job)
            self._surplus += 1
        try:
            job.start(self.event_loop, context, self._bring_back)
        except BaseException:
            with self._lock:
                self._on_loop.discard(job)
                self._surplus -= 1
            raise

    def _bring_back(self, job: AsyncJob) -> None:
        """Have a greenlet finish a job whose coroutine has ended. Called on the loop; does not wait."""
        with self._lock:
            self._surplus -= 1
        self.ready.put(job)
        self.make_up()
        if self._is_closed:
            self.ready.put(None)  # it outlasted its worker; the greenlet made for it must not

    def take_from_the_loop(self, job: AsyncJob, thread: WorkerThread) -> contextvars.Context:
        """A greenlet begins to finish a coroutine's job; in which context."""
        with self._lock:
            self._on_loop.discard(job)
            thread.message, thread.consumer = job.message, job.consumer
        assert job.context is not None
        return job.context

    def ended(self, thread: WorkerThread, *, was_idle: bool) -> None:
        """A slot's greenlet has ended; another is made if there is work for it.

        Parameters:
          was_idle(bool): Whether it was to take another message: it was told to end, or an
            exception that was meant for an earlier job of its reached it.
        """
        with self._lock:
            self.threads.discard(thread)
            if was_idle:
                self._surplus -= 1
        if not self._is_closed:
            self.make_up()

    # -- stopping

    def wait_until_free(self, timeout_s: float | None) -> bool:
        """Wait until no message is in flight; False if there still is one. Switches."""
        return self._all_free.wait(timeout_s)

    def unstarted(self) -> list[tuple[MessageProxy, ConsumerThread]]:
        """Take out what was fetched and waits for a greenlet."""
        with self._lock:
            items = self.ready.drain()
            self._surplus += len(items)
            for item in items:
                if isinstance(item, AsyncJob):
                    self._surplus -= 1
                    self.ready.put(item)  # it has been run already
        return [item for item in items if isinstance(item, tuple)]

    def running(self) -> list[WorkerThread | AsyncJob]:
        """What carries a message now, and can be interrupted."""
        with self._lock:
            threads = [thread for thread in self.threads if thread.message is not None]
            return [*threads, *self._on_loop]

    def close(self, deadline: float) -> None:
        """End the idle slots, and the busy ones once their jobs end.

        Parameters:
          deadline(float): On the monotonic clock, how long to wait for the idle ones.
        """
        self._is_closed = True
        threads = list(self.threads)
        for _ in threads:
            self.ready.put(None)
        for thread in threads:
            if thread.message is None:
                thread.task.join(max(0.0, deadline - time.monotonic()))


class WorkerThread:
    """A slot's greenlet: carries one message after another."""

    def __init__(self, slots: Slots, number: int) -> None:
        self.logger = get_logger(__name__, type(self))
        self.broker = slots.broker
        #: What it carries now, and through whom the verdict goes.
        self.message: MessageProxy | None = None
        self.consumer: ConsumerThread | None = None
        self.guard: Interruptible | None = None
        self._slots = slots
        self.task: Task = slots.runtime.spawn(self._run, name=f"slot {number}")

    def _run(self) -> None:
        slots, ready = self._slots, self._slots.ready
        turn_ends = 0.0
        is_idle = True
        try:
            slots.begun(self)
            self.broker.emit_after("worker_thread_boot", self)
            now = time.monotonic()
            while True:
                is_new_turn = not ready.qsize()
                item: tuple[MessageProxy, ConsumerThread] | AsyncJob | None = ready.get()
                if item is None:
                    break
                is_idle = False
                if is_new_turn:
                    now = time.monotonic()
                    turn_ends = now + _TURN_S
                end = self._finish(item) if isinstance(item, AsyncJob) else self._carry(*item, now)
                del item  # an idle slot keeps nothing of its last message alive
                if end == _SPOILT:
                    slots.give_back(1)
                    break
                if end == _SETTLED:
                    slots.done()
                is_idle = True
                now = time.monotonic()
                if now >= turn_ends:
                    slots.runtime.sleep(0)
                    now = time.monotonic()
                    turn_ends = now + _TURN_S
        finally:
            slots.ended(self, was_idle=is_idle)
            self.broker.emit_before("worker_thread_shutdown", self)

    def _carry(self, message: MessageProxy, consumer: ConsumerThread, now: float) -> int:
        """Carry one message to its verdict, or onto the asyncio loop, from now on; how that ended."""
        # One for each job: whoever interrupts may look at a guard, be held up, and go on when
        # this thread has long had another job.
        slots = self._slots
        self.guard = guard = slots.runtime.guard()
        message._began_at = now
        self.message, self.consumer = message, consumer
        guard.begin(message, message._message.message_id)
        context = contextvars.copy_context()
        try:
            job = context.run(slots.processor.process, message, consumer, guard)
            if job is not None:
                if isinstance(job, LaneJob):
                    self.guard = job
                    job.run(context)
                elif slots.has_loop():
                    slots.leave_to_the_loop(job, context, self)
                    return _ON_LOOP
                else:
                    job.outcome = Outcome(exception=Shutdown())  # it goes back, and no retry is spent
                context.run(slots.processor.finish, job)
        except BaseException as error:
            self._rescue(message, consumer, error)
            return _SPOILT
        finally:
            guard.end()
            self.message = self.consumer = self.guard = None  # an idle slot keeps nothing of its last job alive
        return _SETTLED if guard.interrupted_by is None else _SPOILT

    def _finish(self, job: AsyncJob) -> int:
        """Carry a job that has ended on the asyncio loop to its verdict; how that ended."""
        self.guard = None  # its interrupts went to the loop
        context = self._slots.take_from_the_loop(job, self)
        here = self._slots.runtime.guard()  # of what hooks do from here on
        here.begin(job.message, job.message._message.message_id)
        try:
            context.run(self._slots.processor.finish, job)
        except BaseException as error:
            self._rescue(job.message, job.consumer, error)
            return _SPOILT
        finally:
            here.end()
            self.message = self.consumer = None
        return _SETTLED

    def _rescue(self, message: MessageProxy, consumer: ConsumerThread, error: BaseException) -> None:
        """Come to a verdict on a message whose own way to one was cut off. May switch."""
        # Somebody killed this greenlet, or there is an error in our own code or in a hook (a
        # time-out of its own, say). The message must not stay behind. What is no kill would
        # come again at once, and again, however often the actor succeeds: it is dead.
        inner = message._message
        self.logger.critical(
            "Message %s was cut off outside of its actor.", inner.message_id, exc_info=error, extra=marked(inner)
        )
        if isinstance(error, self._slots.runtime.kills):
            verdict = Verdict(REQUEUE, message)
        else:
            verdict = self._dead(message, consumer, error)
        consumer.completer.hand_over(verdict)

    def _dead(self, message: MessageProxy, consumer: ConsumerThread, error: BaseException) -> Verdict:
        """The verdict on a message that was cut off, with what its death has to tell. Switches: hooks run."""
        reason = f"Cut off outside of its actor: {describe(error)}"
        message.fail(reason)
        if message._exception is None:
            message.stuff_exception(error)
        message._follow_ups = None  # it may have succeeded until then
        try:
            return self._slots.processor.settle(message, consumer.writes_follow_ups)
        except BaseException:  # the same hook again, perhaps
            inner = message._message
            self.logger.critical(
                "The death of message %s could not be told.", inner.message_id, exc_info=True, extra=marked(inner)
            )
            message._closings = None
            return Verdict(NACK, message, reason=reason)
