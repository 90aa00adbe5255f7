"""The results of several messages, waited for together."""

from __future__ import annotations

import threading

import pytest

from greenq.errors import ConnectionClosed
from greenq.results import ResultBackend, ResultFailure, ResultMissing, ResultTimeout
from greenq.results.backends import StubBackend
from greenq.stores.values import ValueStore
from tests.support.waiting import PATIENCE_S

LONG = 600_000
PATIENCE_MS = PATIENCE_S * 1000


def test_results_come_in_the_order_of_the_messages_whichever_is_stored_first():
    backend = StubBackend(namespace="order")
    backend.store_result("b", 2, LONG)
    threading.Timer(0.05, backend.store_result, ["a", 1, LONG]).start()

    assert list(backend.get_each(["a", "b", "a"], timeout=PATIENCE_MS)) == [1, 2, 1]


def test_a_failure_among_them_is_told_at_once_whichever_is_waited_for():
    backend = StubBackend(namespace="failure")
    threading.Timer(0.05, backend.store_exception, ["b", ValueError("no"), LONG]).start()

    with pytest.raises(ResultFailure, match="ValueError: no") as caught:
        list(backend.get_each(["a", "b"], timeout=PATIENCE_MS))

    assert caught.value.message_id == "b"


def test_one_time_counts_for_all_of_them():
    backend = StubBackend(namespace="time")
    backend.store_result("a", 1, LONG)
    results = backend.get_each(["a", "b"], timeout=1)

    assert next(results) == 1
    with pytest.raises(ResultTimeout, match="message b came within 1 ms"):
        next(results)


def test_nobody_is_waited_for_any_more_once_one_stops_reading():
    backend = StubBackend(namespace="stops")
    backend.store_result("a", 1, LONG)
    results = backend.get_each(["a", "b"], timeout=PATIENCE_MS)
    assert next(results) == 1

    results.close()

    assert backend.values._bells == {}


def test_a_store_that_is_away_for_a_moment_is_waited_for():
    class Away(ValueStore):
        looks = 0

        def get(self, key):
            self.looks += 1
            if self.looks < 3:
                raise ConnectionClosed("away")
            return b"1"

    assert list(ResultBackend(values=Away()).get_each(["a", "b"], timeout=PATIENCE_MS)) == [1, 1]


def test_a_backend_of_the_reference_gives_results_one_after_the_other():
    class Dict(ResultBackend):
        def get_result(self, message, *, block=False, timeout=None):
            assert block
            if message == "missing":
                raise ResultMissing("none")
            return message.upper()

    results = Dict().get_each(["a", "b", "missing"], timeout=1000)

    assert [next(results), next(results)] == ["A", "B"]
    with pytest.raises(ResultMissing):
        next(results)
