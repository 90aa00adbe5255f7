"""RabbitMQ goes away and comes back, in every way it can: nothing confirmed is lost, and it is told once.

In a lane of its own, because the node is stopped and killed. Runs in both worlds.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from contextlib import ExitStack, contextmanager, suppress

import pytest

from greenq import Message
from greenq.brokers.rabbitmq import RabbitmqBroker, in_doubt, losses
from greenq.brokers.rabbitmq import inbox as inbox_module
from greenq.brokers.rabbitmq import subscription as subscription_module
from greenq.brokers.rabbitmq.connection import Link
from greenq.brokers.rabbitmq.inbox import Fate
from greenq.brokers.rabbitmq.loop import Loop
from greenq.brokers.rabbitmq.parameters import make_parameters
from greenq.brokers.rabbitmq.publisher import Batch, Outgoing, Publisher
from greenq.errors import ConnectionClosed, ConnectionError, ConnectionFailed
from greenq.verdict import Action, Verdict
from tests.contract.fetching import acks, message, nacks, names, requeues, take
from tests.support.lines import Lines
from tests.support.processes import both_worlds, running
from tests.support.rabbitmq_losses import consume_after, cut_off, lose, publish_marked
from tests.support.rabbitmq_server import free_ports, shared_server
from tests.support.tcp_proxy import tcp_proxy
from tests.support.waiting import PATIENCE_S, beside, happens, until

#: How soon a worker has to go on when the server is back.
BACK_S = 3


@pytest.fixture
def server():
    return shared_server()


@pytest.fixture
def vhost(server):
    with server.vhost() as vhost:
        yield vhost


@pytest.fixture
def broker(vhost):
    broker = RabbitmqBroker(url=vhost.url, middleware=[], send_timeout=2000)
    broker.declare_queue("default")
    yield broker
    broker.close()


WORKER = """
    import logging, os, sys, threading
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    broker = RabbitmqBroker(url=sys.argv[1])
    @greenq.actor(broker=broker)
    def work(number):
        os.write(1, b"%d\\n" % number)
    worker = greenq.Worker(broker, worker_threads=8)
    worker.start()
    os.write(1, b"ready\\n")
    import select
    select.select([0], [], [])
    worker.stop(5000)
    broker.close()
"""

SENDER = """
    import os, sys, threading
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[], send_timeout=5000)
    broker.declare_queue("default")
    is_over = threading.Event()
    def send_all(thread):
        number = 0
        while not is_over.is_set():
            number += 1
            try:
                broker.enqueue(greenq.Message("default", "work", (thread * 1_000_000 + number,), {}, {}))
            except greenq.ConnectionError:
                is_over.wait(0.05)
                continue
            os.write(1, b"%d\\n" % (thread * 1_000_000 + number))
    threads = [threading.Thread(target=send_all, args=(thread,)) for thread in range(10)]
    for thread in threads: thread.start()
    import select
    select.select([0], [], [])
    is_over.set()
    for thread in threads: thread.join()
    broker.close()
"""


def finish(script, lines):
    """Have a script end, without complaint; all that it wrote is there then."""
    script.say()
    lines.rest()
    assert script.process.wait(PATIENCE_S) == 0, script.errors
    script._reader.join(PATIENCE_S)


def stored(broker):
    consumer = broker.consume("default", prefetch=60_000, timeout=1000)
    found = []
    while consumer.wait():
        fetched = consumer.fetch(500)
        consumer.complete(acks(fetched))
        found += names(fetched)
    consumer.close()
    return found


def restart(server, signum=signal.SIGTERM):
    server.stop(signum)
    server.start()


# -- what was confirmed is there


@both_worlds
def test_every_send_that_returned_survives_a_killed_node(server, vhost, broker, patched):
    with running(SENDER, vhost.url, patched=patched) as script:
        sent = Lines(script)
        sent.wait_for(lambda lines: len(lines) > 500)
        restart(server, signal.SIGKILL)
        after = len(sent.lines)
        sent.wait_for(lambda lines: len(lines) > after + 500)
        script.say()
        confirmed = set(map(int, sent.rest()))

    assert confirmed <= set(stored(broker))


@both_worlds
def test_every_send_that_returned_survives_an_operator_who_closes_connections(vhost, broker, patched):
    with running(SENDER, vhost.url, patched=patched) as script:
        sent = Lines(script)
        sent.wait_for(lambda lines: len(lines) > 500)
        vhost.close_connections()
        after = len(sent.lines)
        sent.wait_for(lambda lines: len(lines) > after + 500)
        script.say()
        confirmed = set(map(int, sent.rest()))

    assert confirmed <= set(stored(broker))


WAITING_SENDER = """
    import os, sys, threading, time
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1], middleware=[], send_timeout=60_000)
    broker.declare_queue("default", ensure=True)
    attachment = broker._attach()
    def send(name):
        try:
            broker.enqueue(greenq.Message("default", "work", (name,), {}, {}))
            os.write(1, b"%s is stored\\n" % name.encode())
        except greenq.ConnectionError:
            os.write(1, b"%s is in doubt\\n" % name.encode())
    threads = [threading.Thread(target=send, args=(name,)) for name in ("first", "second")]
    threads[0].start()  # by sending something the server begins to block
    while not attachment.publishing.blocked_by: time.sleep(0.01)
    threads[1].start()
    while not attachment._publisher._waiting: time.sleep(0.01)
    os.write(1, b"waiting\\n")
    for thread in threads: thread.join()
    send("third")
    broker.close()
"""


@both_worlds
def test_a_send_that_waits_when_the_connection_is_lost_goes_over_the_next_one(server, vhost, broker, patched):
    server.control("set_vm_memory_high_watermark", "0.00001")
    try:
        with running(WAITING_SENDER, vhost.url, patched=patched) as script:
            told = Lines(script)
            told.wait_for(lambda lines: "waiting" in lines)

            vhost.close_connections()
            server.control("set_vm_memory_high_watermark", "0.4")

            told.wait_for(lambda lines: len(lines) == 4)
            assert told.lines == ["waiting", "first is in doubt", "second is stored", "third is stored"]
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")

    assert {"second", "third"} <= set(stored(broker))


#: Sends from ten threads, of which five wait for long and five give up after half a second; tells what came of it.
IMPATIENT_SENDER = """
    import os, select, sys, threading
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    is_over = threading.Event()
    def send_all(broker, first):
        number = first
        while not is_over.wait(0.01):
            number += 1
            try:
                broker.enqueue(greenq.Message("default", "work", (number,), {}, {}))
            except greenq.ConnectionError:
                os.write(1, b"raised %d\\n" % number)
            else:
                os.write(1, b"sent %d\\n" % number)
    brokers = [RabbitmqBroker(url=sys.argv[1], middleware=[], send_timeout=each) for each in (500, 40_000)]
    for broker in brokers: broker.declare_queue("default")
    firsts = [int(sys.argv[2]) + 1_000_000 * thread for thread in range(10)]
    threads = [threading.Thread(target=send_all, args=(brokers[n % 2], first)) for n, first in enumerate(firsts)]
    for thread in threads: thread.start()
    select.select([0], [], [])
    is_over.set()
    for thread in threads: thread.join()
    for broker in brokers: broker.close()
"""


class Traffic:
    """A sender and a worker in each world, all by way of a proxy, and what they tell."""

    def __init__(self, url, resources):
        def start(script, *arguments, patched):
            return resources.enter_context(running(script, *arguments, patched=patched))

        self.senders = [start(IMPATIENT_SENDER, url, patched * 10**9, patched=patched) for patched in (False, True)]
        # They notice within seven seconds that the server says nothing.
        self.workers = [start(WORKER, f"{url}?heartbeat=1", patched=patched) for patched in (False, True)]
        self._told = [Lines(each) for each in self.senders]
        self._ran = [Lines(each) for each in self.workers]

    def wait_for_each(self, what, count):
        """Wait until each sender has told this of so many more sends."""
        for told in self._told:
            before = len(_numbers(told.lines, what))
            told.wait_for(lambda lines, before=before: len(_numbers(lines, what)) >= before + count)

    def end(self):
        """Have all that was sent run; answer the numbers of what was sent, what raised, and what ran."""
        for script, told in zip(self.senders, self._told, strict=True):
            finish(script, told)
        sent, raised = (
            {each for told in self._told for each in _numbers(told.lines, what)} for what in ("sent", "raised")
        )
        with suppress(AssertionError):  # the test says what is missing
            until(lambda: sent <= self._have_run())
        for script, ran in zip(self.workers, self._ran, strict=True):
            finish(script, ran)
        return sent, raised, self._have_run()

    def _have_run(self):
        return {int(line) for ran in self._ran for line in list(ran.lines) if line != "ready"}


def _numbers(lines, what):
    return [int(line.split()[1]) for line in list(lines) if line.startswith(what)]


@pytest.fixture
def traffic(server, vhost):
    with tcp_proxy(server.port) as proxy, ExitStack() as resources:
        traffic = Traffic(proxy.url_of(vhost.url), resources)
        traffic.proxy = proxy
        traffic.wait_for_each("sent", 100)
        until(lambda: all(ran.lines.count("ready") and len(ran.lines) > 1 for ran in traffic._ran))
        yield traffic


@pytest.mark.starts_both_worlds
def test_no_confirmed_message_is_lost_in_a_stalled_network_and_it_is_told_once(traffic, broker):
    traffic.proxy.stall()
    traffic.wait_for_each("raised", 10)
    for worker in traffic.workers:
        until(lambda worker=worker: warnings_in(worker))
    traffic.proxy.go_on()
    traffic.wait_for_each("sent", 100)
    sent, raised, ran = traffic.end()

    assert sent - ran == set()
    assert ran - sent <= raised
    assert broker.get_queue_message_counts("default") == (0, 0, 0)
    for worker in traffic.workers:
        assert len(warnings_in(worker)) == 1, worker.errors
        assert worker.errors.count("INFO The broker is back") == 1, worker.errors
        assert "Traceback" not in worker.errors


@pytest.mark.starts_both_worlds
def test_no_confirmed_message_is_lost_in_an_alarm_and_workers_have_nothing_to_tell(server, traffic, broker):
    with low_memory(server):
        traffic.wait_for_each("raised", 10)
    traffic.wait_for_each("sent", 100)
    sent, raised, ran = traffic.end()

    assert sent - ran == set()
    assert ran - sent <= raised
    assert broker.get_queue_message_counts("default") == (0, 0, 0)
    assert [warnings_in(worker) for worker in traffic.workers] == [[], []]


# -- workers go on


def warnings_in(script):
    return [line for line in script.errors.splitlines() if line.startswith(("WARNING", "ERROR", "CRITICAL"))]


@pytest.mark.in_time
@both_worlds
def test_a_worker_goes_on_when_the_node_is_back_and_tells_of_it_once(server, vhost, broker, patched):
    with running(WORKER, vhost.url, patched=patched) as script:
        ran = Lines(script)
        broker.enqueue(message(1))
        ran.wait_for(lambda lines: "1" in lines)

        restart(server)
        broker.enqueue(message(2))
        ran.wait_for(lambda lines: "2" in lines, BACK_S)

        finish(script, ran)

    assert len(warnings_in(script)) == 1, script.errors
    assert script.errors.count("INFO The broker is back") == 1, script.errors
    assert "Traceback" not in script.errors


@pytest.mark.in_time
@both_worlds
def test_a_worker_goes_on_when_an_operator_closes_its_connections(vhost, broker, patched):
    with running(WORKER, vhost.url, patched=patched) as script:
        ran = Lines(script)
        broker.enqueue(message(1))
        ran.wait_for(lambda lines: "1" in lines)

        vhost.close_connections()
        for attempt in range(2):  # the broker's own connection was closed as well
            try:
                broker.enqueue(message(2))
                break
            except ConnectionError:
                assert attempt == 0
        ran.wait_for(lambda lines: "2" in lines, BACK_S)

        finish(script, ran)

    assert len(warnings_in(script)) == 1, script.errors


IN_HAND = """
    import os, select, sys, threading
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    broker = RabbitmqBroker(url=sys.argv[1])
    may_end = threading.Event()
    @greenq.actor(broker=broker, min_backoff=10)
    def work(number):
        os.write(1, b"started %d\\n" % number)
        may_end.wait()
        if number == 7 and greenq.middleware.CurrentMessage.get_current_message().options.get("retries") is None:
            raise RuntimeError("once")
    from greenq.middleware import CurrentMessage
    broker.add_middleware(CurrentMessage())
    worker = greenq.Worker(broker, worker_threads=8)
    worker.start()
    def wait_for_line():
        select.select([0], [], [])  # in place of readline, which would stop the hub
        os.read(0, 100)
    wait_for_line()
    may_end.set()
    wait_for_line()
    worker.stop(10000)
    broker.close()
"""


@both_worlds
def test_jobs_that_were_running_when_the_connection_was_lost_run_once(vhost, broker, patched):
    for number in range(1, 9):
        broker.enqueue(message(number))
    with running(IN_HAND, vhost.url, patched=patched) as script:
        ran = Lines(script)
        ran.wait_for(lambda lines: len(lines) == 8)

        vhost.close_connections()  # returns when their channels have ended
        until(lambda: has_them_again(broker))
        script.say()
        ran.wait_for(lambda lines: len(lines) == 9)  # the retry of one of them

        finish(script, ran)

    assert sorted(ran.lines) == sorted([*(f"started {number}" for number in range(1, 9)), "started 7"])
    assert "given to another worker" not in script.errors
    assert sum(broker.get_queue_message_counts("default")) == 0


def has_them_again(broker):
    queue = broker.channel.queue_declare("default", passive=True).method
    return (queue.consumer_count, queue.message_count) == (1, 0)


CUT_OFF = """
    import logging, os, select, socket, sys, threading
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    broker = RabbitmqBroker(url=sys.argv[1])
    may_end = threading.Event()
    @greenq.actor(broker=broker)
    def work(number):
        os.write(1, b"started\\n")
        may_end.wait()
    worker = greenq.Worker(broker, worker_threads=8)
    worker.start()
    def wait_for_line():
        select.select([0], [], [])
        os.read(0, 100)
    wait_for_line()
    link = broker._attach().consuming
    link.on_lost.append(lambda error: os.write(1, b"lost\\n"))
    link.loop.soon(lambda: link.connection._transport._sock.shutdown(socket.SHUT_RDWR))
    wait_for_line()
    may_end.set()
    wait_for_line()
    worker.stop(10000)
    broker.close()
"""


def test_verdicts_on_tags_of_a_lost_connection_are_dropped_with_one_warning_and_harm_nobody(vhost, broker):
    for number in range(1, 6):
        broker.enqueue(message(number))
    with running(CUT_OFF, vhost.url, patched=True) as script:
        told = Lines(script)
        told.wait_for(lambda lines: lines == ["started"] * 5)
        # Who waits already is given the messages before anybody can come back.
        consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
        with beside(consumer.wait):
            until(lambda: broker.channel.queue_declare("default", passive=True).method.consumer_count == 2)
            script.say()
        theirs = take(consumer, 5)
        told.wait_for(lambda lines: "lost" in lines)
        script.say()
        until(lambda: "given to another worker" in script.errors)

        # The tags mean nothing to anybody else: both go on.
        consumer.complete(acks(theirs))
        consumer.rest()
        broker.enqueue(message("next"))
        told.wait_for(lambda lines: lines.count("started") == 6)
        finish(script, told)

    about_tags = [line for line in warnings_in(script) if "given to another worker" in line]
    assert len(about_tags) == 1, script.errors
    assert "5 messages" in about_tags[0]
    assert sorted(names(theirs)) == [1, 2, 3, 4, 5]
    assert sum(broker.get_queue_message_counts("default")) == 0


# -- acks that were on their way when the connection was lost


@pytest.mark.parametrize("when", ["before it was noticed", "while it was noticed"])
def test_what_was_settled_when_the_connection_was_lost_is_not_run_again(broker, when):
    broker.enqueue(message("settled"))
    first = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    held = take(first)
    subscription, lost = first._subscription, threading.Event()
    first._subscription.add_waker(lost)

    def settle():
        first.complete(acks(held))

    def settle_and_lose(error, lose_really=subscription._lose):
        settle()
        lose_really(error)

    def cut():
        lose(subscription._channel.connection)
        if when == "before it was noticed":
            settle()

    if when == "while it was noticed":
        told_of_losses = broker._attach().consuming.on_lost
        told_of_losses[told_of_losses.index(subscription._lose)] = settle_and_lose
        subscription._lose = settle_and_lose
    broker._attach().loop.soon(cut)
    happens(lost)

    broker.enqueue(message("next"))
    second = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    assert names(take(second)) == ["next"]
    second.rest()
    second.close()
    first.close()
    broker.close()  # what is in hand goes back
    assert broker.get_queue_message_counts("default") == (1, 0, 0)


@pytest.fixture
def other(vhost):
    other = RabbitmqBroker(url=vhost.url, middleware=[])
    other.declare_queue("default")
    yield other
    other.close()


@contextmanager
def given_to(consumer, count):
    """So many messages, which go back to the queue, come to this consumer and are settled by it."""
    with beside(consumer.wait):
        until(lambda: not consumer._subscription.is_resting)
        yield
    consumer.complete(acks(take(consumer, count)))
    until(lambda: consumer._subscription.in_hand == 0)


def settle_and_cut_off(consumer, settled):
    """Settle messages when it is too late to send their acks."""
    subscription = consumer._subscription

    def cut():
        lose(subscription._channel.connection)
        consumer.complete(acks(settled))

    consumer._attachment.loop.soon(cut)
    until(lambda: subscription.lost is not None)


@pytest.mark.parametrize("held", ["a job runs all the while", "the connection is lost once more"])
def test_a_message_that_is_sent_again_is_not_taken_for_the_one_that_was_settled_before(
    broker, other, monkeypatch, held
):
    monkeypatch.setattr(inbox_module, "_ADOPTION_S", 0.1)
    sent_twice = message("sent twice")
    broker.enqueue_many([message("long"), sent_twice])
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    long, first = take(consumer, 2)
    if held != "a job runs all the while":
        consumer.complete(acks([long]))
        until(lambda: consumer._subscription.in_hand == 1)
    theirs = other.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    with given_to(theirs, 2 if held == "a job runs all the while" else 1):
        settle_and_cut_off(consumer, [first])
    consumer = consume_after(broker, consumer)
    until(lambda: time.monotonic() > consumer._inbox._adopting_until)
    if held != "a job runs all the while":
        cut_off(consumer)
        consumer = consume_after(broker, consumer)

    broker.enqueue(sent_twice)
    take(theirs)
    cut_off(theirs)

    assert names(take(consumer)) == ["sent twice"]
    consumer.close()


def test_a_message_that_is_sent_again_is_not_settled_by_the_one_that_still_runs(broker, other):
    sent_twice = message("sent twice")
    broker.enqueue(sent_twice)
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    (first,) = take(consumer)
    theirs = other.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    with given_to(theirs, 1):
        cut_off(consumer)
    theirs.rest()
    consumer = consume_after(broker, consumer)

    broker.enqueue(sent_twice)
    (second,) = take(consumer)
    consumer.complete(acks([second]))

    until(lambda: consumer._inbox.fate_of(first) is Fate.LOST)
    consumer.close()


@pytest.mark.in_time
@both_worlds
def test_a_worker_goes_on_when_its_queue_was_deleted(vhost, broker, patched):
    with running(WORKER, vhost.url, patched=patched) as script:
        ran = Lines(script)
        broker.enqueue(message(1))
        ran.wait_for(lambda lines: "1" in lines)

        broker.channel.queue_delete("default")
        broker.enqueue(message(2))
        ran.wait_for(lambda lines: "2" in lines, BACK_S)

        finish(script, ran)


@pytest.mark.in_time
@both_worlds
def test_a_worker_goes_on_after_a_stalled_network(server, vhost, broker, patched):
    with running(WORKER, vhost.url, patched=patched) as script:
        ran = Lines(script)
        broker.enqueue(message(1))
        ran.wait_for(lambda lines: "1" in lines)

        os.kill(server.process.pid, signal.SIGSTOP)
        with pytest.raises(ConnectionError):
            broker.enqueue(message("in doubt"))
        os.kill(server.process.pid, signal.SIGCONT)
        broker.enqueue(message(2))
        ran.wait_for(lambda lines: "2" in lines, BACK_S)

        finish(script, ran)


# -- sends that cannot be


@pytest.mark.in_time
def test_a_send_to_a_server_that_does_not_answer_ends_with_a_clear_error(server, broker):
    broker.enqueue(message(0))
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(ConnectionClosed, match="did not confirm in time; the message may be stored"):
            broker.enqueue(message(1))
        took = time.monotonic() - began
    finally:
        os.kill(server.process.pid, signal.SIGCONT)

    assert 2 <= took < 3
    broker.enqueue(message(2))
    assert 2 in stored(broker)


#: (how to raise it, how to clear it, its name)
ALARMS = pytest.mark.parametrize(
    ("begin", "end", "name"),
    [
        (("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.4"), "low on memory"),
        (("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "1MB"), "low on disk"),
    ],
    ids=["memory", "disk"],
)


@ALARMS
def test_sends_wait_for_the_end_of_an_alarm_but_not_for_ever(server, broker, begin, end, name):
    broker.enqueue(message("before"))
    server.control(*begin)
    try:
        with pytest.raises(ConnectionClosed, match="did not confirm in time"):
            broker.enqueue(message("first"))  # by sending something the server begins to block
        with pytest.raises(ConnectionFailed, match=rf"takes no messages \({name}\); nothing was sent"):
            broker.enqueue(message("second"))
    finally:
        server.control(*end)

    broker.enqueue(message("after"))
    found = stored(broker)
    assert {"before", "after"} <= set(found)
    assert "second" not in found


@ALARMS
def test_a_send_that_waits_out_an_alarm_is_stored(server, vhost, begin, end, name):
    broker = RabbitmqBroker(url=vhost.url, middleware=[], send_timeout=30_000)
    broker.declare_queue("default")
    broker.enqueue(message("before"))
    server.control(*begin)
    try:
        with beside(broker.enqueue, message("during")):
            until(lambda: broker._attach().publishing.blocked_by == name)
            with beside(broker.enqueue, message("during, too")):
                server.control(*end)
        assert len(stored(broker)) == 3
    finally:
        server.control(*end)
        broker.close()


def test_a_send_that_begins_while_others_fail_fails_too():
    # Stopped where another thread may take over: it has found the deque, and put nothing in.
    class Stopping(deque):
        def extend(self, batches):
            if late in batches:
                stopped.set()
                go_on.wait(PATIENCE_S)
            super().extend(batches)

    def batch():
        is_done = threading.Event()
        made = Batch([Outgoing("default", b"")], lambda _batch: is_done.set(), time.monotonic() + 3600)
        return made, is_done

    stopped, go_on = threading.Event(), threading.Event()
    (early, early_is_done), (late, late_is_done) = batch(), batch()
    loop = Loop()
    publisher = Publisher(Link(loop, make_parameters(f"amqp://127.0.0.1:{free_ports(1)[0]}", None, {})))
    publisher._waiting = Stopping()

    with beside(publisher.submit, [late]):
        happens(stopped)
        publisher.submit([early])
        happens(early_is_done)
        go_on.set()
    happens(late_is_done)

    assert isinstance(late.error, ConnectionFailed)
    loop.close()


# -- time-outs of the server's


def _consumer_timeout(timeout_ms, look_every_ms):
    return (
        f"application:set_env(rabbit, consumer_timeout, {timeout_ms}), "
        f"application:set_env(rabbit, channel_tick_interval, {look_every_ms})."
    )


SHORT_CONSUMER_TIMEOUT = _consumer_timeout(2000, 500)
USUAL_CONSUMER_TIMEOUT = _consumer_timeout(1_800_000, 60_000)


def test_a_delay_longer_than_the_servers_consumer_timeout_closes_nothing(server, vhost):
    server.control("eval", SHORT_CONSUMER_TIMEOUT)
    # With the usual time for sending: the ladder is made by it.
    broker = RabbitmqBroker(url=vhost.url, middleware=[])
    broker.declare_queue("default")
    try:
        consumer = broker.consume("default", prefetch=10, timeout=20_000)
        broker.enqueue(Message("default", "work", ("once",), {}, {}), delay=6000)

        (fetched,) = take(consumer)  # raises if the channel is closed
        consumer.complete(acks([fetched]))

        assert fetched.args == ("once",)
        broker.join("default", 3, 50, timeout=5000)
    finally:
        broker.close()
        server.control("eval", USUAL_CONSUMER_TIMEOUT)


HOLDING = """
    import logging, os, select, sys, threading
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    broker = RabbitmqBroker(url=sys.argv[1])
    may_end = threading.Event()
    @greenq.actor(broker=broker)
    def work(number):
        os.write(1, b"started %d\\n" % number)
        if number == 1:
            may_end.wait()
        os.write(1, b"ended %d\\n" % number)
    worker = greenq.Worker(broker, worker_threads=8)
    worker.start()
    def wait_for_line():
        select.select([0], [], [])  # in place of readline, which would stop the hub
        os.read(0, 100)
    wait_for_line()
    may_end.set()
    wait_for_line()
    worker.stop(10000)
    broker.close()
"""


@pytest.mark.in_time
@both_worlds
def test_a_worker_goes_on_when_the_server_closes_a_channel_because_a_job_takes_too_long(server, vhost, broker, patched):
    server.control("eval", SHORT_CONSUMER_TIMEOUT)
    try:
        with running(HOLDING, vhost.url, patched=patched) as script:
            ran = Lines(script)
            broker.enqueue(message(1))
            ran.wait_for(lambda lines: lines == ["started 1"])

            until(lambda: warnings_in(script))
            broker.enqueue(message(2))
            ran.wait_for(lambda lines: "ended 2" in lines, BACK_S)
            script.say()
            ran.wait_for(lambda lines: "ended 1" in lines)
            until(lambda: server.messages_in(vhost.name, "default") == 0)

            finish(script, ran)
    finally:
        server.control("eval", USUAL_CONSUMER_TIMEOUT)

    assert sorted(ran.lines) == ["ended 1", "ended 2", "started 1", "started 2"]
    (told,) = warnings_in(script)
    assert "delivery acknowledgement on channel" in told
    assert script.errors.count("INFO The broker is back") == 1, script.errors
    assert "Traceback" not in script.errors


# -- what follows from a message and cannot be stored


@pytest.fixture
def full(server, vhost, broker):
    """A queue that is full; call it to have it take messages again."""
    broker.declare_queue("full")
    broker.enqueue(message("first", queue_name="full"))  # declares it
    policy = f"policies/{vhost.name}/full"
    limit = {"max-length": 0, "overflow": "reject-publish"}
    server.api("PUT", policy, {"pattern": "^full$", "definition": limit, "apply-to": "queues"})
    until(lambda: refuses(broker))
    return lambda: server.api("DELETE", policy)


def refuses(broker):
    try:
        broker.enqueue(message("probe", queue_name="full"))
    except ConnectionFailed:
        return True
    return False


@pytest.mark.parametrize("action", [Action.ACK, Action.NACK])
def test_what_was_stored_is_not_stored_again_because_something_else_was_refused(broker, full, action):
    broker.declare_queue("other")
    broker.enqueue(message("first"))
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    (first,) = take(consumer)
    first.fail()
    follow_ups = [broker.prepare(message("next", queue_name=name)) for name in ("other", "full")]
    verdict = Verdict(action, first, follow_ups=follow_ups)

    for _ in range(3):
        with pytest.raises(ConnectionFailed, match="refused"):
            consumer.complete([verdict])
    before = broker.get_queue_message_counts("full")[0]
    full()
    until(lambda: not has_failed(consumer, verdict))
    assert consumer.complete([verdict]) == []

    assert broker.get_queue_message_counts("other")[0] == 1
    assert broker.get_queue_message_counts("full")[0] == before + 1
    assert broker.get_queue_message_counts("default") == (0, 0, 1 if action is Action.NACK else 0)
    consumer.close()


def has_failed(consumer, verdict):
    try:
        consumer.complete([verdict])
    except ConnectionError:
        return True
    return False


MANY = """
    import logging, os, select, sys
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    broker = RabbitmqBroker(url=sys.argv[1], send_timeout=int(sys.argv[2]))
    broker.declare_queue("full", ensure="knows the queue" in sys.argv)
    @greenq.actor(broker=broker, max_retries=0)
    def work(number):
        if number == 3:
            raise ValueError("this one dies")
    @greenq.actor(broker=broker, queue_name="full")
    def after(number):
        pass
    worker = greenq.Worker(broker, queues={"default"}, worker_threads=8)
    worker.start()
    os.write(1, b"ready\\n")
    select.select([0], [], [])
    worker.stop(20000)
    broker.close()
"""


def look_up(vhost, name):
    """In Erlang: a queue, as Q."""
    return f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost.name}">>, queue, <<"{name}">>))'


@ALARMS
def test_what_follows_from_a_message_at_the_beginning_of_an_alarm_fails_at_once_and_is_stored_once(
    server, vhost, begin, end, name
):
    broker = RabbitmqBroker(url=vhost.url, middleware=[], send_timeout=60_000)
    broker.declare_queue("default")
    broker.declare_queue("other")
    broker.enqueue_many([message("dies"), message("goes on")])
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    dies, goes_on = take(consumer, 2)
    dies.fail()
    verdict = Verdict(Action.NACK, dies, follow_ups=[broker.prepare(message("next", queue_name="other"))])
    server.control(*begin)
    try:
        began = time.monotonic()
        with pytest.raises(ConnectionError, match=rf"takes no messages \({name}\)"):
            consumer.complete([verdict])
        for _ in range(3):
            with pytest.raises(ConnectionError, match=rf"takes no messages \({name}\)"):
                consumer.complete([verdict, *acks([goes_on])])
        other = broker.consume("other", prefetch=10, timeout=100)
        assert not other.wait()
        took = time.monotonic() - began
    finally:
        server.control(*end)

    until(lambda: not has_failed(consumer, verdict))
    until(lambda: [each.args for each in other.fetch(10)] == [("next",)])
    consumer.close()
    assert took < 30
    assert broker.get_queue_message_counts("default") == (0, 0, 1)
    assert broker.get_queue_message_counts("other") == (0, 0, 0)
    broker.close()


@contextmanager
def low_memory(server):
    server.control("set_vm_memory_high_watermark", "0.00001")
    try:
        yield
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")


@pytest.mark.parametrize("step", ["place_if_taken", "_store_returned"])
def test_what_follows_waits_in_hand_if_an_alarm_begins_before_its_queue_is_declared(server, vhost, monkeypatch, step):
    broker = RabbitmqBroker(url=vhost.url, middleware=[], send_timeout=60_000)
    broker.declare_queue("default")
    broker.declare_queue("other")
    broker.enqueue(message("first"))
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    verdict = Verdict(Action.ACK, take(consumer)[0], follow_ups=[broker.prepare(message("next", queue_name="other"))])
    attachment = broker._attach()
    really = getattr(attachment, step)
    if step == "_store_returned":
        attachment.ensure("other")
        broker.channel.queue_delete("other")

    with ExitStack() as resources:

        def go_on_in_an_alarm(*args, **options):
            monkeypatch.undo()
            is_blocked = threading.Event()

            def send() -> None:  # by what is sent the server begins to block, a moment after the alarm
                while not is_blocked.is_set():
                    broker.enqueue(message("second"))

            sender = threading.Thread(target=send)
            resources.callback(sender.join)
            resources.enter_context(low_memory(server))
            sender.start()
            until(lambda: attachment.publishing.blocked_by)
            is_blocked.set()
            return really(*args, **options)

        monkeypatch.setattr(attachment, step, go_on_in_an_alarm)
        with pytest.raises(ConnectionError, match="takes no messages"):
            consumer.complete([verdict])
        assert attachment.publishing.blocked_by  # it did not wait for the end

    until(lambda: not has_failed(consumer, verdict))
    assert broker.get_queue_message_counts("other") == (1, 0, 0)
    consumer.close()
    broker.close()


def test_a_message_whose_letter_was_stored_does_not_wait_for_another_that_is_in_doubt_still(server, broker):
    broker.enqueue_many([message(1), message(2)])
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    messages = take(consumer, 2)
    verdicts = nacks(messages)
    with low_memory(server), pytest.raises(ConnectionError, match="takes no messages"):
        consumer.complete(verdicts)
    batches = [batch for each in messages for _, batch in each.under_way]
    until(lambda: not any(batch.is_under_way for batch in batches))

    # As if the server had answered only for the second one yet.
    batches[0].is_under_way, batches[0].error = True, ConnectionClosed("in doubt")
    with pytest.raises(ConnectionClosed, match="in doubt"):
        consumer.complete(verdicts)

    assert [each.is_written for each in messages] == [False, True]
    consumer.close()


@both_worlds
def test_one_job_that_dies_during_an_alarm_does_not_stop_the_others(server, vhost, broker, patched):
    broker.enqueue_many([message(number) for number in range(1000)])
    server.control("set_vm_memory_high_watermark", "0.00001")
    try:
        with running(MANY, vhost.url, 2000, patched=patched) as script:
            told = Lines(script)
            until(lambda: server.messages_in(vhost.name, "default") == 1)
            server.control("set_vm_memory_high_watermark", "0.4")
            until(lambda: server.messages_in(vhost.name, "default") == 0)
            finish(script, told)
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")
    assert broker.get_queue_message_counts("default")[2] == 1


@both_worlds
def test_jobs_whose_next_one_goes_to_a_full_queue_do_not_stop_the_others(server, vhost, broker, full, patched):
    stuck = [message(number, on_success="after") for number in range(3)]
    broker.enqueue_many([*stuck, *(message(number) for number in range(10, 1000))])
    with running(MANY, vhost.url, 2000, patched=patched) as script:
        told = Lines(script)
        until(lambda: server.messages_in(vhost.name, "default") == 3)
        before = server.messages_in(vhost.name, "full")
        full()
        until(lambda: server.messages_in(vhost.name, "default") == 0)
        finish(script, told)
    assert server.messages_in(vhost.name, "full") == before + 3


@pytest.mark.starts_both_worlds
@pytest.mark.parametrize(("patched", "knows"), [(True, "knows the queue"), (False, "has to declare the queue")])
def test_jobs_whose_next_one_goes_to_a_queue_that_answers_nothing_do_not_stop_the_others(
    server, vhost, broker, patched, knows
):
    broker.declare_queue("full")
    broker.enqueue(message("first", queue_name="full"))  # declares it
    with running(MANY, vhost.url, 60_000, knows, patched=patched) as script:
        told = Lines(script)
        told.wait_for(lambda lines: "ready" in lines)
        server.evaluate(f"{look_up(vhost, 'full')}, sys:suspend(amqqueue:get_pid(Q)).")
        try:
            stuck = [message(number, on_success="after") for number in range(3)]
            broker.enqueue_many([*stuck, *(message(number) for number in range(10, 100))])
            until(lambda: server.messages_in(vhost.name, "default") == 3)
        finally:
            server.evaluate(f"{look_up(vhost, 'full')}, sys:resume(amqqueue:get_pid(Q)).")
        until(lambda: server.messages_in(vhost.name, "default") == 0)
        finish(script, told)
    assert server.messages_in(vhost.name, "full") == 1 + 3


# -- what is counted as lost with a worker


def test_lost_connections_are_not_counted_for_messages_that_no_job_had(broker):
    broker.enqueue_many([message(number) for number in range(5)])
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)

    for _ in range(4):
        fetched = take(consumer, 5)
        assert [each.deliveries for each in fetched] == [0] * 5
        consumer.complete(requeues(fetched))  # stay here, as what was sent ahead does
        cut_off(consumer)
        consumer = consume_after(broker, consumer)

    assert names(take(consumer, 5)) == [0, 1, 2, 3, 4]
    consumer.close()
    assert broker.get_queue_message_counts("default")[2] == 0


def test_what_comes_after_a_lost_connection_is_counted_from_the_first_message_that_was_new(vhost, broker):
    other, third = (RabbitmqBroker(url=vhost.url, middleware=[]) for _ in range(2))
    for each in (other, third):
        each.declare_queue("default")
    broker.enqueue(message("in hand"))
    theirs = other.consume("default", prefetch=1, timeout=PATIENCE_S * 1000)
    take(theirs)
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    cut_off(consumer)
    cut_off(theirs)
    consumer = consume_after(broker, consumer)
    (spared,) = take(consumer)
    consumer.complete(acks([spared]))
    broker.enqueue(message("new"))
    consumer.complete(acks(take(consumer)))
    consumer.rest()

    broker.enqueue(message("in hand, too"))
    killed = third.consume("default", prefetch=1, timeout=PATIENCE_S * 1000)
    take(killed)
    cut_off(killed)
    (counted,) = take(consumer)

    assert (spared.deliveries, counted.deliveries) == (0, 1)
    other.close()
    third.close()


def test_a_loss_that_is_not_counted_yet_is_not_forgotten_by_a_message_that_goes_back(broker):
    publish_marked(broker, 1)
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)

    assert consumer.wait()
    consumer.rest()
    consumer.close()
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)

    assert take(consumer)[0].deliveries == 2


def test_a_job_on_trial_that_outlives_its_connection_is_still_the_only_one(broker):
    publish_marked(broker, 1)
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    (first,) = take(consumer)
    cut_off(consumer)
    consumer = consume_after(broker, consumer)
    broker.enqueue(message("new"))
    consumer.complete(acks(take(consumer)))
    assert has_only(consumer, first)

    consumer.rest()
    publish_marked(broker, 1)
    assert consumer.wait()
    assert consumer.fetch(10) == []
    assert consumer._inbox._trials.wait_s is not None  # it waits here, and is not stored anew
    consumer.complete(acks([first]))

    assert [each.deliveries for each in take(consumer)] == [2]


def has_only(consumer, message):
    return list(consumer._inbox.in_hand().values()) == [message]


@contextmanager
def cut_off_after_storing(consumer, monkeypatch):
    """Lose the connection as soon as something is stored, before what it stands for is acknowledged."""
    attachment = consumer._attachment

    def store_and_cut_off(groups, store=attachment.store_if_taken):
        errors = store(groups)
        cut_off(consumer)
        return errors

    with monkeypatch.context() as patch:
        patch.setattr(attachment, "store_if_taken", store_and_cut_off)
        with pytest.raises(ConnectionClosed):
            yield


def test_a_message_that_was_counted_when_the_connection_was_lost_runs_once(broker, monkeypatch):
    publish_marked(broker, 1)
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    attachment = consumer._attachment

    assert consumer.wait()
    with cut_off_after_storing(consumer, monkeypatch):
        consumer.fetch(1)
    consumer = consume_after(broker, consumer)
    consumer.complete(acks(take(consumer)))

    until(lambda: attachment.in_hand("default") == 0)
    consumer.close()
    assert broker.get_queue_message_counts("default") == (0, 0, 0)


def test_a_message_that_was_going_back_when_the_connection_was_lost_runs_once(broker, monkeypatch):
    publish_marked(broker, 1)
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    attachment = consumer._attachment
    (held,) = take(consumer)

    consumer.rest()
    with cut_off_after_storing(consumer, monkeypatch):
        consumer.complete(requeues([held]))
    consumer = consume_after(broker, consumer)
    (again,) = take(consumer)
    consumer.complete(acks([again]))

    until(lambda: attachment.in_hand("default") == 0)
    consumer.close()
    assert again.deliveries == 1
    assert broker.get_queue_message_counts("default") == (0, 0, 0)


def test_a_copy_of_a_message_that_came_again_while_it_was_going_back_is_not_taken_for_it(broker, monkeypatch):
    monkeypatch.setattr(inbox_module, "_ADOPTION_S", 3600)
    publish_marked(broker, 1)
    first = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    attachment, nexts = first._attachment, []
    (held,) = take(first)

    def store_and_adopt(groups, store=attachment.store_if_taken):
        batches = store(groups)
        cut_off(first)
        nexts.append(consume_after(broker, first))
        nexts[0]._subscription.consume(10)
        until(lambda: held.subscription is nexts[0]._subscription)
        return batches

    first.rest()
    with monkeypatch.context() as patch:
        patch.setattr(attachment, "store_if_taken", store_and_adopt)
        with pytest.raises(ConnectionClosed):
            first.complete(requeues([held]))
    (second,) = nexts
    until(lambda: second._subscription.has_some and second._subscription.in_hand == 1)
    cut_off(second)
    third = consume_after(broker, second)

    assert [each.deliveries for each in take(third)] == [1]
    third.close()


def test_messages_that_were_going_back_when_the_server_refused_their_channel_run_once(broker, monkeypatch):
    monkeypatch.setattr(inbox_module, "_ADOPTION_S", 3600)
    publish_marked(broker, 1, 1)
    first = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    attachment, nexts = first._attachment, []
    held = take(first, 2)

    def store_and_refuse(copies, store=first._inbox._store_anew):
        batches = store(copies)
        cut_off(first)
        nexts.append(consume_after(broker, first))
        subscription = nexts[0]._subscription
        subscription.consume(10)
        until(lambda: all(each.subscription is subscription for each in held))
        attachment.loop.soon(lambda: subscription._channel.queue_declare("no such queue", passive=True))
        until(lambda: isinstance(subscription.lost, ConnectionFailed))
        return batches

    first.rest()
    with monkeypatch.context() as patch:
        patch.setattr(first._inbox, "_store_anew", store_and_refuse)
        with pytest.raises(ConnectionError):
            first.complete(requeues(held))
    third = consume_after(broker, nexts[0])

    again = take(third, 2)
    third.complete(acks(again))
    until(lambda: third._subscription.in_hand == 0)
    assert [each.deliveries for each in again] == [1, 1]
    third.close()
    assert broker.get_queue_message_counts("default") == (0, 0, 0)


def test_during_an_alarm_messages_are_fetched_though_their_losses_cannot_be_counted(server, broker, monkeypatch):
    monkeypatch.setattr(losses, "ALONE_S", 3600)
    publish_marked(broker, 1, 0, 0)
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    server.control("set_vm_memory_high_watermark", "0.00001")
    try:
        with pytest.raises(ConnectionError):
            broker.enqueue(message("no"), delay=3_600_000)  # by sending something the server begins to block
        until(lambda: broker._attach().publishing.blocked_by is not None)
        during = take(consumer, 2)
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")

    assert [(*each.args, each.deliveries) for each in during] == [(0, 0), (0, 0)]
    assert [(*each.args, each.deliveries) for each in take(consumer)] == [(1, 2)]


# -- copies that are in doubt when an alarm begins


def test_a_loss_whose_count_is_in_doubt_when_an_alarm_begins_holds_up_no_other_and_runs_once(server, broker):
    publish_marked(broker, 0, 0, 0)
    consumer = broker.consume("default", prefetch=3, timeout=PATIENCE_S * 1000)
    with low_memory(server):
        during = take(consumer, 2)
        until(lambda: broker._attach().publishing.blocked_by is not None)
        consumer.complete(acks(during))
        assert consumer.fetch(3) == []
    (after,) = take(consumer)
    consumer.complete(acks([after]))

    assert [each.deliveries for each in (*during, after)] == [0, 0, 1]
    until(lambda: consumer._subscription.in_hand == 0)
    consumer.close()
    assert broker.get_queue_message_counts("default") == (0, 0, 0)


def test_a_message_whose_count_is_in_doubt_goes_back_when_the_connection_for_it_is_lost(server, broker):
    publish_marked(broker, 0)
    consumer = broker.consume("default", prefetch=3, timeout=PATIENCE_S * 1000)
    publishing, subscription = broker._attach().publishing, consumer._subscription
    with low_memory(server):
        assert consumer.wait()
        assert consumer.fetch(3) == []
        assert not subscription.has_some
        consumer._attachment.loop.soon(lambda: lose(publishing.connection))
        until(lambda: subscription.has_some)

    assert [each.deliveries for each in take(consumer)] == [1]
    consumer.close()


@pytest.mark.parametrize("when", ["before its copy was stored", "before that was seen"])
def test_a_message_whose_count_is_in_doubt_runs_once_though_its_channel_is_lost(server, broker, monkeypatch, when):
    monkeypatch.setattr(in_doubt, "_LOOK_EVERY_S", 3600 if when == "before that was seen" else 0.05)
    publish_marked(broker, 0)
    consumer = broker.consume("default", prefetch=3, timeout=PATIENCE_S * 1000)
    with low_memory(server):
        assert consumer.wait()
        assert consumer.fetch(3) == []
        if when == "before its copy was stored":
            cut_off(consumer)
            consumer = consume_after(broker, consumer)
            assert consumer.fetch(3) == []  # the first has the server deliver
            until(lambda: consumer._subscription.in_hand == 1)
            assert consumer.fetch(3) == []
    if when == "before that was seen":
        until(lambda: consumer._subscription.in_hand == 2)  # its copy has come
        until(lambda: not any(batch.is_under_way for _, batch in consumer._inbox._in_doubt._kept))
        cut_off(consumer)
        consumer = consume_after(broker, consumer)
    (after,) = take(consumer)
    consumer.complete(acks([after]))

    assert after.deliveries == 1
    until(lambda: consumer._subscription.in_hand == 0)
    consumer.close()
    assert broker.get_queue_message_counts("default") == (0, 0, 0)


def test_a_message_that_goes_back_when_an_alarm_begins_comes_once(server, broker):
    publish_marked(broker, 0)
    consumer = broker.consume("default", prefetch=3, timeout=PATIENCE_S * 1000)
    (held,) = take(consumer)
    consumer.rest()
    with low_memory(server):
        consumer.complete(requeues([held]))
        until(lambda: broker._attach().publishing.blocked_by is not None)
    (again,) = take(consumer)
    consumer.complete(acks([again]))

    assert (held.deliveries, again.deliveries) == (1, 0)
    until(lambda: consumer._subscription.in_hand == 0)
    consumer.close()
    assert broker.get_queue_message_counts("default") == (0, 0, 0)


def test_a_delayed_message_that_is_passed_on_when_an_alarm_begins_is_stored_once(server, vhost):
    broker = RabbitmqBroker(url=vhost.url, middleware=[], send_timeout=300)
    broker.declare_queue("default", ensure=True)
    eta = int(time.time() * 1000) + 3_600_000
    broker.channel.basic_publish("", "default.DQ", message("late", queue_name="default.DQ", eta=eta).encode())
    until(lambda: broker.get_queue_message_counts("default") == (0, 1, 0))
    consumer = broker.consume("default", prefetch=3, timeout=1000)
    with low_memory(server):
        assert not consumer.wait()  # for longer than a send waits
        until(lambda: broker._attach().publishing.blocked_by is not None)

    until(lambda: consumer._subscription.in_hand == 0)
    assert broker.get_queue_message_counts("default") == (0, 1, 0)
    broker.close()


# -- what comes at an awkward moment


def test_what_comes_while_the_last_delayed_messages_were_sorted_out_is_not_forgotten(broker, monkeypatch):
    broker.declare_queue("default", ensure=True)
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    subscription = consumer._subscription

    def take_and_wait_for_another(take_delayed=subscription.take_delayed):
        taken = take_delayed()
        if not taken:
            monkeypatch.undo()
            broker.channel.basic_publish("", "default.DQ", message("second").encode())
            until(lambda: subscription.has_delayed)
        return taken

    monkeypatch.setattr(subscription, "take_delayed", take_and_wait_for_another)
    broker.channel.basic_publish("", "default.DQ", message("first").encode())

    assert names(take(consumer, 2)) == ["first", "second"]


def test_a_rest_that_the_server_answers_too_late_loses_nothing_that_was_sent_ahead(broker, monkeypatch):
    broker.enqueue_many([message(number) for number in range(3)])
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    assert consumer.wait()
    with monkeypatch.context() as patch:
        patch.setattr(subscription_module, "TIMEOUT_S", 0.0)
        with pytest.raises(ConnectionClosed, match="did not stop to deliver"):
            consumer.rest()

    until(lambda: consumer._subscription.is_resting)

    assert names(take(consumer, 3)) == [0, 1, 2]


def test_a_consumer_that_cannot_return_its_messages_when_it_is_closed_closes_its_channel(broker, monkeypatch):
    broker.enqueue(message("first"))
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    assert consumer.wait()
    channels = broker._attach().consuming.connection._channels
    with monkeypatch.context() as patch:
        patch.setattr(subscription_module, "TIMEOUT_S", 0.0)
        consumer.close()

    until(lambda: not channels)
    assert names(take(broker.consume("default", timeout=PATIENCE_S * 1000))) == ["first"]


def test_a_channel_that_the_server_opens_too_late_is_closed(broker, monkeypatch):
    assert broker.get_queue_message_counts("default") == (0, 0, 0)
    channels = broker._attach().consuming.connection._channels
    until(lambda: not channels)
    with monkeypatch.context() as patch:
        patch.setattr(subscription_module, "TIMEOUT_S", 0.0)
        with pytest.raises(ConnectionClosed, match="did not answer"):
            broker.consume("default")

    broker.enqueue(message("next"))
    assert names(take(broker.consume("default", timeout=PATIENCE_S * 1000))) == ["next"]
    until(lambda: len(channels) == 1)


def test_a_consumer_that_the_server_starts_too_late_costs_its_channel_and_not_the_connection(broker, monkeypatch):
    broker.enqueue(message("first"))
    consumer = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    connection = broker._attach().consuming.connection
    with monkeypatch.context() as patch:
        patch.setattr(subscription_module, "TIMEOUT_S", 0.0)
        with pytest.raises(ConnectionClosed, match="did not start to deliver"):
            consumer.wait()

    until(lambda: consumer._subscription.lost is not None)
    consumer = consume_after(broker, consumer)

    assert names(take(consumer)) == ["first"]
    assert broker._attach().consuming.connection is connection
    until(lambda: len(connection._channels) == 1)
