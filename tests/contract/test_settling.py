"""What becomes of messages that were handed out: ack, nack, requeue and what follows."""

from __future__ import annotations

import pytest

from greenq.consumer import Undecodable
from greenq.errors import QueueJoinTimeout
from greenq.verdict import Action, Verdict

from .fetching import acks, message, nacks, names, requeues, take, take_one

# Here the calls of a server and those of a world meet: what is told to it, waited for, and removed.
pytestmark = pytest.mark.on_threads_too("rabbitmq-quorum")

BATCHES = pytest.mark.parametrize("in_batches", [False, True], ids=["one by one", "in a batch"])


def complete(consumer, verdicts, in_batches):
    portions = [verdicts] if in_batches else [[verdict] for verdict in verdicts]
    refused = [each for portion in portions for each in consumer.complete(portion)]
    assert refused == []


@BATCHES
def test_messages_that_are_acknowledged_are_gone(broker, consumer, dead, in_batches):
    for number in range(3):
        broker.enqueue(message(number))

    complete(consumer, acks(take(consumer, 3)), in_batches)

    broker.join("default", timeout=5000)
    assert consumer.fetch(10) == []
    assert dead() == []


@BATCHES
def test_messages_that_are_rejected_become_dead_letters(broker, consumer, dead, in_batches):
    for number in range(3):
        broker.enqueue(message(number))

    complete(consumer, nacks(take(consumer, 3), "no good"), in_batches)

    broker.join("default", timeout=5000)
    assert names(letter for letter, _ in dead()) == [0, 1, 2]
    assert [reason for _, reason in dead()] == ["no good"] * 3
    assert consumer.fetch(10) == []


@BATCHES
def test_messages_that_are_requeued_go_back_to_their_places(broker, consumer, dead, in_batches):
    for number in range(5):
        broker.enqueue(message(number))
    taken = take(consumer, 3)

    complete(consumer, requeues(reversed(taken)), in_batches)

    again = take(consumer, 5)
    assert names(again) == [0, 1, 2, 3, 4]
    assert again[0].message == taken[0].message
    assert dead() == []


def test_a_batch_may_hold_verdicts_of_every_kind(broker, consumer, dead):
    for number in range(3):
        broker.enqueue(message(number))
    acked, nacked, requeued = take(consumer, 3)

    refused = consumer.complete([*requeues([requeued]), *acks([acked]), *nacks([nacked])])

    assert list(refused) == []
    assert names(letter for letter, _ in dead()) == [1]
    assert names(take(consumer)) == [2]


def test_a_verdict_that_is_written_twice_counts_once(broker, consumer, dead):
    broker.enqueue(message("first"))
    verdict = Verdict(Action.ACK, take_one(consumer), follow_ups=[broker.prepare(message("next"))])

    consumer.complete([verdict])
    consumer.complete([verdict])

    assert names(take(consumer)) == ["next"]
    assert consumer.fetch(10) == []


def test_a_settled_message_keeps_what_was_not_settled_waiting(broker, consumer):
    broker.enqueue(message("done"))
    broker.enqueue(message("not done"))
    done, _ = take(consumer, 2)

    consumer.complete(acks([done]))

    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=50)


@pytest.mark.parametrize("action", [Action.ACK, Action.NACK])
def test_what_follows_is_stored_with_the_verdict(broker, consumer, action):
    broker.declare_queue("other")
    broker.enqueue(message("first"))
    first = take_one(consumer)
    if not consumer.writes_follow_ups:
        pytest.skip("this broker's follow-ups are enqueued before the verdict")

    follow_ups = [broker.prepare(message("here")), broker.prepare(message("there", queue_name="other"))]
    consumer.complete([Verdict(action, first, follow_ups=follow_ups)])

    assert names(take(consumer)) == ["here"]
    other = broker.consume("other", prefetch=10, timeout=5000)
    assert names(take(other)) == ["there"]
    other.close()


def test_a_retry_is_the_same_message_later(broker, consumer):
    broker.enqueue(message("again"))
    first = take_one(consumer)

    retry = broker.prepare(first.message.copy(options={"retries": 1}), delay=20)
    consumer.complete([Verdict(Action.ACK, first, follow_ups=[retry])])

    second = take_one(consumer)
    assert second.message_id == first.message_id
    assert second.options["retries"] == 1
    assert "eta" not in second.options


def test_bytes_that_are_no_message_come_as_such_and_hold_up_nobody(broker, consumer, put, dead):
    put(b"\xff\x00 no message")
    put(b'{"queue_name": "default"}')
    put(b"")
    broker.enqueue(message("good"))

    fetched = take(consumer, 4)
    consumer.complete([*nacks(fetched[:3], "no message"), *acks(fetched[3:])])

    assert [isinstance(each, Undecodable) for each in fetched] == [True, True, True, False]
    assert [each.payload for each in fetched[:3]] == [b"\xff\x00 no message", b'{"queue_name": "default"}', b""]
    assert [payload for payload, _ in dead()] == [b"\xff\x00 no message", b'{"queue_name": "default"}', b""]
    broker.join("default", timeout=5000)


def test_foreign_messages_need_no_id_and_no_timestamp(consumer, put):
    put(b'{ "queue_name":"default", "actor_name":"work", "args":["\xc3\xa9"], "kwargs":{}, "options":{} }')

    fetched = take_one(consumer)

    assert fetched.args == ("é",)
    assert fetched.message_id
    assert fetched.message_timestamp
