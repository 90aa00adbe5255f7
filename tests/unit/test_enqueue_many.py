"""What a broker says when the connection fails in the middle of many messages."""

from __future__ import annotations

import pytest

import greenq
from greenq.broker import Broker
from greenq.message import Message


class Failing(Broker):
    """Stores portions until the error is due."""

    def __init__(self, error, portions):
        super().__init__(middleware=[])
        self.error, self.portions = error, portions
        self.portions_written = []

    def write(self, envelopes):
        if len(self.portions_written) == self.portions:
            raise self.error
        self.portions_written.append(envelopes)


class FailingReference(Broker):
    """Stores one at a time, as the API reference has it."""

    def __init__(self, error, count):
        super().__init__(middleware=[])
        self.error, self.count = error, count
        self.stored = []

    def enqueue(self, message, *, delay=None):
        if len(self.stored) == self.count:
            raise self.error
        self.stored.append(message)
        return message


def messages(count):
    return [Message("default", "work", (number,), {}, {}) for number in range(count)]


def numbers(some):
    return [each.args[0] for each in some]


def test_a_connection_that_breaks_leaves_its_portion_in_doubt():
    broker = Failing(greenq.ConnectionClosed("cut"), portions=1)

    with pytest.raises(
        greenq.EnqueueManyFailed, match="1000 messages are stored, 1000 may be, 500 are not: cut"
    ) as info:
        broker.enqueue_many(messages(2500))

    assert numbers(info.value.enqueued) == list(range(1000))
    assert numbers(info.value.in_doubt) == list(range(1000, 2000))
    assert numbers(info.value.not_enqueued) == list(range(2000, 2500))


def test_a_broker_that_is_away_leaves_no_doubt():
    broker = Failing(greenq.ConnectionFailed("away"), portions=1)

    with pytest.raises(greenq.EnqueueManyFailed, match="1000 messages are stored, 0 may be, 1500 are not") as info:
        broker.enqueue_many(messages(2500))

    assert info.value.in_doubt == []
    assert numbers(info.value.not_enqueued) == list(range(1000, 2500))


def test_a_portion_is_never_longer_than_8_mib():
    broker = Failing(None, portions=99)

    broker.enqueue_many(Message("default", "work", ("x" * 1_000_000,), {}, {}) for _ in range(20))

    assert [len(portion) for portion in broker.portions_written] == [8, 8, 4]


def test_a_broker_of_the_reference_enqueues_one_by_one():
    broker = FailingReference(greenq.ConnectionClosed("cut"), count=2)

    with pytest.raises(greenq.EnqueueManyFailed) as info:
        broker.enqueue_many(messages(5))

    assert numbers(broker.stored) == numbers(info.value.enqueued) == [0, 1]
    assert numbers(info.value.in_doubt) == [2]
    assert numbers(info.value.not_enqueued) == [3, 4]
