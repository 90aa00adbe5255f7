"""What a worker tells of the jobs that it runs."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import select
import sysconfig
import threading

import pytest

import greenq
from greenq.runtime import is_patched
from greenq.worker import in_flight
from greenq.worker.in_flight import InFlight, pipe_writer
from tests.support import lane_actors
from tests.support.waiting import PATIENCE_S, happens, until


class Asked:
    """An InFlight whose answers are read here."""

    def __init__(self, worker):
        self.lines = []
        self._told = InFlight(worker, self._take)

    def _take(self, line):
        self.lines.append(line)
        return True

    def answers(self, command, **rest):
        """What a command is answered, as documents; without the last, which says that it is the last."""
        self.lines.clear()
        self._told.obey({"command": command, "ask": 7, **rest})
        until(lambda: self.lines and json.loads(self.lines[-1]).get("is_last"))
        documents = [json.loads(line) for line in self.lines]
        assert {document["ask"] for document in documents} == {7}
        return documents[:-1]

    def jobs(self):
        return [job for answer in self.answers("jobs") for job in answer["jobs"]]


@pytest.fixture
def go():
    """Set at the end of a test, for the jobs that wait for it."""
    event = threading.Event()
    yield event
    event.set()


def wait_in_here(event):
    happens(event)


def test_a_job_is_told_with_where_it_waits_its_age_its_limit_and_its_progress(broker, start, go):
    @greenq.actor(broker=broker, queue_name="images", time_limit=60_000)
    def resize():
        greenq.progress(3, total=10)
        wait_in_here(go)

    worker = start()
    message = resize.send()
    asked = Asked(worker)
    until(lambda: [job["done"] for job in asked.jobs()] == [3])

    (job,) = asked.jobs()
    assert job["message_id"] == message.message_id
    assert (job["actor"], job["queue"], job["done"], job["total"]) == ("resize", "images", 3, 10)
    assert job["function"].endswith("happens")  # of the test's own modules, not of threading or gevent
    assert job["file"].endswith("tests/support/waiting.py")
    assert 0 <= job["age_ms"] <= 60_000
    assert 60_000 - job["age_ms"] - 1 <= job["left_ms"] <= 60_000
    go.set()
    until(lambda: asked.jobs() == [])


def test_a_coroutine_is_told_with_what_it_awaits(broker, start):
    ends = []

    async def inner():
        end = asyncio.Event()
        ends.append((asyncio.get_running_loop(), end))
        await end.wait()

    @greenq.actor(broker=broker)
    async def outer():
        greenq.progress(1)
        await inner()

    worker = start()
    message = outer.send()
    asked = Asked(worker)
    until(lambda: ends and [job["function"] for job in asked.jobs() if job["function"]])

    (job,) = asked.jobs()
    assert (job["function"].rpartition(".")[2], job["done"], job["total"]) == ("inner", 1, None)
    described, told = asked.answers("stack", message_id=message.message_id)
    assert described["jobs"][0]["message_id"] == message.message_id
    assert [frame["function"].rpartition(".")[2] for frame in told["frames"]] == ["outer", "inner", "wait"]
    loop, end = ends[0]
    loop.call_soon_threadsafe(end.set)


def test_a_coroutine_that_blocks_the_loop_is_told_with_where(broker, start, go):
    @greenq.actor(broker=broker)
    async def blocks():
        wait_in_here(go)

    worker = start()
    blocks.send()
    asked = Asked(worker)

    until(lambda: any(str(job["function"]).endswith("happens") for job in asked.jobs()))


@pytest.mark.parametrize("waits", ["in its hub", "with all of its thread"])
def test_a_job_in_a_native_thread_is_told_where_it_is(broker, start, go, waits):
    # Reading a pipe blocks a whole thread, whatever gevent has patched.
    reader, writer = os.pipe()

    def read():
        os.read(reader, 1)

    @greenq.actor(broker=broker, lane="thread")
    def outer():
        greenq.progress(5)
        if waits == "in its hub":
            wait_in_here(go)
        else:
            read()

    worker = start()
    message = outer.send()
    asked = Asked(worker)
    ends = "happens" if waits == "in its hub" else "read"
    until(lambda: [str(job["function"]).rpartition(".")[2] for job in asked.jobs()] == [ends])

    described, told = asked.answers("stack", message_id=message.message_id)

    assert described["jobs"][0]["done"] == 5
    assert told["frames"][0]["function"].rpartition(".")[2] == "outer"
    os.write(writer, b"x")
    go.set()
    until(lambda: asked.jobs() == [])
    os.close(reader)
    os.close(writer)


def test_a_job_in_a_process_of_its_own_is_told_with_that(tmp_path):
    worker = greenq.Worker(lane_actors.broker, concurrency=2)
    worker.start()
    try:
        message = lane_actors.wait_for_go.send(str(tmp_path / "held"))
        until(lambda: (tmp_path / "held").exists() and (tmp_path / "held").read_text())
        asked = Asked(worker)

        described, told = asked.answers("stack", message_id=message.message_id)

        (job,) = described["jobs"]
        assert job["function"] == f"in process {(tmp_path / 'held').read_text()}"
        assert (job["file"], job["line"]) == (None, None)
        assert told["frames"] == [{"file": None, "line": None, "function": job["function"]}]
        (tmp_path / "go").touch()
        until(lambda: asked.jobs() == [])
    finally:
        (tmp_path / "go").touch()
        worker.stop(2000)


def test_a_stack_begins_at_the_actor(broker, start, go):
    @greenq.actor(broker=broker)
    def outer():
        wait_in_here(go)

    worker = start()
    message = outer.send()
    asked = Asked(worker)
    until(lambda: any(str(job["function"]).endswith("happens") for job in asked.jobs()))

    _, told = asked.answers("stack", message_id=message.message_id)

    functions = [frame["function"].rpartition(".")[2] for frame in told["frames"]]
    assert functions[:3] == ["outer", "wait_in_here", "happens"]
    assert asked.answers("stack", message_id="of nobody") == []


def test_a_job_in_a_hook_is_told_where_it_is(broker, start, go):
    class Slow(greenq.Middleware):
        def before_process_message(self, broker, message):
            wait_in_here(go)

    broker.add_middleware(Slow())

    @greenq.actor(broker=broker)
    def never_yet():
        pass

    worker = start()
    never_yet.send()
    asked = Asked(worker)

    until(lambda: any(str(job["function"]).endswith("happens") for job in asked.jobs()))


def test_a_job_in_a_librarys_hook_is_told_with_the_librarys_line(broker, start, go):
    source = """
class Slow(Middleware):
    def before_process_message(self, broker, message):
        go.wait()
"""
    names = {"Middleware": greenq.Middleware, "go": go, "__name__": "some_library"}
    exec(compile(source, os.path.join(sysconfig.get_path("purelib"), "some_library.py"), "exec"), names)
    broker.add_middleware(names["Slow"]())

    @greenq.actor(broker=broker)
    def never_yet():
        pass

    worker = start()
    never_yet.send()
    asked = Asked(worker)

    until(lambda: any(str(job["function"]).endswith("before_process_message") for job in asked.jobs()))
    (job,) = asked.jobs()
    assert job["file"].endswith("some_library.py")


def test_a_limit_is_whole_until_the_actor_begins(broker, start, go):
    class Slow(greenq.Middleware):
        def before_process_message(self, broker, message):
            happens(go)

    broker.add_middleware(Slow())

    @greenq.actor(broker=broker, time_limit=60_000)
    def never_yet():
        pass

    worker = start()
    never_yet.send()
    asked = Asked(worker)
    until(lambda: [job["age_ms"] > 10 for job in asked.jobs()] == [True])

    assert [job["left_ms"] for job in asked.jobs()] == [60_000]


def test_the_hub_turns_after_a_few_jobs(broker, start, go, monkeypatch):
    monkeypatch.setattr(in_flight, "MOST_A_SLICE", 5)

    @greenq.actor(broker=broker)
    def wait():
        happens(go)

    worker = start(concurrency=23)
    for _ in range(23):
        wait.send()
    until(lambda: len(worker.slots.running()) == 23)
    turns = []
    go_on = [True]

    def count():
        while go_on:
            turns.append(None)
            worker.runtime.sleep(0.00001)  # by a timer, which waits for up to fifty tasks that sleep for 0

    counting = worker.runtime.spawn(count, name="turns")
    seen = []
    for rows in InFlight(worker).slices():
        seen.append((len(rows), len(turns)))
    go_on.clear()
    counting.join(PATIENCE_S)

    sizes, counts = zip(*seen, strict=True)
    assert sum(sizes) == 23
    assert max(sizes) <= 5
    if is_patched():  # threads have their turns when they like
        assert all(earlier < later for earlier, later in itertools.pairwise(counts))


def test_jobs_that_end_meanwhile_are_no_hindrance(broker, start, go, monkeypatch):
    monkeypatch.setattr(in_flight, "MOST_A_SLICE", 1)

    @greenq.actor(broker=broker)
    def wait():
        happens(go)

    worker = start(concurrency=9)
    for _ in range(9):
        wait.send()
    until(lambda: len(worker.slots.running()) == 9)

    slices = InFlight(worker).slices()
    assert len(next(slices)) == 1
    go.set()
    until(lambda: not worker.slots.running())

    assert sum(map(len, slices)) == 0


def test_whatever_messages_bring_fits_into_what_a_pipe_takes_whole(broker, start, go):
    @greenq.actor(broker=broker, actor_name="\x00" * 5000)
    def wait():
        greenq.progress("much", total=float("inf"))
        happens(go)

    worker = start()
    for _ in range(8):
        wait.send()
    until(lambda: len(worker.slots.running()) == 8)
    asked = Asked(worker)

    jobs = asked.jobs()

    assert len(jobs) == 8
    assert max(len(line) for line in asked.lines) <= select.PIPE_BUF
    assert [(job["done"], job["total"]) for job in jobs] == [(None, None)] * 8


def test_progress_outside_of_a_job_does_nothing():
    greenq.progress(1, total=2)


def test_who_does_not_read_keeps_nobody_but_the_answer_waiting(broker, start, monkeypatch):
    monkeypatch.setattr(in_flight, "_PATIENCE_S", 60.0)
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * select.PIPE_BUF)
    except BlockingIOError:
        os.set_blocking(write, True)
    worker = start()
    outcomes = []
    ran = threading.Event()

    @greenq.actor(broker=broker)
    def others_go_on():
        ran.set()

    task = worker.runtime.spawn(lambda: outcomes.append(pipe_writer(write)(b"line\n")), name="answer")
    others_go_on.send()
    happens(ran)
    assert outcomes == []
    everything = b""
    while not everything.endswith(b"line\n"):
        everything += os.read(read, 1 << 20)
        until(lambda: outcomes or select.select([read], [], [], 0)[0])
    assert task.join(PATIENCE_S)
    assert outcomes == [True]
    os.close(read)
    until(lambda: not pipe_writer(write)(b"line\n"))  # gevent closes it a little later
    os.close(write)


def test_the_log_gets_jobs_that_wait_alike_together(broker, start, go, caplog, monkeypatch):
    monkeypatch.setattr(in_flight, "MOST_LOGGED", 6)
    caplog.set_level(logging.INFO, "greenq.worker")

    @greenq.actor(broker=broker)
    def wait():
        happens(go)

    worker = start()
    for _ in range(8):
        wait.send()
    until(lambda: len(worker.slots.running()) == 8)
    asked = Asked(worker)
    until(lambda: all(str(job["function"]).endswith("happens") for job in asked.jobs()))

    assert asked.answers("dump") == []

    count, alike = (record for record in caplog.records if "InFlight" in record.name)
    assert count.getMessage() == "SIGUSR1: 8 jobs are in flight, of which 6 follow."
    assert alike.getMessage().startswith("6 jobs of actor wait in happens at ")
    assert alike.getMessage().endswith(" and 1 more.")
    assert "happens(go)" in str(alike.exc_text)
