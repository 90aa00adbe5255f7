"""What Retries decides, without a worker: from options and an exception to a verdict."""

from __future__ import annotations

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from greenq.clock import now_ms
from greenq.consumer import MessageProxy
from greenq.errors import Shutdown
from greenq.middleware import Retries

DAY_MS = 24 * 3600 * 1000


class Verdict:
    """What Retries left on a message."""

    def __init__(self, message):
        self.is_dead = message.failed
        self.delay = message._released
        self.options = message._message.options
        self.reason = message.reason
        self.follow_ups = message._follow_ups


@pytest.fixture
def judge():
    """Lets Retries judge a failure, with options at all three levels."""

    def judge(exception=None, *, message=None, actor=None, **constructor):
        retries = Retries(**constructor)
        broker = StubBroker([retries])

        @greenq.actor(broker=broker, **(actor or {}))
        def work():
            pass

        @greenq.actor(broker=broker)
        def exhausted(message, retries):
            pass

        proxy = MessageProxy(work.message_with_options(**(message or {})))
        retries.after_process_message(broker, proxy, exception=exception or RuntimeError("no"))
        return Verdict(proxy)

    return judge


def test_a_message_that_succeeded_is_left_alone():
    retries = Retries()
    broker = StubBroker([retries])
    proxy = MessageProxy(greenq.Message("default", "work", (), {}, {}))

    retries.after_process_message(broker, proxy, result=None)

    assert (proxy.failed, proxy._released, proxy.options) == (False, None, {})


def test_a_failure_is_noted_on_the_message(judge):
    before = now_ms()

    options = judge(message={"retries": 2}).options

    assert options["retries"] == 3
    assert options["traceback"].endswith("RuntimeError: no\n")
    assert before <= options["requeue_timestamp"] <= now_ms()


def test_the_defaults_are_twenty_retries_from_fifteen_seconds(judge):
    assert 15_000 <= judge().delay <= 30_000
    assert judge(message={"retries": 19}).delay is not None
    assert judge(message={"retries": 20}).is_dead


@pytest.mark.parametrize(
    ("message", "actor", "constructor", "most"),
    [
        ({"max_retries": 1}, {"max_retries": 5}, {"max_retries": 9}, 1),
        ({}, {"max_retries": 5}, {"max_retries": 9}, 5),
        ({}, {}, {"max_retries": 9}, 9),
        ({"max_retries": 0}, {"max_retries": 5}, {}, 0),
        ({}, {"max_retries": 0}, {}, 0),
    ],
)
def test_max_retries_of_the_message_then_the_actor_then_the_middleware(judge, message, actor, constructor, most):
    if most:
        assert not judge(message={**message, "retries": most - 1}, actor=actor, **constructor).is_dead
    assert judge(message={**message, "retries": most}, actor=actor, **constructor).is_dead


@pytest.mark.parametrize("where", ["message", "actor", "constructor"])
def test_no_limit_anywhere_means_for_ever(judge, where):
    unlimited = {"max_retries": None}
    message = {"retries": 10_000, **(unlimited if where == "message" else {})}

    verdict = judge(
        message=message,
        actor=unlimited if where == "actor" else {},
        **(unlimited if where == "constructor" else {}),
    )

    assert not verdict.is_dead
    assert 3.5 * DAY_MS <= verdict.delay <= 7 * DAY_MS


@pytest.mark.parametrize(
    ("message", "actor", "constructor", "shortest"),
    [
        ({"min_backoff": 100}, {"min_backoff": 1000}, {"min_backoff": 10_000}, 100),
        ({}, {"min_backoff": 1000}, {"min_backoff": 10_000}, 1000),
        ({}, {}, {"min_backoff": 10_000}, 10_000),
        ({}, {}, {"min_backoff": 0}, 15_000),
        ({"min_backoff": 0}, {"min_backoff": 1000}, {}, 0),
    ],
)
def test_min_backoff_of_the_message_then_the_actor_then_the_middleware(judge, message, actor, constructor, shortest):
    assert shortest <= judge(message=message, actor=actor, **constructor).delay <= 2 * shortest


@pytest.mark.parametrize(
    ("message", "actor", "constructor", "longest"),
    [
        ({"max_backoff": 10}, {"max_backoff": 100}, {"max_backoff": 1000}, 10),
        ({}, {"max_backoff": 100}, {"max_backoff": 1000}, 100),
        ({}, {}, {"max_backoff": 1000}, 1000),
        ({}, {}, {"max_backoff": 365 * DAY_MS}, 7 * DAY_MS),
    ],
)
def test_max_backoff_of_the_message_then_the_actor_then_the_middleware(judge, message, actor, constructor, longest):
    delay = judge(message={"retries": 19, **message}, actor={"min_backoff": DAY_MS, **actor}, **constructor).delay

    assert longest / 2 - 1 <= delay <= longest


def test_retry_when_of_the_actor_comes_before_the_middlewares_and_instead_of_max_retries(judge):
    def always(failures, exception):
        return True

    def never(failures, exception):
        return False

    assert judge(retry_when=never).is_dead
    assert not judge(retry_when=never, actor={"retry_when": always}, message={"max_retries": 0}).is_dead
    assert judge(retry_when=always, actor={"retry_when": never}).is_dead


def test_retry_when_is_asked_with_the_number_of_earlier_failures(judge):
    asked = []

    judge(RuntimeError("no"), actor={"retry_when": lambda *args: asked.append(args)}, message={"retries": 4})

    ((failures, exception),) = asked
    assert failures == 4
    assert isinstance(exception, RuntimeError)


def test_a_retry_when_that_raises_gives_the_message_up(judge, caplog):
    def broken(failures, exception):
        raise KeyError("a mistake")

    verdict = judge(actor={"retry_when": broken})

    assert verdict.is_dead
    assert verdict.reason == "RuntimeError: no"
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "WARNING"]


@pytest.mark.parametrize("throws", [ValueError, (KeyError, ValueError), Exception], ids=repr)
@pytest.mark.parametrize("where", ["message", "actor"])
def test_what_is_thrown_on_purpose_ends_the_message_without_a_count(judge, where, throws):
    verdict = judge(ValueError("as expected"), **{where: {"throws": throws}})

    assert verdict.is_dead
    assert "retries" not in verdict.options
    assert verdict.follow_ups is None


@pytest.mark.parametrize("throws", ["ValueError", ["ValueError"], 5, None], ids=repr)
def test_what_no_exception_class_can_be_is_not_taken_for_one(judge, throws):
    assert not judge(ValueError("no"), message={"throws": throws}).is_dead


def test_interrupts_are_tried_again_like_exceptions(judge):
    assert not judge(greenq.TimeLimitExceeded()).is_dead


@pytest.mark.parametrize("delay", [0, 5, 30 * DAY_MS])
def test_a_retry_asked_for_by_the_actor_has_exactly_its_delay(judge, delay):
    assert judge(greenq.Retry("later", delay=delay)).delay == delay


def test_a_retry_asked_for_without_a_delay_has_the_usual_one(judge):
    assert 15_000 <= judge(greenq.Retry("later")).delay <= 30_000


def test_an_interrupt_by_a_stop_spends_no_retry_unless_that_was_asked_for(judge):
    unspent = judge(Shutdown(), actor={"max_retries": 0})
    assert (unspent.is_dead, unspent.delay, unspent.options) == (False, None, {})

    spent = judge(Shutdown(), retry_shutdown=True)
    assert 15_000 <= spent.delay <= 30_000
    assert spent.options["retries"] == 1
    assert judge(Shutdown(), actor={"max_retries": 0}, retry_shutdown=True).is_dead


def test_a_retry_asked_for_by_the_actor_counts(judge):
    assert judge(greenq.Retry("later", delay=5), message={"max_retries": 0}).is_dead


def test_an_exhausted_message_has_the_actor_told_that_asked(judge):
    verdict = judge(actor={"on_retry_exhausted": "exhausted", "max_retries": 2}, message={"retries": 2})

    ((told, delay, _),) = verdict.follow_ups
    assert told.actor_name == "exhausted"
    assert told.args[0]["options"] is verdict.options
    assert told.args[1] == {"retries": 2, "max_retries": 2}
    assert delay is None


def test_on_retry_exhausted_of_the_message_comes_first(judge):
    verdict = judge(
        actor={"on_retry_exhausted": "nobody"}, message={"on_retry_exhausted": "exhausted", "max_retries": 0}
    )

    assert [told.actor_name for told, *_ in verdict.follow_ups] == ["exhausted"]


def test_a_traceback_is_kept_short(judge):
    def deep(n):
        if n == 0:
            raise RuntimeError("deep down")
        deep(n - 1)

    try:
        deep(500)
    except RuntimeError as error:
        verdict = judge(error)

    assert verdict.options["traceback"].count("\n") < 100


def test_the_refusal_of_a_rate_limiter_leaves_one_line(judge):
    verdict = judge(greenq.RateLimitExceeded("too many"))

    assert verdict.options["traceback"] == "RateLimitExceeded: too many"


def test_an_exception_whose_text_cannot_be_read_is_judged_all_the_same(judge):
    class Unreadable(Exception):
        def __str__(self):
            raise KeyError("a mistake in it")

    verdict = judge(Unreadable(), message={"max_retries": 0})

    assert verdict.is_dead
    assert verdict.reason == "Unreadable: its text cannot be read: KeyError"
