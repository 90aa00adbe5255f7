"""How much a worker holds, and for what a stop does not wait."""

from __future__ import annotations

import threading
import time

import greenq
from greenq.brokers.stub import StubBroker
from tests.support.waiting import happens, until


def test_a_worker_holds_no_more_messages_of_a_queue_than_its_prefetch(broker, start, monkeypatch):
    monkeypatch.setenv("GREENQ_QUEUE_PREFETCH", "2")
    go = threading.Event()
    running = []

    @greenq.actor(broker=broker)
    def hold(number):
        running.append(number)
        happens(go)

    hold.send_many([(number,) for number in range(5)])
    worker = start(4)
    until(lambda: len(running) == 2)
    counts = broker.queue_counts("default")
    go.set()
    broker.join("default", timeout=20_000)

    assert (counts.ready, counts.reserved) == (3, 2)
    assert worker.jobs_done == 5


class Away(StubBroker):
    """Cannot be consumed."""

    def __init__(self):
        super().__init__()
        self.was_tried = threading.Event()

    def consume(self, queue_name, prefetch=1, timeout=100):
        self.was_tried.set()
        raise greenq.ConnectionFailed("it is away")


def test_a_stop_does_not_wait_for_the_next_try(monkeypatch):
    monkeypatch.setattr("greenq.worker.consumer.pause_s", lambda failures: 3600)
    broker = Away()
    broker.declare_queue("default")
    worker = greenq.Worker(broker)
    worker.start()
    happens(broker.was_tried)
    began = time.monotonic()
    worker.stop(60_000)

    assert time.monotonic() - began < 20
