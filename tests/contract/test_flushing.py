"""Queues are emptied, and waited for until they are empty."""

from __future__ import annotations

import threading

import pytest

from greenq.errors import QueueJoinTimeout
from tests.support.waiting import PATIENCE_S

from .fetching import acks, message, nacks, names, take

# Of the worker and the server, and of nothing that is different in each world.
pytestmark = pytest.mark.shared_out


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


def test_join_returns_when_what_was_reserved_is_settled(broker, consumer):
    broker.enqueue(message("reserved"))
    taken = take(consumer)
    settling = threading.Timer(0.1, lambda: consumer.complete(acks(taken)))

    settling.start()
    broker.join("default", interval=5, timeout=PATIENCE_S * 1000)

    counts = broker.queue_counts("default")
    assert (counts.ready, counts.reserved or 0, counts.delayed) == (0, 0, 0)
    settling.join()


def test_join_gives_up_after_its_timeout(broker):
    broker.enqueue(message("delayed"), delay=60_000)

    with pytest.raises(QueueJoinTimeout):
        broker.join("default", interval=5, timeout=20)
