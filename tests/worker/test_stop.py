"""Stopping: nothing new starts, jobs end or go back, and it is over in time."""

from __future__ import annotations

import threading
import time

import pytest

import greenq
from greenq.consumer import BatchConsumer
from greenq.errors import ConnectionClosed, Shutdown
from greenq.middleware import Retries
from greenq.worker.async_jobs import AsyncJob
from tests.support.waiting import PATIENCE_S, happens, until


def wait_a_long_time():
    for _ in range(2000):
        time.sleep(0.01)


def stop_in_background(worker, timeout):
    thread = threading.Thread(target=worker.stop, args=(timeout,))
    thread.start()
    return thread


def test_running_jobs_end_and_waiting_ones_stay_in_the_queue(broker, start):
    started, go_on = threading.Event(), threading.Event()
    ended = []

    @greenq.actor(broker=broker)
    def work(number):
        started.set()
        happens(go_on)
        ended.append(number)

    for number in range(3):
        work.send(number)
    worker = start(concurrency=1)
    happens(started)
    stopping = stop_in_background(worker, 60_000)
    until(worker.consumers["default"].task.has_ended)
    go_on.set()
    stopping.join(PATIENCE_S)

    assert ended == [0]
    assert worker.given_back == 0
    assert broker.queues["default"].qsize() == 2


@pytest.mark.in_time
def test_jobs_that_do_not_end_go_back_uncharged_when_the_time_is_over(broker, start):
    started = threading.Barrier(4, timeout=10)

    @greenq.actor(broker=broker, max_retries=0)
    def work():
        started.wait()
        wait_a_long_time()

    for _ in range(3):
        work.send()
    worker = start(concurrency=3)
    started.wait()
    begun = time.monotonic()
    worker.stop(500)

    assert time.monotonic() - begun < 2
    assert worker.given_back == 3
    assert broker.queues["default"].qsize() == 3
    assert not broker.dead_letters


def test_clean_up_runs_before_the_time_is_over(broker, start, stop_late):
    started, cleaned_up = threading.Event(), threading.Event()

    @greenq.actor(broker=broker)
    def work():
        started.set()
        try:
            wait_a_long_time()
        finally:
            cleaned_up.set()

    work.send()
    worker = start()
    happens(started)
    stop_late(worker)

    assert cleaned_up.is_set()
    assert worker.given_back == 1


def test_an_actor_that_asked_is_told_at_once_and_its_message_goes_back(broker, start):
    started = threading.Event()
    told = []

    @greenq.actor(broker=broker, notify_shutdown=True, max_retries=0)
    def work():
        started.set()
        try:
            wait_a_long_time()
        except Shutdown:
            told.append(1)
            raise

    work.send()
    worker = start()
    happens(started)
    begun = time.monotonic()
    worker.stop(60_000)

    assert time.monotonic() - begun < 10
    assert told == [1]
    assert worker.given_back == 0
    assert broker.queues["default"].qsize() == 1
    assert not broker.dead_letters


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine"])
def test_an_actor_that_asked_and_has_not_begun_is_not_begun_and_its_message_goes_back(broker, start, is_async):
    announced, go_on = threading.Event(), threading.Event()
    ran = []

    class Hook(greenq.Middleware):
        def before_process_message(self, broker, message):
            announced.set()
            happens(go_on)

    broker.add_middleware(Hook())
    next(each for each in broker.middleware if isinstance(each, Retries)).retry_shutdown = True

    def work():
        ran.append(1)

    async def work_on_the_loop():
        ran.append(1)

    actor = greenq.actor(work_on_the_loop if is_async else work, broker=broker, notify_shutdown=True, max_retries=0)
    actor.send()
    worker = start()
    happens(announced)
    stopping = stop_in_background(worker, 60_000)
    until(lambda: worker.slots.processor.has_told_shutdown)
    go_on.set()
    stopping.join(PATIENCE_S)

    assert not ran
    assert broker.queues["default"].qsize() == 1
    assert not broker.dead_letters


def test_a_coroutine_that_asked_and_is_on_its_way_to_the_loop_does_not_begin(broker, start, monkeypatch):
    on_its_way, go_on = threading.Event(), threading.Event()
    begin = AsyncJob.start
    ran = []

    def begin_later(*args):
        on_its_way.set()
        happens(go_on)
        begin(*args)

    monkeypatch.setattr(AsyncJob, "start", begin_later)

    @greenq.actor(broker=broker, notify_shutdown=True)
    async def work():
        ran.append(1)

    work.send()
    worker = start()
    happens(on_its_way)
    stopping = stop_in_background(worker, 60_000)
    until(lambda: all(job.interrupted_by for job in worker.slots.running()))
    go_on.set()
    stopping.join(PATIENCE_S)

    assert not ran
    assert broker.queues["default"].qsize() == 1


def test_an_actor_that_did_not_ask_is_left_alone(broker, start):
    started, go_on = threading.Event(), threading.Event()
    ended = []

    @greenq.actor(broker=broker)
    def work():
        started.set()
        happens(go_on)
        ended.append(1)

    work.send()
    worker = start()
    happens(started)
    stopping = stop_in_background(worker, 60_000)
    until(lambda: worker.slots.processor.has_told_shutdown)
    go_on.set()
    stopping.join(PATIENCE_S)

    assert ended == [1]


def test_a_message_that_swallows_shutdown_and_returns_has_succeeded(broker, start):
    started = threading.Event()

    @greenq.actor(broker=broker, notify_shutdown=True)
    def work():
        started.set()
        try:
            wait_a_long_time()
        except Shutdown:
            return

    work.send()
    worker = start()
    happens(started)
    worker.stop(10_000)

    assert broker.queues["default"].qsize() == 0
    assert broker.queues["default"].unfinished_tasks == 0


def test_a_failing_clean_up_after_shutdown_spends_no_retry(broker, start):
    started = threading.Event()

    @greenq.actor(broker=broker, notify_shutdown=True, max_retries=0)
    def work():
        started.set()
        try:
            wait_a_long_time()
        finally:
            raise OSError("clean-up failed")

    work.send()
    worker = start()
    happens(started)
    worker.stop(10_000)

    assert broker.queues["default"].qsize() == 1
    assert not broker.dead_letters


def test_an_interrupt_by_the_stop_spends_a_retry_where_that_was_asked_for(broker, start):
    started = threading.Event()
    next(each for each in broker.middleware if isinstance(each, Retries)).retry_shutdown = True

    @greenq.actor(broker=broker, notify_shutdown=True, max_retries=0)
    def work():
        started.set()
        wait_a_long_time()

    work.send()
    worker = start()
    happens(started)
    worker.stop(10_000)

    assert broker.queues["default"].qsize() == 0
    assert len(broker.dead_letters) == 1


@pytest.mark.in_time
def test_stopping_is_in_time_although_the_broker_takes_no_verdicts(broker, start, monkeypatch):
    started = threading.Event()

    @greenq.actor(broker=broker)
    def work():
        started.set()

    worker = start()
    consumer = worker.consumers["default"]

    def refuse(verdicts):
        raise ConnectionClosed("the broker is away")

    while consumer.consumer is None:
        time.sleep(0.001)
    monkeypatch.setattr(consumer.consumer, "complete", refuse)
    work.send()
    happens(started)
    begun = time.monotonic()
    worker.stop(500)

    assert time.monotonic() - begun < 3


def test_stopping_twice_does_nothing_the_second_time(broker, start):
    worker = start()

    worker.stop(1000)
    worker.stop(1000)


def test_a_paused_worker_starts_nothing_until_it_is_resumed(broker, start):
    ran = threading.Event()

    @greenq.actor(broker=broker)
    def work():
        ran.set()

    worker = start()
    worker.pause()
    work.send()
    assert not ran.wait(0.3)
    worker.resume()

    happens(ran)


@pytest.mark.in_time
def test_stopping_is_in_time_with_more_verdicts_than_the_broker_takes(broker, start, monkeypatch):
    ended = []

    @greenq.actor(broker=broker)
    def work():
        ended.append(1)

    worker = start(concurrency=4)
    consumer = worker.consumers["default"]

    def refuse(verdicts):
        raise ConnectionClosed("the broker is away")

    while consumer.consumer is None:
        time.sleep(0.001)
    monkeypatch.setattr(consumer.consumer, "complete", refuse)
    for _ in range(50):
        work.send()
    while len(ended) < 4:
        time.sleep(0.001)
    begun = time.monotonic()
    worker.stop(500)

    assert time.monotonic() - begun < 5


def test_after_hooks_have_run_when_the_worker_has_stopped(broker, start):
    order = []
    acked = threading.Event()

    class Slow(greenq.Middleware):
        def before_ack(self, broker, message):
            acked.set()

        def after_ack(self, broker, message):
            for _ in range(10):
                time.sleep(0.01)
            order.append("after_ack")

        def after_worker_shutdown(self, broker, worker):
            order.append("after_worker_shutdown")

    broker.add_middleware(Slow())

    @greenq.actor(broker=broker)
    def work():
        pass

    work.send()
    worker = start()
    happens(acked)
    worker.stop(10_000)

    assert order == ["after_ack", "after_worker_shutdown"]


def test_consumers_of_a_paused_and_of_a_stopped_worker_rest(broker, start, monkeypatch):
    rested = threading.Semaphore(0)
    monkeypatch.setattr(BatchConsumer, "rest", lambda consumer: rested.release())
    broker.declare_queue("default")
    worker = start()

    worker.pause()
    assert rested.acquire(timeout=PATIENCE_S)
    worker.resume()
    worker.stop()

    assert rested.acquire(timeout=PATIENCE_S)
