"""The middleware list of a broker, and how hooks are called."""

from __future__ import annotations

import pytest

import greenq
from greenq.broker import Broker
from greenq.middleware import (
    AgeLimit,
    Callbacks,
    Middleware,
    Pipelines,
    Retries,
    ShutdownNotifications,
    TimeLimit,
    default_middleware,
)
from tests.support.recorder import HOOKS, Recorder


class Named(Middleware):
    """Writes its name down, then raises if it has something to raise."""

    def __init__(self, name, order, error=None):
        self.name, self.order, self.error = name, order, error

    def before_process_message(self, broker, message):
        self.order.append(self.name)
        if self.error is not None:
            raise self.error

    def after_process_message(self, broker, message, *, result=None, exception=None):
        self.before_process_message(broker, message)


def three(order, error=None):
    return Broker([Named("first", order), Named("second", order, error), Named("third", order)])


# -- the list


def test_the_default_middleware_comes_in_its_order():
    assert [type(each) for each in Broker().middleware] == default_middleware
    assert default_middleware == [AgeLimit, TimeLimit, ShutdownNotifications, Callbacks, Pipelines, Retries]


def test_an_empty_list_means_none_at_all():
    broker = Broker([])

    assert broker.middleware == []
    assert broker.actor_options == set()


def test_a_new_middleware_is_placed_at_the_end_before_or_after():
    order: list[str] = []
    broker = Broker([TimeLimit(), Retries()])

    broker.add_middleware(AgeLimit(), before=TimeLimit)
    broker.add_middleware(ShutdownNotifications(), after=TimeLimit)
    broker.add_middleware(Named("last", order))

    assert [type(each) for each in broker.middleware] == [AgeLimit, TimeLimit, ShutdownNotifications, Retries, Named]


def test_before_and_after_together_are_refused():
    with pytest.raises(AssertionError):
        Broker().add_middleware(Recorder(), before=Retries, after=TimeLimit)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_middleware_to_stand_next_to_has_to_be_there(where):
    broker = Broker([AgeLimit()])

    with pytest.raises(ValueError, match="no Retries"):
        broker.add_middleware(Recorder(), **{where: Retries})
    assert len(broker.middleware) == 1


def test_a_second_one_of_a_class_is_added_with_a_warning(caplog):
    class Mine(Retries):
        pass

    broker = Broker([Retries()])

    broker.add_middleware(Mine())

    assert len(broker.middleware) == 2
    assert [record.levelname for record in caplog.records if "Mine" in record.message] == ["WARNING"]


def test_the_actor_options_of_a_new_middleware_are_known_at_once():
    broker = Broker([])

    broker.add_middleware(Retries())

    assert broker.actor_options == Retries().actor_options


def test_a_new_middleware_is_told_of_what_is_declared_already():
    broker = Broker([])

    @greenq.actor(broker=broker, queue_name="q")
    def work():
        pass

    recorder = Recorder()
    broker.add_middleware(recorder)

    assert [(call.name, call.args) for call in recorder.calls] == [
        ("after_declare_actor", (work,)),
        ("after_declare_queue", ("q",)),
        ("after_declare_delay_queue", ("q.DQ",)),
    ]


def test_declaring_an_actor_declares_its_queue_in_between():
    recorder = Recorder()
    broker = Broker([recorder])

    @greenq.actor(broker=broker, queue_name="q")
    def work():
        pass

    assert recorder.names == [
        "before_declare_actor",
        "before_declare_queue",
        "after_declare_queue",
        "after_declare_delay_queue",
        "after_declare_actor",
    ]


def test_declaring_a_queue_twice_is_declaring_it_once():
    recorder = Recorder()
    broker = Broker([recorder])

    broker.declare_queue("q")
    broker.declare_queue("q")
    broker.declare_queue("q.DQ")

    assert recorder.names == ["before_declare_queue", "after_declare_queue", "after_declare_delay_queue"]
    assert broker.get_declared_queues() == {"q"}
    assert broker.get_declared_delay_queues() == {"q.DQ"}


# -- calling hooks


def test_before_hooks_are_called_first_to_last_and_after_hooks_last_to_first():
    order: list[str] = []
    broker = three(order)

    broker.emit_before("process_message", "a message")
    broker.emit_after("process_message", "a message")

    assert order == ["first", "second", "third", "third", "second", "first"]


@pytest.mark.parametrize("error", [greenq.MiddlewareError("no"), greenq.middleware.SkipMessage("skip")], ids=repr)
def test_a_middleware_error_of_a_before_hook_is_raised_and_ends_the_calls(error):
    order: list[str] = []

    with pytest.raises(type(error)) as raised:
        three(order, error).emit_before("process_message", "a message")

    assert raised.value is error
    assert order == ["first", "second"]


def test_another_exception_of_a_before_hook_is_logged_and_the_next_one_called(caplog):
    order: list[str] = []

    three(order, RuntimeError("a mistake")).emit_before("process_message", "a message")

    assert order == ["first", "second", "third"]
    (logged,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert logged.exc_info


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), greenq.MiddlewareError("no")], ids=repr)
def test_any_exception_of_an_after_hook_is_logged_and_the_next_one_called(caplog, error):
    order: list[str] = []

    three(order, error).emit_after("process_message", "a message")

    assert order == ["third", "second", "first"]
    assert [record.levelname for record in caplog.records if "hook" in record.message] == ["CRITICAL"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), greenq.Shutdown(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_no_exception_is_never_swallowed(when, error):
    with pytest.raises(type(error)):
        getattr(three([], error), f"emit_{when}")("process_message", "a message")


def test_only_hooks_that_are_overridden_are_called():
    order: list[str] = []
    broker = Broker([Middleware(), Named("only", order), Middleware()])

    assert len(broker.hooks("before_process_message")) == 1
    assert broker.hooks("before_ack") == ()


def test_hooks_of_a_middleware_that_is_added_or_removed_are_noticed():
    order: list[str] = []
    broker = three(order)
    late = Named("late", order)
    broker.emit_before("process_message", "a message")

    broker.add_middleware(late)
    broker.emit_before("process_message", "a message")
    assert order[3:] == ["first", "second", "third", "late"]

    broker.middleware.remove(late)
    broker.emit_before("process_message", "a message")
    assert order[7:] == ["first", "second", "third"]


def test_a_middleware_that_is_not_of_our_base_class_works():
    called = []

    class Foreign:
        actor_options = frozenset({"foreign"})

        def before_ack(self, broker, message):
            called.append(message)

    broker = Broker([])
    broker.add_middleware(Foreign())

    broker.emit_before("ack", "a message")
    broker.emit_before("nack", "a message")

    assert called == ["a message"]


@pytest.mark.parametrize("signal", ["ack", "nack"])
def test_nothing_refuses_a_verdict_and_every_middleware_learns_of_it(signal, caplog):
    called = []

    class Refusing(Middleware):
        def before_ack(self, broker, message):
            raise greenq.MiddlewareError("no")

        before_nack = before_ack

    class Noting(Middleware):
        def before_ack(self, broker, message):
            called.append(message)

        before_nack = before_ack

    broker = Broker([Refusing(), Noting()])

    broker.emit_before(signal, "a message")

    assert called == ["a message"]
    assert "Refusing.before_ack" in caplog.text


def test_every_hook_is_recorded_under_its_own_name():
    recorder = Recorder()
    broker = Broker([recorder])

    for name in HOOKS:
        when, _, signal = name.partition("_")
        getattr(broker, f"emit_{when}")(signal, "anything")

    assert recorder.names == HOOKS
