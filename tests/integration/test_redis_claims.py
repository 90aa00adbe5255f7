"""A wait may claim the first message itself, without another round trip: none is lost by it or run twice."""

from __future__ import annotations

import signal
import threading

import pytest
import redis.exceptions

import greenq
from greenq.brokers.redis import RedisBroker
from greenq.brokers.redis.links import Links
from greenq.errors import ConnectionClosed
from tests.contract.fetching import acks, message, names, take
from tests.support.brokers import consume, opening, send
from tests.support.redis_server import redis_server, shared_server
from tests.support.waiting import PATIENCE_S, beside, happens


@pytest.fixture
def server():
    server = shared_server()
    server.client().flushall()
    return server


@pytest.fixture
def client(server):
    return server.client()


@pytest.fixture
def open_broker(server):
    with opening(lambda url=server.url, **options: RedisBroker(url=url, **options)) as open_broker:
        yield open_broker


@pytest.fixture
def broker(open_broker):
    return open_broker()


def claiming(broker, timeout_s=PATIENCE_S):
    """A consumer that has found its queue empty, and claims the next time that it waits."""
    consumer = consume(broker, timeout_s)
    consumer.claims_ahead = True
    assert consumer.fetch(1) == []
    return consumer


def leave_a_claim(broker):
    """A consumer whose wait is over, with its claim still under way."""
    consumer = claiming(broker, timeout_s=0.01)
    assert not consumer.wait()
    return consumer


def reserved(broker):
    return broker.queue_counts("default").reserved


def test_a_message_comes_with_the_end_of_the_wait(broker, open_broker, monkeypatch):
    consumer = claiming(broker)

    with beside(send, open_broker(), 1):
        assert consumer.wait()
    with monkeypatch.context() as patch:
        patch.setattr(Links, "call", lambda *args: pytest.fail("a script was sent"))
        fetched = consumer.fetch(10)

    assert names(fetched) == [1]
    assert consumer.complete(acks(fetched)) == []
    assert broker.queue_counts("default") == (0, 0, 0, 0)


def test_a_claim_takes_one_and_leaves_the_rest(broker, open_broker):
    consumer = claiming(broker)

    with beside(send, broker, 1, 2, 3):
        assert consumer.wait()

    assert names(take(open_broker().consume("default"), 2)) == [2, 3]
    assert names(consumer.fetch(10)) == [1]


def test_a_claim_is_met_while_the_consumer_is_busy_with_others(broker):
    consumer = leave_a_claim(broker)

    send(broker, 1, 2, 3)

    assert sorted(names(take(consumer, 3))) == [1, 2, 3]
    assert reserved(broker) == 3


def test_a_rest_after_a_wake_returns_what_the_claim_has_reserved(broker, open_broker):
    consumer = leave_a_claim(broker)
    send(broker, 1)  # is reserved by it now; nobody has read that

    consumer.wake()
    assert not consumer.wait()
    consumer.rest()

    assert names(take(open_broker().consume("default"))) == [1]


def test_a_rest_after_a_wake_in_the_middle_of_a_wait_returns_what_the_claim_has_reserved(broker, monkeypatch):
    consumer = leave_a_claim(broker)

    def is_interrupted(timeout=0):
        send(broker, 1)  # is reserved by the claim, and the answer is not read any more
        consumer.wake()
        raise redis.exceptions.ConnectionError("Connection closed")

    monkeypatch.setattr(consumer._peek._connection, "can_read", is_interrupted)

    assert not consumer.wait()
    consumer.rest()

    assert broker.queue_counts("default") == (1, 0, 0, 0)


def test_a_consumer_that_rests_has_nothing_reserved(broker):
    consumer = leave_a_claim(broker)
    send(broker, 1)

    consumer.rest()

    assert broker.queue_counts("default") == (1, 0, 0, 0)
    assert names(take(consumer)) == [1]


def test_a_consumer_that_was_woken_fetches_again(broker):
    consumer = leave_a_claim(broker)
    consumer.wake()
    assert not consumer.wait()

    send(broker, 1)

    assert names(take(consumer)) == [1]


def test_a_claim_over_a_connection_that_broke_reserves_nothing(broker, client):
    consumer = leave_a_claim(broker)
    [waiting] = [each["id"] for each in client.client_list() if each["cmd"] == "blmove"]
    client.client_kill_filter(_id=waiting)

    with pytest.raises(ConnectionClosed):
        consumer.wait()
    send(broker, 1)

    assert names(take(consume(broker))) == [1]
    assert reserved(broker) == 1


def test_what_a_closed_consumer_has_claimed_comes_with_the_next_fetch(broker):
    consumer = leave_a_claim(broker)
    send(broker, 1)

    consumer.close()

    assert names(take(consume(broker))) == [1]
    assert reserved(broker) == 1


def test_a_claim_under_a_name_that_was_given_up_reserves_nothing(broker):
    consumer = leave_a_claim(broker)
    broker._attachment.membership.lease("default").note_doubt()
    assert consumer.fetch(1) == []  # goes on under another name

    send(broker, 1, 2)

    assert names(take(consumer, 2)) == [1, 2]
    assert reserved(broker) == 2


def test_a_claim_that_was_answered_before_its_name_was_given_up_is_not_run_twice(broker):
    consumer = leave_a_claim(broker)
    send(broker, 1)  # is reserved by it now
    broker._attachment.membership.lease("default").note_doubt()

    first = take(consumer)  # clears the doubt: what nobody knew of was returned, and fetched again

    assert names(first) == [1]
    assert consumer.fetch(10) == []
    assert reserved(broker) == 1


def test_a_script_that_the_server_forgot_claims_nothing(broker, client):
    consumer = claiming(broker)
    client.script_flush()

    with beside(send, broker, 1):
        assert names(take(consumer)) == [1]


def test_garbage_that_is_claimed_becomes_a_dead_letter_and_the_next_message_runs(broker, client):
    ran = threading.Event()

    @greenq.actor(broker=broker)
    def work():
        ran.set()

    worker = greenq.Worker(broker, worker_threads=2)
    worker.start()
    client.hset("greenq:default.msgs", "foreign", b"\xff")
    client.rpush("greenq:default", "foreign")
    work.send()

    happens(ran)
    broker.join("default", timeout=PATIENCE_S * 1000)
    worker.stop()
    assert broker.queue_counts("default") == (0, 0, 0, 1)


def test_a_message_that_a_busy_worker_has_claimed_goes_to_an_idle_one(open_broker):
    busy, idle = open_broker(), open_broker()
    started, release, ran = threading.Event(), threading.Event(), threading.Event()

    def occupy():
        started.set()
        release.wait(3 * PATIENCE_S)

    for broker in (busy, idle):
        greenq.actor(occupy, broker=broker, queue_name="other")
        greenq.actor(ran.set, broker=broker, actor_name="work")
    worker = greenq.Worker(busy, worker_threads=1)
    worker.start()  # waits on both queues, and claims on both
    try:
        busy.enqueue(message(actor_name="occupy", queue_name="other"))
        happens(started)
        busy.enqueue(message(actor_name="work"))
        second = greenq.Worker(idle, worker_threads=1)
        second.start()

        happens(ran)  # although the first has no slot for it, and may have claimed it
        second.stop()
    finally:
        release.set()
        worker.stop()


def test_a_server_that_stood_still_under_a_claim_gives_each_message_once(open_broker):
    with redis_server() as server:
        broker, producer = open_broker(server.url), open_broker(server.url)
        consumer = leave_a_claim(broker)
        server.process.send_signal(signal.SIGSTOP)
        with beside(send, producer, 1):
            consumer.wake()  # its connection is closed; the server does not see it yet
            server.process.send_signal(signal.SIGCONT)
            assert not consumer.wait()

        fetched = take(consumer)
        assert names(fetched) == [1]
        assert consumer.complete(acks(fetched)) == []
        assert broker.queue_counts("default") == (0, 0, 0, 0)


def test_a_closed_broker_returns_what_was_claimed(broker, open_broker):
    consumer = leave_a_claim(broker)
    send(open_broker(), 1)

    broker.close()

    with pytest.raises(ConnectionClosed):
        consumer.fetch(1)
    assert names(take(open_broker().consume("default"))) == [1]
