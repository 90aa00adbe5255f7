"""Errors that nobody expected, raised where the RabbitMQ connections live: nobody waits for ever, and it goes on.

And servers that end a connection before it is open: which of them refuse. Runs in both worlds.
"""

from __future__ import annotations

import socket
import threading
import time
from threading import Event, Thread

import pika
import pytest

from greenq.brokers.rabbitmq import RabbitmqBroker, loop, publisher
from greenq.brokers.rabbitmq.publisher import Batch, Outgoing
from greenq.errors import BrokerUnusable, ConnectionClosed, ConnectionError, ConnectionFailed
from greenq.runtime import is_patched
from tests.contract.fetching import message, names, take
from tests.support.processes import output_of
from tests.support.rabbitmq_server import free_ports, shared_server
from tests.support.waiting import PATIENCE_S, beside, happens, until


@pytest.fixture
def vhost():
    with shared_server().vhost() as vhost:
        yield vhost


@pytest.fixture
def broker(vhost):
    # A send that is not told of an error would wait for a minute.
    broker = RabbitmqBroker(url=vhost.url, middleware=[], send_timeout=60_000)
    broker.declare_queue("default")
    broker.enqueue(message("first"))
    yield broker
    broker.close()


@pytest.fixture
def told(caplog):
    """The lines about errors in the loop; each with its traceback."""

    def lines():
        found = [each for each in caplog.records if each.levelname == "CRITICAL"]
        assert all(each.exc_info and "An error in the loop of the RabbitMQ" in each.message for each in found)
        return [str(each.exc_info[1]) for each in found]

    return lines


def boom(*_):
    raise RuntimeError("boom")


def consume(broker):
    return broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)


def consume_all(consumer):
    while consumer.wait():
        consumer.fetch(10)


def test_an_error_of_a_timer_is_logged_and_the_loop_goes_on(broker, told):
    loop = broker._attach().loop

    loop.soon(lambda: loop.later(0, boom))

    until(lambda: told() == ["boom"])
    over = threading.Event()
    loop.soon(over.set)
    happens(over)  # it is told first, and then all that is under way is given up
    broker.enqueue(message("second"))
    assert names(take(consume(broker), 2)) == ["first", "second"]


def test_a_send_whose_confirm_cannot_be_read_fails_at_once_and_the_next_one_works(broker, told, monkeypatch):
    sender = broker._attach()._publisher
    with monkeypatch.context() as patch:
        sender._channel = None  # as if nothing had been sent yet
        patch.setattr(sender, "_on_confirms", boom)
        with pytest.raises(ConnectionClosed, match=r"error in greenq.*boom.*may be stored"):
            broker.enqueue(message("in doubt"))

    broker.enqueue(message("third"))

    assert "third" in names(take(consume(broker), 3))
    until(lambda: told() == ["boom"])


def test_nobody_is_woken_before_all_that_waits_is_given_up(broker, monkeypatch):
    # Whoever is woken may send again at once; that would be given up with the rest.
    attachment, holds_back = broker._attach(), []
    sender = attachment._publisher
    give_up_waiting = sender._on_no_connection

    def note_and_give_up(error):
        holds_back.append(attachment.loop._held is not None)
        give_up_waiting(error)

    monkeypatch.setattr(sender, "_on_no_connection", note_and_give_up)
    with monkeypatch.context() as patch:
        sender._channel = None  # as if nothing had been sent yet
        patch.setattr(sender, "_on_confirms", boom)
        with pytest.raises(ConnectionClosed, match="boom"):
            broker.enqueue(message("in doubt"))

    assert holds_back == [True]


def test_a_connection_that_can_never_be_used_fails_each_send_once_and_is_told_once(broker, told, monkeypatch):
    attachment, tries = broker._attach(), []

    def count_and_fail(*_):
        tries.append(1)
        boom()

    with monkeypatch.context() as patch:
        attachment._publisher._channel = None  # as if nothing had been sent yet
        patch.setattr(attachment._publisher, "_on_connection", count_and_fail)
        for _ in range(20):
            with pytest.raises(ConnectionFailed, match="boom"):
                broker.enqueue(message("fails"))
    broker.enqueue(message("second"))

    assert len(tries) == 20
    until(lambda: told() == ["boom"])
    assert broker.get_queue_message_counts("default")[0] == 2


def test_a_channel_that_can_never_be_opened_fails_each_send_once(broker, told, monkeypatch):
    attachment, tries = broker._attach(), []

    def count_and_fail(*_):
        tries.append(1)
        boom()

    with monkeypatch.context() as patch:
        attachment._publisher._channel = None  # as if nothing had been sent yet
        patch.setattr("greenq.brokers.rabbitmq.publisher.ConfirmTaker", count_and_fail)
        for _ in range(5):
            with pytest.raises(ConnectionFailed, match="boom"):
                broker.enqueue(message("fails"))
    broker.enqueue(message("second"))

    assert len(tries) == 5
    until(lambda: told() == ["boom"])


def test_a_message_that_cannot_be_put_on_the_wire_fails_alone(broker, told):
    attachment = broker._attach()
    good = attachment.place(broker.prepare(message("good")))

    errors = attachment.store([[good], [good._replace(headers={"x": object()})], [good]])

    assert errors[0] is errors[2] is None
    assert isinstance(errors[1], ConnectionFailed)
    assert broker.get_queue_message_counts("default")[0] == 3
    assert told() == []


def test_a_consumer_whose_messages_cannot_be_taken_is_told_and_the_next_one_gets_them(broker, told, monkeypatch):
    consumer = consume(broker)
    with monkeypatch.context() as patch:
        patch.setattr(consumer._subscription, "_adopts", boom)
        with pytest.raises(ConnectionClosed, match="boom"):
            consumer.wait()

    assert names(take(consume(broker))) == ["first"]
    until(lambda: told() == ["boom"])


def test_one_who_fails_when_the_connection_is_lost_keeps_the_news_from_nobody(vhost, broker, told):
    broker.declare_queue("other")
    consumers = [consume(broker), broker.consume("other", timeout=PATIENCE_S * 1000)]
    link = broker._attach().consuming
    until(lambda: len(link.connection._channels) == 2)  # those for declaring are closed
    for channel in link.connection._channels.values():
        channel._on_close_meta = boom
    link.on_lost.insert(0, boom)

    vhost.close_connections()

    for each in consumers:
        with pytest.raises(ConnectionClosed):
            consume_all(each)
    link.on_lost.remove(boom)
    assert names(take(consume(broker))) == ["first"]
    until(lambda: told() == ["boom"])


@pytest.mark.skipif(is_patched(), reason="under the patch there is no loop of pika's, but gevent's hub")
def test_an_error_of_pikas_own_loop_is_logged_and_the_loop_starts_again_after_a_pause(broker, told, monkeypatch):
    monkeypatch.setattr(loop, "_PAUSE_S", 0.2)
    poller = broker._attach().loop._place._loop._poller
    failures = []

    def fail_twice(poll=poller.poll):
        if len(failures) == 2:
            return poll()
        failures.append(time.monotonic())
        raise OSError("boom")

    monkeypatch.setattr(poller, "poll", fail_twice)
    with pytest.raises(ConnectionError, match="boom"):
        broker.enqueue(message("fails"))

    until(lambda: len(failures) == 2)
    broker.enqueue(message("second"))
    assert failures[1] - failures[0] >= 0.2
    until(lambda: told() == ["boom"])


# -- between two lines


class Watched(Batch):
    """Notes its error at the moment at which it is said to be over."""

    __slots__ = ("error_at_the_end",)

    def __setattr__(self, name, value):
        if name == "is_under_way" and not value:
            self.error_at_the_end = getattr(self, "error", None)
        super().__setattr__(name, value)


def test_a_batch_that_is_stored_after_all_has_no_error_when_it_is_said_to_be_over(broker, monkeypatch):
    sender, loop, held, answered = broker._attach()._publisher, broker._attach().loop, [], Event()
    batch = Watched([Outgoing("default", b"{}")], lambda _: answered.set(), time.monotonic() + 0.1)
    with monkeypatch.context() as patch:
        patch.setattr(sender, "_note", held.extend)
        sender.submit([batch])
        happens(answered)
        until(lambda: held)
    assert batch.is_under_way
    assert isinstance(batch.error, ConnectionClosed)

    loop.soon(lambda: sender._note(held))

    until(lambda: not batch.is_under_way)
    assert batch.error_at_the_end is None


class Interrupted(BaseException):
    """As a job is at its time limit."""


@pytest.mark.parametrize("interrupted", ["wake", "soon"])
def test_a_send_that_is_interrupted_between_two_lines_holds_up_no_other(broker, monkeypatch, interrupted):
    attachment, stored, others = broker._attach(), [], []
    where = attachment.loop._place if interrupted == "wake" else attachment.loop
    good = attachment.place(broker.prepare(message("good")))

    def interrupt(*_):
        patch.undo()
        others.append(Thread(target=lambda: stored.append(attachment.store([[good]])), daemon=True))
        others[0].start()
        until(lambda: len(attachment._publisher._waiting) == 2)  # it counts on this one to have all sent
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(where, interrupted, interrupt)
        with pytest.raises(Interrupted):
            attachment._publisher.submit([Batch([good], lambda _: None, time.monotonic() + PATIENCE_S)])

    others[0].join(PATIENCE_S)
    assert stored == [[None]]


# -- a queue that does not confirm


@pytest.fixture
def send_to_stuck(vhost, broker):
    """Sends messages, one a batch, to a queue whose process stands still; answers when all are given up."""
    broker.declare_queue("stuck", ensure=True)
    found = f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost.name}">>, queue, <<"stuck">>))'
    vhost.server.control("eval", f"{found}, sys:suspend(amqqueue:get_pid(Q)).")
    is_stuck = True

    def send(count):
        done = []
        until_s = time.monotonic() + 0.3
        batches = [Batch([Outgoing("stuck", b"x" * 100)], done.append, until_s) for _ in range(count)]
        broker._attach()._publisher.submit(batches)
        until(lambda: len(done) == count)
        return batches

    def go_on():
        nonlocal is_stuck
        if is_stuck:
            vhost.server.control("eval", f"{found}, sys:resume(amqqueue:get_pid(Q)).")
            is_stuck = False

    send.go_on = go_on
    yield send
    go_on()


def test_a_queue_that_confirms_nothing_stops_no_sends_to_others(broker, send_to_stuck, monkeypatch):
    monkeypatch.setattr(publisher, "_WINDOW_MESSAGES", 5)

    given_up = send_to_stuck(5)
    broker.enqueue(message("second"))

    assert all(isinstance(each.error, ConnectionClosed) and each.is_under_way for each in given_up)
    send_to_stuck.go_on()
    until(lambda: not any(each.is_under_way for each in given_up))
    assert [each.error for each in given_up] == [None] * 5
    assert broker._attach()._publisher._bytes_remembered == broker._attach()._publisher._bytes_under_way == 0


def test_who_waits_for_a_short_time_is_answered_behind_who_waits_for_long(broker, send_to_stuck, monkeypatch):
    monkeypatch.setattr(publisher, "_WINDOW_MESSAGES", 1)
    done = []
    ends = [time.monotonic() + wait_s for wait_s in (2 * PATIENCE_S, 2 * PATIENCE_S, 0.3)]
    under_way, long, short = (Batch([Outgoing("stuck", b"x")], done.append, end) for end in ends)

    broker._attach()._publisher.submit([under_way, long, short])
    until(lambda: done)

    assert done == [short]
    assert isinstance(short.error, ConnectionFailed)
    send_to_stuck.go_on()
    until(lambda: done == [short, under_way, long])


@pytest.mark.parametrize(("bound", "most"), [("_REMEMBERED_MESSAGES", 3), ("_REMEMBERED_BYTES", 350)])
def test_no_more_than_a_bound_of_unconfirmed_messages_is_remembered(broker, send_to_stuck, monkeypatch, bound, most):
    monkeypatch.setattr(publisher, bound, most)

    given_up = send_to_stuck(5)

    assert [each.is_under_way for each in given_up] == [False, False, True, True, True]
    send_to_stuck.go_on()
    until(lambda: not any(each.is_under_way for each in given_up))
    assert [each.error is None for each in given_up] == [False, False, True, True, True]
    assert broker._attach()._publisher._bytes_remembered == 0


# -- servers that end a connection before it is open


def closing_proxy(port, answers):
    """The port of somebody who passes on so many answers of a server's, and then closes without a word."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()

    def serve():
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        for _ in range(answers):
            server.sendall(client.recv(10_000))
            client.sendall(server.recv(10_000))
        client.recv(10_000)
        for each in (client, server, listener):
            each.close()

    return listener.getsockname()[1], serve


@pytest.mark.parametrize("answers", [0, 1, 2], ids=["at the greeting", "at the password", "at the virtual host"])
def test_a_server_that_closes_without_a_word_while_a_connection_opens_is_away(vhost, answers):
    port, serve = closing_proxy(vhost.server.port, answers)
    broker = RabbitmqBroker(url=f"amqp://127.0.0.1:{port}", middleware=[])

    with beside(serve), pytest.raises(ConnectionFailed, match="without a word why") as raised:
        broker.connect()

    assert not isinstance(raised.value, BrokerUnusable)
    broker.close()


def test_a_virtual_host_that_is_down_is_away_and_not_refused(vhost):
    vhost.server.control("eval", f'rabbit_vhost_sup_sup:stop_and_delete_vhost(<<"{vhost.name}">>).')
    broker = RabbitmqBroker(url=vhost.url, middleware=[])

    with pytest.raises(ConnectionFailed, match=r"is down \(541\)") as raised:
        broker.connect()

    assert not isinstance(raised.value, BrokerUnusable)
    broker.close()
    vhost.server.control("restart_vhost", "--vhost", vhost.name)


def test_a_virtual_host_with_enough_connections_is_away_and_not_refused(vhost):
    vhost.server.api("PUT", f"vhost-limits/{vhost.name}/max-connections", {"value": 0})
    broker = RabbitmqBroker(url=vhost.url, middleware=[])

    with pytest.raises(ConnectionFailed, match=r"connection limit \(0\) is reached") as raised:
        broker.connect()

    assert not isinstance(raised.value, BrokerUnusable)
    broker.close()


# -- what pika logs


def lines_of_pika(caplog):
    return [each for each in caplog.records if each.name.partition(".")[0] == "pika"]


def test_importing_the_broker_leaves_the_applications_loggers_as_they_are():
    levels = output_of(
        """
        import logging
        import greenq.brokers.rabbitmq
        print(logging.getLogger("pika").level, logging.getLogger("pika").disabled)
        """
    )
    assert levels == ["0 False"]


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_pika_logs_the_applications_lost_connections_and_not_those_of_the_broker(host, caplog):
    caplog.set_level("INFO")
    nowhere = pika.ConnectionParameters(host, free_ports(1)[0])
    broker = RabbitmqBroker(parameters=nowhere, middleware=[])

    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        broker.connect()
    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        _ = broker.connection
    assert lines_of_pika(caplog) == []

    with pytest.raises((pika.exceptions.AMQPError, OSError)):
        pika.BlockingConnection(nowhere)
    assert lines_of_pika(caplog) != []
    broker.close()


def test_whoever_sets_pikas_level_to_debug_sees_its_lines_about_the_broker(caplog):
    caplog.set_level("DEBUG", logger="pika")
    broker = RabbitmqBroker(url=f"amqp://127.0.0.1:{free_ports(1)[0]}", middleware=[])

    with pytest.raises(ConnectionFailed):
        broker.connect()

    assert any(each.levelname == "ERROR" for each in lines_of_pika(caplog))
    broker.close()


def test_a_connection_that_is_lost_is_no_line_of_pikas(vhost, broker, caplog):
    caplog.set_level("INFO")
    consumer = consume(broker)

    vhost.close_connections()

    with pytest.raises(ConnectionClosed):
        consume_all(consumer)
    assert lines_of_pika(caplog) == []
