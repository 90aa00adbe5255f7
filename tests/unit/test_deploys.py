"""What the page on production says of messages that outlive the code that sent them."""

from __future__ import annotations

import threading

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from greenq.middleware import Retries
from tests.support.waiting import PATIENCE_S, happens


@pytest.fixture
def broker():
    broker = StubBroker(middleware=[Retries(min_backoff=10, max_backoff=20)])
    yield broker
    broker.close()


@pytest.fixture
def start(broker):
    workers = []

    def start():
        worker = greenq.Worker(broker, worker_threads=2)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop(PATIENCE_S * 1000)


def sent_by_other_code(broker, **arguments):
    broker.declare_queue("default")
    broker.enqueue(greenq.Message(queue_name="default", actor_name="mail", args=(), kwargs=arguments, options={}))


def test_a_message_of_older_code_runs_with_the_default_of_a_new_argument(broker, start):
    mailed = []

    @greenq.actor(broker=broker)
    def mail(to, language="en"):
        mailed.append((to, language))

    sent_by_other_code(broker, to="ann")
    start()
    broker.join("default", timeout=PATIENCE_S * 1000)

    assert mailed == [("ann", "en")]


def test_a_message_of_newer_code_is_tried_again_until_the_worker_knows_its_argument(broker, start, caplog):
    failed, mailed = threading.Event(), []
    broker.add_middleware(Noting(failed))

    @greenq.actor(broker=broker, actor_name="mail")
    def old(to):
        raise AssertionError("its arguments do not fit")

    sent_by_other_code(broker, to="ann", language="de")
    worker = start()
    happens(failed)
    worker.stop(PATIENCE_S * 1000)

    del broker.actors["mail"]

    @greenq.actor(broker=broker, actor_name="mail")
    def new(to, language="en"):
        mailed.append((to, language))

    start()
    broker.join("default", timeout=PATIENCE_S * 1000)

    assert mailed == [("ann", "de")]
    assert "TypeError" in caplog.text


class Noting(greenq.Middleware):
    """Notes the first failure."""

    def __init__(self, failed):
        self._failed = failed

    def after_process_message(self, broker, message, *, result=None, exception=None):
        if isinstance(exception, TypeError):
            self._failed.set()
