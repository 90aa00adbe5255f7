"""A rate limiter backend of somebody else's, which knows only what the API reference asks for."""

from __future__ import annotations

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from greenq.middleware import GroupCallbacks
from greenq.rate_limits import RateLimiterBackend

LONG = 600_000


class Counting(RateLimiterBackend):
    """Counts in a dict, and nothing else."""

    def __init__(self):
        self.counters = {}

    def add(self, key, value, ttl):
        if key in self.counters:
            return False
        self.counters[key] = value
        return True

    def incr(self, key, amount, maximum, ttl):
        if self.counters.get(key, 0) + amount > maximum:
            return False
        self.counters[key] = self.counters.get(key, 0) + amount
        return True

    def decr(self, key, amount, minimum, ttl):
        if key not in self.counters or self.counters[key] - amount < minimum:
            return False
        self.counters[key] -= amount
        return True


class CountingFromNothing(Counting):
    """One to which a key that does not exist is 0, also when something is taken from it."""

    def decr(self, key, amount, minimum, ttl):
        if self.counters.get(key, 0) - amount < minimum:
            return False
        self.counters[key] = self.counters.get(key, 0) - amount
        return True


@pytest.fixture(params=[Counting, CountingFromNothing])
def backend(request):
    return request.param()


@pytest.mark.parametrize("parties", [1, 2, 5])
def test_the_last_to_arrive_is_told_each_time_and_nobody_else_is(backend, parties):
    members = [str(number) for number in range(parties)]

    assert [backend.arrive("key", each, parties, LONG) for each in members] == [*[False] * (parties - 1), True]
    assert [backend.arrive("key", each, parties, LONG) for each in members] == [*[False] * (parties - 1), True]


def test_a_member_that_arrives_again_counts_once(backend):
    assert [backend.arrive("key", each, 2, LONG) for each in "aaab"] == [False, False, False, True]


def test_nobody_is_the_last_beyond_the_number_of_parties(backend):
    assert [backend.arrive("key", each, 2, LONG) for each in "abcd"] == [False, True, False, False]


def test_groups_are_counted_with_it(backend):
    broker = StubBroker()
    broker.add_middleware(GroupCallbacks(backend))
    told = []

    @greenq.actor(broker=broker, max_retries=0)
    def work(fails):
        assert not fails

    @greenq.actor(broker=broker)
    def note(what):
        told.append(what)

    for fails in (False, True):
        inner = greenq.group([work.message(fails), work.message(False)], broker=broker)
        outer = greenq.group([inner, work.message(False)], broker=broker)
        outer.add_completion_callback(note.message(("success", fails)))
        outer.add_completion_callback(note.message(("always", fails)), on="always")
        outer.run()
    worker = greenq.Worker(broker, worker_timeout=100)
    worker.start()
    try:
        broker.join("default", timeout=10_000, fail_fast=False)
    finally:
        worker.stop(5000)

    assert sorted(told) == [["always", False], ["always", True], ["success", False]]
