"""What is RabbitMQ's own about dead letters: they are held while they are read, and go back.

What all brokers share is in contract/test_dead_letters.py. Runs in both worlds.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter

import pika
import pytest

import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker, dead_letters
from greenq.brokers.rabbitmq.wire import Delivery, Properties
from greenq.clock import now_ms
from greenq.errors import ConnectionError, ConnectionFailed
from tests.contract.fetching import message, names, take
from tests.support.processes import running
from tests.support.rabbitmq_server import shared_server
from tests.support.waiting import PATIENCE_S, beside, happens, until


@pytest.fixture
def vhost():
    with shared_server().vhost() as vhost:
        yield vhost


@pytest.fixture(params=["classic", "quorum"])
def queue_type(request):
    return request.param


@pytest.fixture
def open_broker(vhost, queue_type):
    """Makes brokers on the same server, each as if in a process of its own; closes them after the test."""
    brokers = []

    def make(**options):
        broker = RabbitmqBroker(url=vhost.url, middleware=[], queue_type=queue_type, **options)
        broker.declare_queue("default", ensure=True)
        brokers.append(broker)
        return broker

    yield make
    for each in brokers:
        each.close()


@pytest.fixture
def broker(open_broker):
    return open_broker()


@pytest.fixture
def letters(broker):
    return broker.dead_letters_of("default")


def bury(broker, numbers):
    """Dead letters as a settled batch leaves them."""
    none = Delivery(b"", 0, False, Properties(0, {}), b"")
    outgoing = [dead_letters.letter("default", none, message(number).encode(), "no good") for number in numbers]
    assert broker._attach().store([outgoing]) == [None]


def put(broker, body, **properties):
    """A dead letter of somebody else's."""
    broker.channel.basic_publish("", "default.XQ", body, pika.BasicProperties(delivery_mode=2, **properties))


def in_the_queue(broker, queue="default.XQ"):
    """The numbers of the messages there, in the order of the server."""
    channel, found = broker.channel, []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        found.append(greenq.Message.decode(body).args[0])


def is_refused(broker):
    try:
        broker.write([broker.prepare(message("in the way"))])
    except ConnectionFailed:
        return True
    return False


def shown(letters):
    return [letter.message.args[0] for letter in letters]


# -- the process ends while it holds letters


HOLD = """
    import sys
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], queue_type=sys.argv[2], middleware=[])
    seen = []
    def look(letter):
        seen.append(letter)
        if len(seen) == int(sys.argv[3]):
            print(broker.queue_counts("default").dead)
            sys.stdin.read()
        return False
    broker.dead_letters_of("default").send_back_all(where=look, batch_size=500)
"""


@pytest.mark.parametrize("held", [20, 500], ids=["few", "many"])
def test_what_a_killed_process_held_is_there_again_and_where_the_docs_say(vhost, broker, letters, queue_type, held):
    total = 600
    bury(broker, range(total))
    with running(HOLD.replace("500", str(held)), vhost.url, queue_type, held) as script:
        assert int(script.line()) == total - held

        script.kill()
        until(lambda: letters.count() == total)

    assert shown(letters.each(oldest_first=True)) == list(range(total))
    found = in_the_queue(broker)
    if queue_type == "quorum":
        # The look before this, too, held them all: more than 32 come back shuffled.
        assert sorted(found) == list(range(total))
    else:
        assert found == list(range(total))


def test_what_was_looked_at_goes_back_in_front_of_what_was_not(broker, letters, queue_type):
    bury(broker, range(100))
    with letters._holding() as hand:
        assert len(hand.take(50)) >= 50

    found = in_the_queue(broker)

    assert sorted(found[:50]) == list(range(50))
    assert found[50:] == list(range(50, 100))
    if queue_type == "classic":
        assert found == list(range(100))


def test_a_letter_that_was_looked_at_a_hundred_times_is_there(broker, letters):
    bury(broker, range(3))

    ids = {tuple(letter.id for letter in letters.page().letters) for _ in range(100)}

    assert len(ids) == 1
    assert letters.count() == 3


# -- two at once


def test_calls_of_one_process_take_turns_and_see_the_same(broker, letters):
    bury(broker, range(100))
    pages = []

    def look():
        for _ in range(5):
            pages.append(shown(broker.dead_letters_of("default").page(oldest_first=True).letters))

    with beside(look), beside(look):
        look()

    assert pages == [list(range(100))] * 15


def test_two_processes_at_once_see_different_letters_and_all_of_them_afterwards(open_broker):
    first, second = (open_broker().dead_letters_of("default") for _ in range(2))
    bury(first._broker, range(100))

    with first._holding() as hand:
        held = [greenq.Message.decode(each.body).args[0] for each in hand.take(40)]
        others = shown(second.each(oldest_first=True))
        assert second.count() == 100 - len(held)

    assert sorted(held + others) == list(range(100))
    assert shown(second.each(oldest_first=True)) == list(range(100))


def test_ten_thousand_are_sent_back_once_each_while_another_looks(open_broker):
    count = 10_000
    broker, other = open_broker(), open_broker()
    bury(broker, range(count))
    is_over = threading.Event()
    looks = []

    def look():
        while not is_over.is_set():
            looks.append(len(other.dead_letters_of("default").page(limit=50).letters))

    sent = 0
    with beside(look):
        until(lambda: looks)
        try:
            # What the other holds in a moment is left to the next call.
            while sent < count:
                sent += broker.dead_letters_of("default").send_back_all()
        finally:
            is_over.set()

    assert sent == count
    assert broker.dead_letters_of("default").count() == 0
    consumer = broker.consume("default", prefetch=count, timeout=PATIENCE_S * 1000)
    assert sorted(names(take(consumer, count))) == list(range(count))


# -- the connection ends while letters are sent back


def test_a_connection_that_is_cut_between_confirm_and_ack_doubles_that_batch_and_loses_nothing(
    vhost, broker, letters, monkeypatch
):
    bury(broker, range(50))
    acknowledge = dead_letters.Hand.acknowledge
    batches = []

    def cut_then_acknowledge(hand, deliveries):
        batches.append(deliveries)
        if len(batches) == 3:
            vhost.close_connections()
        acknowledge(hand, deliveries)

    monkeypatch.setattr(dead_letters.Hand, "acknowledge", cut_then_acknowledge)

    with pytest.raises(ConnectionError):
        letters.send_back_all(batch_size=10)

    again = RabbitmqBroker(url=vhost.url, middleware=[], queue_type=broker.topology.queue_type)
    until(lambda: again.get_queue_message_counts("default")[0] + again.get_queue_message_counts("default")[2] >= 60)
    assert sorted(in_the_queue(again, "default")) == list(range(30))
    assert sorted(in_the_queue(again)) == list(range(20, 50))
    again.close()


def test_a_send_back_that_is_cut_anywhere_loses_nothing(vhost, open_broker):
    broker, other = open_broker(), open_broker()
    count = 2000
    bury(broker, range(count))
    is_going, sent = threading.Event(), []

    def note(total):
        sent.append(total)
        is_going.set()

    def send_back():
        try:
            broker.dead_letters_of("default").send_back_all(batch_size=5, on_batch=note)
        except ConnectionError as error:
            sent.append(error)

    with beside(send_back):
        happens(is_going)
        vhost.close_connections()

    found = Counter(in_the_queue(other, "default"))
    until(lambda: sum(found.values()) + other.queue_counts("default").dead >= count)
    found += Counter(in_the_queue(other))
    assert sorted(found) == list(range(count))
    # Acks of the last batches, written but not read by the server, are lost with the connection.
    doubled = sum(found.values()) - count
    assert doubled <= 50


def test_what_the_queue_refuses_stays_dead(open_broker):
    broker = open_broker(queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    letters = broker.dead_letters_of("default")
    bury(broker, range(20))
    until(lambda: is_refused(broker))  # a quorum queue refuses only a moment after it is full

    with pytest.raises(ConnectionFailed, match="refused"):
        letters.send_back_all()

    assert letters.count() == 20
    assert shown(letters.each(oldest_first=True)) == list(range(20))


# -- how much is held


def test_no_more_is_held_than_the_reach_and_a_batch(broker, letters, monkeypatch, caplog):
    monkeypatch.setattr(dead_letters, "REACH", 40)
    bury(broker, range(200))
    held = []

    def stays(letter):
        held.append(200 - broker.queue_counts("default").dead)
        return False

    with caplog.at_level(logging.WARNING):
        assert letters.delete_all(where=stays, batch_size=10) == 0

    assert max(held) <= 40 + 10
    assert "160 were left out" in caplog.text
    assert letters.count() == 200


def test_all_are_sent_back_though_most_are_out_of_reach(broker, letters, monkeypatch):
    monkeypatch.setattr(dead_letters, "REACH", 40)
    bury(broker, range(200))
    held = []

    total = letters.send_back_all(batch_size=10, on_batch=lambda sent: held.append(200 - sent - letters.count()))

    assert total == 200
    assert max(held) == 0
    assert in_the_queue(broker, "default") == list(range(200))


def test_looks_end_at_the_reach_and_go_on_when_what_is_in_front_went(broker, letters, monkeypatch):
    monkeypatch.setattr(dead_letters, "REACH", 40)
    bury(broker, range(100))

    within = list(letters.each(oldest_first=True))
    assert shown(within) == list(range(40))
    assert letters.reach == 10_000
    assert letters.delete([letter.id for letter in within]) == 40

    assert shown(letters.each(oldest_first=True)) == list(range(40, 80))


def test_looking_leaves_no_channel_open(broker, letters):
    bury(broker, range(5))
    for _ in range(20):
        letters.page()

    connection = broker._attach().consuming.connection
    assert len(connection.takers) == 0
    assert len(connection._channels) == 0


def test_a_batch_that_fails_gives_everything_back(broker, letters):
    bury(broker, range(20))

    def fail(letter):
        raise RuntimeError("a mistake of the caller's")

    with pytest.raises(RuntimeError, match="a mistake"):
        letters.delete_all(where=fail)

    assert letters.count() == 20


# -- letters of others


def test_a_letter_that_rabbitmq_put_there_says_when_and_why(broker, letters):
    before = now_ms()
    broker.channel.basic_publish("", "default", message("a").encode())
    until(lambda: broker.queue_counts("default").ready == 1)
    method, _, _ = broker.channel.basic_get("default")
    broker.channel.basic_nack(method.delivery_tag, requeue=False)
    until(lambda: letters.count() == 1)

    (letter,) = letters.page().letters

    assert "'default'" in letter.reason
    assert "rejected" in letter.reason
    assert before - 1000 <= letter.died_at_ms <= now_ms()  # AMQP's times are in seconds
    assert letter.message.args == ("a",)
    assert letters.get(letter.id) == letter
    assert letters.send_back(letter.id) == 1
    assert in_the_queue(broker, "default") == ["a"]


FOREIGN = [
    {},
    {"headers": {}},
    {"headers": {"x-greenq-letter": 7, "x-greenq-died-at": "soon", "x-greenq-reason": 5, "x-greenq-losses": "many"}},
    {"headers": {"x-greenq-letter": "../x", "x-greenq-died-at": -1}},
    {"headers": {"x-greenq-died-at": 2**62, "x-greenq-reason": b"\xff"}},
    {"headers": {"x-death": []}},
    {"headers": {"x-death": "yesterday"}},
    {"headers": {"x-death": [{}]}},
    {"headers": {"x-death": [{"time": 5, "queue": 7, "reason": None}]}},
]


def test_letters_of_others_are_shown_sent_back_and_deleted(broker, letters):
    bodies = [b"", b"\xff\x00\xfe", b'{"queue_name":1}', b"x" * 2_000_000]
    given = [(f"{number}".encode() + body, each) for number, each in enumerate(FOREIGN) for body in bodies]
    given.append((b"", {}))
    for body, properties in given:
        put(broker, body, **properties)
    until(lambda: letters.count() == len(given))

    seen = list(letters.each(oldest_first=True))

    longest = greenq.message.MAX_MESSAGE_BYTES
    expected = [(len(body), body if len(body) <= longest else None) for body, _ in given]
    assert Counter((letter.size, letter.payload) for letter in seen) == Counter(expected)
    assert all(letter.message is None and letter.failures == [] for letter in seen)
    assert all(letters.get(letter.id) == letter for letter in seen[::7])
    ids = [letter.id for letter in seen]
    assert letters.send_back(ids[:20]) == 20
    assert letters.delete(ids) == len(ids) - 20
    assert broker.get_queue_message_counts("default") == (20, 0, 0)


def test_of_letters_that_are_the_same_in_everything_a_call_acts_on_one(broker, letters):
    for _ in range(3):
        put(broker, b"the same")
    until(lambda: letters.count() == 3)
    (id,) = {letter.id for letter in letters.each()}

    assert letters.delete(id) == 1
    assert letters.send_back([id, id]) == 1
    assert letters.count() == 1


def test_letters_that_are_too_old_are_gone(open_broker):
    broker = open_broker(dead_message_ttl=50)
    bury(broker, range(3))
    letters = broker.dead_letters_of("default")

    until(lambda: letters.page().letters == [])

    assert letters.send_back_all() == 0
