"""Consumers can be used one message at a time, as the API reference has it."""

from __future__ import annotations

import pytest

from .fetching import message, names

# Of the worker and the server, and of nothing that is different in each world.
pytestmark = pytest.mark.shared_out


def test_next_answers_none_when_the_queue_is_idle(consume):
    consumer = consume(timeout=20)

    assert next(consumer) is None
    assert next(consumer) is None


def test_a_consumer_is_its_own_iterator(broker, consumer):
    for number in range(3):
        broker.enqueue(message(number))

    fetched = [each for _, each in zip(range(3), consumer, strict=False)]

    assert names(fetched) == [0, 1, 2]


def test_messages_are_settled_one_at_a_time(broker, consumer, dead):
    for name in ("acked", "nacked", "requeued"):
        broker.enqueue(message(name))
    acked, nacked, requeued = (next(consumer) for _ in range(3))

    consumer.ack(acked)
    nacked.fail()
    consumer.nack(nacked)
    consumer.requeue([requeued])

    assert names(letter for letter, _ in dead()) == ["nacked"]
    assert names([next(consumer)]) == ["requeued"]


def test_a_delayed_message_comes_from_next_when_it_is_due(broker, consumer):
    broker.enqueue(message("later"), delay=30)

    if broker.holds_delays:
        assert names([next(consumer)]) == ["later"]
