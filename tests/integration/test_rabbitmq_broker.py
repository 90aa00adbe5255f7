"""What is the RabbitMQ broker's own: connections, confirms, acks, delays, counts, foreign producers.

What all brokers share is in contract/, outages are in test_rabbitmq_outages.py. Runs in both
worlds.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time

import pika
import psutil
import pytest
from pika.heartbeat import HeartbeatChecker

import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker, publisher
from greenq.brokers.rabbitmq import dead_letters as looks
from greenq.brokers.rabbitmq.connection import Link
from greenq.brokers.rabbitmq.loop import Loop
from greenq.brokers.rabbitmq.parameters import make_parameters
from greenq.brokers.rabbitmq.publisher import Batch, Outgoing, Publisher
from greenq.clock import now_ms
from greenq.consumer import Undecodable
from greenq.errors import BrokerUnusable, ConnectionClosed, ConnectionFailed, QueueJoinTimeout, QueueMismatch
from greenq.verdict import Action, Verdict
from tests.contract.fetching import acks, message, nacks, names, requeues, take, take_one
from tests.support.command import Command, write_module
from tests.support.processes import both_worlds, output_of, running
from tests.support.rabbitmq_server import free_ports, shared_server
from tests.support.waiting import PATIENCE_S, beside, happens


@pytest.fixture
def vhost():
    with shared_server().vhost() as vhost:
        yield vhost


@pytest.fixture
def open_broker(vhost):
    """Makes brokers on the same server, each as if in a process of its own; closes them after the test."""
    brokers = []

    def make(*, url=None, **options):
        broker = RabbitmqBroker(url=url or vhost.url, middleware=[], **options)
        broker.declare_queue("default")
        brokers.append(broker)
        return broker

    yield make
    for each in brokers:
        each.close()


@pytest.fixture
def broker(open_broker):
    return open_broker()


@pytest.fixture
def consumer(broker):
    return consume(broker)


def consume(broker, *, prefetch=1000, timeout_s=PATIENCE_S):
    return broker.consume("default", prefetch=prefetch, timeout=timeout_s * 1000)


def send(broker, *numbers, **options):
    broker.write([broker.prepare(message(number, **options)) for number in numbers])


def counts(broker):
    return broker.get_queue_message_counts("default")


def wait_until(happened):
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def sockets(port):
    """Our end of each connection to the server."""
    found = psutil.Process().net_connections("tcp")
    return sorted(
        each.laddr.port for each in found if each.raddr and each.raddr.port == port and each.status == "ESTABLISHED"
    )


def dead_letters(broker):
    """(body, reason) of each."""
    letters = []
    while True:
        method, properties, body = broker.channel.basic_get("default.XQ", auto_ack=True)
        if method is None:
            return letters
        letters.append((body, (properties.headers or {}).get("x-greenq-reason")))


# -- connections


SEND_FROM_MANY = """
    import sys, threading
    import psutil
    from greenq import Message
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
    broker.declare_queue("default")
    port, many = int(sys.argv[2]), int(sys.argv[3])
    def connections():
        found = psutil.Process().net_connections("tcp")
        return sum(1 for each in found if each.raddr and each.raddr.port == port and each.status == "ESTABLISHED")
    threads = [
        threading.Thread(target=lambda: broker.enqueue(Message("default", "work", (1,), {}, {}))) for _ in range(many)
    ]
    for thread in threads: thread.start()
    most = connections()
    for thread in threads: thread.join()
    most = max(most, connections())
    files = psutil.Process().num_fds()
    print(most, broker.get_queue_message_counts("default")[0])
    broker.close()
    print(connections(), threading.active_count())
"""


@pytest.mark.parametrize(("patched", "many"), [(True, 5000), (False, 500)], ids=["greenlets", "threads"])
def test_thousands_that_each_send_once_share_a_connection_and_none_is_left(vhost, patched, many):
    first, last = output_of(SEND_FROM_MANY, vhost.url, vhost.server.port, many, patched=patched)

    most, stored = map(int, first.split())
    assert 1 <= most <= 4
    assert stored == many
    assert last == "0 1"


def test_an_idle_producer_keeps_its_connection(open_broker, vhost, monkeypatch):
    """Four seconds at a heartbeat of one are all that an idle hour can bring.

    Three timers run: the server's, which gives up after two to three heartbeats without a word; pika's,
    which sends one each half; and pika's look whether the server has said anything, each of which sets
    up the next. Nothing else counts or grows in between. pika looks five seconds later than a heartbeat,
    which is a while for a test and nothing for an hour: so here it looks more often.
    """
    looks = []

    def look(checker, really=HeartbeatChecker._check_heartbeat):
        looks.append(checker._has_received_data)
        really(checker)

    def start(checker, really=HeartbeatChecker._start_check_timer):
        checker._check_interval = 1.2
        really(checker)

    monkeypatch.setattr(HeartbeatChecker, "_check_heartbeat", look)
    monkeypatch.setattr(HeartbeatChecker, "_start_check_timer", start)
    broker = open_broker(heartbeat=1)
    send(broker, 1)
    before = sockets(vhost.server.port)

    time.sleep(4)  # the server gives up on a silent client after two to three heartbeats
    send(broker, 2)

    assert sockets(vhost.server.port) == before
    assert counts(broker)[0] == 2
    assert len(looks) >= 2
    assert all(looks)


BUSY = """
    import sys, time
    import psutil
    from greenq import Message
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[], heartbeat=1)
    broker.declare_queue("default")
    consumer = broker.consume("default", prefetch=10, timeout=20000)
    broker.enqueue(Message("default", "work", (1,), {}, {}))
    held = next(consumer)
    def connections():
        found = psutil.Process().net_connections("tcp")
        return sorted(each.laddr.port for each in found if each.status == "ESTABLISHED")
    before = connections()
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end: pass
    time.sleep(2)  # pika looks for the server's heartbeats
    consumer.ack(held)
    broker.enqueue(Message("default", "work", (2,), {}, {}))
    print(next(consumer).args[0], connections() == before)
    broker.close()
"""


@both_worlds
def test_a_hub_that_is_busy_for_many_heartbeats_keeps_its_connections(vhost, patched):
    (line,) = output_of(BUSY, vhost.url, 6, patched=patched)

    assert line == "2 True"


def test_files_and_threads_do_not_grow_with_brokers_that_are_closed(open_broker):
    def use_one():
        broker = open_broker()
        send(broker, 1)
        consume(broker)
        broker.close()

    use_one()
    before = psutil.Process().num_fds(), psutil.Process().num_threads()
    for _ in range(5):
        use_one()

    wait_until(lambda: psutil.Process().num_threads() <= before[1])
    wait_until(lambda: psutil.Process().num_fds() <= before[0])


def test_a_closed_broker_connects_again_when_it_is_used_again(broker, consumer):
    send(broker, 1)
    broker.close()
    broker.close()

    with pytest.raises(ConnectionClosed):
        consumer.fetch(1)
    send(broker, 2)

    assert sorted(names(take(consume(broker), 2))) == [1, 2]


def test_a_forked_child_makes_connections_of_its_own(vhost):
    (line,) = output_of(
        """
        import os, sys
        from greenq import Message
        from greenq.brokers.rabbitmq import RabbitmqBroker
        broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
        broker.declare_queue("default")
        broker.enqueue(Message("default", "work", (1,), {}, {}))
        child = os.fork()
        broker.enqueue(Message("default", "work", (2,), {}, {}))
        if child == 0:
            broker.close()
            os._exit(0)
        os.waitpid(child, 0)
        broker.enqueue(Message("default", "work", (3,), {}, {}))
        print(broker.get_queue_message_counts("default"))
        broker.close()
        """,
        vhost.url,
    )

    assert line == "(4, 0, 0)"


SEND_BESIDE_A_CHILD = """
    import os, socket, sys
    import psutil
    from greenq import Message
    from greenq.brokers.rabbitmq import RabbitmqBroker
    from greenq.errors import ConnectionClosed
    from greenq.verdict import Action, Verdict
    def send(count):
        for number in range(count):
            broker.enqueue(Message("default", "work", (number,), {}, {}))
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[], send_timeout=10_000)
    broker.declare_queue("default")
    send(1)
    consumer = broker.consume("default", prefetch=1, timeout=10_000)
    assert consumer.wait()
    verdict = Verdict(Action.ACK, *consumer.fetch(1))
    ours, childs = socket.socketpair()
    if os.fork() == 0:
        ours.close()  # it ends with its parent
        try:
            consumer.complete([verdict])
            told = b"settled"
        except ConnectionClosed:
            told = b"refused"
        held = [each for each in psutil.Process().net_connections("tcp") if each.raddr[1:] == (int(sys.argv[2]),)]
        childs.sendall(b"%s and holds %d connections" % (told, len(held)))
        childs.recv(1)  # its hub goes on, if it has one
        send(1)  # over a connection of its own
        childs.sendall(b"sent")
        os._exit(0)
    print(ours.recv(100).decode())
    send(200)
    ours.sendall(b"!")
    print(ours.recv(100).decode())
    consumer.complete([verdict])
    consumer.close()
    print(broker.get_queue_message_counts("default"))
    broker.close()
"""


@both_worlds
def test_a_forked_child_leaves_the_connections_to_its_parent(vhost, patched):
    told = output_of(SEND_BESIDE_A_CHILD, vhost.url, vhost.server.port, patched=patched)

    assert told == ["refused and holds 0 connections", "sent", "(201, 0, 0)"]


FETCH_IN_A_CHILD = """
    import os, sys, time
    from greenq import Message
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
    broker.declare_queue("default")
    for number in range(3):
        broker.enqueue(Message("default", "work", (number,), {}, {}))
    consumer = broker.consume("default", prefetch=10, timeout=300)
    while not consumer.wait() or consumer._subscription.in_hand < 3: time.sleep(0.01)
    held = consumer.fetch(1)
    child = os.fork()
    if child == 0:
        consumer._subscription.put_back([held[0].delivery])  # as a task would that had it in its hands
        os.write(1, b"child: %r, %r\\n" % (consumer.wait(), consumer.fetch(10)))
        os._exit(0)
    os.waitpid(child, 0)
    held += consumer.fetch(10)
    for each in held: consumer.ack(each)
    consumer.close()
    print("parent:", [each.args[0] for each in held], broker.get_queue_message_counts("default"))
    broker.close()
"""


@both_worlds
def test_a_forked_child_leaves_what_was_sent_ahead_to_its_parent(vhost, patched):
    told = output_of(FETCH_IN_A_CHILD, vhost.url, patched=patched)

    assert told == ["child: False, []", "parent: [0, 1, 2] (0, 0, 0)"]


def test_the_next_server_is_used_if_the_first_cannot_be_reached(open_broker, vhost):
    (nobody,) = free_ports(1)
    broker = open_broker(url=f"amqp://127.0.0.1:{nobody};{vhost.url}")

    send(broker, 1)

    assert counts(broker) == (1, 0, 0)


def test_an_error_of_connecting_names_all_servers_and_no_password(open_broker, caplog):
    first, second = free_ports(2)
    broker = open_broker(url=f"amqp://me:secret@127.0.0.1:{first};amqp://me:secret@127.0.0.1:{second}")

    with pytest.raises(ConnectionFailed) as raised:
        broker.connect()

    assert f"127.0.0.1:{first}: Connection refused; 127.0.0.1:{second}: Connection refused" in str(raised.value)
    assert "secret" not in str(raised.value) + caplog.text


@pytest.mark.parametrize(
    ("credentials", "virtual_host", "reason"),
    [("wrong", None, "does not accept the user or the password"), ("guest", "missing", "no such virtual host")],
)
def test_a_server_that_refuses_says_why_without_the_password(
    open_broker, vhost, caplog, credentials, virtual_host, reason
):
    broker = open_broker(
        credentials=pika.PlainCredentials("guest", credentials), virtual_host=virtual_host or vhost.name
    )

    with caplog.at_level("DEBUG", "greenq"), pytest.raises(BrokerUnusable, match=reason) as raised:
        broker.connect()
    assert "wrong" not in str(raised.value) + caplog.text


# -- connections of the application's own


def test_connection_and_channel_are_opened_when_they_are_asked_for_and_stay(broker, vhost):
    send(broker, 1)
    before = sockets(vhost.server.port)

    connection, channel = broker.connection, broker.channel

    assert isinstance(connection, pika.BlockingConnection)
    assert (broker.connection, broker.channel) == (connection, channel)
    assert channel.queue_declare("default", passive=True).method.message_count == 1
    assert len(sockets(vhost.server.port)) == len(before) + 1


def test_connection_and_channel_can_be_deleted_again_and_again(broker, vhost):
    first = broker.connection
    for _ in range(2):
        del broker.channel
        del broker.connection

    assert not first.is_open
    assert sockets(vhost.server.port) == []
    assert broker.channel.is_open
    assert broker.connection is not first


def test_a_threads_connection_ends_with_the_thread(broker, vhost):
    mine = broker.connection
    with beside(lambda: broker.channel):
        pass

    wait_until(lambda: len(sockets(vhost.server.port)) == 1)
    assert broker.connection is mine


def test_closing_the_broker_closes_the_connections_of_all_threads(broker, vhost):
    opened, closed = threading.Event(), threading.Event()

    def hold():
        broker.connection  # noqa: B018 # asking for it opens it
        opened.set()
        happens(closed)

    with beside(hold):
        happens(opened)
        broker.close()
        left = sockets(vhost.server.port)
        closed.set()

    assert left == []


# -- publishing


@both_worlds
def test_a_send_that_returned_is_in_the_queue(vhost, patched):
    (line,) = output_of(
        """
        import sys, threading
        from greenq import Message
        from greenq.brokers.rabbitmq import RabbitmqBroker
        broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
        broker.declare_queue("default")
        def send_many():
            for _ in range(100):
                broker.enqueue(Message("default", "work", (1,), {}, {}))
        threads = [threading.Thread(target=send_many) for _ in range(20)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        import os
        os.write(1, b"%d\\n" % broker.get_queue_message_counts("default")[0])
        os._exit(0)  # nothing is left to be written
        """,
        vhost.url,
        patched=patched,
    )

    assert line == "2000"


@pytest.mark.parametrize(("bound", "most"), [("_WINDOW_MESSAGES", 7), ("_WINDOW_BYTES", 3000)])
def test_no_more_than_a_window_of_messages_is_sent_unconfirmed(broker, monkeypatch, bound, most):
    send(broker, "first")
    monkeypatch.setattr(publisher, bound, most)
    at_once = []

    def put_and_note(self, batch, frames, put=Publisher._put):
        put(self, batch, frames)
        at_once.append((len(self._under_way), self._bytes_under_way))

    monkeypatch.setattr(Publisher, "_put", put_and_note)
    body = "x" * 500
    threads = [threading.Thread(target=send, args=(broker, body)) for _ in range(200)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE_S)

    assert counts(broker)[0] == 201
    assert 1 < max(messages for messages, _ in at_once) <= 7
    if bound == "_WINDOW_BYTES":  # the last one may be across it
        assert max(size for _, size in at_once) < most + 1000


def test_a_message_that_the_server_refuses_is_an_error_that_says_so(open_broker):
    broker = open_broker(queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    send(broker, 1)

    with pytest.raises(ConnectionFailed, match="refused 1 of 1 messages for default: the queue may be full"):
        send(broker, 2)

    assert counts(broker) == (1, 0, 0)


def test_a_queue_that_vanished_is_declared_again(broker):
    send(broker, 1)
    broker.channel.queue_delete("default")

    send(broker, 2, 3)

    assert names(take(consume(broker), 2)) == [2, 3]


def test_a_send_to_a_queue_that_vanishes_again_is_an_error_that_says_so(broker, monkeypatch):
    attachment = broker._attach()

    def declare_and_delete(*args, ensure=attachment.ensure, **options):
        ensure(*args, **options)
        broker.channel.queue_delete("default")

    send(broker, 1)
    monkeypatch.setattr(attachment, "ensure", declare_and_delete)
    with pytest.raises(ConnectionFailed, match=r"returned the message: queue 'default' was deleted, and again after"):
        send(broker, 2)
    monkeypatch.undo()

    send(broker, 3)
    assert names(take(consume(broker))) == [3]


def test_a_message_that_came_back_has_what_is_left_of_the_time_of_its_send(broker, monkeypatch):
    send(broker, 1)
    broker.channel.queue_delete("default")
    attachment, deadlines = broker._attach(), []

    def publish_and_note(groups, sender, deadline, publish=attachment._publish, **options):
        deadlines.append(deadline)
        return publish(groups, sender, deadline, **options)

    monkeypatch.setattr(attachment, "_publish", publish_and_note)
    send(broker, 2)

    first, again = deadlines
    assert first == again


def test_a_ladder_that_vanished_is_declared_again(broker, consumer):
    broker.enqueue(message("first"), delay=5_000_000)
    for rung in broker.topology.ladder("default"):
        broker.channel.queue_delete(rung.name)

    broker.enqueue(message("second"), delay=60)

    assert names(take(consumer)) == ["second"]


def test_messages_are_sent_without_confirms_if_somebody_wants_that(open_broker):
    broker = open_broker(confirm_delivery=False)

    for number in range(100):
        broker.enqueue(message(number))

    assert names(take(consume(broker), 100)) == list(range(100))


def test_a_full_socket_is_looked_at_by_one_timer_however_many_send(open_broker, monkeypatch):
    broker = open_broker(confirm_delivery=False)
    send(broker, "first")
    sender, loop, timers, most, done = broker._attach()._sender, broker._attach().loop, [], [], []

    def note_and_call_later(seconds, call, later=loop.later):
        def ended():
            timers.remove(seconds)
            call()

        if call != sender._answer_unconfirmed_later:
            return later(seconds, call)
        timers.append(seconds)
        most.append(len(timers))
        return later(seconds, ended)

    monkeypatch.setattr(loop, "later", note_and_call_later)
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "_WINDOW_UNSENT_BYTES", -1)  # as if it took nothing
        for number in range(1, 6):
            batch = Batch([Outgoing("default", b"{}")], done.append, time.monotonic() + PATIENCE_S)
            sender.submit([batch])
            wait_until(lambda number=number: len(sender._under_way) == number)
    wait_until(lambda: len(done) == 5)

    assert set(most) == {1}


def test_a_send_by_a_job_that_was_interrupted_leaves_the_others_alone(vhost):
    (line,) = output_of(
        """
        import sys
        import gevent
        from greenq import Message
        from greenq.brokers.rabbitmq import RabbitmqBroker
        broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
        broker.declare_queue("default")
        def send(): broker.enqueue(Message("default", "work", (1,), {}, {}))
        send()
        killed, lives = [gevent.spawn(send) for _ in range(50)], [gevent.spawn(send) for _ in range(50)]
        gevent.sleep(0)
        gevent.killall(killed)
        gevent.joinall(lives, raise_error=True)
        send()
        print(broker.get_queue_message_counts("default")[0] >= 52)
        broker.close()
        """,
        vhost.url,
        patched=True,
    )

    assert line == "True"


# -- acks


def test_one_long_job_among_ten_thousand_short_ones_delays_nobodys_ack(broker, vhost):
    for start in range(0, 10_000, 1000):
        send(broker, *range(start, start + 1000))
    consumer = consume(broker, prefetch=100)
    (long_job,) = take(consumer)

    done = 1
    while done < 10_000:
        fetched = take(consumer, 1) + consumer.fetch(99)
        random.shuffle(fetched)
        consumer.complete(acks(fetched))
        done += len(fetched)
    consumer.close()

    # Only the long one goes back.
    assert counts(broker) == (1, 0, 0)
    assert long_job.args == (0,)


def test_acks_are_written_before_the_connection_closes(vhost, broker):
    send(broker, *range(1000))

    for patched in (False, True):
        output_of(
            """
            import sys
            from greenq.brokers.rabbitmq import RabbitmqBroker
            broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
            broker.declare_queue("default")
            consumer = broker.consume("default", prefetch=1000, timeout=20000)
            for _ in range(500):
                consumer.ack(next(consumer))
            broker.close()
            """,
            vhost.url,
            patched=patched,
        )

    assert counts(broker) == (0, 0, 0)


STOP = """
    import os, sys, threading, time
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1])
    count = int(sys.argv[2])
    started = []
    @greenq.actor(broker=broker, max_retries=0)
    def work(number):
        started.append(number)
        time.sleep(0.5)
        os.write(1, b"%d\\n" % number)
    worker = greenq.Worker(broker, concurrency=count)
    worker.start()
    while len(started) < worker.concurrency: time.sleep(0.001)
    worker.stop(20_000)
    broker.close()
"""


@pytest.mark.parametrize(("patched", "count"), [(True, 1000), (False, 64)], ids=["greenlets", "threads"])
def test_a_stop_with_all_slots_busy_runs_nothing_twice_and_loses_nothing(vhost, broker, patched, count):
    for number in range(count + 100):
        broker.enqueue(message(number))

    ran = output_of(STOP, vhost.url, count, patched=patched)

    assert len(set(ran)) == len(ran) >= count
    assert counts(broker) == (count + 100 - len(ran), 0, 0)


THOUSAND = """
import os, pathlib, threading, time
import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url={url!r})
greenq.set_broker(broker)
HERE = pathlib.Path(__file__).parent
may_end = threading.Event()

def look():
    while not (HERE / "go").exists():
        time.sleep(0.05)
    may_end.set()

@greenq.actor(max_retries=0)
def work(number):
    if number == 0:
        threading.Thread(target=look).start()
    os.write(1, b"started %d\\n" % number)
    may_end.wait()
    os.write(1, b"ended %d\\n" % number)
"""


def test_a_worker_command_that_is_told_to_end_with_a_thousand_jobs_in_flight_ends_them_all(vhost, broker, tmp_path):
    write_module(tmp_path, "app", THOUSAND.format(url=vhost.url))
    for start in range(0, 1000, 100):
        send(broker, *range(start, start + 100))
    command = Command(tmp_path, "app", "--processes", "1", "--concurrency", "1000")
    try:
        command.wait_for(r"started \d+", 1000)

        command.send(signal.SIGTERM)
        command.wait_for(r"Shutting down|[Ss]top")
        (tmp_path / "go").touch()

        assert command.exit_code() == 0
    finally:
        command.end()
    for what in ("started", "ended"):
        assert sorted(map(int, command.matches(rf"{what} (\d+)"))) == list(range(1000))
    assert counts(broker) == (0, 0, 0)


def test_what_was_sent_ahead_goes_back_when_the_consumer_rests(broker, open_broker):
    send(broker, *range(10))
    first, second = consume(broker), consume(open_broker())
    held = take(first, 2)

    first.rest()

    assert sorted(names(take(second, 8))) == list(range(2, 10))
    first.complete(acks(held))
    send(broker, "next")
    assert names(take(second)) == ["next"]


def test_a_consumer_that_rested_gets_messages_again(broker, consumer):
    send(broker, 1)
    take_one(consumer)
    consumer.rest()
    consumer.rest()

    send(broker, 2)

    assert names(take(consumer)) == [2]


def test_messages_of_a_stopping_worker_are_for_others_while_its_last_job_runs(broker, open_broker):
    running, may_end = threading.Event(), threading.Event()

    @greenq.actor(broker=broker)
    def work(number):
        running.set()
        happens(may_end)

    worker = greenq.Worker(broker, worker_threads=1)
    worker.queue_prefetch = 10
    send(broker, *range(10))
    worker.start()
    happens(running)

    with beside(worker.stop, 30_000):
        others = take(consume(open_broker()), 9)
        may_end.set()

    assert sorted(names(others)) == list(range(1, 10))
    assert worker.jobs_done == 1


def test_what_several_queues_had_sent_ahead_goes_back_to_its_places_when_the_worker_stops(broker, open_broker):
    queues, may_end, ran = ["first", "second", "third"], threading.Event(), []

    def work(number):
        ran.append(number)
        may_end.wait(PATIENCE_S)

    worker_broker = open_broker()
    for name in queues:
        greenq.actor(work, broker=worker_broker, actor_name=name, queue_name=name)
        broker.declare_queue(name)
        broker.enqueue_many([message(number, actor_name=name, queue_name=name) for number in range(4)])
    worker = greenq.Worker(worker_broker, worker_threads=2)
    worker.start()
    in_hand = worker_broker._attach().in_hand
    wait_until(lambda: len(ran) == 2 and all(in_hand(name) == 2 for name in queues))

    with beside(worker.stop, PATIENCE_S * 1000):
        wait_until(lambda: sum(in_hand(name) for name in queues) == 2)
        may_end.set()
    worker_broker.close()

    left = {name: [] for name in queues}
    for name in queues:
        while (found := broker.channel.basic_get(name, auto_ack=True)) and found[0] is not None:
            left[name].append(greenq.Message.decode(found[2]).args[0])
    assert sorted(ran + [number for numbers in left.values() for number in numbers]) == sorted([*range(4)] * 3)
    assert all(numbers == sorted(numbers) for numbers in left.values())
    assert len(ran) == 2


def test_a_verdict_on_a_message_of_a_lost_connection_is_refused_and_stores_nothing(broker, consumer, open_broker):
    send(broker, 1)
    held = take_one(consumer)
    broker.close()
    verdict = Verdict(Action.ACK, held, follow_ups=[broker.prepare(message("retry"))])

    assert list(consume(broker).complete([verdict])) == [verdict]

    assert names(take(consume(open_broker()))) == [1]
    assert counts(broker) == (0, 0, 0)


# -- retries and dead letters


def test_a_message_is_not_acknowledged_if_what_follows_is_not_confirmed(open_broker):
    broker = open_broker(queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    send(broker, "first")
    consumer = consume(broker)
    first = take_one(consumer)
    send(broker, "fills the queue")
    consumer.rest()
    wait_until(lambda: counts(broker)[0] == 1)

    with pytest.raises(ConnectionFailed, match="refused"):
        consumer.complete([Verdict(Action.ACK, first, follow_ups=[broker.prepare(first.message)])])

    consumer.close()
    wait_until(lambda: counts(broker)[0] == 2)


def test_what_cannot_be_stored_delays_no_other_messages_ack(open_broker):
    broker = open_broker(queue_arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    send(broker, "fails", "succeeds")
    consumer = consume(broker)
    fails, succeeds = take(consumer, 2)
    consumer.rest()
    send(broker, 1, 2)

    with pytest.raises(ConnectionFailed):
        consumer.complete([Verdict(Action.ACK, fails, follow_ups=[broker.prepare(message(3))]), *acks([succeeds])])

    consumer.close()
    wait_until(lambda: counts(broker)[0] == 3)


def test_a_verdict_that_is_tried_again_stores_what_follows_once(open_broker):
    broker = open_broker(queue_arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    broker.declare_queue("other")
    send(broker, "a", "b")
    consumer = consume(broker)
    a, b = take(consumer, 2)
    consumer.rest()
    send(broker, 1, 2, 3)
    verdicts = [
        Verdict(Action.ACK, a, follow_ups=[broker.prepare(message("of a", queue_name="other"))]),
        Verdict(Action.ACK, b, follow_ups=[broker.prepare(message("of b"))]),
    ]
    with pytest.raises(ConnectionFailed):
        consumer.complete(verdicts)

    broker.flush("default")
    consumer.complete(verdicts)

    assert names(take(consumer)) == ["of b"]
    assert broker.get_queue_message_counts("other") == (1, 0, 0)


def test_a_long_reason_fits_into_the_shortest_frames(open_broker):
    broker = open_broker(frame_max=4096)
    send(broker, 1)
    reader = consume(broker)

    reader.complete(nacks(take(reader), "\N{SNOWMAN}" * 4000))

    ((_, reason),) = dead_letters(broker)
    assert len(reason) > 1000
    assert set(reason) == {"\N{SNOWMAN}"}


def test_dead_letters_keep_their_reason_and_what_was_noted_on_them(broker, consumer):
    send(broker, 1)
    fetched = take_one(consumer)
    fetched.options["traceback"] = "where it failed"

    consumer.complete(nacks([fetched], "no \udc80 good"))

    ((body, reason),) = dead_letters(broker)
    assert greenq.Message.decode(body).options["traceback"] == "where it failed"
    assert reason == "no ? good"


@pytest.mark.parametrize(
    "payload", [b"\xff\x00\xfe", b"{}", b"null", b"[" * 1000, b"", b"{" * 100_000, b"x" * 1_200_000]
)
def test_garbage_becomes_a_dead_letter_and_what_is_around_it_runs(broker, consumer, payload):
    send(broker, 1)
    broker.channel.basic_publish("", "default", payload)
    send(broker, 2)

    fetched = take(consumer, 3)
    bad = [each for each in fetched if isinstance(each, Undecodable)]
    consumer.complete([*nacks(bad, "no message"), *acks(each for each in fetched if each not in bad)])

    assert len(bad) == 1
    assert dead_letters(broker) == [(payload, "no message")]
    assert counts(broker) == (0, 0, 0)


def test_properties_of_any_kind_harm_nobody(broker, consumer):
    strange = pika.BasicProperties(
        headers={"x-greenq-losses": "many", "x": [{"y": None}], "z": -5}, priority=9, expiration="60000", type="é" * 50
    )
    broker.declare_queue("default", ensure=True)
    broker.channel.basic_publish("", "default", message("foreign").encode(), strange)

    assert names(take(consumer)) == ["foreign"]


@pytest.mark.parametrize("queue_name", ["../other", "", "a b", "x" * 300])
def test_a_message_that_names_an_impossible_queue_becomes_a_dead_letter(broker, consumer, queue_name):
    broker.channel.basic_publish("", "default", message("lost", queue_name=queue_name).encode())

    assert isinstance(take_one(consumer), Undecodable)


# -- delays


def test_messages_that_are_delayed_for_long_are_in_nobodys_memory(broker, consumer):
    for number in range(100):
        broker.enqueue(message(number), delay=3_600_000)

    assert consumer.fetch(500) == []
    assert counts(broker) == (0, 100, 0)
    with pytest.raises(QueueJoinTimeout, match="100 delayed, 0 in hand"):
        broker.join("default", timeout=200)


@pytest.mark.in_time
def test_a_short_delay_behind_many_long_ones_is_in_time(broker, consumer):
    broker.enqueue_many((message(number) for number in range(10_000)), delay=3_600_000)
    sent = time.monotonic()

    broker.enqueue(message("soon"), delay=1000)

    assert names(take(consumer)) == ["soon"]
    assert 1 <= time.monotonic() - sent < 2


@pytest.mark.in_time
def test_delays_under_load_end_in_time_and_never_early(broker, consumer):
    delays = [random.randint(200, 3000) for _ in range(500)]
    for delay in delays:
        due = now_ms() + delay
        broker.enqueue(message(due), delay=delay)

    lateness = []
    while len(lateness) < len(delays):
        (fetched,) = take(consumer)
        lateness.append(now_ms() - fetched.args[0])
        consumer.complete(acks([fetched]))

    assert min(lateness) >= 0
    assert max(lateness) <= 1000


def test_a_foreign_message_with_an_eta_in_the_delay_queue_waits_for_it(broker, consumer):
    eta = now_ms() + 400
    broker.declare_queue("default", ensure=True)
    foreign = message("later", queue_name="default.DQ", eta=eta)
    broker.channel.basic_publish("", "default.DQ", foreign.encode())
    send(broker, "now")

    assert names(take(consumer)) == ["now"]
    later = take_one(consumer)
    assert now_ms() >= eta
    assert (later.args, later.queue_name, later.options) == (("later",), "default", {})


def test_a_foreign_message_without_an_eta_in_the_delay_queue_runs_at_once(broker, consumer):
    broker.declare_queue("default", ensure=True)
    broker.channel.basic_publish("", "default.DQ", message("now", queue_name="default.DQ").encode())

    assert names(take(consumer)) == ["now"]


def test_garbage_in_the_delay_queue_becomes_a_dead_letter(broker, consumer):
    broker.declare_queue("default", ensure=True)
    broker.channel.basic_publish("", "default.DQ", b"no message")

    bad = take_one(consumer)
    consumer.complete(nacks([bad], bad.reason))

    assert [body for body, _ in dead_letters(broker)] == [b"no message"]


def test_priority_is_kept_on_the_way_through_a_delay(open_broker):
    broker = open_broker(max_priority=5)
    consumer = consume(broker)
    broker.enqueue(message("urgent", broker_priority=4), delay=50)

    assert take_one(consumer).delivery.properties.priority == 4


def test_ten_urgent_messages_come_before_ten_thousand_others(open_broker):
    broker = open_broker(max_priority=10)
    for start in range(0, 10_000, 1000):
        send(broker, *range(start, start + 1000))
    send(broker, *["urgent"] * 10, broker_priority=5)

    consumer = consume(broker, prefetch=20)
    assert names(take(consumer, 11)) == [*["urgent"] * 10, 0]


# -- losses


KILLED = """
    import os, sys, threading
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], queue_type=sys.argv[2])
    lock = threading.Lock()
    @greenq.actor(broker=broker)
    def work(what):
        if what == "kill":
            os.kill(os.getpid(), 9)
        os.write(1, what.encode() + b"\\n")
    worker = greenq.Worker(broker, worker_threads=4)
    worker.start()
    try:
        broker.join("default", min_successes=5, idle_time=100)
    finally:
        worker.stop(5000)
        broker.close()
"""


@both_worlds
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_message_that_kills_its_worker_three_times_is_dead_and_the_others_run(
    open_broker, vhost, patched, queue_type
):
    broker = open_broker(queue_type=queue_type)
    sent = broker.enqueue(message("kill"))
    for number in range(20):
        broker.enqueue(message(f"fine {number}"))

    deaths, ran = 0, []
    while True:
        with running(KILLED, vhost.url, queue_type, patched=patched) as script:
            ran += script.process.stdout.read().split("\n")
            if script.process.wait(PATIENCE_S) != -9:
                break
            deaths += 1
        assert deaths <= 3

    assert deaths == 3
    assert {f"fine {number}" for number in range(20)} <= set(ran)
    ((body, reason),) = dead_letters(broker)
    assert greenq.Message.decode(body).message_id == sent.message_id
    assert reason == "Its worker, or that one's connection, was lost 3 times while it had this message."


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_a_message_that_is_given_back_by_twenty_deploys_is_alive(open_broker, queue_type):
    broker = open_broker(queue_type=queue_type)
    send(broker, "long job")

    for _ in range(20):
        worker = open_broker(queue_type=queue_type)
        consumer = consume(worker)
        (held,) = take(consumer)
        consumer.rest()
        consumer.complete(requeues([held]))
        worker.close()

    assert names(take(consume(broker))) == ["long job"]
    assert counts(broker)[2] == 0


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_what_was_sent_ahead_and_goes_back_by_twenty_deploys_is_alive(open_broker, queue_type):
    broker = open_broker(queue_type=queue_type)
    send(broker, *range(5))

    for _ in range(20):
        worker = open_broker(queue_type=queue_type)
        consumer = consume(worker)
        assert consumer.wait()
        consumer.rest()
        worker.close()

    assert sorted(names(take(consume(broker), 5))) == list(range(5))
    assert counts(broker)[2] == 0


# -- what is declared


def test_queues_of_a_dramatiq_deployment_are_used_as_they_are(open_broker):
    broker = open_broker()
    to_the_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "default.XQ"}
    for name, arguments in {
        "default": to_the_dead,
        "default.DQ": to_the_dead,
        "default.XQ": {"x-message-ttl": 604_800_000},
    }.items():
        broker.channel.queue_declare(name, durable=True, arguments=arguments)
    broker.channel.basic_publish("", "default", message("of dramatiq").encode())

    broker.connect()

    assert names(take(consume(broker))) == ["of dramatiq"]


def test_a_queue_with_other_arguments_is_an_error_that_names_queue_and_argument(broker, open_broker):
    broker.declare_queue("default", ensure=True)
    other = open_broker(max_priority=7)

    for use in (other.connect, lambda: send(other, 1), lambda: consume(other)):
        with pytest.raises(QueueMismatch, match=r"Queue 'default' exists .* with another x-max-priority: received"):
            use()


def test_declaring_connects_only_if_somebody_wants_that(open_broker, vhost):
    broker = open_broker()
    assert vhost.queue("default") is None

    broker.declare_queue("default", ensure=True)

    assert {name for name in ("default", "default.DQ", "default.XQ") if vhost.queue(name)} == {
        "default",
        "default.DQ",
        "default.XQ",
    }
    assert vhost.queue("default.DQ.16ms") is None


def test_counts_are_of_the_queue_the_delayed_and_the_dead(broker, consumer):
    send(broker, 1)
    consumer.complete(nacks(take(consumer), "no good"))
    consumer.close()
    send(broker, 2, 3)
    broker.enqueue(message("later"), delay=3_600_000)

    assert counts(broker) == (2, 1, 1)
    assert broker.queue_counts("default") == (2, None, 1, 1)


def test_join_waits_for_what_this_process_has_in_hand(broker, consumer):
    send(broker, 1)
    held = take(consumer)
    with pytest.raises(QueueJoinTimeout, match="1 in hand"):
        broker.join("default", 1, timeout=100)

    consumer.complete(acks(held))

    broker.join("default", 2, 10, timeout=5000)


def test_the_worker_command_exits_with_3_if_a_queue_has_other_arguments(broker, vhost, tmp_path):
    broker.declare_queue("default", ensure=True)
    (tmp_path / "app.py").write_text(
        "import greenq\n"
        "from greenq.brokers.rabbitmq import RabbitmqBroker\n"
        f"greenq.set_broker(RabbitmqBroker(url={vhost.url!r}, max_priority=3))\n"
        "@greenq.actor\n"
        "def work(): pass\n"
    )

    code, output = run_command(tmp_path, "app", "--processes", "2")

    assert code == 3
    assert "Queue 'default' exists" in output
    assert "x-max-priority" in output
    assert "guest:guest" not in output


def run_command(folder, *arguments):
    import subprocess
    import sys

    from tests.support.processes import ROOT

    done = subprocess.run(
        [sys.executable, "-m", "greenq", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


# -- many at once


SEND_FIRST = """
    import sys
    import gevent
    from greenq import Message
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
    broker.declare_queue("default")
    def send(delay): broker.enqueue(Message("default", "work", (1,), {}, {}), delay=delay)
    sent = [gevent.spawn(send, delay) for delay in [None] * 2500 + [3_600_000] * 2500]
    gevent.joinall(sent)
    errors = [each.exception for each in sent if each.exception]
    print(len(errors), errors[:1])
    print(broker.get_queue_message_counts("default"))
    broker.close()
"""


def test_more_first_sends_at_once_than_a_connection_has_channels_are_all_stored(vhost):
    assert output_of(SEND_FIRST, vhost.url, patched=True) == ["0 []", "(2500, 2500, 0)"]


SEND_TO_MANY_QUEUES = """
    import sys
    import gevent
    from greenq import Message
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
    queues = [f"queue-{number}" for number in range(20)]
    for each in queues: broker.declare_queue(each)
    broker.connect()
    connection = broker._attach().publishing.connection
    channels, open_channel = [], connection.channel
    def open_and_note(*args, **options):
        channel = open_channel(*args, **options)
        channels.append(len(connection._channels))
        return channel
    connection.channel = open_and_note
    broker._attach()._declared.clear()  # each first send declares its queue, on a channel made for that
    def send(number): broker.enqueue(Message(queues[number % 20], "work", (), {}, {}))
    gevent.joinall([gevent.spawn(send, number) for number in range(5000)], raise_error=True)
    print(max(channels) <= 1 + len(queues), len(connection._channels))
    print(sum(broker.get_queue_message_counts(each)[0] for each in queues))
    broker.close()
"""


def test_thousands_that_send_to_many_queues_share_a_few_channels(vhost):
    assert output_of(SEND_TO_MANY_QUEUES, vhost.url, patched=True) == ["True 1", "5000"]


def test_a_producer_that_is_not_patched_imports_no_gevent(vhost):
    script = """
        import sys
        from greenq import Message
        from greenq.brokers.rabbitmq import RabbitmqBroker
        broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
        broker.declare_queue("default")
        broker.enqueue(Message("default", "work", (), {}, {}))
        broker.close()
        print(sorted(each for each in sys.modules if each.partition(".")[0] in ("gevent", "greenlet")))
        """
    assert output_of(script, vhost.url) == ["[]"]


# -- close() beside a send


SEND_FROM_A_POOL = """
    import sys
    import gevent
    from greenq import Message
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[])
    broker.declare_queue("default")
    def send(): broker.enqueue(Message("default", "work", (), {}, {}))
    pool = gevent.get_hub().threadpool
    pool.apply(send)
    gevent.spawn(send).get(timeout=20)
    pool.apply(send)
    print(broker.get_queue_message_counts("default"))
    broker.close()
"""


def test_a_broker_that_is_first_used_in_a_thread_of_gevents_pool_works_there_and_in_greenlets(vhost):
    assert output_of(SEND_FROM_A_POOL, vhost.url, patched=True) == ["(3, 0, 0)"]


USE_IN_A_POOL_ONLY = """
    import sys
    import gevent
    def use():
        from greenq.brokers.rabbitmq import RabbitmqBroker
        RabbitmqBroker(url="amqp://127.0.0.1:1", middleware=[]).connect()
    try:
        gevent.get_hub().threadpool.apply(use)
    except RuntimeError as error:
        print(error)
"""


def test_a_broker_that_only_a_thread_of_gevents_pool_knows_says_what_to_do():
    (told,) = output_of(USE_IN_A_POOL_ONLY, patched=True)

    assert "Import the module that makes the broker there" in told


@pytest.fixture
def silent_urls():
    """Two servers that take connections and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        yield [f"amqp://guest:guest@127.0.0.1:{each.getsockname()[1]}/" for each in (first, second)]


def test_a_send_that_waits_for_a_connection_ends_when_the_broker_is_closed(open_broker, silent_urls):
    broker = open_broker(url=silent_urls)
    link = broker._attach().publishing

    def send():
        with pytest.raises(greenq.errors.ConnectionError, match="The broker was closed"):
            broker.enqueue(message("never"))

    with beside(send):
        wait_until(lambda: link._waiting)
        broker.close()


def test_a_question_that_comes_behind_the_end_of_the_loop_is_answered():
    loop = Loop()
    wake, loop._place.wake = loop._place.wake, lambda _call: None

    def ask():
        with pytest.raises(ConnectionClosed, match="The broker was closed"):
            loop.ask(lambda _answer: None, 3600, "answer")

    with beside(ask), beside(loop.close):
        wait_until(lambda: len(loop._calls) == 2)
        loop._calls.rotate(loop._calls[0].__qualname__.startswith("Loop.ask"))
        wake(loop._run_calls)


def test_what_is_asked_of_a_closed_loop_is_an_error():
    loop = Loop()
    publisher = Publisher(Link(loop, make_parameters("amqp://127.0.0.1", None, {})))
    loop.close()
    done = []

    with pytest.raises(ConnectionClosed, match="The broker was closed"):
        loop.soon(lambda: None)
    publisher.submit([Batch([Outgoing("default", b"")], done.append, time.monotonic() + 3600)])

    assert [str(each.error) for each in done] == ["The broker was closed"]


# -- what is said of a part


def test_messages_of_which_a_part_is_stored_are_not_called_refused(broker, vhost):
    broker.declare_queue("other")
    both = [broker.prepare(message(name, queue_name=name)) for name in ("default", "other")]
    broker.write(both)
    broker.channel.queue_delete("other")
    broker.channel.queue_delete("other.XQ")
    broker.channel.queue_declare("other.XQ", durable=True, arguments={"x-message-ttl": 1})

    with pytest.raises(ConnectionClosed, match=r"1 of 2 messages are stored, .*x-message-ttl"):
        broker.write(both)
    with pytest.raises(QueueMismatch):
        broker.write(both[1:])

    assert counts(broker)[0] == 2


# -- dead letters with another limit


@pytest.mark.parametrize(("limit", "told"), [(None, "no limit of deliveries"), (20, "a limit of 20 deliveries")])
def test_a_queue_of_dead_letters_with_another_delivery_limit_is_used_as_it_is(open_broker, caplog, limit, told):
    broker = open_broker(queue_type="quorum")
    arguments = {"x-queue-type": "quorum", "x-message-ttl": 604_800_000}
    arguments |= {} if limit is None else {"x-delivery-limit": limit}
    broker.channel.queue_declare("default.XQ", durable=True, arguments=arguments)

    broker.connect()
    send(broker, 1, 2)
    reader = consume(broker)
    reader.complete(nacks(take(reader, 2), "no good"))

    assert broker.dead_letters_of("default").send_back_all() == 2
    reader.complete(acks(take(reader, 2)))
    reader.close()
    assert counts(broker) == (0, 0, 0)
    assert sum(told in each.getMessage() for each in caplog.records) == 1


def test_a_queue_of_dead_letters_that_keeps_them_for_another_time_is_refused(open_broker):
    broker = open_broker(queue_type="quorum")
    broker.channel.queue_declare("default.XQ", durable=True, arguments={"x-queue-type": "quorum", "x-message-ttl": 1})

    with pytest.raises(QueueMismatch, match="x-message-ttl"):
        broker.connect()


# -- who asks over which connection


def test_a_first_send_waits_as_long_as_any_other_and_says_that_nothing_was_sent(open_broker, silent_urls):
    broker = open_broker(url=silent_urls, send_timeout=300)

    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"within 0\.3 s; nothing was sent"):
        broker.enqueue(message("never"))

    assert 0.3 <= time.monotonic() - began < 5


def test_whoever_does_not_send_goes_on_while_the_connection_for_publishing_is_stopped(broker, open_broker):
    send(open_broker(), 1)
    broker.connect()
    # As in an alarm: the server reads nothing from it, so nothing that is asked there is answered.
    broker._attach().publishing._begin = lambda *_: None

    reader = consume(broker)
    reader.complete(nacks(take(reader), "no good"))
    reader.close()

    assert counts(broker) == (0, 0, 1)
    assert broker.dead_letters_of("default").delete_all() == 1
    broker.flush("default")


# -- the hub's timers


WORK_AFTER_EACH_ANSWER = """
    import time
    import gevent
    from greenq.runtime import current
    runtime = current()
    requests = [runtime.request() for _ in range(200)]
    done = []
    def wait_and_work(request):
        request.wait()
        ends = time.monotonic() + 0.005
        while time.monotonic() < ends: pass
        done.append(request)
    waiting = [gevent.spawn(wait_and_work, each) for each in requests]
    gevent.sleep(0)
    runtime.answer(requests)
    gevent.sleep(0.02)
    print(len(done) < len(requests))
    gevent.joinall(waiting)
    print(done == requests)
"""


def test_timers_have_their_turns_while_many_who_were_answered_together_work():
    assert output_of(WORK_AFTER_EACH_ANSWER, patched=True) == ["True", "True"]


# -- channels


def test_a_look_at_dead_letters_that_gets_no_answer_leaves_no_channel_open(broker, monkeypatch):
    broker.dead_letters_of("default").delete_all()
    channels = broker._attach().consuming.connection._channels
    wait_until(lambda: not channels)
    monkeypatch.setattr(looks, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(looks.Hand, "_ask_count", lambda *_: None)

    with pytest.raises(ConnectionClosed, match=r"did not answer within 0\.5 s"):
        broker.dead_letters_of("default").delete_all()

    wait_until(lambda: not channels)
