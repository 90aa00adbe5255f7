"""The completer: verdicts are written in batches, whatever the broker does."""

from __future__ import annotations

import logging
import threading

import pytest

import greenq
from greenq.consumer import Consumer, MessageProxy
from greenq.errors import ConnectionClosed
from greenq.message import Message
from greenq.middleware import GroupCallbacks
from greenq.rate_limits.backends import StubBackend
from greenq.runtime import current
from greenq.verdict import Action, Verdict
from greenq.worker.completer import Completer
from greenq.worker.outage import Outage
from tests.support.waiting import PATIENCE_S, happens, until


class Recorder(Consumer):
    def __init__(self, answers=()):
        self.batches = []
        self.answers = list(answers)
        self.may_write = threading.Event()
        self.may_write.set()
        self.writing = threading.Event()

    def complete(self, verdicts):
        self.writing.set()
        self.may_write.wait(PATIENCE_S)
        answer = self.answers.pop(0) if self.answers else ()
        if isinstance(answer, BaseException):
            raise answer
        self.batches.append(list(verdicts))
        return answer(verdicts) if callable(answer) else answer


@pytest.fixture
def make(broker):
    made = []

    def make(consumer, bound=100):
        completer = Completer(current(), broker, "default", bound=bound, outage=Outage(current()))
        completer.consumer = consumer
        made.append((completer, consumer))
        return completer

    yield make
    for completer, consumer in made:
        consumer.may_write.set()
        completer.stop()
        assert completer._task.join(PATIENCE_S)


def acks(count):
    return [Verdict(Action.ACK, MessageProxy(Message("default", "work", (n,), {}, {}))) for n in range(count)]


def test_verdicts_gather_while_a_write_is_under_way(make):
    consumer = Recorder()
    consumer.may_write.clear()
    completer = make(consumer)
    first, *others = acks(10)

    completer.hand_over(first)
    happens(consumer.writing)
    for verdict in others:
        completer.hand_over(verdict)
    consumer.may_write.set()

    assert completer.flush(PATIENCE_S)
    assert consumer.batches == [[first], others]


def test_a_second_verdict_on_a_message_is_dropped(make):
    consumer = Recorder()
    completer = make(consumer)
    (verdict,) = acks(1)

    completer.hand_over(verdict)
    completer.hand_over(Verdict(Action.REQUEUE, verdict.message))

    assert completer.flush(PATIENCE_S)
    assert consumer.batches == [[verdict]]


def test_what_goes_back_to_its_queue_does_not_count_as_done(make):
    done, refused, returned, returned_and_refused = acks(4)
    returned.action = returned_and_refused.action = Action.REQUEUE
    consumer = Recorder(answers=[(), [refused], (), [returned_and_refused]])
    completer = make(consumer)

    for verdict in (done, refused, returned, returned_and_refused):
        completer.hand_over(verdict)
        assert completer.flush(PATIENCE_S)

    assert completer.settled == 1


def test_an_outage_loses_no_verdict_and_is_told_once_at_each_end(make, caplog):
    consumer = Recorder([ConnectionClosed("away"), ConnectionClosed("away"), ConnectionClosed("away")])
    completer = make(consumer)
    verdicts = acks(3)

    with caplog.at_level(logging.INFO):
        for verdict in verdicts:
            completer.hand_over(verdict)
        assert completer.flush(PATIENCE_S)
        completer._outage.close()

    assert [verdict for batch in consumer.batches for verdict in batch] == verdicts
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "INFO"]


def test_an_unwritable_verdict_does_not_hold_up_the_others(make, caplog):
    bad = acks(1)[0]

    class Picky(Recorder):
        def complete(self, verdicts):
            if bad in verdicts:
                raise TypeError("not this one")
            return super().complete(verdicts)

    consumer = Picky()
    completer = make(consumer)
    consumer.may_write.clear()
    first, *others = acks(4)
    completer.hand_over(first)
    happens(consumer.writing)
    for verdict in (others[0], bad, *others[1:]):
        completer.hand_over(verdict)
    consumer.may_write.set()

    assert completer.flush(PATIENCE_S)
    assert [verdict for batch in consumer.batches for verdict in batch] == [first, *others]
    assert "could not be written" in caplog.text


def test_a_refused_verdict_is_told_and_its_after_hook_does_not_run(make, broker, caplog):
    acked = []

    class Watch(greenq.Middleware):
        def after_ack(self, broker, message):
            acked.append(message)
            hooks_ran.set()

    hooks_ran = threading.Event()
    broker.add_middleware(Watch())
    consumer = Recorder([lambda verdicts: [verdicts[0]]])
    completer = make(consumer)
    consumer.may_write.clear()
    kept, refused, accepted = acks(3)
    consumer.answers = [(), lambda verdicts: [refused]]

    completer.hand_over(kept)
    happens(consumer.writing)
    completer.hand_over(refused)
    completer.hand_over(accepted)
    consumer.may_write.set()
    assert completer.flush(PATIENCE_S)
    completer.stop()
    while len(acked) < 2:
        happens(hooks_ran)
        hooks_ran.clear()

    assert [message for message in acked if message is refused.message] == []
    assert refused.message.message_id in caplog.text


def test_whoever_brings_more_verdicts_than_the_bound_waits(make):
    consumer = Recorder()
    consumer.may_write.clear()
    completer = make(consumer, bound=2)
    verdicts = acks(4)
    completer.hand_over(verdicts[0])
    happens(consumer.writing)
    handed_over = []

    def hand_over_the_rest():
        for verdict in verdicts[1:]:
            completer.hand_over(verdict)
            handed_over.append(verdict)

    bringer = threading.Thread(target=hand_over_the_rest)
    bringer.start()
    until(lambda: len(handed_over) == 2)
    bringer.join(0.2)  # time enough for one that does not wait
    assert handed_over == verdicts[1:3]
    consumer.may_write.set()
    bringer.join(PATIENCE_S)

    assert completer.flush(PATIENCE_S)
    assert handed_over == verdicts[1:]


def test_groups_are_counted_without_a_task_for_each_batch_of_acks(make, broker, monkeypatch):
    broker.add_middleware(GroupCallbacks(StubBackend()))
    completer = make(Recorder())
    spawn, spawned, closed = completer._runtime.spawn, [], []

    def note(run, *, name):
        spawned.append(name)
        return spawn(run, name=name)

    monkeypatch.setattr(completer._runtime, "spawn", note)

    for verdict in acks(3):
        completer.hand_over(verdict)
    assert completer.flush(PATIENCE_S)
    assert spawned == []

    (last,) = acks(1)
    last.message._closings = [lambda: 1 / 0, lambda: closed.append(1)]
    completer.hand_over(last)
    assert completer.flush(PATIENCE_S)
    assert spawned == ["after-hooks"]
    assert closed == [1]


@pytest.mark.parametrize("becomes", ["refused", "requeued"])
def test_nothing_is_closed_for_a_message_that_runs_again(make, becomes):
    (verdict,) = acks(1)
    closed = []
    verdict.message._closings = [lambda: closed.append(1)]
    completer = make(Recorder([lambda verdicts: verdicts] if becomes == "refused" else ()))

    completer.hand_over(verdict if becomes == "refused" else Verdict(Action.REQUEUE, verdict.message))

    assert completer.flush(PATIENCE_S)
    assert closed == []


def test_a_verdict_that_cannot_be_written_yet_holds_up_no_other(make):
    class Full(Recorder):
        is_full = True

        def complete(self, verdicts):
            super().complete([each for each in verdicts if each is not stuck or not self.is_full])
            if stuck in verdicts and self.is_full:
                has_failed.set()
                raise ConnectionClosed("full")
            return ()

        def unwritten(self, verdicts):
            return [each for each in verdicts if each is stuck]

    has_failed = threading.Event()
    consumer = Full()
    completer = make(consumer, bound=2)
    stuck, beside, *others = acks(1000)
    consumer.may_write.clear()
    completer.hand_over(stuck)
    completer.hand_over(beside)
    consumer.may_write.set()
    happens(has_failed)

    for verdict in others:
        completer.hand_over(verdict)  # waits while more than two wait
    until(lambda: completer.settled == 999)
    assert not completer.flush(0)
    consumer.is_full = False

    assert completer.flush(PATIENCE_S)
    written = [verdict for batch in consumer.batches for verdict in batch]
    assert sorted(map(id, written)) == sorted(map(id, [stuck, beside, *others]))
    assert completer.settled == 1000
