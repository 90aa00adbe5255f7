"""The log of greenq-worker as JSON: one object a line, marked with the job it is of."""

from __future__ import annotations

import json
import signal

import pytest

from tests.support.command import APP, Command, enqueue, waiting, write_module

JOBS = """
import asyncio, concurrent.futures, contextvars, threading, warnings
import gevent

def beside():
    tell("a fork function")

pool = concurrent.futures.ThreadPoolExecutor(1)

def tell(where):
    log.info("told from %s", where)

@greenq.actor(max_retries=1, min_backoff=1, max_backoff=1)
def work(secret):
    tell("the job")
    gevent.spawn(lambda: gevent.spawn(tell, "a greenlet's greenlet").join()).join()
    thread = threading.Thread(target=tell, args=("a thread",))
    thread.start()
    thread.join()
    pool.submit(tell, "a pool").result()
    pool.submit(contextvars.copy_context().run, tell, "a pool in the job's context").result()
    raise RuntimeError("no luck")

@greenq.actor(queue_name="other", max_retries=0)
async def work_async(secret):
    tell("a coroutine")
    await asyncio.gather(asyncio.to_thread(tell, "to_thread"), asyncio.create_task(step()))

async def step():
    tell("a task")

@greenq.actor
def leave_something_behind(text):
    def linger():
        go.wait()
        tell("a greenlet whose job is over")
    go = gevent.event.Event()
    gevent.spawn(linger)
    go_later.append(go)

go_later = []

@greenq.actor
def go():
    go_later.pop().set()

@greenq.actor
def fail_beside():
    def fail():
        raise RuntimeError("beside")
    gevent.spawn(fail).join()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    warnings.warn("old ways")
"""


@pytest.fixture
def folder(tmp_path):
    write_module(tmp_path, "app", APP + JOBS)
    assert waiting(tmp_path) == 0
    return tmp_path


@pytest.fixture
def command(folder):
    command = Command(folder, "app", "-p", "1", "--log-format", "json", "-f", "app:beside")
    command.wait_until_logged = lambda text: command.wait_for(f'"message": "[^"]*{text}')
    command.wait_until_logged("Worker process is ready")
    yield command
    command.end()


def told(command):
    """Who told, and the marks of the record."""
    marks = {}
    for document in map(json.loads, command.lines):
        if document["message"].startswith("told from "):
            found = {name: document[name] for name in ("message_id", "actor", "queue", "attempt") if name in document}
            marks.setdefault(document["message"].removeprefix("told from "), []).append(found)
    return marks


def test_every_record_of_a_job_says_which_and_nothing_says_its_arguments(command, folder):
    enqueue(folder, "work", "confidential")
    command.wait_until_logged("no luck")
    command.wait_until_logged("Retries exceeded")
    enqueue(folder, "work_async", "confidential")
    command.wait_until_logged("told from to_thread")
    command.wait_until_logged("told from a task")
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0

    by_place = told(command)
    by_place.pop("a fork function", None)
    assert by_place.pop("a pool") == [{}, {}]
    for place in ("a coroutine", "to_thread", "a task"):
        (marks,) = by_place.pop(place)
        assert (marks["actor"], marks["queue"], marks["attempt"]) == ("work_async", "default", 1)
    assert sorted(by_place) == ["a greenlet's greenlet", "a pool in the job's context", "a thread", "the job"]
    (message_id,) = {marks["message_id"] for each in by_place.values() for marks in each}
    for each in by_place.values():
        assert [marks.pop("attempt") for marks in each] == [1, 2]
        assert each == [{"message_id": message_id, "actor": "work", "queue": "default"}] * 2
    assert "confidential" not in command.log


def test_what_greenq_says_of_a_job_is_marked_and_its_exception_is_a_field(command, folder):
    enqueue(folder, "work", "x")
    command.wait_until_logged("Retries exceeded")

    documents = [json.loads(line) for line in command.lines]
    failures = [each for each in documents if each["level"] == "ERROR" and "failed" in each["message"]]
    assert [each["attempt"] for each in failures] == [1, 2]
    assert all(each["exception"].endswith("RuntimeError: no luck") for each in failures)
    assert {each["message_id"] for each in documents if each["message"].startswith("Retr")} == {
        failures[0]["message_id"]
    }


def test_what_outlives_its_job_is_not_marked_any_more(command, folder):
    enqueue(folder, "leave_something_behind", "x")
    enqueue(folder, "go")
    command.wait_until_logged("told from a greenlet whose job is over")

    assert told(command)["a greenlet whose job is over"] == [{}]


def test_failures_beside_the_job_and_warnings_are_objects_too(command, folder):
    enqueue(folder, "fail_beside")
    command.wait_until_logged("Greenlet .* failed")
    command.wait_until_logged("Thread .* failed")
    command.wait_until_logged("[^\\n]*old ways")
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0

    documents = [json.loads(line) for line in command.lines]
    beside = [each for each in documents if each.get("exception", "").endswith("RuntimeError: beside")]
    assert [each["actor"] for each in beside] == ["fail_beside", "fail_beside"]


def test_the_processes_beside_the_workers_write_objects_too(command):
    command.wait_until_logged("told from a fork function")

    assert told(command)["a fork function"] == [{}]
    assert len({json.loads(line)["pid"] for line in command.lines}) == 3


def test_a_log_of_text_does_not_say_arguments_either(folder):
    command = Command(folder, "app", "-p", "1")
    try:
        enqueue(folder, "work", "confidential")
        command.wait_for("Retries exceeded")
    finally:
        command.end()

    assert "confidential" not in command.log
