"""A stub broker, and workers that are stopped in the end."""

from __future__ import annotations

import pytest

import greenq
from greenq.brokers.stub import StubBroker


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
