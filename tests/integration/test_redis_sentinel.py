"""The Redis broker behind Sentinel: masters that die, or step down, under load.

Runs in both worlds. Each test has servers of its own, because it ends with another master.
"""

from __future__ import annotations

import signal
import threading
import time

import pytest

import greenq
from greenq.brokers.redis import RedisBroker
from greenq.errors import ConnectionError, ConnectionFailed
from greenq.verdict import Action, Verdict
from tests.contract.fetching import acks, message, names, take
from tests.support.brokers import consume, opening, send
from tests.support.redis_sentinel import MASTER, redis_sentinels
from tests.support.waiting import PATIENCE_S, beside, until


@pytest.fixture
def servers():
    with redis_sentinels() as servers:
        yield servers


@pytest.fixture
def open_broker(servers):
    with opening(lambda **options: RedisBroker(client=servers.client(socket_timeout=2), **options)) as open_broker:
        yield open_broker


@pytest.fixture
def broker(open_broker):
    return open_broker()


def is_sent(broker, number):
    try:
        send(broker, number)
    except ConnectionError:
        return False
    return True


def lines(caplog, text):
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def settle(consumer, verdicts):
    """Write verdicts as the worker does, again and again until it works; the refused ones."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return list(consumer.complete(verdicts))
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def fetch(consumer, count):
    """Fetch as the worker does, again and again until it works."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return consumer.fetch(count)
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


class Load:
    """A producer and a worker; what was confirmed, and what ran."""

    def __init__(self, broker):
        self.broker = broker
        self.confirmed = []
        self.ran = set()
        self._stop = threading.Event()

        @greenq.actor(broker=broker)
        def work(number):
            self.ran.add(number)

        self.work = work
        self.worker = greenq.Worker(broker, worker_threads=4)

    def produce(self):
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                self.work.send(number)
            except ConnectionError:
                time.sleep(0.02)  # nothing is asked of what was not confirmed
            else:
                self.confirmed.append(number)

    def stop(self):
        self._stop.set()

    def wait_for_more(self):
        done = len(self.ran)
        until(lambda: len(self.ran) > done + 100)


def test_a_planned_failover_in_the_middle_of_a_load_loses_nothing_that_was_replicated(caplog):
    # With this the old master, which nobody stops, refuses what it can replicate to nobody.
    with redis_sentinels(min_replicas_to_write="1") as servers:
        broker = RedisBroker(client=servers.client())
        caplog.set_level("INFO")
        load = Load(broker)
        load.worker.start()
        with beside(load.produce):
            try:
                load.wait_for_more()
                before = list(load.confirmed)
                servers.wait_until_replica_has(servers.first.client().info("replication")["master_repl_offset"])
                servers.fail_over()
                until(lambda: lines(caplog, "The broker is back"))
                sent = len(load.confirmed)
                load.wait_for_more()
            finally:
                load.stop()
        broker.join("default", timeout=PATIENCE_S * 1000)
        load.worker.stop()
        broker.close()

    assert set(before) | set(load.confirmed[sent:]) <= load.ran
    assert len(lines(caplog, "The broker is away")) == 1
    assert len(lines(caplog, "The broker is back")) == 1


@pytest.mark.in_time
def test_a_producer_leaves_an_old_master_that_goes_on_as_if_nothing_had_happened(servers, broker):
    send(broker, 1)
    servers.slow_down()

    servers.fail_over()
    sent_at = time.monotonic()
    until(lambda: is_sent(broker, 2) and servers.second.client().llen("greenq:default") > 1)

    assert time.monotonic() - sent_at < 5
    assert servers.first.client().info("replication")["role"] == "master"


def test_a_killed_master_in_the_middle_of_a_load_loses_nothing_that_was_replicated(servers, broker, caplog):
    caplog.set_level("INFO")
    load = Load(broker)
    load.worker.start()
    for number in range(-500, 0):
        load.work.send_with_options(args=(number,), delay=5000)
    with beside(load.produce):
        try:
            load.wait_for_more()
        finally:
            load.stop()
    servers.wait_until_replicated()

    servers.first.stop(signal.SIGKILL)

    until(lambda: is_sent(broker, "afterwards"))
    broker.join("default", timeout=PATIENCE_S * 1000)
    load.worker.stop()
    assert set(load.confirmed) | set(range(-500, 0)) <= load.ran
    assert len(lines(caplog, "The broker is away")) == 1
    assert len(lines(caplog, "The broker is back")) == 1


def test_a_consumer_that_waits_on_a_master_that_steps_down_goes_on_at_the_new_one(servers, broker):
    consumer = consume(broker)
    assert consumer.fetch(1) == []
    got = []

    def take_one():
        deadline = time.monotonic() + PATIENCE_S
        while not got and time.monotonic() < deadline:
            try:
                got.extend(take(consumer))
            except ConnectionError:
                time.sleep(0.05)

    with beside(take_one):
        until(lambda: is_waited_on(servers.first))
        servers.fail_over()
        until(lambda: is_waited_on(servers.second))
        until(lambda: is_sent(broker, "there"))

    assert names(got) == ["there"]


def is_waited_on(server):
    return any(each["cmd"] == "blmove" for each in server.client().client_list())


def test_the_refusal_of_a_master_that_stepped_down_says_that_nothing_was_stored(servers, broker):
    send(broker, 1)
    # By hand, so that nobody closes the connections, which Sentinel would do.
    servers.first.client().replicaof("127.0.0.1", servers.second.port)

    with pytest.raises(ConnectionFailed, match=r"nothing was stored.*READONLY|READONLY.*nothing was stored|read only"):
        send(broker, 2)


def test_where_sentinel_knows_no_living_master_it_says_so_and_later_goes_on(servers, broker):
    send(broker, 1)
    servers.wait_until_replicated()
    servers.first.stop(signal.SIGKILL)
    refusals = []

    def is_sent_again():
        try:
            send(broker, 2)
        except ConnectionError as error:
            refusals.append(str(error))
            return False
        return True

    until(is_sent_again)

    assert any("No sentinel knows a living master 'jobs'" in each for each in refusals)
    assert all("nothing was stored" in each for each in refusals[1:])
    assert names(take(broker.consume("default"), 2)) == [1, 2]


def test_a_retry_that_the_old_master_confirmed_and_the_new_one_never_got_runs_all_the_same(servers, broker):
    send(broker, "to be retried", "held")
    consumer = consume(broker)
    first, held = take(consumer, 2)
    servers.wait_until_replicated()
    servers.second.client().replicaof("NO", "ONE")  # from now on it misses everything
    retry = Verdict(Action.ACK, first, follow_ups=[broker.prepare(message("retry"))])
    assert list(consumer.complete([retry])) == []

    servers.first.stop(signal.SIGKILL)
    servers.repoint(servers.second)

    again = fetch(consumer, 10)
    assert names(again) == ["to be retried"]
    assert settle(consumer, acks([held, *again])) == []
    assert broker.get_queue_message_counts("default") == (0, 0, 0)


def test_a_sentinel_that_is_away_is_passed_over(servers, open_broker):
    servers.sentinels[0].stop(signal.SIGKILL)

    send(open_broker(), 1)

    assert servers.first.client().llen("greenq:default") == 1


def test_one_right_at_the_sentinels_is_enough(servers):
    for sentinel in servers.sentinels:
        sentinel.client().execute_command("ACL", "SETUSER", "greenq", "on", ">secret", "-@all", "+sentinel|master")
    sentinel = servers.asks(sentinel_kwargs={"username": "greenq", "password": "secret"})
    broker = RedisBroker(client=sentinel.master_for(MASTER), middleware=[])
    broker.declare_queue("default")

    send(broker, 1)

    assert servers.first.client().llen("greenq:default") == 1
    broker.close()


def test_a_name_that_sentinel_does_not_know_is_told_with_the_remedy(servers):
    broker = RedisBroker(client=servers.asks().master_for("others"), middleware=[])

    with pytest.raises(ConnectionFailed, match=r"'others'.*sentinel\.conf"):
        broker.connect()
    assert str(broker) == "RedisBroker(Sentinel's master 'others', namespace='greenq')"


def test_the_client_of_replicas_is_refused_with_the_remedy(servers):
    with pytest.raises(ValueError, match="master_for"):
        RedisBroker(client=servers.asks().slave_for(MASTER))


def test_the_address_of_a_replica_fails_the_start_with_the_remedy(servers):
    broker = RedisBroker(url=servers.second.url, middleware=[])

    with pytest.raises(ConnectionFailed, match=rf"a replica of 127.0.0.1:{servers.first.port}.*master_for"):
        broker.connect()


def test_the_address_of_a_sentinel_fails_the_start_with_the_remedy(servers):
    broker = RedisBroker(url=servers.sentinels[0].url, middleware=[])

    with pytest.raises(ConnectionFailed, match=r"is a sentinel.*master_for"):
        broker.connect()


def test_a_start_behind_sentinel_looks_at_the_master(servers, broker, caplog):
    servers.first.client().config_set("maxmemory-policy", "allkeys-lru")

    broker.connect()

    assert "noeviction" in caplog.text
