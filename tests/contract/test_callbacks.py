"""Actors that are told how a message went: with each broker that stores this with the verdict."""

from __future__ import annotations

import pytest

import greenq
from greenq.middleware import Middleware
from tests.support.waiting import PATIENCE_S

from .brokers import CASES

JOIN = {"timeout": PATIENCE_S * 1000}


@pytest.fixture(params=["stub", "sqlite", "redis"])
def case(request):
    return CASES[request.param]


@pytest.fixture
def told():
    """What callbacks were told: their name, the message as a dict, and the rest."""
    return []


@pytest.fixture
def callbacks(broker, told):
    """Actors named success, failure and dead."""

    def declare(name):
        @greenq.actor(broker=broker, actor_name=name)
        def note(message, outcome):
            told.append((name, message, outcome))

        return note

    return {name: declare(name) for name in ("success", "failure", "dead")}


@pytest.fixture
def run(broker, start):
    """Sends a message and returns once nothing is left to do."""

    def run(actor, *args, **options):
        start()
        sent = actor.send_with_options(args=args, **options)
        broker.join("default", **JOIN)
        return sent

    return run


def test_on_success_is_sent_the_message_and_the_result(broker, callbacks, told, run):
    @greenq.actor(broker=broker, on_success="success", on_failure="failure", on_dead="dead")
    def add(x, y):
        return x + y

    sent = run(add, 1, 2)

    ((name, message, result),) = told
    assert (name, result) == ("success", 3)
    assert (message["message_id"], message["actor_name"], message["args"]) == (sent.message_id, "add", [1, 2])


def test_on_failure_is_sent_after_every_failed_attempt_with_the_exception(broker, callbacks, told, run):
    @greenq.actor(broker=broker, max_retries=2, min_backoff=1, on_failure="failure", on_success="success")
    def fail():
        raise ValueError("on purpose")

    run(fail)

    assert [name for name, *_ in told] == ["failure"] * 3
    assert [outcome for *_, outcome in told] == [{"type": "ValueError", "message": "on purpose"}] * 3
    assert sorted(message["options"]["retries"] for _, message, _ in told) == [1, 2, 3]


def test_a_callback_may_be_an_actor_or_its_name_and_a_messages_own_comes_first(broker, callbacks, told, run):
    @greenq.actor(broker=broker, on_success=callbacks["failure"])
    def work(): ...

    run(work)
    run(work, on_success=callbacks["success"])
    run(work, on_success="dead")

    assert [name for name, *_ in told] == ["failure", "success", "dead"]


@pytest.mark.parametrize("option", ["on_success", "on_failure", "on_dead"])
def test_what_is_no_actor_and_no_name_is_refused(broker, option):
    @greenq.actor(broker=broker)
    def work(): ...

    with pytest.raises(TypeError, match=option):
        work.message_with_options(**{option: 1})
    with pytest.raises(TypeError, match=option):
        greenq.actor(broker=broker, actor_name="other", **{option: 1})(print)


# -- on_dead


def the_death(told):
    """The message that a single on_dead was told of, and why."""
    ((name, message, outcome),) = told
    assert name == "dead"
    return message, outcome


def test_on_dead_is_sent_once_when_the_retries_are_exhausted(broker, callbacks, told, run):
    @greenq.actor(broker=broker, max_retries=2, min_backoff=1, on_dead="dead")
    def fail():
        raise ValueError("on purpose")

    sent = run(fail)

    message, outcome = the_death(told)
    assert message["message_id"] == sent.message_id
    assert message["options"]["retries"] == 3
    assert outcome == {"reason": "ValueError: on purpose", "type": "ValueError", "message": "on purpose"}


def test_on_dead_is_sent_for_an_expected_exception(broker, callbacks, told, run):
    @greenq.actor(broker=broker, throws=ValueError)
    def fail():
        raise ValueError("expected")

    run(fail, on_dead="dead")

    assert the_death(told)[1]["message"] == "expected"


def test_on_dead_is_sent_for_a_message_that_is_too_old(broker, callbacks, told, run):
    @greenq.actor(broker=broker, on_dead="dead", on_failure="failure")
    def work(): ...

    run(work, delay=20, max_age=1)

    assert the_death(told)[1]["reason"] == "Message age limit exceeded"


def test_on_dead_of_a_message_is_sent_when_its_actor_is_unknown(broker, callbacks, told, start):
    start()
    broker.enqueue(greenq.Message("default", "nobody", (), {}, {"on_dead": "dead"}))
    broker.join("default", **JOIN)

    assert the_death(told)[1]["type"] == "ActorNotFound"


def test_on_dead_is_sent_for_an_option_of_a_wrong_type(broker, callbacks, told, run):
    @greenq.actor(broker=broker)
    def work(): ...

    run(work, on_dead="dead", max_retries="many")

    assert "max_retries" in the_death(told)[1]["reason"]


def test_on_dead_is_sent_if_a_hook_failed_the_message_and_there_is_no_exception(broker, callbacks, told, run):
    class Failing(Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            if message.actor_name == "work":
                message.fail("a hook says so")

    broker.add_middleware(Failing())

    @greenq.actor(broker=broker, on_dead="dead", on_success="success")
    def work(): ...

    run(work)

    assert the_death(told)[1] == {"reason": "a hook says so", "type": None, "message": None}


def test_on_dead_is_not_sent_for_a_message_that_succeeds_in_the_end(broker, callbacks, told, run):
    tries = []

    @greenq.actor(broker=broker, min_backoff=1, on_dead="dead")
    def work():
        tries.append(1)
        if len(tries) < 3:
            raise ValueError

    run(work)

    assert len(tries) == 3
    assert told == []


# -- what cannot be sent


def test_a_message_whose_on_success_cannot_be_sent_is_a_dead_letter(broker, callbacks, told, run, dead):
    @greenq.actor(broker=broker, on_dead="dead")
    def make(what):
        return object() if what == "object" else 1

    run(make, "object", on_success="success")
    run(make, "nobody", on_success="nobody")

    reasons = [reason for _, reason in dead()]
    assert len(reasons) == 2
    assert "JSON" in reasons[0]
    assert "'nobody'" in reasons[1]
    assert [name for name, *_ in told] == ["dead", "dead"]


@pytest.mark.parametrize("option", ["on_failure", "on_dead"])
def test_an_unknown_actor_to_tell_of_a_failure_changes_nothing_else(broker, run, dead, caplog, option):
    tries = []

    @greenq.actor(broker=broker, max_retries=1, min_backoff=1)
    def fail():
        tries.append(1)
        raise ValueError("on purpose")

    run(fail, **{option: "nobody"})

    assert len(tries) == 2
    assert [reason for _, reason in dead()] == ["ValueError: on purpose"]
    assert [record for record in caplog.records if option in record.getMessage() and "'nobody'" in record.getMessage()]
