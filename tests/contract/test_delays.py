"""Delayed messages: when they come, and in which order."""

from __future__ import annotations

import logging

import pytest

from greenq.clock import now_ms

from .fetching import acks, message, names, take, take_one

pytestmark = pytest.mark.delays


@pytest.fixture(autouse=True)
def _only_where_the_broker_holds_delays(broker):
    if not broker.holds_delays:
        pytest.skip("this broker's delays are held by the worker")


def test_a_delayed_message_comes_when_it_is_due_and_never_earlier(broker, consumer):
    stored = broker.enqueue(message("later"), delay=60)

    fetched = take_one(consumer)

    assert now_ms() >= stored.options["eta"]
    assert fetched.queue_name == "default"
    assert "eta" not in fetched.options


def test_a_delayed_message_is_stored_on_the_delay_queue_with_its_eta(broker):
    before = now_ms()

    stored = broker.enqueue(message("later"), delay=1000)

    assert stored.queue_name == "default.DQ"
    assert before + 1000 <= stored.options["eta"] <= now_ms() + 1000


def test_a_delayed_message_holds_up_nobody(broker, consumer):
    broker.enqueue(message("later"), delay=60_000)
    broker.enqueue(message("now"))

    assert names(take(consumer)) == ["now"]
    assert consumer.fetch(10) == []


def test_a_shorter_delay_that_is_sent_later_comes_first(broker, consumer):
    broker.enqueue(message("long"), delay=200)
    broker.enqueue(message("short"), delay=50)

    assert names(take(consumer, 2)) == ["short", "long"]


def test_a_shorter_delay_ends_a_wait_for_a_longer_one(broker, consumer):
    broker.enqueue(message("long"), delay=15_000)
    started = now_ms()

    broker.enqueue(message("short"), delay=50)

    assert names(take(consumer)) == ["short"]
    assert now_ms() - started < 10_000


def test_a_delay_of_zero_is_due_at_once(broker, consumer):
    broker.enqueue(message("now"), delay=0)

    assert names(take(consumer)) == ["now"]


@pytest.mark.orders("raised")
def test_messages_that_are_due_honour_priority(broker, consumer):
    broker.enqueue(message("low", broker_priority=1), delay=0)
    broker.enqueue(message("high", broker_priority=2), delay=0)

    assert names(take(consumer, 2)) == ["high", "low"]


def test_a_delayed_message_can_be_settled_like_any_other(broker, consumer):
    broker.enqueue(message("later"), delay=10)

    consumer.complete(acks(take(consumer)))

    broker.join("default", timeout=5000)


def test_a_message_that_was_built_with_an_eta_waits_for_it(broker, consumer):
    eta = now_ms() + 100
    broker.enqueue(message("later", eta=eta))
    broker.enqueue(message("now"))

    assert names(take(consumer)) == ["now"]
    assert names(take(consumer)) == ["later"]
    assert now_ms() >= eta


def test_a_message_that_is_overdue_comes_at_once_without_its_eta(broker, consumer):
    broker.enqueue(message("overdue", eta=now_ms() - 1000))

    assert "eta" not in take_one(consumer).options


@pytest.mark.parametrize("eta", ["soon", [], {}, True, float("nan"), float("inf")], ids=repr)
def test_an_eta_that_is_no_number_means_now_with_a_warning(broker, consumer, caplog, eta):
    wrong = message("now", eta=eta)

    with caplog.at_level(logging.WARNING):
        broker.enqueue(wrong)
        fetched = take_one(consumer)

    assert fetched.args == ("now",)
    assert "eta" not in fetched.options
    assert [record for record in caplog.records if "eta" in record.message and wrong.message_id in record.message]


def test_an_eta_of_none_means_now_without_a_warning(broker, consumer, caplog):
    broker.enqueue(message("now", eta=None))

    fetched = take_one(consumer)

    assert "eta" not in fetched.options
    assert caplog.records == []
