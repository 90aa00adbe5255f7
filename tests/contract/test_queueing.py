"""Messages go in and come out: which ones, and in which order."""

from __future__ import annotations

import pytest

import greenq
from greenq.errors import QueueNotFound

from .fetching import message, names, take, take_one


def test_a_message_comes_out_as_it_was_stored(broker, consumer):
    stored = broker.enqueue(greenq.Message("default", "work", (1, "two"), {"three": [3.5, None]}, {"max_retries": 4}))

    fetched = take_one(consumer)

    assert fetched == stored
    assert fetched.message == stored


def test_messages_come_out_in_the_order_in_which_they_were_stored(broker, consumer):
    for number in range(250):
        broker.enqueue(message(number))

    assert names(take(consumer, 250)) == list(range(250))


def test_a_fetch_brings_no_more_than_was_asked_for(broker, consumer):
    for number in range(5):
        broker.enqueue(message(number))

    assert consumer.wait()
    assert len(consumer.fetch(3)) <= 3


def test_a_fetch_from_an_empty_queue_brings_nothing(consumer):
    assert consumer.fetch(10) == []


def test_messages_of_one_queue_do_not_come_out_of_another(broker, consume):
    broker.declare_queue("other")
    broker.enqueue(message("here"))
    broker.enqueue(message("there", queue_name="other"))

    assert names(take(consume("other"))) == ["there"]
    assert names(take(consume("default"))) == ["here"]


def test_messages_that_are_held_by_one_consumer_are_not_given_to_another(broker, consume):
    broker.enqueue(message("only"))
    first, second = consume(), consume()

    take(first)

    assert second.fetch(1) == []


@pytest.mark.orders("all")
def test_a_lower_priority_of_the_actor_comes_first(broker, consumer):
    @greenq.actor(broker=broker, priority=10)
    def late(name):
        pass

    @greenq.actor(broker=broker, priority=-1)
    def early(name):
        pass

    late.send("late 1")
    late.send("late 2")
    early.send("early 1")
    early.send("early 2")
    broker.enqueue(message("between"))

    assert names(take(consumer, 5)) == ["early 1", "early 2", "between", "late 1", "late 2"]


@pytest.mark.orders("raised")
def test_a_higher_broker_priority_comes_first_and_overrides_the_actor(broker, consumer):
    @greenq.actor(broker=broker, priority=-5)
    def work(name):
        pass

    work.send("usual")
    work.send_with_options(args=("behind",), broker_priority=1)
    work.send_with_options(args=("in front",), broker_priority=9)

    assert names(take(consumer, 3)) == ["in front", "usual", "behind"]


@pytest.mark.orders("raised")
def test_a_broker_priority_that_no_broker_can_hold_is_cut(broker, consumer):
    broker.enqueue(message("usual"))
    broker.enqueue(message("first", broker_priority=10**30))
    broker.enqueue(message("last", broker_priority=-(10**30)))

    assert names(take(consumer, 3)) == ["first", "usual", "last"]


def test_several_messages_are_written_in_one_step(broker, consumer):
    broker.write([broker.prepare(message(number)) for number in range(3)])

    assert names(take(consumer, 3)) == [0, 1, 2]


def test_an_undeclared_queue_cannot_be_consumed(broker):
    with pytest.raises(QueueNotFound, match="missing"):
        broker.consume("missing")
