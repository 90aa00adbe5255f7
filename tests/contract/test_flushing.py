"""Queues are emptied."""

from __future__ import annotations

from .fetching import message, nacks, names, take


def test_flush_drops_waiting_delayed_and_dead_messages(broker, consumer, dead):
    broker.enqueue(message("dead"))
    consumer.complete(nacks(take(consumer)))
    broker.enqueue(message("waiting"))
    broker.enqueue(message("delayed"), delay=10)

    broker.flush("default")

    broker.join("default", timeout=5000)
    assert consumer.fetch(10) == []
    assert dead() == []


def test_flush_leaves_other_queues_alone(broker, consume):
    broker.declare_queue("other")
    broker.enqueue(message("kept", queue_name="other"))

    broker.flush("default")

    assert names(take(consume("other"))) == ["kept"]


def test_flush_all_empties_every_queue(broker, consume, dead):
    broker.declare_queue("other")
    broker.enqueue(message("here"))
    broker.enqueue(message("there", queue_name="other"))
    broker.enqueue(message("later", queue_name="other"), delay=10)
    other = consume("other")
    other.complete(nacks(take(other)))

    broker.flush_all()

    assert consume("default").fetch(10) == []
    assert other.fetch(10) == []
    assert dead("other") == []
    broker.join("other", timeout=5000)


def test_a_queue_can_be_used_after_it_was_flushed(broker, consumer):
    broker.flush_all()

    broker.enqueue(message("after"))

    assert names(take(consumer)) == ["after"]
