"""Messages whose actors fail are tried again, until they succeed or are given up."""

from __future__ import annotations

import logging
import threading
import time

import pytest

import greenq
from tests.support.waiting import happens

from .fetching import names

# Of the worker and the server, and of nothing that is different in each world.
pytestmark = pytest.mark.shared_out

JOIN = {"timeout": 20_000}


def test_a_failing_message_is_tried_again_until_it_succeeds(broker, start, dead):
    attempts = []

    @greenq.actor(broker=broker, min_backoff=1, max_backoff=10)
    def work():
        attempts.append(1)
        if len(attempts) < 4:
            raise RuntimeError("not yet")

    work.send()
    start()
    broker.join("default", **JOIN)

    assert len(attempts) == 4
    assert dead() == []


def test_a_retry_waits_at_least_as_long_as_its_backoff(broker, start):
    attempts = []

    @greenq.actor(broker=broker, min_backoff=80, max_retries=2)
    def work():
        attempts.append(time.monotonic())
        if len(attempts) < 3:
            raise RuntimeError("not yet")

    work.send()
    start()
    broker.join("default", **JOIN)

    first, second, third = attempts
    assert second - first >= 0.079
    assert third - second >= 0.159


def test_a_message_that_used_up_its_retries_is_a_dead_letter(broker, start, dead):
    attempts = []

    @greenq.actor(broker=broker, max_retries=3, min_backoff=1, max_backoff=5)
    def work():
        attempts.append(1)
        raise RuntimeError("never")

    sent = work.send()
    start()
    broker.join("default", **JOIN)

    assert len(attempts) == 4
    ((letter, reason),) = dead()
    assert letter.message_id == sent.message_id
    assert letter.options["retries"] == 4
    assert "RuntimeError: never" in letter.options["traceback"]
    assert reason == "RuntimeError: never"


def test_a_message_without_retries_fails_at_once(broker, start, dead):
    attempts = []

    @greenq.actor(broker=broker, max_retries=5)
    def work():
        attempts.append(1)
        raise RuntimeError("never")

    work.send_with_options(max_retries=0)
    start()
    broker.join("default", **JOIN)

    assert len(attempts) == 1
    assert len(dead()) == 1


def test_a_retry_raised_by_the_actor_comes_after_its_own_delay(broker, start):
    attempts = []
    again = threading.Event()

    @greenq.actor(broker=broker, min_backoff=600_000)
    def work():
        attempts.append(1)
        if len(attempts) == 1:
            raise greenq.Retry("later", delay=10)
        again.set()

    work.send()
    start()

    happens(again)


@pytest.mark.parametrize("delay", [-1, 0, 0.5, float("nan"), "soon"], ids=repr)
def test_a_retry_with_a_strange_delay_neither_loses_nor_spins(broker, start, dead, delay):
    attempts = []

    @greenq.actor(broker=broker, max_retries=2, min_backoff=1, max_backoff=5)
    def work():
        attempts.append(1)
        raise greenq.Retry("again", delay=delay)

    work.send()
    start()
    broker.join("default", **JOIN)

    assert 1 <= len(attempts) <= 3
    assert len(dead()) == 1


def test_an_exception_that_the_actor_throws_on_purpose_is_not_tried_again(broker, start, dead, caplog):
    attempts = []

    @greenq.actor(broker=broker, throws=(ValueError, KeyError))
    def work():
        attempts.append(1)
        raise ValueError("as expected")

    work.send()
    with caplog.at_level(logging.INFO, logger="greenq"):
        start()
        broker.join("default", **JOIN)

    assert len(attempts) == 1
    ((letter, reason),) = dead()
    assert "retries" not in letter.options
    assert reason == "ValueError: as expected"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_retry_when_decides_instead_of_the_number_of_retries(broker, start, dead):
    asked = []

    def retry_when(failures, exception):
        asked.append((failures, type(exception)))
        return failures < 2

    @greenq.actor(broker=broker, max_retries=0, retry_when=retry_when, min_backoff=1, max_backoff=5)
    def work():
        raise RuntimeError("no")

    work.send()
    start()
    broker.join("default", **JOIN)

    assert asked == [(0, RuntimeError), (1, RuntimeError), (2, RuntimeError)]
    assert len(dead()) == 1


def test_a_retry_when_that_raises_makes_a_dead_letter(broker, start, dead):
    def retry_when(failures, exception):
        raise KeyError("a mistake in it")

    @greenq.actor(broker=broker, retry_when=retry_when)
    def work():
        raise RuntimeError("no")

    work.send()
    start()
    broker.join("default", **JOIN)

    assert [reason for _, reason in dead()] == ["RuntimeError: no"]


def test_an_exhausted_message_is_told_to_the_actor_that_asked(broker, start):
    told = []

    @greenq.actor(broker=broker)
    def exhausted(message, retries):
        told.append((message, retries))

    @greenq.actor(broker=broker, max_retries=1, min_backoff=1, on_retry_exhausted="exhausted")
    def work(name):
        raise RuntimeError("no")

    sent = work.send("given up")
    start()
    broker.join("default", **JOIN)

    ((message, retries),) = told
    assert message["message_id"] == sent.message_id
    assert message["args"] == ["given up"]
    assert retries == {"retries": 1, "max_retries": 1}


def test_an_exhausted_message_is_dead_even_if_the_actor_to_tell_is_unknown(broker, start, dead):
    @greenq.actor(broker=broker, max_retries=0, on_retry_exhausted="nobody")
    def work():
        raise RuntimeError("no")

    work.send()
    start()
    broker.join("default", **JOIN)

    assert len(dead()) == 1


def test_retries_come_back_to_their_place_in_the_order_of_priority(broker, start):
    ran = []

    @greenq.actor(broker=broker, min_backoff=1, max_backoff=2)
    def work(name):
        ran.append(name)
        if ran.count(name) == 1:
            raise RuntimeError("once")

    for name in ("a", "b"):
        work.send(name)
    start(threads=1)
    broker.join("default", **JOIN)

    assert sorted(ran) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("value", [float("nan"), -5, -(10**9)], ids=repr)
def test_a_backoff_that_makes_no_sense_loses_nothing(broker, start, dead, value):
    attempts = []

    @greenq.actor(broker=broker, max_retries=1)
    def work(name):
        attempts.append(name)
        raise RuntimeError("no")

    work.send_with_options(args=("kept",), min_backoff=value, max_backoff=5)
    start()
    broker.join("default", **JOIN)

    assert names(letter for letter, _ in dead()) == ["kept"]
    assert len(attempts) <= 2
