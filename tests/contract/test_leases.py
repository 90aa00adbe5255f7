"""What a process is told of its lease, before and after it consumes."""

from __future__ import annotations

import pytest

from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker

from .brokers import CASES
from .fetching import message, names, take


@pytest.fixture(params=[name for name in CASES if name != "stub" and not name.startswith("rabbitmq")])
def case(request):
    return CASES[request.param]


def test_a_lease_can_be_set_while_messages_are_enqueued(broker, consume):
    broker.enqueue(message("before"))

    broker.set_lease(2000)
    broker.enqueue(message("after"))

    assert broker.lease_ms == 2000
    assert names(take(consume(), 2)) == ["before", "after"]


def test_a_lease_cannot_be_set_once_something_is_consumed(broker, consumer):
    before = broker.lease_ms

    with pytest.raises(RuntimeError, match="connected as a worker already"):
        broker.set_lease(2000)

    assert broker.lease_ms == before


def test_a_lease_cannot_be_set_once_the_broker_is_connected_as_a_worker(broker):
    broker.connect()

    with pytest.raises(RuntimeError, match="connected as a worker already"):
        broker.set_lease(2000)


def test_a_broker_without_leases_says_so():
    with pytest.raises(ValueError, match="StubBroker has no leases"):
        StubBroker().set_lease(2000)


@pytest.mark.parametrize("kind", [RedisBroker, SqliteBroker])
def test_a_lease_that_is_too_short_is_refused(kind):
    with pytest.raises(ValueError, match="heartbeat_timeout of 99 ms is too short: give 100 or more"):
        kind(heartbeat_timeout=99)
    with pytest.raises(ValueError, match="lease of 99 ms is too short: give 100 or more"):
        kind().set_lease(99)
