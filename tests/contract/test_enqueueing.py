"""The producer's side: hooks, refusals and limits."""

from __future__ import annotations

import pytest

import greenq
from greenq.message import MAX_MESSAGE_BYTES, MAX_MESSAGE_DEPTH
from tests.support.recorder import Recorder

from .fetching import message, names, take


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_hooks_are_called_around_the_write_with_what_is_written(broker):
    recorder = Recorder("before_enqueue", "after_enqueue")
    broker.add_middleware(recorder)

    stored = broker.enqueue(message("now"))

    assert recorder.names == ["before_enqueue", "after_enqueue"]
    assert [call.args for call in recorder.calls] == [(stored, None)] * 2


def test_hooks_of_a_delayed_message_see_the_delay_queue_and_the_eta(broker):
    recorder = Recorder("before_enqueue", "after_enqueue")
    broker.add_middleware(recorder)

    broker.enqueue(message("later"), delay=1000)

    for seen, delay in (call.args for call in recorder.calls):
        assert delay == 1000
        assert seen.queue_name == "default.DQ"
        assert isinstance(seen.options["eta"], int)


def test_a_message_that_is_refused_by_a_hook_is_not_stored(broker, consumer):
    class Refusing(greenq.Middleware):
        def before_enqueue(self, broker, message, delay):
            raise greenq.MiddlewareError("not today")

    recorder = Recorder("after_enqueue")
    broker.add_middleware(Refusing())
    broker.add_middleware(recorder)

    with pytest.raises(greenq.MiddlewareError, match="not today"):
        broker.enqueue(message("refused"))

    assert consumer.fetch(10) == []
    assert recorder.names == []


def test_a_hook_that_fails_prevents_nothing(broker, consumer, caplog):
    class Failing(greenq.Middleware):
        def before_enqueue(self, broker, message, delay):
            raise RuntimeError("before")

        def after_enqueue(self, broker, message, delay):
            raise greenq.MiddlewareError("after")

    broker.add_middleware(Failing())

    broker.enqueue(message("stored"))

    assert names(take(consumer)) == ["stored"]
    assert [record.levelname for record in caplog.records if "hook" in record.message] == ["CRITICAL"] * 2


def test_options_that_a_hook_sets_are_stored(broker, consumer):
    class Tagging(greenq.Middleware):
        def before_enqueue(self, broker, message, delay):
            message.options["tag"] = "set"

    broker.add_middleware(Tagging())

    broker.enqueue(message("tagged"))

    assert take(consumer)[0].options["tag"] == "set"


def test_a_message_that_is_too_large_is_not_stored(broker, consumer):
    with pytest.raises(greenq.MessageTooLarge, match="1,048,576"):
        broker.enqueue(message("x" * MAX_MESSAGE_BYTES))

    assert consumer.fetch(10) == []


def test_a_message_just_below_the_limit_is_stored(broker, consumer):
    overhead = len(message("").encode())

    broker.enqueue(message("x" * (MAX_MESSAGE_BYTES - overhead)))

    assert len(take(consumer)[0].args[0]) == MAX_MESSAGE_BYTES - overhead


def test_a_message_that_is_nested_too_deeply_is_not_stored(broker, consumer):
    with pytest.raises(greenq.MessageTooLarge, match="nests"):
        broker.enqueue(message(nested(MAX_MESSAGE_DEPTH - 1)))

    assert consumer.fetch(10) == []


def test_a_message_at_the_limit_of_nesting_is_stored(broker, consumer):
    value = nested(MAX_MESSAGE_DEPTH - 2)

    broker.enqueue(message(value))

    assert names(take(consumer)) == [value]


def test_an_argument_that_cannot_be_encoded_is_refused_at_once(broker, consumer):
    with pytest.raises(TypeError, match="'work'"):
        broker.enqueue(message(object()))

    assert consumer.fetch(10) == []


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "soon", True, 10**15], ids=repr)
def test_a_delay_that_makes_no_sense_is_refused(broker, consumer, delay):
    with pytest.raises(ValueError, match="delay"):
        broker.enqueue(message("never"), delay=delay)

    assert consumer.fetch(10) == []
