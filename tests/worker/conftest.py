"""A stub broker, and workers that are stopped in the end."""

from __future__ import annotations

import time

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def broker():
    broker = StubBroker(fail_fast_default=False)
    yield broker
    broker.close()


@pytest.fixture
def start(broker):
    workers = []

    def start(concurrency=8, **options):
        worker = greenq.Worker(broker, worker_timeout=100, concurrency=concurrency, **options)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.stop(2000)


@pytest.fixture
def stop_late(monkeypatch):
    """Stops a worker that has jobs as if its time were nearly over: what is left is time enough on any machine."""

    def stop(worker):
        wait = worker.slots.wait_until_free
        waits_s = []

        def wait_until_free(left_s):
            waits_s.append(left_s)
            return len(waits_s) > 1 and wait(left_s)

        monkeypatch.setattr(worker.slots, "wait_until_free", wait_until_free)
        began = time.monotonic()
        worker.stop(2 * PATIENCE_S * 1000)
        assert waits_s[0] <= 2 * PATIENCE_S - 5, "jobs have five seconds to clean up"
        assert time.monotonic() - began < PATIENCE_S, "nothing is waited for once they have"

    return stop
