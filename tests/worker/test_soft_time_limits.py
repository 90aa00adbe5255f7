"""Soft time limits, and how long a job has left."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

import greenq
from greenq.middleware import TimeLimit
from tests.support import lane_actors
from tests.support.waiting import until


class Told(logging.Handler):
    """The warnings of soft time limits."""

    def __init__(self):
        super().__init__()
        self.lines = []
        self._event = threading.Event()

    def emit(self, record):
        if "soft time limit" in record.getMessage():
            self.lines.append(record.getMessage())
            self._event.set()

    def is_set(self):
        return self._event.is_set()


@pytest.fixture
def told():
    told = Told()
    logging.getLogger("greenq").addHandler(told)
    yield told
    logging.getLogger("greenq").removeHandler(told)


def wait_here(told):
    while not told.is_set():
        time.sleep(0.01)


def test_a_job_that_runs_past_its_soft_limit_is_told_of_once_with_its_place(broker, start, told):
    @greenq.actor(broker=broker, max_retries=0, soft_time_limit=50)
    def work():
        wait_here(told)
        time.sleep(0.1)

    message = work.send()
    start()
    broker.join("default", timeout=20_000)

    (warning,) = told.lines
    line = wait_here.__code__.co_firstlineno
    assert f"Message {message.message_id} of actor work still runs after its soft time limit of 50 ms" in warning
    assert any(f"{__file__}:{number} in wait_here" in warning for number in range(line, line + 3))
    assert not broker.dead_letters


def test_a_coroutine_that_runs_past_its_soft_limit_is_told_of_with_its_place(broker, start, told):
    async def wait_there():
        while not told.is_set():
            await asyncio.sleep(0.01)

    @greenq.actor(broker=broker, max_retries=0, soft_time_limit=50)
    async def work():
        await wait_there()

    message = work.send()
    start()
    broker.join("default", timeout=20_000)

    (warning,) = told.lines
    assert message.message_id in warning
    assert f"{__file__}:{wait_there.__code__.co_firstlineno + 2} in wait_there" in warning


def test_a_job_that_ends_before_its_soft_limit_is_not_told_of(broker, start, told):
    @greenq.actor(broker=broker, max_retries=0, soft_time_limit=1000)
    def quick():
        pass

    quick.send()
    worker = start()
    broker.join("default", timeout=20_000)
    until(lambda: not worker.deadlines._heap)  # its time has come

    assert not told.lines


def test_the_limit_follows_the_soft_limit(broker, start, told):
    @greenq.actor(broker=broker, max_retries=0, soft_time_limit=50, time_limit=150)
    def work():
        for _ in range(1000):
            time.sleep(0.01)

    work.send()
    start()
    broker.join("default", timeout=20_000)

    assert len(told.lines) == 1
    assert len(broker.dead_letters) == 1


def test_a_messages_soft_limit_comes_before_the_actors_and_that_before_the_middlewares(broker, start, told):
    broker.middleware = [each for each in broker.middleware if not isinstance(each, TimeLimit)]
    broker.add_middleware(TimeLimit(soft_time_limit=60_000))

    @greenq.actor(broker=broker, max_retries=0, soft_time_limit=50_000)
    def work():
        wait_here(told)

    work.send_with_options(soft_time_limit=30)
    start()
    broker.join("default", timeout=20_000)

    (warning,) = told.lines
    assert "soft time limit of 30 ms" in warning


def test_a_job_without_a_limit_may_have_a_soft_one(broker, start, told):
    @greenq.actor(broker=broker, max_retries=0, time_limit=float("inf"), soft_time_limit=30)
    def work():
        wait_here(told)

    work.send()
    start()
    broker.join("default", timeout=20_000)

    assert len(told.lines) == 1


def test_a_job_sees_how_long_it_has_left(broker, start):
    seen = {}

    @greenq.actor(broker=broker, max_retries=0, time_limit=10_000)
    def plain():
        before = greenq.remaining_ms()
        time.sleep(0.05)
        seen["plain"] = before, greenq.remaining_ms()

    @greenq.actor(broker=broker, max_retries=0, time_limit=10_000)
    async def awaited():
        before = greenq.remaining_ms()
        await asyncio.sleep(0.05)
        seen["awaited"] = before, greenq.remaining_ms()

    @greenq.actor(broker=broker, max_retries=0, time_limit=10_000)
    async def parted():
        async def part():
            return greenq.remaining_ms()

        before = greenq.remaining_ms()
        await asyncio.sleep(0.05)
        seen["parted"] = before, (await asyncio.gather(part()))[0]

    @greenq.actor(broker=broker, max_retries=0, time_limit=10_000)
    async def in_a_thread():
        before = greenq.remaining_ms()
        await asyncio.sleep(0.05)
        seen["in a thread"] = before, await asyncio.to_thread(greenq.remaining_ms)

    for actor in (plain, awaited, parted, in_a_thread):
        actor.send()
    start()
    broker.join("default", timeout=20_000)

    assert len(seen) == 4
    for before, after in seen.values():
        assert isinstance(after, float)
        assert 10_000 >= before >= after + 40


def test_a_job_that_is_past_its_limit_has_nothing_left(broker, start):
    seen = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=50)
    def work():
        try:
            for _ in range(1000):
                time.sleep(0.01)
        finally:
            seen.append(greenq.remaining_ms())

    work.send()
    start()
    broker.join("default", timeout=20_000)

    assert seen == [0.0]


def test_there_is_nothing_left_to_tell_of_outside_of_jobs_and_without_a_limit(broker, start):
    seen = []

    class Hook(greenq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            seen.append(greenq.remaining_ms())

    broker.add_middleware(Hook())

    @greenq.actor(broker=broker, max_retries=0, time_limit=float("inf"))
    def endless():
        seen.append(greenq.remaining_ms())

    @greenq.actor(broker=broker, max_retries=0, time_limit=float("inf"))
    async def awaited():
        seen.append(greenq.remaining_ms())

    endless.send()
    awaited.send()
    start()
    broker.join("default", timeout=20_000)

    assert seen == [None] * 4
    assert greenq.remaining_ms() is None


def test_an_async_actor_that_a_job_calls_in_place_runs_on_the_jobs_time(broker, start):
    seen = []

    @greenq.actor(broker=broker)
    async def inner():
        seen.append(greenq.remaining_ms())

    @greenq.actor(broker=broker, max_retries=0, time_limit=10_000)
    def outer():
        inner()

    outer.send()
    start()
    broker.join("default", timeout=20_000)

    assert 0 < seen[0] <= 10_000


def test_a_coroutine_that_blocks_keeps_its_time_to_itself(broker, start):
    seen, waiting, loops = [], [], []

    async def wait():
        if not loops:
            loops.append((asyncio.get_running_loop(), asyncio.Event()))
        waiting.append(1)
        await loops[0][1].wait()

    @greenq.actor(broker=broker)
    async def inner():
        await wait()
        time.sleep(0)

    @greenq.actor(broker=broker, max_retries=0, time_limit=60_000)
    def outer():
        inner()

    @greenq.actor(broker=broker, max_retries=0, time_limit=float("inf"))
    async def another():
        await wait()
        seen.append(greenq.remaining_ms())

    start()
    outer.send()
    until(lambda: len(waiting) == 1)
    another.send()
    until(lambda: len(waiting) == 2)
    loop, go_on = loops[0]
    loop.call_soon_threadsafe(go_on.set)  # both in one turn of the loop
    broker.join("default", timeout=20_000)

    assert seen == [None]


def test_a_job_in_a_thread_of_its_lane_sees_how_long_it_has_left_and_its_soft_limit_is_told(broker, start, told):
    seen = []

    @greenq.actor(broker=broker, lane="thread", time_limit=10_000, soft_time_limit=50, max_retries=0)
    def work():
        seen.append(greenq.remaining_ms())
        wait_here(told)

    work.send()
    start()
    broker.join("default", timeout=20_000)

    assert 0 < seen[0] <= 10_000
    assert "in wait_here" in told.lines[0] or "in is_set" in told.lines[0]


def test_a_job_in_a_process_that_runs_past_its_soft_limit_is_told_of_with_its_process(told, tmp_path):
    worker = greenq.Worker(lane_actors.broker, concurrency=1)
    worker.start()
    try:
        lane_actors.wait_for_go.send_with_options(args=(str(tmp_path / "held"),), soft_time_limit=50)
        until(lambda: told.lines and (tmp_path / "held").exists() and (tmp_path / "held").read_text())
    finally:
        (tmp_path / "go").touch()
        worker.stop(2000)

    (warning,) = told.lines
    assert f"its soft time limit of 50 ms: in process {(tmp_path / 'held').read_text()}." in warning
