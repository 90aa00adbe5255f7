"""A broker of each kind, consumers and workers that end with the test."""

from __future__ import annotations

import pytest

import greenq
from greenq.verdict import Envelope

from .brokers import CASES

#: These differ from "redis" and "rabbitmq" in what the server does, so they run where workers live.
ON_GREENLETS = {"redis-tls", "redis cluster", "rabbitmq-quorum"}
#: Where a module's cases are shared out between the worlds, these have the other one.
ON_THREADS = {"redis", "rabbitmq"}


def pytest_collection_modifyitems(items):
    for item in items:
        case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
        if case in ON_GREENLETS:
            too = item.get_closest_marker("on_threads_too")
            if too is None or case not in too.args:
                item.add_marker("greenlets_alone")
        elif case in ON_THREADS and item.get_closest_marker("shared_out") is not None:
            item.add_marker("threads_alone")


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


@pytest.fixture
def broker(request, case, tmp_path):
    marker = request.node.get_closest_marker("orders")
    if marker is not None and case.orders not in ("all", marker.args[0]):
        pytest.skip("this broker does not tell such priorities apart: see its page in docs/")
    with case.open(tmp_path) as broker:
        broker.declare_queue("default")
        if case.before_delays is not None and request.node.get_closest_marker("delays") is not None:
            case.before_delays(broker)
        yield broker


@pytest.fixture
def dead(broker):
    """Reads the dead letters of a queue, oldest first, as (message or payload, reason)."""

    def dead(queue_name="default"):
        letters = broker.dead_letters_of(queue_name).each(oldest_first=True)
        return [(letter.message or letter.payload, letter.reason) for letter in letters]

    return dead


@pytest.fixture
def consume(broker):
    """Opens a consumer."""
    opened = []

    def consume(queue_name="default", *, prefetch=1000, timeout=20_000):
        consumer = broker.consume(queue_name, prefetch=prefetch, timeout=timeout)
        opened.append(consumer)
        return consumer

    yield consume
    for consumer in opened:
        consumer.close()


@pytest.fixture
def consumer(consume):
    return consume()


@pytest.fixture
def put(broker):
    """Stores bytes as they are, as a producer in another language would."""

    def put(payload, queue_name="default"):
        message = greenq.Message(queue_name, "", (), {}, {})
        broker.write([Envelope(message, payload, queue_name, 0, None, None)])

    return put


@pytest.fixture
def start(broker):
    """Starts a worker."""
    started = []

    def start(threads=4):
        worker = greenq.Worker(broker, worker_timeout=100, worker_threads=threads)
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.stop(5000)
