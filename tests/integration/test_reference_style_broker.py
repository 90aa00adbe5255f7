"""A broker that knows only the API reference keeps working with our worker.

It implements enqueue, consume and the one-by-one calls of a consumer; no batches, no
follow-ups, and delayed messages are left to the worker.
"""

from __future__ import annotations

import collections
import queue
import threading
from typing import Any

import pytest

import greenq
from greenq.broker import Broker, Consumer, MessageProxy
from greenq.message import Message
from greenq.names import delay_queue_name
from tests.support.waiting import happens


class PlainBroker(Broker):
    def __init__(self) -> None:
        self.ready: dict[str, queue.Queue[bytes]] = collections.defaultdict(queue.Queue)
        self.dead: list[MessageProxy] = []
        self.calls: list[str] = []
        super().__init__()

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        if delay is not None:
            eta = greenq.clock.now_ms() + delay
            message = message.copy(queue_name=delay_queue_name(message.queue_name), options={"eta": eta})
        self.emit_before("enqueue", message, delay)
        self.ready[message.queue_name].put(message.encode())
        self.emit_after("enqueue", message, delay)
        return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> Consumer:
        return PlainConsumer(self, queue_name, timeout)


class PlainProxy(MessageProxy):
    #: As it was delivered, and as a server would have it return to its queue.
    data: bytes


class PlainConsumer(Consumer):
    def __init__(self, broker: PlainBroker, queue_name: str, timeout: int) -> None:
        self.broker, self.queue_name, self.timeout = broker, queue_name, timeout

    def __next__(self) -> MessageProxy | None:
        try:
            data = self.broker.ready[self.queue_name].get(timeout=self.timeout / 1000)
        except queue.Empty:
            return None
        message = PlainProxy(Message.decode(data))
        message.data = data
        return message

    def ack(self, message: MessageProxy) -> None:
        self.broker.calls.append("ack")

    def nack(self, message: MessageProxy) -> None:
        self.broker.calls.append("nack")
        self.broker.dead.append(message)

    def requeue(self, messages: Any) -> None:
        for message in messages:
            self.broker.calls.append("requeue")
            self.broker.ready[self.queue_name].put(message.data)


def run_until(over, broker):
    """Have a worker run what comes until this event is set."""
    worker = greenq.Worker(broker, worker_timeout=50, worker_threads=1)
    worker.start()
    try:
        happens(over)
    finally:
        worker.stop(5000)


@pytest.fixture
def broker():
    return PlainBroker()


@pytest.fixture
def start(broker):
    workers = []

    def start(**options):
        worker = greenq.Worker(broker, worker_timeout=50, **options)
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.stop(5000)


def test_a_message_runs_and_is_acknowledged(broker, start):
    ran = threading.Event()

    @greenq.actor(broker=broker)
    def work():
        ran.set()

    work.send()
    worker = start()

    happens(ran)
    worker.stop(5000)
    assert broker.calls == ["ack"]


def test_a_failing_message_is_retried_until_it_is_dead(broker, start):
    attempts = []
    over = threading.Event()

    @greenq.actor(broker=broker, max_retries=2, min_backoff=1)
    def work():
        attempts.append(1)
        if len(attempts) == 3:
            over.set()
        raise RuntimeError("no")

    work.send()
    worker = start()

    happens(over)
    worker.stop(5000)
    assert [dead.actor_name for dead in broker.dead] == ["work"]
    assert broker.dead[0].options["retries"] == 3


def test_delayed_messages_run_in_the_order_in_which_they_are_due(broker, start):
    ran = []
    over = threading.Event()

    @greenq.actor(broker=broker)
    def work(name):
        ran.append(name)
        if len(ran) == 2:
            over.set()

    work.send_with_options(args=("later",), delay=300)
    work.send_with_options(args=("sooner",), delay=100)
    start()

    happens(over)
    assert ran == ["sooner", "later"]


def test_delayed_messages_that_are_held_go_back_when_the_worker_stops(broker, start):
    held = threading.Event()

    class Watch(greenq.Middleware):
        def before_delay_message(self, broker, message):
            held.set()

    broker.add_middleware(Watch())

    @greenq.actor(broker=broker)
    def work():
        pass

    work.send_with_options(delay=60_000)
    worker = start()
    happens(held)
    worker.stop(5000)

    assert broker.calls == ["requeue"]
    assert broker.ready["default.DQ"].qsize() == 1


def test_a_retry_that_cannot_be_enqueued_leaves_the_message_unacknowledged(broker, start):
    refused = threading.Event()

    class Refusing(greenq.Middleware):
        def before_enqueue(self, broker, message, delay):
            if "retries" in message.options:
                refused.set()
                raise OSError("the disk is full")

    class Strict(PlainBroker):
        def emit_before(self, signal, *args, **kwargs):
            for hook in self.hooks("before_" + signal):
                hook(self, *args, **kwargs)

    broker = Strict()
    broker.add_middleware(Refusing())

    @greenq.actor(broker=broker, min_backoff=1)
    def work():
        raise RuntimeError("no")

    work.send()
    worker = greenq.Worker(broker, worker_timeout=50, worker_threads=1)
    worker.start()
    happens(refused)
    worker.stop(5000)

    assert "ack" not in broker.calls
    assert "requeue" in broker.calls


def test_idle_queues_hold_no_slots(broker, start):
    ran = threading.Event()
    for number in range(6):
        broker.declare_queue(f"idle_{number}")

    @greenq.actor(broker=broker)
    def work():
        ran.set()

    start(worker_threads=2)
    work.send()

    happens(ran)


def test_a_pipeline_goes_on_though_the_broker_refuses_every_other_message(start):
    class Refusing(PlainBroker):
        refused = 0

        def enqueue(self, message, *, delay=None):
            if self.is_open_at_last or message.args[0] == "first":
                self.is_open_at_last = False
                return super().enqueue(message, delay=delay)
            self.is_open_at_last = True
            self.refused += 1
            raise greenq.ConnectionClosed("refused")

        is_open_at_last = False

    broker = Refusing()
    runs = []
    over = threading.Event()

    @greenq.actor(broker=broker)
    def step(name, *before):
        runs.append(name)
        if name == "last":
            over.set()
        return name

    steps = [step.message("first"), step.message("second"), step.message("last")]
    greenq.pipeline(steps, broker=broker).run()
    run_until(over, broker)

    assert broker.refused == 2
    assert runs == ["first", "first", "second", "second", "last"], "each runs again, and none is passed over"
    assert broker.dead == []


def test_what_tells_of_a_failure_and_cannot_be_enqueued_doubles_no_retry(start):
    class Refusing(PlainBroker):
        refused = 0

        def enqueue(self, message, *, delay=None):
            if message.actor_name == "note" and not self.refused:
                self.refused += 1
                raise greenq.ConnectionClosed("refused")
            return super().enqueue(message, delay=delay)

    broker = Refusing()
    runs = []
    over = threading.Event()

    @greenq.actor(broker=broker)
    def note(message, told):
        pass

    @greenq.actor(broker=broker, max_retries=1, min_backoff=1, on_failure=note, on_dead="done")
    def fail():
        runs.append(1)
        raise ValueError("on purpose")

    @greenq.actor(broker=broker)
    def done(message, told):
        over.set()

    fail.send()
    run_until(over, broker)

    assert broker.refused == 1
    assert len(runs) == 3, "the attempt that could not be told of, that one again, and its retry"
    assert len(broker.dead) == 1
    assert all(each.empty() for name, each in broker.ready.items() if name.endswith(".DQ"))


def test_there_is_no_retry_of_a_message_that_is_dead_because_what_follows_it_was_refused(start):
    class Following(greenq.Middleware):
        def before_ack(self, broker, message):
            message.follow_up(greenq.Message("default", "refused", (), {}, {}))

        def before_enqueue(self, broker, message, delay):
            if message.actor_name == "refused":
                raise greenq.middleware.MiddlewareError("no")

        def after_nack(self, broker, message):
            over.set()

    broker = PlainBroker()
    broker.add_middleware(Following())
    over = threading.Event()

    @greenq.actor(broker=broker, min_backoff=60_000, max_backoff=60_000)
    def fail():
        raise ValueError("on purpose")

    fail.send()
    run_until(over, broker)

    assert [letter.actor_name for letter in broker.dead] == ["fail"]
    assert all(each.empty() for each in broker.ready.values())
