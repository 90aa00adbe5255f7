"""What is the Redis broker's own: the server's part, leases, outages, foreign producers.

What all brokers share is in contract/. Runs in both worlds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
import uuid

import pytest
import redis

import greenq
from greenq.brokers.redis import RedisBroker, links
from greenq.brokers.redis.links import Link
from greenq.consumer import Undecodable
from greenq.errors import ConnectionClosed, ConnectionFailed, QueueJoinTimeout
from greenq.message import MAX_MESSAGE_BYTES
from greenq.verdict import Action, Verdict
from tests.contract.fetching import acks, message, nacks, names, requeues, take, take_one
from tests.support.brokers import consume, counts, opening, send
from tests.support.processes import both_worlds, output_of, running
from tests.support.redis_server import redis_server, shared_server
from tests.support.waiting import PATIENCE_S, beside, happens, until

SHORT_LEASE_MS = 300
#: For who has to keep his lease: a busy machine may stop a process for longer than the short one.
SAFE_LEASE_MS = 1000


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
    """Makes brokers on the same server, each as if in a process of its own; closes them after the test."""
    with opening(lambda url=server.url, **options: RedisBroker(url=url, **options)) as open_broker:
        yield open_broker


@pytest.fixture
def broker(open_broker):
    return open_broker()


@pytest.fixture
def consumer(broker):
    return consume(broker)


def reasons(client):
    return [reason.decode() for reason in client.hvals("greenq:default~dead.reasons")]


# -- producers in other languages


def push(client, payload, stored_id=None):
    stored_id = stored_id or str(uuid.uuid4())
    client.hset("greenq:default.msgs", stored_id, payload)
    client.rpush("greenq:default", stored_id)


def test_two_commands_enqueue_a_message(consumer, client, broker):
    push(client, message("foreign").encode())

    fetched = take(consumer)
    consumer.complete(acks(fetched))

    assert names(fetched) == ["foreign"]
    assert counts(broker) == (0, 0, 0)
    assert client.exists("greenq:default.msgs") == 0


def test_a_foreign_message_ends_a_wait(consumer, client):
    assert consumer.fetch(1) == []

    with beside(push, client, message("foreign").encode()):
        assert consumer.wait()

    assert names(take(consumer)) == ["foreign"]


def test_foreign_messages_can_be_returned_and_retried(consumer, client, broker):
    push(client, message("foreign").encode())
    consumer.complete(requeues(take(consumer)))
    first = take_one(consumer)

    consumer.complete([Verdict(Action.ACK, first, follow_ups=[broker.prepare(first.message, delay=1)])])

    assert names(take(consumer)) == ["foreign"]


@pytest.mark.parametrize("payload", [b"\xff\x00\xfe", b"{}", b"null", b"[" * 1000, b"", b"{" * 100_000])
def test_garbage_becomes_a_dead_letter_and_what_is_around_it_runs(consumer, client, broker, payload):
    send(broker, 1)
    push(client, payload)
    send(broker, 2)

    fetched = take(consumer, 3)
    bad = [each for each in fetched if isinstance(each, Undecodable)]
    consumer.complete([*nacks(bad, "no message"), *acks(each for each in fetched if each not in bad)])

    assert len(bad) == 1
    assert counts(broker) == (0, 0, 1)
    assert client.hvals("greenq:default~dead.msgs") == [payload]


def test_a_payload_that_is_too_long_is_not_fetched_but_kept_as_it_is(consumer, client, broker):
    payload = b"x" * (MAX_MESSAGE_BYTES + 1)
    push(client, payload)
    send(broker, 1)
    before = client.info("stats")["total_net_output_bytes"]

    bad, good = take(consumer, 2)
    consumer.complete([*nacks([bad], bad.reason), *acks([good])])

    assert client.info("stats")["total_net_output_bytes"] - before < 100_000
    assert client.hvals("greenq:default~dead.msgs") == [payload]
    assert "1,048,577 bytes" in reasons(client)[0]


def test_a_worker_runs_what_is_between_garbage_of_every_kind(open_broker, client, caplog):
    broker = open_broker()
    ran, chance = [], random.Random(7)

    @greenq.actor(broker=broker)
    def work(number):
        ran.append(number)

    good = work.message(-1).encode()
    garbage = [chance.randbytes(chance.randrange(200)) for _ in range(100)]
    garbage += [_with_a_byte_changed(good, chance) for _ in range(100)]
    garbage += [json.dumps(value).encode() for value in (None, 1, "x", [], {}, [{}], {"args": 1}, {"queue_name": []})]
    garbage.append(b"x" * 50_000_000)
    for number, payload in enumerate(garbage):
        push(client, payload)
        work.send(number)
    before = client.info("stats")["total_net_output_bytes"]

    worker = greenq.Worker(broker, worker_threads=32)
    worker.start()
    broker.join("default", timeout=PATIENCE_S * 1000)
    worker.stop()

    # Some changed bytes leave a message that can be run, or one of another actor.
    assert [number for number in sorted(ran) if number >= 0] == list(range(len(garbage)))
    assert counts(broker)[2] >= 110
    assert not [record for record in caplog.records if "Consuming failed" in record.message]
    assert client.info("stats")["total_net_output_bytes"] - before < 10_000_000


def _with_a_byte_changed(payload, chance):
    position = chance.randrange(len(payload))
    return payload[:position] + chance.randbytes(1) + payload[position + 1 :]


def test_an_id_without_a_payload_becomes_a_dead_letter_that_says_so(consumer, client, broker):
    client.rpush("greenq:default", "nothing-behind-it")
    send(broker, 1)

    bad, good = take(consumer, 2)
    consumer.complete([*nacks([bad], bad.reason), *acks([good])])

    assert reasons(client) == ["There is no payload under this id."]
    assert counts(broker) == (0, 0, 1)


@pytest.mark.parametrize("queue_name", ["../other", "x~held", "", "a.msgs", "a.msgs.DQ"])
def test_a_message_that_names_an_impossible_queue_becomes_a_dead_letter(consumer, client, queue_name):
    push(client, message("lost", queue_name=queue_name).encode())

    assert isinstance(take_one(consumer), Undecodable)


# -- waiting


@pytest.mark.parametrize("options", [{"broker_priority": 5}, {"broker_priority": -5}], ids=str)
def test_a_message_of_any_priority_ends_a_wait(broker, consumer, options):
    assert consumer.fetch(1) == []

    with beside(send, broker, "now"):
        assert consumer.wait()
    assert names(take(consumer)) == ["now"]
    with beside(lambda: broker.enqueue(message("prior", **options))):
        assert consumer.fetch(1) or consumer.wait()


def test_a_bell_is_no_message(broker, consumer, client):
    broker.enqueue(message("prior", broker_priority=1))
    broker.enqueue(message("delayed"), delay=60_000)

    assert client.lrange("greenq:default", 0, -1) == [b""]
    assert counts(broker) == (1, 1, 0)
    assert names(take(consumer)) == ["prior"]
    assert consumer.fetch(1) == []
    assert client.exists("greenq:default") == 0


def test_a_bell_stays_in_front_of_what_is_returned(broker, consumer, client):
    send(broker, 1)
    taken = take(consumer)
    broker.enqueue(message("delayed"), delay=60_000)

    consumer.complete(requeues(taken))

    assert counts(broker) == (1, 1, 0)
    assert names(take(consumer)) == [1]
    assert consumer.fetch(1) == []


def test_a_wake_before_the_wait_is_not_lost_and_costs_no_error(broker, consumer):
    assert consumer.fetch(1) == []
    with beside(send, broker, 1):
        assert consumer.wait()
    take(consumer)
    assert consumer.fetch(1) == []

    consumer.wake()

    assert not consumer.wait()
    with beside(send, broker, 2):
        assert consumer.wait()


def test_two_consumers_are_both_woken_for_a_message_each(broker, open_broker):
    consumers = [consume(broker), consume(open_broker())]
    got = []

    def take_into(consumer):
        got.extend(take(consumer))

    with beside(take_into, consumers[0]), beside(take_into, consumers[1]):
        send(broker, 1)
        send(broker, 2)

    assert sorted(names(got)) == [1, 2]


IDLE = """
    import select, sys
    import greenq
    from greenq.brokers.redis import RedisBroker
    broker = RedisBroker(url=sys.argv[1])
    for number in range(10):
        broker.declare_queue(f"queue{number}")
    worker = greenq.Worker(broker, worker_threads=4)
    worker.start()
    print("started")
    select.select([sys.stdin], [], [])
    worker.stop()
    broker.close()
"""


@both_worlds
def test_an_idle_process_with_ten_queues_sends_at_most_a_command_a_second(server, client, patched):
    with running(IDLE, server.url, patched=patched) as script:
        script.line()
        until(lambda: [each["cmd"] for each in client.client_list()].count("blmove") == 10)
        client.config_resetstat()
        before = time.monotonic()

        time.sleep(3)  # what is measured is what happens in a while

        sent = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_blmove")
        stats = client.info("commandstats")
        calls = sum(stats[name]["calls"] for name in sent if name in stats)
        assert calls <= time.monotonic() - before
        script.say()
        script.rest()


# -- order and delays


def test_ten_urgent_messages_come_before_ten_thousand_others(broker, consumer):
    for start in range(0, 10_000, 1000):
        send(broker, *range(start, start + 1000))
    send(broker, *["urgent"] * 10, broker_priority=1)
    send(broker, "last", broker_priority=-1)

    assert names(take(consumer, 11)) == [*["urgent"] * 10, 0]
    assert len(take(consumer, 9999)) == 9999
    assert names(take(consumer)) == ["last"]


def test_delayed_messages_are_in_nobodys_hands(broker, consumer, client):
    for number in range(100):
        broker.enqueue(message(number), delay=86_400_000)

    assert consumer.fetch(500) == []
    assert client.zcard("greenq:default~delayed") == 100
    assert counts(broker) == (0, 100, 0)


def test_more_messages_than_one_step_moves_fall_due_together(broker, consumer):
    envelopes = [broker.prepare(message(number), delay=100) for number in range(2500)]
    broker.write(envelopes)

    assert sorted(names(take(consumer, 2500))) == list(range(2500))


@pytest.mark.in_time
def test_what_is_due_is_started_within_a_second_by_a_worker_under_full_load(open_broker):
    broker = open_broker()
    late_ms, left = [], []
    has_run = threading.Event()

    @greenq.actor(broker=broker)
    def load():
        pass

    @greenq.actor(broker=broker, priority=-1)
    def due(at_ms):
        late_ms.append(time.time() * 1000 - max(at_ms, started_ms))
        if len(late_ms) == 20:
            left.append(broker.queue_counts("default").ready)
            has_run.set()

    load.send_many([()] * 50_000)
    for number in range(20):
        due.send_with_options(args=(time.time() * 1000 + 300 + 10 * number,), delay=300 + 10 * number)
    worker = greenq.Worker(broker, worker_threads=8)
    started_ms = time.time() * 1000
    worker.start()
    happens(has_run)
    worker.stop()

    assert left[0] > 0, "the load was over before"
    assert max(late_ms) <= 1000


def test_a_large_batch_comes_in_order(broker, consumer):
    send(broker, *range(10_000))

    assert names(take(consumer, 10_000)) == list(range(10_000))


def test_a_large_batch_is_settled_in_one_step(broker, consumer):
    send(broker, *range(10_000))
    taken = take(consumer, 10_000)

    assert list(consumer.complete([*acks(taken[:5000]), *requeues(taken[5000:])])) == []

    assert counts(broker) == (5000, 0, 0)
    assert names(take(consumer, 5000)) == list(range(5000, 10_000))


# -- leases


HOLD = """
    import sys, time
    from greenq.brokers.redis import RedisBroker
    broker = RedisBroker(url=sys.argv[1], middleware=[], heartbeat_timeout=int(sys.argv[2]))
    broker.declare_queue("default")
    consumer = broker.consume("default")
    messages = consumer.fetch(10)
    print(broker.worker_id, len(messages))
    input()
    for message in messages:
        consumer.ack(message)
    print(broker.get_queue_message_counts("default"))
"""


@both_worlds
def test_messages_of_a_killed_worker_are_delivered_again(open_broker, server, patched):
    broker = open_broker(heartbeat_timeout=SHORT_LEASE_MS)
    send(broker, 1, 2, 3)
    with running(HOLD, server.url, SHORT_LEASE_MS, patched=patched) as holder:
        holder.line()
        consumer = consume(broker)

        os.kill(holder.pid, signal.SIGKILL)

        again = take(consumer, 3)
    assert names(again) == [1, 2, 3]
    assert [each.deliveries for each in again] == [1, 1, 1]


@both_worlds
def test_messages_of_a_living_worker_are_left_to_it(open_broker, server, patched):
    broker = open_broker(heartbeat_timeout=SAFE_LEASE_MS)
    send(broker, 1)
    with running(HOLD, server.url, SAFE_LEASE_MS, patched=patched) as holder:
        holder.line()

        idle = broker.consume("default", timeout=3 * SAFE_LEASE_MS)
        assert [idle.wait() and idle.fetch(1) for _ in range(2)] == [[], False]

        holder.say()
        assert holder.rest() == ["(0, 0, 0)"]


def test_a_worker_that_was_stopped_for_long_settles_nothing_of_what_others_have(open_broker, server):
    broker = open_broker(heartbeat_timeout=SHORT_LEASE_MS)
    send(broker, 1)
    with running(HOLD, server.url, SHORT_LEASE_MS) as holder:
        holder.line()
        consumer = consume(broker)

        os.kill(holder.pid, signal.SIGSTOP)
        take(consumer, 1)
        os.kill(holder.pid, signal.SIGCONT)
        holder.say()

        assert holder.rest() == ["(1, 0, 0)"]


def test_a_death_that_is_reported_is_taken_back_at_once(broker, server):
    send(broker, 1, 2)
    with running(HOLD, server.url, 3_600_000) as holder:
        worker_id, _ = holder.line().split()
        holder.kill()

    assert broker.take_back(worker_id) == 2
    assert broker.take_back(worker_id) == 0


@pytest.mark.parametrize("stored_id", ["order-42", b"\xff", str(uuid.UUID(int=42))])
def test_a_message_without_an_id_is_charged_like_any_other(broker, consumer, open_broker, client, stored_id):
    killer = {**message("killer").asdict(), "message_id": None}
    push(client, json.dumps(killer), stored_id)
    send(broker, "neighbour")
    for _ in range(3):
        fetched = {names([each])[0]: each for each in take(consumer, 2)}
        open_broker().take_back(broker.worker_id, charge=[fetched["killer"].message_id])

    fetched = {names([each])[0]: each for each in take(consumer, 2)}

    assert (fetched["killer"].charges, fetched["killer"].failed) == (3, True)
    assert (fetched["neighbour"].charges, fetched["neighbour"].is_suspect) == (0, False)


def test_a_verdict_on_what_was_taken_back_is_refused_and_stores_nothing(broker, consumer, open_broker):
    send(broker, 1)
    held = take_one(consumer)
    other = open_broker()
    other.take_back(broker.worker_id)
    verdict = Verdict(Action.ACK, held, follow_ups=[broker.prepare(message("retry"))])

    assert list(consumer.complete([verdict])) == [verdict]

    assert names(take(consume(other))) == [1]
    assert counts(other) == (1, 0, 0)


def test_a_return_that_is_written_twice_does_not_meet_the_next_delivery_to_the_same_worker(broker, consumer, client):
    send(broker, 1)
    verdicts = requeues(take(consumer))
    consumer.complete(verdicts)
    again = take(consumer)

    refused = consumer.complete(verdicts)  # as by a server that stood still with both in its buffers

    assert refused == verdicts
    assert broker.queue_counts("default").reserved == 1
    assert consumer.complete(acks(again)) == []
    assert counts(broker) == (0, 0, 0)
    assert client.exists("greenq:default.msgs") == 0


def test_a_late_verdict_does_not_meet_the_next_delivery_to_the_same_worker(broker, consumer, open_broker):
    send(broker, 1)
    first = take_one(consumer)
    open_broker().take_back(broker.worker_id)
    second = take_one(consumer)

    assert len(consumer.complete(acks([first]))) == 1
    assert len(consumer.complete(acks([second]))) == 0


def test_a_lost_lease_is_told_once_and_fetching_goes_on(broker, consumer, open_broker, caplog):
    send(broker, 1)
    open_broker().take_back(broker.worker_id)

    assert names(take(consumer)) == [1]
    consumer.fetch(1)

    assert len([record for record in caplog.records if "ran out" in record.message]) == 1


def test_a_requeue_goes_back_uncharged_and_a_settled_count_is_forgotten(broker, consumer, open_broker, client):
    send(broker, 1)
    take(consumer)
    open_broker().take_back(broker.worker_id)
    charged = take_one(consumer)
    consumer.complete(requeues([charged]))
    again = take_one(consumer)

    consumer.complete(acks([again]))

    assert (charged.deliveries, again.deliveries) == (1, 1)
    assert client.exists("greenq:default~deliveries") == 0


def test_returned_messages_keep_their_priority(broker, consumer, open_broker):
    send(broker, "low", broker_priority=-1)
    send(broker, "high", broker_priority=1)
    send(broker, "usual")
    take(consumer, 3)

    open_broker().take_back(broker.worker_id)

    assert names(take(consumer, 3)) == ["high", "usual", "low"]


def test_dead_letters_are_dropped_after_their_time(open_broker, client):
    broker = open_broker(heartbeat_timeout=SHORT_LEASE_MS, dead_message_ttl=1)
    consumer = consume(broker)
    send(broker, 1)

    consumer.complete(nacks(take(consumer), "no good"))

    until(lambda: counts(broker) == (0, 0, 0))
    assert client.exists("greenq:default~dead.msgs", "greenq:default~dead.reasons") == 0


# -- answers that are lost


def lose_answers(monkeypatch, name, times=1):
    """Have the server run a script, and the client lose the answer."""
    call = Link.call
    left = [times]

    def lossy(self, script, keys, args):
        answer = call(self, script, keys, args)
        if script.name == name and left[0]:
            left[0] -= 1
            raise ConnectionClosed("the answer was lost")
        return answer

    monkeypatch.setattr(Link, "call", lossy)


def lose_commands(monkeypatch, name, times=1):
    """Have a script never reach the server."""
    call = Link.call
    left = [times]

    def lossy(self, script, keys, args):
        if script.name == name and left[0]:
            left[0] -= 1
            raise ConnectionClosed("the command was lost")
        return call(self, script, keys, args)

    monkeypatch.setattr(Link, "call", lossy)


def test_what_a_fetch_reserved_whose_answer_was_lost_comes_with_the_next(broker, consumer, monkeypatch):
    send(broker, 1, 2, 3)
    held = take(consumer)
    lose_answers(monkeypatch, "fetch")
    with pytest.raises(ConnectionClosed):
        consumer.fetch(10)

    again = consumer.fetch(10)

    assert names(again) == [2, 3]
    assert [each.deliveries for each in again] == [0, 0]
    assert list(consumer.complete(acks([*held, *again]))) == []
    assert counts(broker) == (0, 0, 0)


def test_a_verdict_that_was_written_although_its_answer_was_lost_counts_as_written(broker, consumer, monkeypatch):
    send(broker, 1)
    verdict = Verdict(Action.ACK, take_one(consumer), follow_ups=[broker.prepare(message("next"))])
    lose_answers(monkeypatch, "settle")
    with pytest.raises(ConnectionClosed):
        consumer.complete([verdict])

    assert list(consumer.complete([verdict])) == []

    assert names(take(consumer)) == ["next"]
    assert consumer.fetch(10) == []


def test_a_verdict_during_a_hand_over_whose_answer_is_lost_is_written(broker, consumer, monkeypatch):
    send(broker, 1)
    held = take(consumer)
    broker._attachment.membership.note_break()
    lose_answers(monkeypatch, "hand_over")
    with pytest.raises(ConnectionClosed):
        consumer.fetch(1)

    assert list(consumer.complete(acks(held))) == []

    assert consumer.fetch(1) == []
    assert counts(broker) == (0, 0, 0)


def test_messages_are_kept_through_hand_overs_whose_answers_are_lost(broker, consumer, monkeypatch):
    send(broker, 1, 2)
    held = take(consumer, 2)
    broker._attachment.membership.note_break()
    lose_answers(monkeypatch, "hand_over", times=2)
    for _ in range(2):
        with pytest.raises(ConnectionClosed):
            consumer.fetch(1)

    assert consumer.fetch(1) == []
    assert list(consumer.complete(requeues(held))) == []
    assert names(take(consumer, 2)) == [1, 2]


def test_a_verdict_whose_answer_was_lost_counts_as_written_when_a_hand_over_was_lost_too(broker, consumer, monkeypatch):
    send(broker, 1)
    held = take(consumer)
    lose_answers(monkeypatch, "settle")
    with pytest.raises(ConnectionClosed):
        consumer.complete(acks(held))
    broker._attachment.membership.note_break()
    lose_commands(monkeypatch, "hand_over")
    with pytest.raises(ConnectionClosed):
        consumer.fetch(1)

    assert list(consumer.complete(acks(held))) == []


def renew(broker):
    """Do what the keeper does, in this thread: its connection belongs to its own."""
    membership = broker._attachment.membership
    membership._keeper.stop()
    membership._own = broker._attachment.links
    membership._renew()


def test_what_was_handed_over_by_a_step_whose_answer_was_lost_keeps_its_lease(broker, consumer, client, monkeypatch):
    send(broker, 1)
    held = take(consumer)
    membership = broker._attachment.membership
    membership.note_break()
    lose_answers(monkeypatch, "hand_over")
    with pytest.raises(ConnectionClosed):
        consumer.fetch(1)
    [(holder, _)] = client.zrange("greenq:default~workers", 0, -1, withscores=True)
    client.zadd("greenq:default~workers", {holder: 1})  # as if nobody had renewed it for a long time

    renew(broker)

    [(_, leased_until)] = client.zrange("greenq:default~workers", 0, -1, withscores=True)
    assert leased_until > 1
    assert list(consumer.complete(acks(held))) == []


def test_a_hand_over_in_the_middle_of_a_renewal_costs_no_lease(broker, consumer, monkeypatch):
    send(broker, 1)
    held = take(consumer)
    membership = broker._attachment.membership
    membership.note_break()
    lose_commands(monkeypatch, "hand_over")
    with pytest.raises(ConnectionClosed):
        consumer.fetch(1)
    call = Link.call

    def slow(self, script, keys, args):
        answer = call(self, script, keys, args)
        lease = membership.lease("default")
        if script.name == "renew" and lease.next_holder is not None:
            membership.clear_doubt("default", broker._attachment.links)  # to the name that had no lease yet
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Link, "call", slow)
        renew(broker)

    assert membership.take_losses() == []
    assert list(consumer.complete(acks(held))) == []


def test_a_late_verdict_does_not_make_the_worker_forget_that_it_has_the_message_again(broker, consumer, open_broker):
    send(broker, 1)
    late = take(consumer)
    open_broker().take_back(broker.worker_id)
    again = take(consumer)
    assert len(consumer.complete(acks(late))) == 1

    broker._attachment.membership.note_break()

    assert consumer.fetch(1) == []
    assert list(consumer.complete(acks(again))) == []


def test_a_consumer_that_waits_looks_when_a_connection_broke(broker, consumer):
    assert consumer.fetch(1) == []

    broker._attachment.membership.note_break()

    assert consumer.wait()


# -- outages


def test_scripts_that_the_server_forgot_are_loaded_again(broker, consumer, client):
    send(broker, 1)
    client.script_flush()
    fetched = take(consumer)
    client.script_flush()

    consumer.complete(acks(fetched))
    client.script_flush()

    assert counts(broker) == (0, 0, 0)


def test_an_enqueue_without_a_server_says_that_nothing_was_stored(open_broker):
    with redis_server() as server:
        broker = open_broker(url=server.url)
        server.stop()

        with pytest.raises(ConnectionFailed, match="nothing was stored"):
            send(broker, 1)


def test_an_enqueue_that_is_not_answered_says_that_it_may_be_stored(open_broker):
    with redis_server() as server:
        broker = open_broker(url=server.url, socket_timeout=1)
        send(broker, 1)
        os.kill(server.process.pid, signal.SIGSTOP)

        with pytest.raises(ConnectionClosed, match="may or may not"):
            send(broker, 2)


def test_a_server_that_refuses_writes_says_that_nothing_was_stored(open_broker):
    with redis_server() as server:
        broker = open_broker(url=server.url)
        server.client().config_set("min-replicas-to-write", 1)

        with pytest.raises(ConnectionFailed, match="nothing was stored"):
            send(broker, 1)


def test_a_restart_with_an_append_only_file_loses_nothing_that_was_confirmed(open_broker):
    with redis_server(appendonly="yes", appendfsync="always") as server:
        broker = open_broker(url=server.url)
        consumer = consume(broker)
        send(broker, *range(100))
        broker.enqueue(message("delayed"), delay=10)
        held = take(consumer, 10)

        server.stop(signal.SIGKILL)
        server.start()

        try:
            refused = consumer.complete(acks(held))
        except ConnectionClosed:  # of the old connection, used while it was still trusted; a worker tries again as well
            refused = consumer.complete(acks(held))
        assert list(refused) == []
        left = take(consumer, 91)
        assert {*names(held), *names(left)} == {*range(100), "delayed"}


def test_a_connection_that_the_server_closed_while_idle_costs_nothing(broker, client, monkeypatch):
    send(broker, 1)
    for each in client.client_list():
        if int(each["id"]) != client.client_id():
            client.client_kill_filter(_id=each["id"])
    monkeypatch.setattr(links, "_IDLE_S", 0)  # it was idle for longer than a connection is trusted

    send(broker, 2)

    assert counts(broker) == (2, 0, 0)


def test_a_worker_goes_on_after_an_outage_and_loses_no_verdict(open_broker, caplog):
    with redis_server(appendonly="yes") as server:
        broker = open_broker(url=server.url)
        release, ran = threading.Event(), []

        @greenq.actor(broker=broker)
        def work(number):
            ran.append(number)
            release.wait(PATIENCE_S)

        worker = greenq.Worker(broker, worker_threads=8)
        worker.start()
        for number in range(8):
            work.send(number)
        until(lambda: len(ran) == 8)

        server.stop()
        release.set()
        until(lambda: "The broker is away" in caplog.text)
        server.start()

        broker.join("default", timeout=PATIENCE_S * 1000)
        work.send(8)
        until(lambda: len(ran) == 9)
        worker.stop()
        assert sorted(ran) == list(range(9))
        assert sum(record.levelno >= 30 for record in caplog.records) <= 4


# -- settings


def test_a_client_that_decodes_responses_is_refused_with_the_remedy(server):
    with pytest.raises(ValueError, match="decode_responses"):
        RedisBroker(client=server.client(decode_responses=True))
    with pytest.raises(ValueError, match="decode_responses"):
        RedisBroker(url=server.url, decode_responses=True)


def test_a_client_that_is_given_is_the_client(server):
    client = server.client(socket_timeout=3)
    broker = RedisBroker(client=client, middleware=[])
    broker.declare_queue("default")

    send(broker, 1)

    assert broker.client is client
    assert counts(broker) == (1, 0, 0)
    broker.close()
    assert client.ping()


def test_a_client_and_parameters_exclude_each_other(server):
    with pytest.raises(ValueError, match="not both"):
        RedisBroker(client=server.client(), url=server.url)


def test_a_url_takes_redis_pys_parameters_beside_it_and_wins_where_both_say_something(server):
    broker = RedisBroker(url=server.url, port=1, max_connections=3, timeout=2, socket_timeout=7, middleware=[])
    broker.declare_queue("default")

    send(broker, 1)

    assert counts(broker) == (1, 0, 0)
    assert broker.client.connection_pool.max_connections == 3
    assert broker.client.connection_pool.connection_kwargs["socket_timeout"] == 7
    broker.close()
    broker.client.close()


def test_passwords_are_told_nowhere():
    for broker in (RedisBroker(url="redis://user:secret@localhost:1/0"), RedisBroker(password="secret", port=1)):
        broker.declare_queue("default")
        with pytest.raises(ConnectionFailed) as raised:
            broker.connect()
        assert "secret" not in f"{broker!r} {raised.value}"
        assert "localhost:1" in str(broker)


def test_a_database_other_than_0_is_named_because_two_databases_are_two_queues():
    url = "redis://localhost:1"

    assert "db=" not in str(RedisBroker(url=url))
    assert str(RedisBroker(url=f"{url}/3")) == "RedisBroker(localhost:1, db=3, namespace='greenq')"
    assert str(RedisBroker(host="localhost", port=1, db=3)) == "RedisBroker(localhost:1, db=3, namespace='greenq')"


def test_namespaces_do_not_see_each_other(open_broker):
    one, other = open_broker(namespace="one"), open_broker(namespace="one:other")
    send(one, 1)

    assert counts(other) == (0, 0, 0)
    assert counts(one) == (1, 0, 0)


@pytest.mark.parametrize("namespace", ["", "a{b}", "a\nb"])
def test_a_namespace_that_redis_would_read_otherwise_is_refused(namespace):
    with pytest.raises(ValueError, match="namespace"):
        RedisBroker(namespace=namespace)


def test_a_queue_whose_list_would_be_anothers_payloads_is_refused(broker):
    with pytest.raises(ValueError, match="msgs"):
        broker.declare_queue("default.msgs")


def test_an_eviction_policy_that_drops_messages_is_told(open_broker, caplog):
    with redis_server(maxmemory_policy="allkeys-lru") as server:
        open_broker(url=server.url).connect()

    assert "noeviction" in caplog.text


def test_a_server_that_cannot_be_reached_fails_the_start(open_broker):
    with pytest.raises(ConnectionFailed, match="localhost:1"):
        open_broker(url="redis://localhost:1").connect()


# -- closing, flushing, joining


def test_close_returns_what_was_reserved_uncharged(broker, consumer, open_broker):
    send(broker, 1)
    take(consumer)

    broker.close()

    assert take_one(consume(open_broker())).deliveries == 0


def test_a_closed_broker_connects_again_but_its_consumers_do_not(broker, consumer):
    send(broker, 1)
    broker.close()

    with pytest.raises(ConnectionClosed):
        consumer.fetch(1)
    assert names(take(consume(broker))) == [1]


CLOSE = """
    import os, sys, time
    from greenq.brokers.redis import RedisBroker
    from greenq.message import Message
    def use():
        broker = RedisBroker(url=sys.argv[1], middleware=[], heartbeat_timeout=300)
        broker.declare_queue("default")
        broker.enqueue(Message("default", "work", (), {}, {}))
        consumer = broker.consume("default", timeout=50)
        consumer.fetch(1)
        while consumer.wait():
            consumer.fetch(1)
        consumer.close()
        broker.close()
        broker.client.close()
    def count():
        links = []
        for name in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{name}"))
            except FileNotFoundError:
                pass
        return sum(link.startswith("socket:") for link in links) + len(os.listdir("/proc/self/task"))
    use()
    before = count()
    for _ in range(5):
        use()
    deadline = time.monotonic() + 10
    while count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    print(count() - before)
"""


@both_worlds
def test_close_ends_threads_and_connections(server, patched):
    (left,) = output_of(CLOSE, server.url, patched=patched)

    assert int(left) <= 0


def test_flush_leaves_what_another_process_is_running(broker, consumer, open_broker):
    send(broker, "theirs", "waiting")
    (theirs,) = take(consumer)
    broker.enqueue(message("delayed"), delay=60_000)
    other = open_broker()

    other.flush("default")

    assert counts(other) == (1, 0, 0)
    consumer.complete(requeues([theirs]))
    assert names(take(consumer)) == ["theirs"]


def test_join_gives_up_after_its_timeout(broker):
    broker.enqueue(message(1), delay=60_000)

    with pytest.raises(QueueJoinTimeout, match="1 delayed"):
        broker.join("default", timeout=20)


FORK = """
    import os, sys
    from greenq.brokers.redis import RedisBroker
    from greenq.message import Message
    broker = RedisBroker(url=sys.argv[1], middleware=[])
    broker.declare_queue("default")
    def send():
        broker.enqueue(Message("default", "work", (), {}, {}))
    send()
    broker.consume("default").fetch(1)
    child = os.fork()
    if not child:
        send()
        os._exit(0)
    os.waitpid(child, 0)
    send()
    print(broker.get_queue_message_counts("default"))
    broker.close()
"""


@both_worlds
def test_a_forked_child_has_connections_of_its_own(server, patched):
    assert output_of(FORK, server.url, patched=patched) == ["(3, 0, 0)"]


def test_a_missing_server_is_an_error_that_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv("GREENQ_REDIS_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(RuntimeError, match="apt-get install redis-server"), redis_server():
        pass


def test_nothing_needs_the_command_keys(client):
    with pytest.raises(redis.exceptions.ResponseError, match="unknown command"):
        client.keys("*")


# -- a cluster


def test_all_keys_of_a_queue_are_in_one_slot_of_a_cluster(open_broker):
    with redis_server(cluster_enabled="yes") as server:
        node = server.client()
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: node.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        client = redis.RedisCluster(host="127.0.0.1", port=server.port)
        broker = RedisBroker(client=client, middleware=[])
        for queue_name in ("default", "other"):
            broker.declare_queue(queue_name)
        send(broker, "usual")
        send(broker, "high", broker_priority=3)
        broker.enqueue(message("delayed"), delay=50)
        consumer = consume(broker)

        high, usual, delayed = take(consumer, 3)
        follow_up = broker.prepare(message("next", queue_name="other"))
        verdicts = [Verdict(Action.ACK, high, follow_ups=[follow_up]), *nacks([usual]), *requeues([delayed])]

        assert names([high, usual, delayed]) == ["high", "usual", "delayed"]
        assert list(consumer.complete(verdicts)) == []
        assert counts(broker) == (1, 0, 1)
        assert broker.get_queue_message_counts("other") == (1, 0, 0)
        broker.flush_all()
        assert counts(broker) == (0, 0, 0)
        broker.close()
        client.close()
