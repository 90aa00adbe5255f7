"""What the records of a job are marked with, in both worlds."""

from __future__ import annotations

import json
import logging

import pytest

import greenq
from greenq import logged_job
from greenq.brokers.stub import StubBroker
from greenq.log_lines import JsonFormatter
from greenq.middleware import Retries
from greenq.worker.job_marks import JobMarks


@pytest.fixture
def broker():
    broker = StubBroker(middleware=[JobMarks(), Retries(min_backoff=1, max_backoff=1)])
    greenq.set_broker(broker)
    return broker


@pytest.fixture
def marks():
    """The marks of each record that the logger of that name got, as they were when it got it."""
    found = []

    class Noting(logging.Handler):
        def emit(self, record):
            job = logged_job.current.get()
            found.append(None if job is None else dict(job.fields))

    logger = logging.getLogger("job_marks")
    handler = Noting()
    logger.addHandler(handler)
    yield logger, found
    logger.removeHandler(handler)


def test_each_attempt_of_each_job_has_its_own_marks(broker, start, marks):
    logger, found = marks

    @greenq.actor(queue_name="mail", max_retries=1)
    def fail():
        logger.warning("here")
        raise RuntimeError

    message = fail.send_with_options(delay=1)
    start()
    broker.join("mail", fail_fast=False, timeout=10_000)

    expected = {"message_id": message.message_id, "actor": "fail", "queue": "mail"}
    assert found == [{**expected, "attempt": 1}, {**expected, "attempt": 2}]


def test_coroutines_have_the_marks_of_their_job(broker, start, marks):
    logger, found = marks

    @greenq.actor
    async def work():
        logger.warning("here")

    messages = [work.send() for _ in range(3)]
    start()
    broker.join("default", timeout=10_000)

    assert {each["message_id"] for each in found} == {each.message_id for each in messages}
    assert {each["actor"] for each in found} == {"work"}


def test_a_count_of_retries_that_is_none_is_the_first_attempt(broker, start, marks):
    logger, found = marks
    broker.middleware.remove(next(each for each in broker.middleware if isinstance(each, Retries)))

    @greenq.actor
    def work():
        logger.warning("here")

    work.send_with_options(retries="many")
    start()
    broker.join("default", timeout=10_000)

    assert [each["attempt"] for each in found] == [1]


def test_what_is_said_of_a_message_whose_job_never_began_is_marked_too(broker, start, caplog):
    class Exiting(greenq.Middleware):
        def before_process_message(self, broker, message):
            raise SystemExit

    broker.add_middleware(Exiting())

    @greenq.actor(queue_name="mail")
    def work():
        pass

    unknown = work.message().copy(actor_name="unknown")
    messages = [unknown, work.message_with_options(max_retries="many"), work.message()]
    for message in messages:
        broker.enqueue(message)
    start()
    broker.join("mail", fail_fast=False, timeout=10_000)

    documents = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    marks = {each["message_id"]: each for each in documents if each["level"] in ("ERROR", "CRITICAL")}
    assert sorted(marks) == sorted(message.message_id for message in messages)
    assert [marks[each.message_id]["actor"] for each in messages] == ["unknown", "work", "work"]
    assert {(each["queue"], each["attempt"], "extra" in each) for each in marks.values()} == {("mail", 1, False)}
