"""What the middleware Prometheus counts, in a worker of either world."""

from __future__ import annotations

import asyncio
import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

import greenq
from greenq.brokers.stub import StubBroker
from greenq.consumer import MessageProxy
from greenq.errors import ConnectionClosed, Shutdown, SkipMessage
from greenq.metrics import shared
from greenq.metrics.text import page
from greenq.middleware import Middleware
from greenq.middleware.prometheus import Prometheus
from greenq.runtime import current
from tests.support.waiting import happens, until


class Metrics:
    """What is served."""

    def __init__(self, fd):
        self._fd = fd

    def all(self):
        families = text_string_to_metric_families(page(shared.read(self._fd), now_s=0))
        return {
            (sample.name.removeprefix("greenq_"), *sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }

    def of(self, name, *labels):
        return self.all().get((name, *labels))


@pytest.fixture
def metrics():
    file = shared.SharedFile()
    shared.hand_over(file.fd, file.take(), 1)
    yield Metrics(file.fd)
    shared.hand_over(None, None, 0)
    os.close(file.fd)


@pytest.fixture
def broker(metrics):
    broker = StubBroker(fail_fast_default=False)
    broker.add_middleware(Prometheus())
    return broker


@pytest.fixture
def start(broker):
    workers = []

    def start():
        broker.emit_after("process_boot")
        worker = greenq.Worker(broker, worker_timeout=100, worker_threads=1)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.stop(5000)


def run_all(broker, worker):
    for queue_name in broker.get_declared_queues():
        broker.join(queue_name, timeout=20_000)
    worker.join()


def test_a_message_is_counted_once(broker, start, metrics):
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    work.send()

    run_all(broker, start())

    assert metrics.of("messages_total", "default", "work") == 1
    assert metrics.of("message_errors_total", "default", "work") == 0
    assert metrics.of("message_duration_milliseconds_count", "default", "work") == 1
    assert metrics.of("message_wait_milliseconds_count", "default", "work") == 1


def test_retries_are_counted_once_and_under_the_canonical_name(broker, start, metrics):
    def fail():
        raise ValueError("no")

    actor = greenq.actor(fail, broker=broker, max_retries=3, min_backoff=1)
    actor.send()

    run_all(broker, start())

    assert metrics.of("messages_total", "default", "fail") == 4
    assert metrics.of("message_errors_total", "default", "fail") == 4
    assert metrics.of("message_retries_total", "default", "fail") == 3
    assert metrics.of("message_rejects_total", "default", "fail") == 1
    assert not [labels for _, *labels in metrics.all() if any(label.endswith(".DQ") for label in labels)]


def test_a_delayed_message_waits_from_its_due_time(broker, start, metrics):
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    message = work.message().copy(message_timestamp=1_000_000_000_000)  # long ago
    broker.enqueue(message, delay=1)

    run_all(broker, start())

    assert metrics.of("messages_total", "default", "work") == 1
    assert metrics.of("message_wait_milliseconds_sum", "default", "work") < 60_000


def test_a_message_waits_from_when_it_was_made(broker, start, metrics):
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    message = work.message()
    broker.enqueue(message.copy(message_timestamp=message.message_timestamp - 3_000_000))

    run_all(broker, start())

    assert 3_000_000 <= metrics.of("message_wait_milliseconds_sum", "default", "work") < 3_060_000
    assert metrics.of("message_wait_milliseconds_bucket", "default", "work", "900000") == 0
    assert metrics.of("message_wait_milliseconds_bucket", "default", "work", "3600000") == 1


def test_a_clock_that_is_ahead_is_no_negative_wait(broker, start, metrics):
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    message = work.message()
    broker.enqueue(message.copy(message_timestamp=message.message_timestamp + 3_000_000))

    run_all(broker, start())

    assert metrics.of("message_wait_milliseconds_count", "default", "work") == 1
    assert metrics.of("message_wait_milliseconds_sum", "default", "work") == 0


class Skipper(Middleware):
    def before_process_message(self, broker, message):
        raise SkipMessage("not today")


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_skipped_message_is_counted_but_has_no_duration(broker, start, metrics, order):
    broker.add_middleware(Skipper(), **{order: Prometheus})
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    work.send()

    run_all(broker, start())

    assert metrics.of("messages_total", "default", "work") == 1
    assert metrics.of("message_duration_milliseconds_count", "default", "work") == 0


def test_a_message_in_progress_is_seen_and_gone_when_it_has_ended(broker, start, metrics):
    event = current().event
    begun, may_end = event(), event()

    def hold():
        begun.set()
        happens(may_end)

    greenq.actor(hold, broker=broker).send()
    worker = start()
    happens(begun)

    until(lambda: metrics.of("messages_inprogress", "default", "hold") == 1)
    assert metrics.of("slots_used", "1") == 1
    assert metrics.of("slots_free", "1") == 0
    may_end.set()
    run_all(broker, worker)

    until(lambda: metrics.of("messages_inprogress", "default", "hold") == 0)
    until(lambda: metrics.of("slots_free", "1") == 1)


def test_a_coroutine_is_counted_like_any_other_job(broker, start, metrics):
    begun, go_on = current().event(), None

    @greenq.actor(broker=broker)
    async def hold():
        nonlocal go_on
        go_on = asyncio.Event()
        begun.set()
        await go_on.wait()

    hold.send()
    worker = start()
    happens(begun)

    until(lambda: metrics.of("messages_inprogress", "default", "hold") == 1)
    assert metrics.of("slots_used", "1") == 1
    worker.event_loop.start().call_soon_threadsafe(go_on.set)
    run_all(broker, worker)

    until(lambda: metrics.of("messages_inprogress", "default", "hold") == 0)
    assert metrics.of("messages_total", "default", "hold") == 1
    assert metrics.of("message_errors_total", "default", "hold") == 0
    assert metrics.of("message_duration_milliseconds_count", "default", "hold") == 1


def test_a_coroutine_that_fails_is_an_error_and_a_retry(broker, start, metrics):
    @greenq.actor(broker=broker, max_retries=1, min_backoff=1)
    async def fail():
        await asyncio.sleep(0)
        raise ValueError("no")

    fail.send()

    run_all(broker, start())

    assert metrics.of("message_errors_total", "default", "fail") == 2
    assert metrics.of("message_retries_total", "default", "fail") == 1
    assert metrics.of("message_rejects_total", "default", "fail") == 1


def test_gauges_are_right_once_the_worker_has_stopped(broker, start, metrics):
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    for _ in range(20):
        work.send()
    worker = start()
    run_all(broker, worker)

    worker.stop(5000)

    assert metrics.of("messages_inprogress", "default", "work") in (0, None)
    assert metrics.of("slots_used", "1") == 0
    assert metrics.of("queue_ready_messages", "default") is None


def test_the_depth_of_queues_is_seen(broker, start, metrics):
    broker.declare_queue("other")
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    work.send_with_options(delay=600_000)
    start()

    until(lambda: metrics.of("queue_delayed_messages", "default") == 1)
    until(lambda: metrics.of("queue_delayed_messages", "other") == 0)
    assert metrics.of("queue_ready_messages", "default") == 0
    assert metrics.of("queue_oldest_message_age_milliseconds", "default") == 0


def test_names_that_nobody_has_declared_are_one_label(broker, start, metrics):
    broker.declare_queue("default")
    for number in range(5):
        broker.enqueue(greenq.Message("default", f"made up {number}", (), {}, {}))

    run_all(broker, start())

    assert metrics.of("message_rejects_total", "default", "(unknown)") == 5
    assert len([labels for name, *labels in metrics.all() if name == "message_rejects_total"]) == 1


def test_bytes_that_are_no_message_are_counted(broker, start, metrics):
    broker.declare_queue("default")
    broker.queues["default"].put(b"no message")
    worker = start()
    run_all(broker, worker)

    worker.stop(5000)

    assert metrics.of("undecodable_messages_total", "default") == 1


def test_an_outage_is_seen_and_counted_when_it_is_over(start, metrics):
    worker = start()

    worker.outage.note_failure("a task", ConnectionClosed("gone"))
    until(lambda: metrics.of("broker_away", "1") == 1)
    assert metrics.of("broker_reconnects_total", "1") == 0
    worker.outage.note_success("a task")

    until(lambda: metrics.of("broker_reconnects_total", "1") == 1)
    assert metrics.of("broker_away", "1") == 0


def test_a_message_that_was_taken_back_is_a_redelivery(broker, metrics):
    greenq.actor(lambda: None, broker=broker, actor_name="work")
    broker.emit_after("process_boot")
    proxy = MessageProxy(greenq.Message("default", "work", (), {}, {}))
    proxy.deliveries = 2

    broker.emit_before("process_message", proxy)

    assert metrics.of("message_redeliveries_total", "default", "work") == 1


class LooksNowhere(MessageProxy):
    def __getattr__(self, name):
        raise AssertionError(f"{name} is looked up on the message, which takes every job a microsecond")


def test_counting_looks_up_nothing_that_is_not_there(broker, metrics):
    greenq.actor(lambda: None, broker=broker, actor_name="work")
    broker.emit_after("process_boot")
    proxy = LooksNowhere(greenq.Message("default", "work", (), {}, {}))

    broker.emit_before("process_message", proxy)
    broker.emit_after("process_message", proxy, result=None)

    assert metrics.of("messages_total", "default", "work") == 1


def test_an_interrupted_run_is_no_error(broker, metrics):
    greenq.actor(lambda: None, broker=broker, actor_name="work")
    broker.emit_after("process_boot")
    proxy = MessageProxy(greenq.Message("default", "work", (), {}, {}))

    broker.emit_before("process_message", proxy)
    broker.emit_after("process_message", proxy, exception=Shutdown())

    assert metrics.of("messages_total", "default", "work") == 1
    assert metrics.of("message_errors_total", "default", "work") == 0


class LeavesDelaysToWorkers(StubBroker):
    holds_delays = False


def test_delayed_messages_in_memory_are_seen_under_the_canonical_name(metrics):
    broker = LeavesDelaysToWorkers(fail_fast_default=False)
    broker.add_middleware(Prometheus())
    greenq.actor(lambda: None, broker=broker, actor_name="work").send_with_options(delay=600_000)
    broker.emit_after("process_boot")
    worker = greenq.Worker(broker, worker_timeout=100, worker_threads=1)
    worker.start()

    until(lambda: metrics.of("delayed_messages_inprogress", "default", "work") == 1)
    worker.stop(5000)

    assert metrics.of("delayed_messages_inprogress", "default", "work") == 0


def test_late_turns_are_seen(broker, start, metrics):
    start()

    until(lambda: (metrics.of("hub_lag_milliseconds_count", "1") or 0) >= 3)


def test_nothing_is_counted_where_nobody_serves_it(start, metrics):
    shared.hand_over(None, None, 0)
    broker = StubBroker()
    broker.add_middleware(Prometheus())
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    work.send()
    worker = greenq.Worker(broker, worker_timeout=100)  # and no process_boot either
    worker.start()

    run_all(broker, worker)
    worker.stop(5000)

    assert metrics.all() == {}


def test_a_second_middleware_counts_nothing_twice(broker, start, metrics):
    broker.add_middleware(Prometheus())
    work = greenq.actor(lambda: None, broker=broker, actor_name="work")
    work.send()

    run_all(broker, start())

    assert metrics.of("messages_total", "default", "work") == 1
