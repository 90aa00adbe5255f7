"""Waiting for messages: what ends it, and what it holds in the meantime."""

from __future__ import annotations

import threading
import time

from tests.support.waiting import beside

from .fetching import acks, message, names, requeues, take


def test_a_wait_ends_at_once_if_there_is_something(broker, consumer):
    broker.enqueue(message(1))

    assert consumer.wait()


def test_a_wait_ends_when_the_consumers_timeout_has_passed(consume):
    consumer = consume(timeout=30)
    assert consumer.fetch(1) == []

    assert not consumer.wait()


def test_a_wait_is_ended_by_a_message_from_another_thread(broker, consumer):
    assert consumer.fetch(1) == []
    started = time.monotonic()

    with beside(broker.enqueue, message("from another thread")):
        arrived = consumer.wait()

    assert arrived
    assert time.monotonic() - started < 10
    assert names(take(consumer)) == ["from another thread"]


def test_a_wait_is_ended_by_wake(consumer):
    assert consumer.fetch(1) == []
    started = time.monotonic()

    with beside(consumer.wake):
        found = consumer.wait()

    assert not found
    assert time.monotonic() - started < 10


def test_a_wait_holds_nothing(broker, consume):
    broker.enqueue(message("for either"))
    first, second = consume(), consume()

    assert first.wait()

    assert names(take(second)) == ["for either"]


def test_a_wait_is_ended_by_a_message_that_another_consumer_returns(broker, consume):
    broker.enqueue(message("returned"))
    first, second = consume(), consume()
    held = take(first)
    assert second.fetch(1) == []

    with beside(first.complete, requeues(held)):
        assert second.wait()

    assert names(take(second)) == ["returned"]


def test_messages_from_many_threads_all_arrive(broker, consumer):
    def enqueue(thread):
        for number in range(50):
            broker.enqueue(message((thread, number)))

    threads = [threading.Thread(target=enqueue, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    fetched = take(consumer, 100)
    consumer.complete(acks(fetched))
    fetched += take(consumer, 100)
    for thread in threads:
        thread.join()

    assert sorted(map(tuple, names(fetched))) == [(thread, number) for thread in range(4) for number in range(50)]
