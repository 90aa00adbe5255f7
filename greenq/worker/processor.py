"""Turns a fetched message into a verdict: ack, nack or requeue.

Knows actors and middleware. Does not know which broker the message came from, nor how a
verdict reaches it: see completer.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..actor import Actor
from ..broker import Broker
from ..consumer import MessageProxy, without_eta
from ..errors import (
    ActorNotFound,
    MessageTooLarge,
    MiddlewareError,
    QueueNotFound,
    RateLimitExceeded,
    Retry,
    Shutdown,
    SkipMessage,
    TimeLimitExceeded,
    describe,
)
from ..failures import drop_notes, keep_failure, note_failure, without_notes_of_told
from ..logging import get_logger
from ..message import Message
from ..middleware.retries import expected_exceptions
from ..runtime import Guard, Interruptible, Runtime
from ..verdict import ACK, NACK, REQUEUE, Action, Envelope, Verdict
from .async_jobs import AsyncJob
from .deadlines import Deadlines
from .job_marks import marked
from .lanes import LaneJob, Lanes
from .outcome import Outcome
from .watch import Watch

if TYPE_CHECKING:
    from .consumer import ConsumerThread


#: What ``broker.enqueue`` raises if it would do so at every try; what else it raises, a server may
#: have caused. ``prepare`` asks no server: whatever it raises (an encoder may raise anything), it
#: will raise again.
_REFUSALS = (MiddlewareError, MessageTooLarge, QueueNotFound, TypeError, ValueError)

#: Between two jobs that were interrupted; see _wait_for_a_turn.
_TURN_AFTER_INTERRUPT_S = 0.0005


class Processor:
    """Carries one message at a time from fetch to verdict, in the slot that calls it."""

    def __init__(self, runtime: Runtime, broker: Broker, deadlines: Deadlines, lanes: Lanes, watch: Watch) -> None:
        self.logger = get_logger(__name__, type(self))
        self._runtime = runtime
        self._next_turn = 0.0
        #: Whether the jobs that want to know have been told that their worker stops: the next ones do not begin.
        self.has_told_shutdown = False
        self._broker = broker
        #: As they were when the latest job began: a look at them for each job, not for each hook.
        self._hooks = broker.hooks_by_name()
        self._deadlines = deadlines
        self._lanes = lanes
        self._watch = watch

    def process(self, message: MessageProxy, consumer: ConsumerThread, guard: Guard) -> AsyncJob | LaneJob | None:
        """Run a message's actor and hand its verdict over. Switches when the actor does.

        A coroutine is not run here, nor is an actor that has a lane: it is returned as a job that
        is ready to start, for which ``finish`` is called once it has ended.
        """
        self._hooks = self._broker.hooks_by_name()
        actor = self.resolve(message)
        if actor is not None:
            outcome = self.announce(message)
            if self.has_told_shutdown and message.notify_shutdown and outcome is None:
                message.give_back()
                outcome = Outcome(exception=Shutdown())
            if outcome is None:
                if actor.is_coroutine:
                    return AsyncJob(message, consumer, actor, self._deadlines)
                if actor.lane != "greenlet":
                    job = self._lanes.job(message, consumer, actor)
                    if job is not None:
                        return job
                outcome = self.perform(message, actor, guard)
                if self._watch.fails_blockers:
                    outcome = self._watch.outcome_of(guard, outcome)
            self.judge(message, actor, outcome, guard)
        consumer.completer.hand_over(self.settle(message, consumer.writes_follow_ups))
        return None

    def finish(self, job: AsyncJob | LaneJob) -> None:
        """Hand over the verdict on a job that has run on the asyncio loop, or in a lane. May switch: hooks run here."""
        self._hooks = self._broker.hooks_by_name()
        outcome = job.take_outcome()
        if self._watch.fails_blockers:
            outcome = self._watch.outcome_of(job, outcome)
        self.judge(job.message, job.actor, outcome, job)
        job.consumer.completer.hand_over(self.settle(job.message, job.consumer.writes_follow_ups))

    # -- resolve

    def resolve(self, message: MessageProxy) -> Actor[Any, Any] | None:
        """The message's actor; None, with the message marked as failed, if it cannot run."""
        if message.failed:
            return None  # its broker has given it up
        inner = message._message
        try:
            actor = self._broker.get_actor(inner.actor_name)
        except ActorNotFound as error:
            self.logger.error("Message %s cannot run: %s", inner.message_id, error, extra=marked(inner))
            message.stuff_exception(error)
            message.fail(str(error))
            return None
        problem = self._lanes.problem_with(actor) if actor.lane == "process" else None
        if inner.options or problem is not None:
            problem = problem or wrong_option(inner, self._broker)
            if problem is not None:
                self.logger.error(
                    "Message %s of actor %s cannot run: %s",
                    inner.message_id,
                    inner.actor_name,
                    problem,
                    extra=marked(inner),
                )
                message.stuff_exception(TypeError(problem))
                message.fail(problem)
                return None
        return actor

    # -- perform

    def announce(self, message: MessageProxy) -> Outcome | None:
        """Announce the message to the middleware; the outcome if that forbids to run it."""
        # What Broker.emit_before does, here and in judge() as plain calls: passing any arguments on took a
        # sixth of a short job's time.
        broker = self._broker
        for hook in self._hooks["before_process_message"]:
            try:
                hook(broker, message)
            except SkipMessage as error:
                return Outcome(skipped_by=error)
            except MiddlewareError as error:
                return Outcome(exception=error)
            except Exception:
                broker.log_failed_hook(hook)
        return Outcome() if message.failed else None

    def perform(self, message: MessageProxy, actor: Actor[Any, Any], guard: Guard) -> Outcome:
        """Run the actor."""
        # The clock runs while the actor does and no longer: hooks, retries and acks are never
        # interrupted. Nothing of ours is inside the guard, where an interrupt could strike it
        # with a lock held.
        inner = message._message
        deadline = None
        try:
            deadline = self._deadlines.start(guard, message.time_limit_ms, message.soft_time_limit_ms)
            return Outcome(actor.run_guarded(guard.run, inner.args, inner.kwargs))
        except BaseException as error:
            return Outcome(exception=error)
        finally:
            if deadline is not None:
                self._deadlines.stop(deadline)

    # -- judge

    def judge(self, message: MessageProxy, actor: Actor[Any, Any], outcome: Outcome, guard: Interruptible) -> None:
        """Tell the middleware how it went; what it decides is kept on the message."""
        exception = outcome.exception
        if guard.interrupted_by is not None:
            self._wait_for_a_turn()
            exception = self._note_interrupt(message, guard.interrupted_by, exception)
        if outcome.skipped_by is not None:
            if message.failed:
                message.stuff_exception(outcome.skipped_by)
            self.logger.warning("Message %s was skipped.", message._message.message_id)
            self._broker.emit_after("skip_message", message)
        elif exception is None:
            message._has_succeeded = not message.failed
            broker, result = self._broker, outcome.result
            for hook in self._hooks["after_process_message"]:
                try:
                    hook(broker, message, result=result)
                except Exception:
                    broker.log_failed_hook(hook)
        else:
            message.stuff_exception(exception)
            self._log_failure(message._message, actor, exception)
            self._broker.emit_after("process_message", message, exception=exception)
            if isinstance(exception, Shutdown) and not message.failed and message._released is None:
                message._is_interrupted = True

    def _wait_for_a_turn(self) -> None:
        # A thousand jobs may reach their limits within a moment. What comes after an interrupt
        # (a traceback, a retry) takes a few times as long as the interrupt itself, so one
        # after the other, with turns of the hub in between in which the next are interrupted.
        now = time.monotonic()
        self._next_turn = max(now, self._next_turn + _TURN_AFTER_INTERRUPT_S)
        self._runtime.sleep(self._next_turn - now)

    def _note_interrupt(
        self, message: MessageProxy, interrupt: type[BaseException], exception: BaseException | None
    ) -> BaseException | None:
        inner = message._message
        if interrupt is TimeLimitExceeded:
            self.logger.warning(
                "Time limit of %s ms exceeded in message %s of actor %s.",
                message.time_limit_ms,
                inner.message_id,
                inner.actor_name,
            )
        elif exception is not None and not isinstance(exception, Shutdown):
            # Whatever its clean-up raised: it ended because its worker stops.
            shutdown = Shutdown()
            shutdown.__cause__ = exception
            return shutdown
        return exception

    def _log_failure(self, message: Message[Any], actor: Actor[Any, Any], exception: BaseException) -> None:
        level, with_traceback = logging.ERROR, True
        if isinstance(exception, Retry):
            return
        if isinstance(exception, Shutdown):
            level, with_traceback = logging.INFO, False
        elif isinstance(exception, RateLimitExceeded):
            level, with_traceback = logging.DEBUG, False
        elif isinstance(exception, expected_exceptions(message, actor)):
            level, with_traceback = logging.INFO, False
        elif isinstance(exception, TimeLimitExceeded):
            level, with_traceback = logging.DEBUG, True  # the warning has been given already
        self.logger.log(
            level,
            "Message %s of actor %s failed: %s",
            message.message_id,
            message.actor_name,
            describe(exception),
            exc_info=exception if with_traceback else None,
        )

    # -- settle

    def settle(self, message: MessageProxy, writes_follow_ups: bool) -> Verdict:
        """The verdict on a message, with what follows from it. May switch: hooks run here."""
        if message._is_interrupted or message._is_given_back:
            return Verdict(REQUEUE, message)
        if (
            not (message.failed or message._follow_ups or self._hooks["before_ack"])
            and message._exception is None
            and message._released is None
        ):
            return Verdict(ACK, message)  # as nearly all are
        if message._exception is not None and (message.failed or message._released is not None):
            note_failure(message, message._exception)
        try:
            retry = self._retry(message, writes_follow_ups) if writes_follow_ups else []
            follow_ups = self._follow_ups(message, writes_follow_ups)
            if not message.failed:  # there is no retry of what died because the rest was refused
                follow_ups = retry + follow_ups
            action = self._announce_verdict(message)
            if _goes_back(message):
                return Verdict(REQUEUE, message)
            # The hooks that were just called may want some as well.
            follow_ups += self._follow_ups(message, writes_follow_ups)
            if not writes_follow_ups:
                # It is sent at once, so after all that may still fail the message or have it go back.
                self._retry(message, writes_follow_ups)
            if message.failed and action is ACK:
                # It died of those, so nothing follows from its success.
                action = self._announce_verdict(message)
                if _goes_back(message):
                    return Verdict(REQUEUE, message)
                follow_ups = self._follow_ups(message, writes_follow_ups)
        except Exception as error:
            # The broker takes nothing: never an ack without what follows from it.
            self.logger.error(
                "What follows from message %s could not be enqueued, so it goes back to its queue: %r",
                message._message.message_id,
                error,
            )
            return Verdict(REQUEUE, message)
        reason = message.reason_of_death() if message.failed else None
        return Verdict(action, message, follow_ups=follow_ups or None, reason=reason)

    def _announce_verdict(self, message: MessageProxy) -> Action:
        if message.failed:
            self._broker.emit_before("nack", message)
            return NACK
        self._broker.emit_before("ack", message)
        return ACK

    def _retry(self, message: MessageProxy, writes_follow_ups: bool) -> list[Envelope]:
        if message._released is None or message.failed:
            return []
        keep_failure(message)
        return self._enqueue([(without_eta(message._message), message._released, True)], message, writes_follow_ups)

    def _follow_ups(self, message: MessageProxy, writes_follow_ups: bool) -> list[Envelope]:
        wanted, message._follow_ups = message._follow_ups, None
        return self._enqueue(wanted, message, writes_follow_ups) if wanted else []

    def _enqueue(
        self, wanted: list[tuple[Message[Any], int | None, bool]], message: MessageProxy, writes_follow_ups: bool
    ) -> list[Envelope]:
        """What is to be written with the verdict; nothing, with the message failed, if the broker refuses it."""
        envelopes: list[Envelope] = []
        for each, delay, is_required in wanted:
            try:
                if writes_follow_ups:
                    envelopes.append(self._prepare(each, delay, tells=not is_required))
                else:
                    self._broker.enqueue(each, delay=delay)
            except Exception as error:
                if not (writes_follow_ups or isinstance(error, _REFUSALS)):
                    raise
                # It will be refused at every try, so the message itself must not end as done, nor
                # run again at once.
                self.logger.warning(
                    "A message that follows from %s was refused: %r", message._message.message_id, error
                )
                if is_required and not message.failed:
                    message.fail(f"What follows from it was refused: {describe(error)}")
                    return []
        return envelopes

    def _prepare(self, message: Message[Any], delay: int | None, *, tells: bool) -> Envelope:
        while True:
            try:
                return self._broker.prepare(message, delay=delay)
            except MessageTooLarge:
                if drop_notes(message.options):
                    continue
                shorter = without_notes_of_told(message) if tells else None
                if shorter is None:
                    raise
                message = shorter


def _goes_back(message: MessageProxy) -> bool:
    return message._is_interrupted or message._is_given_back


def wrong_option(message: Message[Any], broker: Broker) -> str | None:
    """What is wrong with the message's options; None if nothing is.

    Messages come from other programs too: an option of a type that a middleware does not
    expect would raise in its hooks, where it would be logged and passed over.
    """
    for declares in (broker, *broker.middleware):
        types: Mapping[str, tuple[type, ...]] = getattr(declares, "message_option_types", {})
        for name, expected in types.items():
            if name in message.options and not isinstance(message.options[name], expected):
                names = " or ".join("null" if each is type(None) else each.__name__ for each in expected)
                return f"Its option {name} is {message.options[name]!r:.80} instead of {names}."
    return None
