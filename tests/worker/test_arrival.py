"""How a worker process waits for a broker that is away at its start: no clock, no server."""

from __future__ import annotations

import math

import pytest

from greenq.broker import Broker
from greenq.errors import BrokerUnusable, ConnectionClosed, ConnectionFailed
from greenq.worker import arrival


class AwayBroker(Broker):
    """Fails to connect with each of these, then succeeds."""

    def __init__(self, *errors):
        super().__init__(middleware=[])
        self.errors = list(errors)
        self.tries = 0

    def connect(self):
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)


class Time:
    """A clock that goes on while somebody sleeps."""

    def __init__(self):
        self.now = 1000.0
        self.pauses = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(arrival, "time", time)
    return time


@pytest.fixture
def connect(time):
    """Connects; returns the failures that were told."""

    def connect(broker, wait_ms):
        told = []
        arrival.connect(broker, wait_ms=wait_ms, runtime=time, tell_waiting=told.append)
        return told

    return connect


def away(times):
    return [ConnectionFailed("away") for _ in range(times)]


def test_a_broker_that_is_there_is_not_waited_for(connect, time):
    assert connect(AwayBroker(), 30_000) == []
    assert time.pauses == []


def test_pauses_grow_to_less_than_half_a_second_and_the_first_failure_is_told(connect, time):
    errors = away(50)
    broker = AwayBroker(*errors)

    told = connect(broker, None)

    assert told == errors[:1]
    assert len(time.pauses) == 50
    assert 0.05 <= time.pauses[0] <= 0.1
    assert max(time.pauses) <= 0.4
    assert len(set(time.pauses[-10:])) > 1  # jitter: a fleet does not come all at once


def test_the_last_try_is_when_the_time_is_over(connect, time):
    broker = AwayBroker(*away(1000))

    with pytest.raises(ConnectionFailed):
        connect(broker, 3000)

    assert math.isclose(sum(time.pauses), 3)
    assert broker.tries == len(time.pauses) + 1


def test_no_time_is_one_try_and_nothing_is_told(connect, time):
    broker = AwayBroker(*away(2))

    with pytest.raises(ConnectionFailed):
        connect(broker, 0)

    assert (broker.tries, time.pauses) == (1, [])


def test_a_connection_that_breaks_is_tried_again(connect):
    broker = AwayBroker(ConnectionClosed("no answer"))

    connect(broker, 30_000)

    assert broker.tries == 2


@pytest.mark.parametrize("wait_ms", [30_000, None])
def test_what_waiting_does_not_mend_is_not_tried_again(connect, wait_ms):
    broker = AwayBroker(*away(1), BrokerUnusable("wrong password"))

    with pytest.raises(BrokerUnusable):
        connect(broker, wait_ms)

    assert broker.tries == 2
