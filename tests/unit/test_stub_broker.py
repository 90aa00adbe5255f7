"""What the stub broker offers to tests beyond the contract of all brokers."""

from __future__ import annotations

import queue
import threading

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from greenq.clock import now_ms
from greenq.consumer import Undecodable
from greenq.errors import DecodeError, QueueJoinTimeout, QueueNotFound
from greenq.message import Message
from tests.contract.fetching import message, names, take
from tests.support.waiting import beside, happens


@pytest.fixture
def broker():
    broker = StubBroker()
    broker.declare_queue("default")
    return broker


@pytest.fixture
def consumer(broker):
    return broker.consume("default", prefetch=100, timeout=20_000)


@pytest.fixture
def start(broker):
    workers = []

    def start():
        workers.append(greenq.Worker(broker, worker_timeout=100, worker_threads=2))
        workers[-1].start()

    yield start
    for worker in workers:
        worker.stop(5000)


def failing(broker, error, **options):
    @greenq.actor(broker=broker, max_retries=0, **options)
    def fail():
        raise error

    return fail


# -- its queues


def test_queues_include_delay_queues(broker):
    assert set(broker.queues) == {"default", "default.DQ"}
    assert broker.get_declared_queues() == {"default"}
    assert broker.get_declared_delay_queues() == {"default.DQ"}


def test_a_middleware_that_is_added_late_is_told_of_each_queue_once(broker):
    told = []

    class Listening(greenq.Middleware):
        def after_declare_queue(self, broker, queue_name):
            told.append(queue_name)

        def after_declare_delay_queue(self, broker, queue_name):
            told.append(queue_name)

    broker.add_middleware(Listening())

    assert told == ["default", "default.DQ"]


def test_a_queue_holds_encoded_bytes(broker):
    stored = broker.enqueue(message("encoded"))

    assert broker.queues["default"].qsize() == 1
    assert Message.decode(broker.queues["default"].get(timeout=1)) == stored


def test_a_delayed_message_is_in_the_delay_queue(broker):
    stored = broker.enqueue(message("later"), delay=60_000)

    assert broker.queues["default"].qsize() == 0
    assert Message.decode(broker.queues["default.DQ"].get(timeout=1)) == stored


def test_get_raises_empty_when_nothing_comes(broker):
    with pytest.raises(queue.Empty):
        broker.queues["default"].get(timeout=0.01)
    with pytest.raises(queue.Empty):
        broker.queues["default"].get(block=False)


def test_get_waits_for_a_message_from_another_thread(broker):
    with beside(broker.enqueue, message("awaited")):
        payload = broker.queues["default"].get(timeout=20)

    assert Message.decode(payload).args == ("awaited",)


def test_a_message_that_was_taken_with_get_is_unfinished_until_task_done(broker):
    broker.enqueue(message(1))
    default = broker.queues["default"]

    default.get()
    assert default.unfinished_tasks == 1
    default.task_done()

    assert default.unfinished_tasks == 0
    with pytest.raises(ValueError, match="task_done"):
        default.task_done()


def test_flush_settles_what_was_taken_with_get(broker):
    broker.enqueue(message(1))
    broker.queues["default"].get()

    broker.flush("default")

    broker.join("default", timeout=1000)


def test_bytes_that_are_put_in_directly_are_handed_out_by_priority(broker, consumer):
    default = broker.queues["default"]
    default.put(message("usual").encode())
    default.put(message("urgent", broker_priority=5).encode())
    default.put(message("strange", broker_priority="high").encode())
    default.put(b"no message")

    first, second, third, fourth = take(consumer, 4)

    assert names([first, second, third]) == ["urgent", "usual", "strange"]
    assert isinstance(fourth, Undecodable)


def test_bytes_that_are_put_in_directly_wait_for_their_eta(broker, consumer):
    eta = now_ms() + 60
    broker.queues["default"].put(message("later", eta=eta).encode())
    broker.queues["default"].put(message("now").encode())

    assert names(take(consumer)) == ["now"]
    assert names(take(consumer)) == ["later"]
    assert now_ms() >= eta
    assert broker.queues["default.DQ"].unfinished_tasks == 0


def test_bytes_that_are_put_into_the_delay_queue_come_in_the_order_of_their_etas(broker, consumer):
    delayed = broker.queues["default.DQ"]
    delayed.put(message("second", queue_name="default.DQ", eta=now_ms() + 40).encode())
    delayed.put(message("first", queue_name="default.DQ", eta=now_ms() + 20).encode())
    delayed.put(b"no message")

    fetched = take(consumer, 3)

    assert isinstance(fetched[0], Undecodable)
    assert names(fetched[1:]) == ["first", "second"]


def test_a_delay_queue_can_be_consumed_itself(broker):
    stored = broker.enqueue(message("later"), delay=60_000)

    assert next(broker.consume("default.DQ")) == stored


def test_a_consumer_holds_no_more_than_its_prefetch(broker):
    for number in range(3):
        broker.enqueue(message(number))
    consumer = broker.consume("default", prefetch=2, timeout=10)

    first, second = consumer.fetch(10)
    assert consumer.fetch(10) == []
    assert not consumer.wait()
    consumer.ack(first)

    assert consumer.wait()
    assert names([second, *consumer.fetch(10)]) == [1, 2]


def test_an_undeclared_queue_is_refused_before_any_hook_is_called(broker):
    class Listening(greenq.Middleware):
        def before_enqueue(self, broker, message, delay):
            raise AssertionError("it must not be called")

    broker.add_middleware(Listening())

    with pytest.raises(QueueNotFound, match="missing"):
        broker.enqueue(message(queue_name="missing"))
    with pytest.raises(QueueNotFound, match="missing"):
        broker.enqueue(message(queue_name="missing"), delay=10)


def test_an_undeclared_actor_is_not_refused(broker):
    broker.enqueue(message(actor_name="nobody"))

    assert broker.queues["default"].qsize() == 1


@pytest.mark.parametrize("call", ["join", "flush", "consume"])
def test_an_undeclared_queue_cannot_be_used(broker, call):
    with pytest.raises(QueueNotFound, match="missing"):
        getattr(broker, call)("missing")


# -- join


def test_join_returns_at_once_if_there_is_nothing_to_wait_for(broker):
    broker.join("default", timeout=0)


def test_join_gives_up_after_its_timeout(broker):
    broker.enqueue(message(1))

    with pytest.raises(QueueJoinTimeout, match=r"1 messages.*'default'"):
        broker.join("default", timeout=10)


def test_join_waits_for_delayed_messages(broker):
    broker.enqueue(message(1), delay=60_000)

    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=10)


def test_join_waits_for_a_message_that_is_being_processed(broker, consumer):
    broker.enqueue(message(1))
    (held,) = take(consumer)

    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=10)
    with beside(consumer.ack, held):
        broker.join("default", timeout=20_000)


def test_join_does_not_end_between_an_attempt_and_the_next(broker, start):
    attempts = []

    @greenq.actor(broker=broker, min_backoff=1, max_backoff=3, max_retries=50)
    def work():
        attempts.append(1)
        if len(attempts) < 20:
            raise RuntimeError("not yet")

    start()
    work.send()
    broker.join("default", timeout=20_000)

    assert len(attempts) == 20


def test_join_raises_the_exception_itself_that_killed_a_message(broker, start):
    error = RuntimeError("the very same")
    failing(broker, error).send()
    start()

    with pytest.raises(RuntimeError) as raised:
        broker.join("default", timeout=20_000)

    assert raised.value is error
    assert raised.traceback[-1].name == "fail"


def test_join_raises_the_first_of_several_exceptions(broker, consumer):
    for error in (None, KeyError("first"), ValueError("second")):
        broker.enqueue(message(1))
        (letter,) = take(consumer)
        letter.fail()
        if error is not None:
            letter.stuff_exception(error)
        consumer.nack(letter)

    with pytest.raises(KeyError, match="first"):
        broker.join("default", timeout=1000)


def test_join_raises_nothing_if_it_is_told_not_to(broker, start):
    failing(broker, RuntimeError("no")).send()
    start()

    broker.join("default", timeout=20_000, fail_fast=False)


def test_join_raises_if_it_is_told_to_although_its_broker_does_not():
    broker = StubBroker(fail_fast_default=False)
    broker.declare_queue("default")
    broker.dead_letters_by_queue["default"].append(greenq.MessageProxy(message(1)))
    broker.dead_letters[0].stuff_exception(RuntimeError("no"))

    broker.join("default")
    with pytest.raises(RuntimeError, match="no"):
        broker.join("default", fail_fast=True)


def test_join_raises_what_a_decoder_and_a_missing_actor_raise(broker, start):
    start()

    broker.queues["default"].put(b"no message")
    with pytest.raises(DecodeError):
        broker.join("default", timeout=20_000)
    broker.flush_all()
    broker.enqueue(message(actor_name="nobody"))
    with pytest.raises(greenq.ActorNotFound, match="nobody"):
        broker.join("default", timeout=20_000)


def test_join_raises_the_same_dead_letter_until_it_is_flushed(broker, start):
    failing(broker, RuntimeError("no")).send()
    start()

    for _ in range(2):
        with pytest.raises(RuntimeError):
            broker.join("default", timeout=20_000)
    broker.flush_all()

    broker.join("default", timeout=1000)


def test_join_does_not_raise_for_another_queue(broker, start):
    failing(broker, RuntimeError("no"), queue_name="other").send()
    start()

    with pytest.raises(RuntimeError):
        broker.join("other", timeout=20_000)
    broker.join("default", timeout=1000)


def test_join_can_be_called_by_several_threads(broker, consumer):
    broker.enqueue(message(1))
    (held,) = take(consumer)

    with beside(broker.join, "default"), beside(broker.join, "default"):
        consumer.ack(held)


# -- dead letters


def test_dead_letters_equal_the_messages_that_died(broker, start):
    died = threading.Event()

    class Listening(greenq.Middleware):
        def after_nack(self, broker, message):
            died.set()

    broker.add_middleware(Listening())

    @greenq.actor(broker=broker, throws=RuntimeError)
    def fail():
        raise RuntimeError("no")

    sent = fail.send()
    start()
    happens(died)

    assert broker.dead_letters == [sent]
    assert broker.dead_letters_by_queue["default"] == [sent]
    assert broker.dead_letters_by_queue["other"] == []


def test_flush_all_keeps_the_lists_of_dead_letters_alive(broker, consumer):
    letters = broker.dead_letters_by_queue["default"]
    broker.enqueue(message(1))
    consumer.nack(take(consumer)[0])
    assert len(letters) == 1

    broker.flush_all()

    assert letters == []
    assert broker.dead_letters_by_queue["default"] is letters


def test_exceptions_of_messages_that_are_tried_again_are_forgotten(broker, start):
    seen = []
    done = threading.Event()

    class Listening(greenq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            seen.append(message)

        def after_ack(self, broker, message):
            if len(seen) == 2:
                done.set()

    broker.add_middleware(Listening())

    @greenq.actor(broker=broker, min_backoff=1)
    def work():
        if not seen:
            raise RuntimeError("once")

    work.send()
    start()
    happens(done)

    assert seen[0]._exception is None
