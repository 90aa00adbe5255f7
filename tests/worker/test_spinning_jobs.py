"""Jobs that never wait: interrupted at their limits all the same, and nobody else in their place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import greenq
from greenq.cpu import cpu
from greenq.errors import TimeLimitExceeded

# pytest-timeout's other method has SIGALRM for itself.
pytestmark = pytest.mark.timeout(120, method="thread")

greenlets_only = pytest.mark.skipif(
    "not __import__('greenq.runtime').runtime.is_patched()", reason="about greenlets; runs where gevent has patched"
)

#: Of a job that spins, so that one which is not interrupted fails its test and ends.
LONG_S = 8


def spin(seconds=LONG_S):
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        pass


def match_for_long():
    re.match(r"(a+)+$", "a" * 29 + "b")


def compute_large_numbers():
    pow(3, 20_000_000)


class Ends(greenq.Middleware):
    """How each job ended, and after how long."""

    def __init__(self):
        self.began = {}
        self.exceptions = []
        self.took_s = []

    def before_process_message(self, broker, message):
        self.began[message.message_id] = time.monotonic()

    def after_process_message(self, broker, message, *, result=None, exception=None):
        self.took_s.append(time.monotonic() - self.began[message.message_id])
        self.exceptions.append(type(exception))


@pytest.fixture
def ends(broker):
    ends = Ends()
    broker.add_middleware(ends)
    return ends


@pytest.mark.in_time
@pytest.mark.parametrize("work", [spin, match_for_long, compute_large_numbers])
@greenlets_only
def test_a_job_that_never_waits_is_interrupted_at_its_limit(broker, start, ends, work):
    actor = greenq.actor(broker=broker, max_retries=0, time_limit=300, actor_name="work")(lambda: work())
    actor.send()
    start()
    broker.join("default", timeout=30_000)

    assert ends.exceptions == [TimeLimitExceeded]
    assert 0.3 <= ends.took_s[0] < 0.3 + 0.25


@pytest.mark.in_time
@greenlets_only
def test_a_coroutine_that_never_awaits_is_interrupted_at_its_limit(broker, start, ends):
    caught = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=300)
    async def work():
        await asyncio.sleep(0.01)
        try:
            spin()
        except TimeLimitExceeded:
            caught.append(1)
            raise

    work.send()
    start()
    broker.join("default", timeout=30_000)

    assert ends.exceptions == [TimeLimitExceeded]
    assert caught == [1], "it was raised inside"
    assert 0.3 <= ends.took_s[0] < 0.3 + 0.25


@greenlets_only
def test_a_coroutine_that_blocks_and_then_never_awaits_is_interrupted_at_its_limit(broker, start, ends):
    @greenq.actor(broker=broker, max_retries=0, time_limit=200)
    async def work():
        time.sleep(0.01)
        spin()

    work.send()
    start()
    broker.join("default", timeout=30_000)

    assert ends.exceptions == [TimeLimitExceeded]
    assert ends.took_s[0] < LONG_S / 2


@greenlets_only
def test_a_task_that_a_coroutine_has_started_is_interrupted_at_the_jobs_limit(broker, start, ends):
    async def part():
        await asyncio.sleep(0)
        spin()

    @greenq.actor(broker=broker, max_retries=0, time_limit=200)
    async def work():
        await asyncio.gather(part(), asyncio.sleep(0.001))

    work.send()
    start()
    broker.join("default", timeout=30_000)

    assert ends.exceptions == [TimeLimitExceeded]
    assert ends.took_s[0] < LONG_S / 2


@greenlets_only
@pytest.mark.parametrize("lane", [None, "greenlet", "thread"])
@pytest.mark.parametrize("how", ["a task", "a callback"])
def test_a_job_that_never_hears_of_the_end_of_what_it_has_started_is_interrupted_as_well(
    broker, start, ends, lane, how
):
    async def part():
        spin()

    async def wait():
        if how == "a task":
            started.append(asyncio.create_task(part()))
        else:
            asyncio.get_running_loop().call_soon(spin)
        await asyncio.sleep(LONG_S)

    started = []
    in_place = greenq.actor(broker=broker, actor_name="in_place")(wait)
    function, where = (wait, {}) if lane is None else (lambda: in_place(), {"lane": lane})
    actor = greenq.actor(broker=broker, actor_name="work", max_retries=0, time_limit=100, **where)(function)
    actor.send()
    start()
    broker.join("default", timeout=30_000)

    assert ends.exceptions == [TimeLimitExceeded]
    assert ends.took_s[0] < LONG_S / 2


@greenlets_only
def test_a_coroutine_that_a_job_waits_for_is_interrupted_once_and_cleans_up(broker, start, ends):
    cleaned_up = []

    @greenq.actor(broker=broker)
    async def in_place():
        try:
            spin()
        finally:
            await asyncio.sleep(0.01)
            cleaned_up.append(1)

    @greenq.actor(broker=broker, max_retries=0, time_limit=100)
    def work():
        in_place()

    work.send()
    start()
    broker.join("default", timeout=30_000)

    assert ends.exceptions == [TimeLimitExceeded]
    assert cleaned_up == [1]


@greenlets_only
def test_what_a_job_has_called_later_or_for_a_socket_is_run_for_it_and_not_for_its_neighbour(broker, start):
    seen = {}

    @greenq.actor(broker=broker)
    async def caller():
        loop, both = asyncio.get_running_loop(), asyncio.Event()
        reader, writer = socket.socketpair()

        def look(how):
            seen.setdefault(how, cpu.job.message.actor_name)
            if len(seen) == 2:
                both.set()

        with reader, writer:
            loop.call_later(0, look, "later")
            loop.add_reader(reader, look, "for a socket")
            writer.send(b"x")
            await both.wait()
            loop.remove_reader(reader)

    @greenq.actor(broker=broker)
    async def neighbour():
        # It has a step in each turn of the loop, before those.
        while len(seen) < 2:
            await asyncio.sleep(0)

    neighbour.send()
    caller.send()
    start()
    broker.join("default", timeout=30_000)

    assert seen == {"later": "caller", "for a socket": "caller"}


@greenlets_only
def test_jobs_beside_one_that_spins_are_not_interrupted(broker, start, ends):
    strays = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=200)
    def guilty():
        time.sleep(0.05)  # the others are waiting by then
        spin()

    @greenq.actor(broker=broker, max_retries=0, time_limit=60_000)
    def neighbour():
        try:
            time.sleep(0.1)
            spin(0.001)
        except TimeLimitExceeded:
            strays.append(1)

    @greenq.actor(broker=broker, max_retries=0, time_limit=60_000)
    async def awaiting():
        try:
            await asyncio.sleep(0.1)
            spin(0.001)
        except TimeLimitExceeded:
            strays.append(1)

    guilty.send()
    for _ in range(20):
        neighbour.send()
        awaiting.send()
    start(concurrency=100)
    broker.join("default", timeout=30_000)

    assert not strays
    assert [dead.actor_name for dead in broker.dead_letters] == ["guilty"]


@greenlets_only
def test_a_job_that_spins_within_its_own_limit_goes_on_while_another_is_overdue(broker, start, ends):
    struck, began = [], threading.Event()

    @greenq.actor(broker=broker, max_retries=0, time_limit=60_000)
    def hog():
        began.wait()
        try:
            spin(1)
        except TimeLimitExceeded:
            struck.append("hog")

    @greenq.actor(broker=broker, max_retries=0, time_limit=200)
    def overdue():
        began.set()
        time.sleep(LONG_S)

    hog.send()
    overdue.send()
    start()
    broker.join("default", timeout=30_000)

    assert not struck
    assert [dead.actor_name for dead in broker.dead_letters] == ["overdue"]


@greenlets_only
def test_a_job_that_spins_is_interrupted_though_the_nearest_limit_was_anothers(broker, start, ends):
    began = threading.Event()

    @greenq.actor(broker=broker, max_retries=0, time_limit=700)
    def hog():
        began.wait()
        spin()

    @greenq.actor(broker=broker, max_retries=0, time_limit=200)
    def overdue():
        began.set()
        time.sleep(LONG_S)

    hog.send()
    overdue.send()
    start()
    broker.join("default", timeout=30_000)

    assert sorted(dead.actor_name for dead in broker.dead_letters) == ["hog", "overdue"]
    assert max(ends.took_s) < LONG_S / 2


@greenlets_only
def test_an_interrupt_comes_once_and_the_clean_up_runs_to_its_end(broker, start, ends):
    cleaned_up = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=200)
    def work():
        caught = []
        try:
            caught.append(0)
            spin()
        finally:
            spin(0.5)
            time.sleep(0.5)
            spin(0.5)
            cleaned_up.append(1)

    work.send()
    start()
    broker.join("default", timeout=30_000)

    assert cleaned_up == [1]
    assert ends.exceptions == [TimeLimitExceeded]


@greenlets_only
def test_a_timeout_of_the_users_own_is_not_confused_with_the_limit(broker, start):
    import gevent

    seen = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=1_000)
    def inner():
        with gevent.Timeout(0.05, False):
            time.sleep(LONG_S)
        seen.append("its own is over")
        spin()

    @greenq.actor(broker=broker, max_retries=0, time_limit=200)
    def outer():
        try:
            with gevent.Timeout(LONG_S, False):
                time.sleep(0.01)
                spin()
            seen.append("swallowed")
        except gevent.Timeout:
            seen.append("mistaken")

    inner.send()
    outer.send()
    start()
    broker.join("default", timeout=30_000)

    assert seen == ["its own is over"]
    assert sorted(dead.actor_name for dead in broker.dead_letters) == ["inner", "outer"]


class Watchful(greenq.Middleware):
    """Spins in hooks, around the limit of the job that they belong to."""

    def __init__(self):
        self.strays = []

    def _spin(self, name):
        try:
            spin(random.uniform(0, 0.0001))
        except TimeLimitExceeded:
            self.strays.append(name)

    def before_process_message(self, broker, message):
        self._spin("before")

    def after_process_message(self, broker, message, *, result=None, exception=None):
        self._spin("after")

    def before_ack(self, broker, message):
        self._spin("ack")

    def before_nack(self, broker, message):
        self._spin("nack")


@greenlets_only
def test_of_ten_thousand_jobs_that_straddle_their_limit_none_strays(broker, start, monkeypatch, caplog):
    import gevent

    from greenq import alarm as alarms

    in_hub = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *error: in_hub.append(error))
    # As tight as can be: the alarm rings within microseconds of the end of the job's own code.
    monkeypatch.setattr(alarms, "GRACE_S", 0.0)
    monkeypatch.setattr(alarms, "_AGAIN_S", 0.0002)
    watchful = Watchful()
    broker.add_middleware(watchful)
    ran, cut, strays = [], [], []

    @greenq.actor(broker=broker, max_retries=0, time_limit=0.5)
    def near_the_limit():
        try:
            spin(random.uniform(0.0003, 0.0007))
        except TimeLimitExceeded:
            cut.append(1)
            raise
        ran.append(1)

    @greenq.actor(broker=broker, max_retries=0, time_limit=60_000)
    def neighbour():
        try:
            spin(0.0002)
        except TimeLimitExceeded:
            strays.append(1)

    for number in range(10_000):
        near_the_limit.send()
        if not number % 10:
            neighbour.send()
    with caplog.at_level(logging.ERROR):
        start(concurrency=50)
        broker.join("default", timeout=120_000)

    assert not strays
    assert not watchful.strays
    assert not in_hub
    assert not [record for record in caplog.records if "outside of its actor" in record.getMessage()]
    assert not [record for record in caplog.records if record.name.startswith("greenq.brokers")]
    assert len(cut) > 100, "the alarm did ring"
    assert len(ran) > 100, "and it did not always"
    assert {dead.actor_name for dead in broker.dead_letters} == {"near_the_limit"}


@greenlets_only
def test_jobs_that_end_in_time_cost_no_system_call(broker, start, monkeypatch):
    calls = []
    real = signal.setitimer
    monkeypatch.setattr(signal, "setitimer", lambda *args: calls.append(args) or real(*args))

    @greenq.actor(broker=broker)
    def work():
        time.sleep(0)

    for _ in range(500):
        work.send()
    worker = start(concurrency=20)
    broker.join("default", timeout=30_000)

    assert len(calls) == 1
    worker.stop(2000)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@greenlets_only
def test_programs_and_children_of_a_job_have_no_alarm(broker, start):
    told = []
    look = "import signal; print(signal.getitimer(signal.ITIMER_REAL)[0], signal.getsignal(signal.SIGALRM).name)"

    @greenq.actor(broker=broker, max_retries=0)
    def work():
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
        told.append(subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            is_default = signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
            os.write(write, f"{signal.getitimer(signal.ITIMER_REAL)[0]} {is_default}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        told.append(os.read(read, 100).decode())
        os.close(read)
        os.close(write)

    work.send()
    start()
    broker.join("default", timeout=30_000)

    assert told == ["0.0 SIG_DFL\n", "0.0 True"]


def test_a_job_that_swallows_its_interrupt_ends_as_it_likes(broker, start, ends):
    @greenq.actor(broker=broker, max_retries=0, time_limit=100)
    def work():
        with contextlib.suppress(TimeLimitExceeded):
            spin()
        spin(0.3)

    work.send()
    start()
    broker.join("default", timeout=30_000)

    assert ends.exceptions == [type(None)]
    assert not broker.dead_letters


@pytest.mark.starts_both_worlds
def test_a_process_that_ends_with_its_worker_running_is_not_killed_by_the_alarm():
    program = """
        import gevent.monkey; gevent.monkey.patch_all()
        import ctypes, sys, threading
        import greenq
        from greenq.brokers.stub import StubBroker

        broker = StubBroker()
        began = threading.Event()

        @greenq.actor(broker=broker, time_limit=1000)
        def work():
            began.set()
            threading.Event().wait()

        work.send()
        greenq.Worker(broker).start()
        began.wait()

        class Slow:  # it dies when signals have no handlers any more
            def __del__(self, pause=ctypes.CDLL(None).usleep, print=print):
                pause(900_000)
                pause(900_000)
                print("ended", flush=True)

        sys.modules["slow"] = Slow()
        """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "ended\n"
