"""Who keeps the others waiting: found, told, counted, and made to fail in test suites."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import threading
import time

import pytest

import greenq
from greenq import shared_page
from greenq.cpu import cpu
from greenq.shared_page import SharedPage
from tests.support.waiting import until

pytestmark = [
    pytest.mark.timeout(120, method="thread"),  # pytest-timeout's other method has SIGALRM for itself
    pytest.mark.skipif(
        "not __import__('greenq.runtime').runtime.is_patched()", reason="about greenlets; runs where gevent has patched"
    ),
]


def spin(seconds):
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        pass


def match(seconds):
    """Hold the interpreter for some time at least, in C code."""
    length = 20
    while True:
        began = time.monotonic()
        re.match(r"(a+)+$", "a" * length + "b")
        if time.monotonic() - began >= seconds:
            return
        length += 1


class Lines(logging.Handler):
    """What the watch logs."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    def of(self, text):
        return [line for line in self.lines if text in line]


def native_waitpid(pid, options):
    """Wait without a switch."""
    from gevent.monkey import get_original

    get_original("os", "waitpid")(pid, options)


@pytest.fixture
def log():
    lines = Lines()
    logger = logging.getLogger("greenq.worker.watch")
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)


@pytest.fixture
def watched(broker):
    """Starts a worker with a watch as a worker process has it."""
    workers = []

    def start(concurrency=8, **attributes):
        worker = greenq.Worker(broker, worker_timeout=100, concurrency=concurrency)
        worker.watch.block_warn_ms = 200
        for name, value in attributes.items():
            setattr(worker.watch, name, value)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.watch.page = None  # for which its thread would go on
        worker.stop(2000)


@pytest.fixture
def page():
    fd = shared_page.make()
    yield SharedPage(fd)
    os.close(fd)


def place(function, offset):
    return f"{__file__}:{function.__code__.co_firstlineno + offset} in {function.__name__}"


def test_a_job_that_spins_is_named_with_its_line_and_for_how_long(broker, watched, log):
    @greenq.actor(broker=broker)
    def work():
        spin(0.5)

    message = work.send()
    watched()
    until(lambda: log.of("kept the CPU"))

    (line,) = log.of("kept the CPU")
    found = re.match(rf"Message {message.message_id} of actor work kept the CPU for (\d+) ms: at (.+ in spin)\.", line)
    assert found, line
    assert int(found[1]) >= 500
    assert found[2] in [place(spin, 2), place(spin, 3)]


def test_a_job_that_holds_the_interpreter_is_named(broker, watched, log):
    @greenq.actor(broker=broker)
    def work():
        match(0.4)

    sent = [work.send()]
    watched()

    def is_named():
        if log.of("of actor work kept the CPU for"):
            return True
        if not any(broker.queue_counts("default")[:2]):
            # It is missed if the system gave the watch's thread no turn while it lasted: another one.
            sent.append(work.send())
        return False

    until(is_named)
    (line, *_) = log.of("of actor work kept the CPU for")
    assert any(message.message_id in line for message in sent)


def test_a_coroutine_that_spins_is_named_and_not_its_neighbours(broker, watched, log):
    @greenq.actor(broker=broker)
    async def guilty():
        await asyncio.sleep(0.01)
        spin(0.5)

    @greenq.actor(broker=broker)
    async def neighbour():
        for _ in range(20):
            await asyncio.sleep(0.01)

    for _ in range(10):
        neighbour.send()
    message = guilty.send()
    for _ in range(10):
        neighbour.send()
    watched(concurrency=30)
    until(lambda: log.of(f"Message {message.message_id} of actor guilty kept the CPU for"))
    broker.join("default", timeout=20_000)

    (line,) = log.of("of actor guilty")
    assert "in spin" in line
    assert not log.of("of actor neighbour")


def test_the_first_of_several_jobs_that_spin_one_after_the_other_is_named_with_its_line(broker, watched, log):
    @greenq.actor(broker=broker)
    def work():
        spin(0.25)

    for _ in range(3):
        work.send()
    watched(concurrency=1)
    until(lambda: log.of("of actor work kept the CPU for"))

    (line,) = log.of("of actor work kept the CPU for")
    assert "in spin" in line


def test_what_a_job_does_in_the_time_of_others_is_not_held_against_it(broker, watched, log):
    @greenq.actor(broker=broker)
    def patient():
        time.sleep(0.6)

    patient.send()
    watched()
    broker.join("default", timeout=20_000)

    assert not log.of("of actor patient")


def test_of_one_actor_a_line_a_second_is_told_and_the_rest_counted(broker, watched, log):
    @greenq.actor(broker=broker)
    def work():
        spin(0.25)

    for _ in range(3):
        work.send()
    watched(concurrency=1)
    until(lambda: log.of("Jobs of actor work kept the CPU"))

    assert len(log.of("of actor work kept the CPU for")) == 1
    (rest,) = log.of("Jobs of actor work")
    assert "kept the CPU 2 more times since the last line about it, for " in rest


def test_blocks_are_counted_by_message(broker, watched):
    counted = []

    @greenq.actor(broker=broker)
    def work():
        spin(0.4)

    message = work.send()
    worker = watched()
    worker.watch.on_block.append(lambda proxy, ms: counted.append((proxy.message_id, ms)))
    until(lambda: counted)

    ((message_id, ms),) = counted
    assert message_id == message.message_id
    assert ms >= 400


def test_a_job_that_keeps_the_cpu_for_long_is_told_of_while_it_does(broker, watched, monkeypatch):
    from greenq.worker import watch

    monkeypatch.setattr(watch, "_TELL_AT_ONCE_S", 0.3)
    told, ended = [], []

    def report(**news):
        told.append((news, bool(ended)))
        return True

    @greenq.actor(broker=broker)
    def work():
        spin(1.5)
        ended.append(1)

    message = work.send()
    watched(report=report)
    until(lambda: ended)

    ((news, had_ended),) = told
    assert not had_ended
    assert news["event"] == "news"
    assert f"Message {message.message_id} of actor work has kept the CPU for" in news["text"]
    assert "in spin" in news["text"]


def test_the_soft_limit_of_a_job_that_spins_is_told_while_it_does(broker, watched):
    told, ended = [], []

    def report(**news):
        told.append((news["text"], bool(ended)))
        return True

    @greenq.actor(broker=broker, soft_time_limit=100)
    def work():
        spin(1)
        ended.append(1)

    work.send()
    watched(report=report)
    until(lambda: ended)
    broker.join("default", timeout=20_000)

    ((text, had_ended),) = told
    assert not had_ended
    assert "soft time limit of 100 ms: at " in text
    assert "in spin" in text


# -- in test suites


class Failures(greenq.Middleware):
    def __init__(self):
        self.seen = []

    def after_process_message(self, broker, message, *, result=None, exception=None):
        self.seen.append((message.actor_name, exception))


@pytest.fixture
def failing(broker, watched, monkeypatch):
    monkeypatch.setenv("GREENQ_BLOCK_ERROR", "1")
    failures = Failures()
    broker.add_middleware(failures)
    return failures.seen


def test_a_job_that_blocks_fails_where_that_is_asked_for(broker, watched, failing):
    @greenq.actor(broker=broker, max_retries=0)
    def blocks():
        spin(0.4)
        return 1

    @greenq.actor(broker=broker, max_retries=0)
    def waits():
        time.sleep(0.4)

    blocks.send()
    waits.send()
    watched()
    broker.join("default", timeout=20_000)

    (error,) = [error for name, error in failing if name == "blocks"]
    assert isinstance(error, greenq.HubBlocked)
    assert "in spin" in str(error)
    assert "200 ms are allowed" in str(error)
    assert [error for name, error in failing if name == "waits"] == [None]


def test_a_job_that_blocks_and_then_waits_fails_as_well(broker, watched, failing):
    @greenq.actor(broker=broker, max_retries=0)
    def blocks():
        spin(0.4)
        time.sleep(0.1)

    blocks.send()
    watched()
    broker.join("default", timeout=20_000)

    assert [type(error) for _, error in failing] == [greenq.HubBlocked]


def test_a_coroutine_that_blocks_fails_as_well(broker, watched, failing):
    @greenq.actor(broker=broker, max_retries=0)
    async def blocks():
        spin(0.4)

    @greenq.actor(broker=broker, max_retries=0)
    async def waits():
        await asyncio.sleep(0.4)

    blocks.send()
    waits.send()
    watched()
    broker.join("default", timeout=20_000)

    assert {name: type(error) for name, error in failing} == {"blocks": greenq.HubBlocked, "waits": type(None)}


def test_an_exception_of_the_jobs_own_stays_where_it_blocks(broker, watched, failing):
    @greenq.actor(broker=broker, max_retries=0)
    def blocks():
        spin(0.4)
        raise KeyError("own")

    blocks.send()
    watched()
    broker.join("default", timeout=20_000)

    assert [type(error) for _, error in failing] == [KeyError]


# -- the page


def test_the_page_beats_and_turns_and_beats_on_while_a_job_spins(broker, watched, page):
    seen = []

    @greenq.actor(broker=broker)
    def work():
        before = page.beats, page.turns
        spin(0.6)
        seen.append((page.beats - before[0], page.turns - before[1]))

    watched(page=page)
    until(lambda: page.beats > 3 and page.turns > 3)
    work.send()
    until(lambda: seen)

    ((beats, turns),) = seen
    assert beats >= 2
    assert turns == 0


def test_the_page_shows_the_message_whose_job_has_the_cpu(broker, watched, page):
    seen, in_hub = {}, []

    class Hook(greenq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            seen["hook", message.message_id] = page.message_on_cpu

    broker.add_middleware(Hook())

    @greenq.actor(broker=broker)
    def plain(number):
        first = page.message_on_cpu
        time.sleep(0.001)
        seen["plain", number] = first, page.message_on_cpu

    @greenq.actor(broker=broker)
    def quick(number):
        seen["quick", number] = page.message_on_cpu

    @greenq.actor(broker=broker)
    async def awaited(number):
        first = page.message_on_cpu
        await asyncio.sleep(0.001)
        seen["awaited", number] = first, page.message_on_cpu

    async def part():
        await asyncio.sleep(0)
        return page.message_on_cpu

    @greenq.actor(broker=broker)
    async def parted(number):
        parts = await asyncio.gather(part(), part())
        seen["parted", number] = tuple(parts)

    sent = {}
    for number in range(50):
        for actor in (plain, quick, awaited, parted):
            sent[actor.actor_name, number] = actor.send(number).message_id
    watched(page=page, concurrency=50)
    broker.join("default", timeout=20_000)
    cpu.hub.loop.run_callback(lambda: in_hub.append(page.message_on_cpu))
    until(lambda: in_hub)

    for (name, number), message_id in sent.items():
        assert seen[name, number] in (message_id, (message_id, message_id)), name
        assert seen["hook", message_id] == message_id
    assert in_hub == [""]


def test_a_child_that_a_job_forks_writes_nothing_into_the_page(broker, watched, page):
    seen = []

    @greenq.actor(broker=broker)
    def work():
        child = os.fork()
        if child == 0:
            cpu.hub.loop.run_callback(os._exit, 0)
            time.sleep(10)  # in the hub nobody's job has the CPU
        native_waitpid(child, 0)
        seen.append(page.message_on_cpu)

    message = work.send()
    watched(page=page)
    until(lambda: seen)

    assert seen == [message.message_id]


def test_the_page_says_when_to_kill_while_a_job_spins_and_not_after(broker, watched, page):
    seen = {}

    @greenq.actor(broker=broker, time_limit=10_000)
    def work():
        limit_at = time.monotonic() + greenq.remaining_ms() / 1000
        spin(0.4)
        seen["kill at"] = page.kill_at - limit_at

    work.send()
    watched(page=page, hard_limit_ms=3_000, report=lambda **news: True)
    until(lambda: seen)
    until(lambda: page.kill_at == 0)

    assert seen["kill at"] == pytest.approx(3, abs=0.1)


def test_a_job_that_swallows_its_interrupt_and_waits_on_is_told_to_the_supervisor_once(broker, watched, page):
    told, go_on = [], threading.Event()

    def report(**news):
        told.append(news)
        return True

    @greenq.actor(broker=broker, time_limit=100)
    def stubborn():
        while not go_on.is_set():
            with contextlib.suppress(greenq.TimeLimitExceeded):
                time.sleep(0.01)

    @greenq.actor(broker=broker, time_limit=100, max_retries=0)
    def obedient():
        time.sleep(20)

    message = stubborn.send()
    obedient.send()
    watched(page=page, hard_limit_ms=500, report=report)
    until(lambda: told)
    time.sleep(0.3)  # not a second time
    go_on.set()
    broker.join("default", timeout=20_000)

    assert told == [{"event": "overdue", "message_id": message.message_id, "actor": "stubborn", "limit_ms": 100}]


def test_a_job_that_takes_sigalrm_is_warned_by_nobody_and_interrupted_all_the_same(broker, watched):
    rung, struck = [], []

    @greenq.actor(broker=broker, time_limit=600, max_retries=0)
    def own_alarm():
        before = signal.signal(signal.SIGALRM, lambda *args: rung.append(1))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                spin(8)
            except greenq.TimeLimitExceeded:
                struck.append(1)
                raise
        finally:
            signal.signal(signal.SIGALRM, before)

    own_alarm.send()
    watched()
    broker.join("default", timeout=20_000)

    assert rung == [1], "its own alarm came"
    assert struck == [1]
