"""Who joins a worker waits for what it can run."""

from __future__ import annotations

import pytest

import greenq
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker


@pytest.fixture(params=["stub", "sqlite"])
def broker(request, tmp_path):
    broker = StubBroker() if request.param == "stub" else SqliteBroker(tmp_path / "queue.db")
    yield broker
    broker.close()


def test_who_joins_a_worker_that_has_just_started_waits_for_all_that_is_ready(broker, start):
    ran = []
    note = greenq.actor(broker=broker, actor_name="note")(ran.append)
    note.send_many([(number,) for number in range(50)])

    start(4).join()

    assert sorted(ran) == list(range(50))


def test_who_joins_a_paused_worker_does_not_wait_for_what_it_may_not_fetch(broker, start):
    ran = []
    note = greenq.actor(broker=broker, actor_name="note")(ran.append)
    worker = start()
    worker.pause()
    note.send("later")

    worker.join()
    assert ran == []

    worker.resume()
    worker.join()
    assert ran == ["later"]


def test_who_joins_a_worker_does_not_wait_for_delayed_messages(broker, start):
    note = greenq.actor(broker=broker, actor_name="note")(lambda: None)
    note.send_with_options(delay=3_600_000)

    start().join()

    assert broker.queue_counts("default").delayed == 1


def test_who_joins_a_worker_of_some_queues_does_not_wait_for_the_others(broker, start):
    note = greenq.actor(broker=broker, actor_name="note", queue_name="other")(lambda: None)
    note.send()

    start(queues={"default"}).join()

    assert broker.queue_counts("other").ready == 1
