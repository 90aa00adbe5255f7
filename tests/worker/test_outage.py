"""What is told of an outage that several tasks notice."""

from __future__ import annotations

import logging

import pytest

from greenq.errors import ConnectionClosed
from greenq.runtime import current
from greenq.worker.outage import Outage
from tests.support.waiting import until

AWAY = ConnectionClosed("cut")


@pytest.fixture
def outage(monkeypatch):
    monkeypatch.setattr("greenq.worker.outage._STEADY_S", 0.2)
    outage = Outage(current())
    yield outage
    outage.close()


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.levelname for record in caplog.records]


def test_it_lasts_until_all_that_noticed_it_work(outage, told):
    outage.note_failure("consumer", AWAY)
    outage.note_failure("completer", AWAY)
    outage.note_failure("consumer", AWAY)
    outage.note_success("consumer")
    outage.close()
    assert told() == ["CRITICAL"]

    outage.note_success("completer")

    until(lambda: told() == ["CRITICAL", "INFO"])


def test_a_broker_that_comes_and_goes_is_told_once(outage, told):
    for _ in range(5):
        outage.note_failure("consumer", AWAY)
        outage.note_success("consumer")

    until(lambda: "INFO" in told())
    assert told() == ["CRITICAL", "INFO"]


def test_the_next_outage_is_told_as_well(outage, told):
    for _ in range(2):
        outage.note_failure("consumer", AWAY)
        outage.note_success("consumer")
        outage.close()

    assert told() == ["CRITICAL", "INFO"] * 2


def test_a_success_without_a_failure_is_not_told(outage, told):
    outage.note_success("consumer")
    outage.close()

    assert told() == []
