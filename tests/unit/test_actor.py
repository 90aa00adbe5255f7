"""Actors: declaring them, calling them, building and sending their messages."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

import greenq
from greenq.brokers.stub import StubBroker


@pytest.fixture
def broker():
    return StubBroker()


# -- declaring


def test_a_bare_decorator_declares_with_the_defaults(broker):
    greenq.set_broker(broker)

    @greenq.actor
    def add(x, y):
        """Adds."""
        return x + y

    assert isinstance(add, greenq.Actor)
    assert (add.actor_name, add.queue_name, add.priority, add.options) == ("add", "default", 0, {})
    assert add.broker is broker
    assert broker.get_actor("add") is add
    assert (add.__name__, add.__doc__) == ("add", "Adds.")


def test_a_decorator_with_options_declares_with_them(broker):
    @greenq.actor(broker=broker, actor_name="other", queue_name="q", priority=3, max_retries=1)
    def add(x, y):
        return x + y

    assert (add.actor_name, add.queue_name, add.priority, add.options) == ("other", "q", 3, {"max_retries": 1})
    assert broker.get_declared_actors() == {"other"}
    assert broker.get_declared_queues() == {"q"}


@pytest.mark.parametrize("lane", ["thread", "process"])
def test_an_actor_may_have_a_lane(broker, lane):
    @greenq.actor(broker=broker, lane=lane)
    def crunch(x):
        return x

    assert crunch.lane == lane
    assert crunch(3) == 3


def test_an_actor_without_a_lane_has_the_greenlets(broker):
    @greenq.actor(broker=broker)
    def first():
        pass

    @greenq.actor(broker=broker, lane="greenlet")
    def second():
        pass

    assert (first.lane, second.lane) == ("greenlet", "greenlet")
    assert second.options == {}


@pytest.mark.parametrize("lane", ["fast", "", None, ["thread"]])
def test_a_lane_that_there_is_not_is_refused(broker, lane):
    with pytest.raises(ValueError, match=r"Actor 'crunch' has lane=.* Known are: 'greenlet', 'thread', 'process'"):

        @greenq.actor(broker=broker, lane=lane)
        def crunch():
            pass

    assert not broker.actors


@pytest.mark.parametrize("lane", ["thread", "process"])
def test_an_async_actor_with_a_lane_is_refused_and_told_what_to_do(broker, lane):
    with pytest.raises(ValueError, match=r"'fetch' is async .* asyncio\.run\(\)"):

        @greenq.actor(broker=broker, lane=lane)
        async def fetch():
            pass


def test_an_actor_keeps_the_broker_of_its_declaration(broker):
    greenq.set_broker(broker)

    @greenq.actor
    def work():
        pass

    greenq.set_broker(StubBroker())

    assert work.broker is broker


def test_a_name_that_is_taken_is_refused(broker):
    def declare():
        @greenq.actor(broker=broker)
        def work():
            pass

    declare()

    with pytest.raises(ValueError, match=r"'work' is already declared.*actor_name"):
        declare()


@pytest.mark.parametrize("name", ["", "1st", "with space", "é", "a/b", "a\n", "a" * 3 + "!"], ids=repr)
def test_a_queue_name_that_is_not_allowed_is_refused_at_decoration(broker, name):
    with pytest.raises(ValueError, match="cannot be the name of a queue"):
        greenq.actor(broker=broker, queue_name=name)(print)


def test_unknown_options_are_listed_and_a_missing_middleware_is_suspected(broker):
    with pytest.raises(ValueError, match=r"'work'.*colour, shape.*middleware missing"):

        @greenq.actor(broker=broker, colour="green", shape="round", max_retries=1)
        def work():
            pass

    assert broker.get_declared_actors() == set()


def test_options_of_a_middleware_that_was_added_are_accepted(broker):
    class Colours(greenq.Middleware):
        actor_options = {"colour"}  # noqa: RUF012

    broker.add_middleware(Colours())

    @greenq.actor(broker=broker, colour="green")
    def work():
        pass

    assert work.options == {"colour": "green"}


def test_a_misspelt_option_of_an_actor_is_refused_with_the_nearest_right_name(broker):
    with pytest.raises(ValueError, match=r"max_retrys \(did you mean max_retries\?\)"):
        greenq.actor(broker=broker, max_retrys=1)(print)


def test_an_actor_class_makes_the_actor(broker):
    class Mine(greenq.Actor):
        pass

    @greenq.actor(broker=broker, actor_class=Mine)
    def work():
        pass

    assert type(work) is Mine


def test_an_actor_reads_as_what_it_is(broker):
    @greenq.actor(broker=broker)
    def work():
        pass

    assert repr(work) == f"Actor({work.fn!r}, queue_name='default', actor_name='work')"
    assert str(work) == "Actor(work)"


def test_an_unknown_actor_is_named_in_the_error(broker):
    with pytest.raises(greenq.ActorNotFound, match="'missing'"):
        broker.get_actor("missing")


def test_async_functions_and_objects_that_are_called_like_them_are_known_as_such(broker):
    async def work():
        pass

    class Called:
        __name__ = "called"

        async def __call__(self):
            pass

    assert greenq.actor(broker=broker)(work).is_async
    assert greenq.actor(broker=broker)(Called()).is_async
    assert not greenq.actor(broker=broker, actor_name="plain")(lambda: None).is_async


# -- calling


def test_calling_an_actor_runs_the_function_in_place(broker):
    @greenq.actor(broker=broker)
    def add(x, y=1):
        return x + y

    assert add(1, y=2) == 3
    assert broker.queues["default"].qsize() == 0


def test_calling_an_actor_logs_at_debug_on_its_own_logger(broker, caplog):
    @greenq.actor(broker=broker, actor_name="renamed")
    def work(x):
        pass

    with caplog.at_level(logging.DEBUG):
        work(1)

    assert {record.name for record in caplog.records} == {f"{__name__}.renamed"}
    assert work.logger.name == f"{__name__}.renamed"


def test_a_function_that_fails_raises_where_it_was_called(broker, caplog):
    @greenq.actor(broker=broker)
    def work():
        raise KeyError("here")

    with caplog.at_level(logging.DEBUG), pytest.raises(KeyError):
        work()


# -- messages


@pytest.fixture
def work(broker):
    @greenq.actor(broker=broker, queue_name="q")
    def work(*args, **kwargs):
        pass

    return work


def test_message_builds_and_does_not_send(work, broker):
    message = work.message(1, two=2)

    assert (message.queue_name, message.actor_name) == ("q", "work")
    assert (message.args, message.kwargs, message.options) == ((1,), {"two": 2}, {})
    assert broker.queues["q"].qsize() == 0


def test_send_enqueues_and_returns_what_was_stored(work, broker):
    message = work.send(1, two=2)

    assert greenq.Message.decode(broker.queues["q"].get(timeout=1)) == message


def test_message_options_are_not_checked(work):
    message = work.message_with_options(args=(1,), kwargs={"two": 2}, anything="goes", max_retries=None)

    assert message.options == {"anything": "goes", "max_retries": None}


def test_a_delay_of_a_built_message_is_only_an_option(work):
    assert work.message_with_options(delay=10).options == {"delay": 10}


@pytest.mark.parametrize("delay", [1500, timedelta(seconds=1.5)], ids=repr)
def test_send_with_options_delays(work, broker, delay):
    message = work.send_with_options(args=(1,), delay=delay)

    assert message.queue_name == "q.DQ"
    assert 0 <= message.options["eta"] - message.message_timestamp - 1500 < 10_000
    assert "delay" not in message.options


def test_actors_and_names_are_accepted_as_callbacks(work):
    message = work.message_with_options(on_success=work, on_failure="other")

    assert message.options == {"on_success": "work", "on_failure": "other"}


def test_something_else_as_a_callback_is_a_type_error(work):
    with pytest.raises(TypeError, match="on_success"):
        work.message_with_options(on_success=print)


def test_sending_what_cannot_be_encoded_raises_and_stores_nothing(work, broker):
    with pytest.raises(TypeError, match="set_encoder"):
        work.send(object())

    assert broker.queues["q"].qsize() == 0
