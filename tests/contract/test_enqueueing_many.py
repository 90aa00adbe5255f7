"""Many messages in a few round trips: as if sent one by one, but for the waiting."""

from __future__ import annotations

import pytest

import greenq
from tests.support.recorder import Recorder

from .fetching import message, names, take

# Of the worker and the server, and of nothing that is different in each world.
pytestmark = pytest.mark.shared_out


def test_many_messages_come_in_their_order(broker, consume):
    broker.enqueue_many(message(number) for number in range(2500))

    assert names(take(consume(prefetch=2500), 2500)) == list(range(2500))


def test_no_messages_are_enqueued_without_a_word(broker, consumer):
    assert broker.enqueue_many([]) == []
    assert consumer.fetch(1) == []


def test_messages_of_several_queues_go_to_their_queues(broker, consume):
    broker.declare_queue("other")

    broker.enqueue_many([message(1), message(2, queue_name="other"), message(3)])

    assert names(take(consume(), 2)) == [1, 3]
    assert names(take(consume("other"))) == [2]


def test_hooks_are_called_for_each_of_many_with_what_is_stored(broker):
    recorder = Recorder("before_enqueue", "after_enqueue")
    broker.add_middleware(recorder)

    stored = broker.enqueue_many([message(1), message(2)], delay=60_000)

    assert [each.queue_name for each in stored] == ["default.DQ"] * 2
    assert recorder.names == ["before_enqueue"] * 2 + ["after_enqueue"] * 2
    assert [call.args for call in recorder.calls] == [(each, 60_000) for each in stored] * 2


@pytest.mark.delays
def test_many_delayed_messages_come_when_they_are_due(broker, consumer):
    broker.enqueue_many([message(1), message(2)], delay=500)
    broker.enqueue_many([message(0)])

    first, *others = names(take(consumer, 3))
    assert (first, sorted(others)) == (0, [1, 2])


@pytest.mark.orders("raised")
def test_priorities_of_many_count(broker, consumer):
    broker.enqueue_many([message("low"), message("high", broker_priority=9), message("higher", broker_priority=10)])

    assert names(take(consumer, 3)) == ["higher", "high", "low"]


def test_a_hook_that_refuses_one_of_many_refuses_all(broker, consumer):
    class Refusing(greenq.Middleware):
        def before_enqueue(self, broker, message, delay):
            if message.args == (1500,):
                raise greenq.MiddlewareError("not this one")

    recorder = Recorder("after_enqueue")
    broker.add_middleware(Refusing())
    broker.add_middleware(recorder)

    with pytest.raises(greenq.MiddlewareError, match="not this one"):
        broker.enqueue_many(message(number) for number in range(2000))

    assert consumer.fetch(10) == []
    assert recorder.names == []


def test_one_message_among_many_that_is_too_large_refuses_all(broker, consumer):
    with pytest.raises(greenq.MessageTooLarge):
        broker.enqueue_many([message("small"), message("x" * greenq.message.MAX_MESSAGE_BYTES)])

    assert consumer.fetch(10) == []


def test_many_large_messages_are_stored(broker, consumer):
    megabyte = "x" * 1_000_000

    broker.enqueue_many(message(number, megabyte) for number in range(20))

    assert names(take(consumer, 20)) == list(range(20))


def test_an_actor_sends_many_calls(broker, consumer):
    @greenq.actor(broker=broker, priority=3)
    def resize(path, width=100):
        pass

    sent = resize.send_many([("a",), ("b", 200), {"path": "c"}], tag="batch")

    fetched = take(consumer, 3)
    assert [each.message_id for each in fetched] == [each.message_id for each in sent]
    assert [(each.args, each.kwargs) for each in fetched] == [(("a",), {}), (("b", 200), {}), ((), {"path": "c"})]
    assert {each.options["tag"] for each in fetched} == {"batch"}


@pytest.mark.parametrize("call", ["a.png", 7, ["a.png"], None], ids=repr)
def test_a_call_among_many_that_is_no_tuple_is_refused_with_the_remedy(broker, consumer, call):
    @greenq.actor(broker=broker)
    def resize(path):
        pass

    with pytest.raises(TypeError, match=r"\(value,\)"):
        resize.send_many([("a.png",), call])

    assert consumer.fetch(10) == []
