"""Time limits: who is interrupted, when, and who never is."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time

import pytest

import greenq
from greenq.errors import TimeLimitExceeded
from greenq.runtime import is_patched


def wait_a_long_time():
    # In steps, because a native thread can only be interrupted between two lines of Python.
    for _ in range(2000):
        time.sleep(0.01)


@pytest.mark.in_time
def test_an_actor_is_interrupted_at_its_time_limit(broker, start):
    ended = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=100)
    def work():
        started = time.monotonic()
        try:
            wait_a_long_time()
        finally:
            ended.append(time.monotonic() - started)

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert 0.1 <= ended[0] < 2
    assert [dead.actor_name for dead in broker.dead_letters] == ["work"]


def test_an_except_exception_does_not_swallow_the_interrupt(broker, start):
    swallowed = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=50)
    def work():
        try:
            wait_a_long_time()
        except Exception:
            swallowed.append(1)

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert not swallowed
    assert len(broker.dead_letters) == 1


def test_an_actor_that_swallows_the_interrupt_succeeds_and_a_warning_tells(broker, start, caplog):
    @greenq.actor(broker=broker, max_retries=0, time_limit=50)
    def work():
        with contextlib.suppress(TimeLimitExceeded):
            wait_a_long_time()

    message = work.send()
    with caplog.at_level(logging.WARNING):
        start()
        broker.join("default", timeout=10_000)

    assert not broker.dead_letters
    warnings = [record.getMessage() for record in caplog.records if "Time limit" in record.getMessage()]
    assert len(warnings) == 1
    assert message.message_id in warnings[0]


def test_the_clock_stops_when_the_actor_returns(broker, start):
    hook_ended = threading.Event()

    class SlowHook(greenq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            for _ in range(130):
                time.sleep(0.01)
            hook_ended.set()

    broker.add_middleware(SlowHook())

    @greenq.actor(broker=broker, max_retries=0, time_limit=1000)
    def work():
        pass

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert hook_ended.is_set()
    assert not broker.dead_letters


def test_the_message_option_comes_before_the_actors(broker, start):
    @greenq.actor(broker=broker, max_retries=0, time_limit=60_000)
    def work():
        wait_a_long_time()

    work.send_with_options(time_limit=50)
    start()
    broker.join("default", timeout=10_000)

    assert len(broker.dead_letters) == 1


def test_an_infinite_time_limit_is_none(broker, start):
    broker.middleware = [each for each in broker.middleware if not isinstance(each, greenq.middleware.TimeLimit)]
    broker.add_middleware(greenq.middleware.TimeLimit(time_limit=20))
    ended = threading.Event()

    @greenq.actor(broker=broker, max_retries=0, time_limit=float("inf"))
    def work():
        for _ in range(10):
            time.sleep(0.01)
        ended.set()

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert ended.is_set()


def test_slots_survive_any_number_of_interrupts(broker, start):
    @greenq.actor(broker=broker, max_retries=0, time_limit=10)
    def late():
        time.sleep(random.uniform(0, 0.02))

    together = threading.Barrier(4, timeout=5)

    @greenq.actor(broker=broker, max_retries=0)
    def meet():
        together.wait()

    for _ in range(200):
        late.send()
    start(concurrency=4)
    broker.join("default", timeout=30_000)
    broker.flush_all()

    # All four slots still carry jobs: only so can four of them meet.
    for _ in range(4):
        meet.send()
    broker.join("default", timeout=10_000)
    assert not broker.dead_letters


def test_an_interrupt_never_reaches_the_next_job(broker, start):
    strays = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=5)
    def near_the_limit():
        time.sleep(0.005)

    @greenq.actor(broker=broker, max_retries=0)
    def neighbour():
        try:
            time.sleep(0.002)
        except TimeLimitExceeded:
            strays.append(1)

    for _ in range(300):
        near_the_limit.send()
        neighbour.send()
    start(concurrency=4)
    broker.join("default", timeout=30_000)

    assert not strays
    assert {dead.actor_name for dead in broker.dead_letters} <= {"near_the_limit"}


@pytest.mark.in_time
@pytest.mark.skipif("not __import__('greenq.runtime').runtime.is_patched()", reason="native threads: 64 jobs at most")
def test_a_thousand_jobs_are_interrupted_at_once(broker, start):
    # How exactly is a matter of the benchmark; here only that none is forgotten or far off.
    assert is_patched()
    late_by = []
    together = threading.Event()
    started = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=1000)
    def work():
        begun = time.monotonic()
        started.append(1)
        try:
            together.wait(30)
        finally:
            late_by.append(time.monotonic() - begun - 1)

    for _ in range(1000):
        work.send()
    start(concurrency=1000)
    broker.join("default", timeout=30_000)

    assert len(late_by) == 1000
    assert min(late_by) >= -0.01
    assert sorted(late_by)[989] < 0.5
