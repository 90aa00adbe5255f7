"""Log records as lines."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import tty
from datetime import datetime, timedelta, timezone

import pytest

from greenq import log_writer, logged_job
from greenq.log_lines import JsonFormatter, LineFormatter, LineHandler, log_with_details, without_password
from greenq.log_writer import LogWriter, Native
from greenq.logged_job import LoggedJob
from tests.support.waiting import PATIENCE_S, beside, happens, until


@pytest.fixture
def written():
    """A logger, and what it has written, one item a write."""
    read_fd, write_fd = os.pipe()
    logger = logging.Logger("a.logger")
    handler = LineHandler(write_fd)
    handler.setFormatter(LineFormatter(lambda: "a task"))
    logger.addHandler(handler)
    yield logger, lambda: os.read(read_fd, 65536).decode()
    os.close(read_fd)
    os.close(write_fd)


def test_a_record_is_a_line_with_its_process_task_logger_and_level(written):
    logger, text = written
    logger.warning("Something %s.", "happened")

    assert text().endswith(f" [PID {os.getpid()}] [a task] [a.logger] [WARNING] Something happened.\n")


def test_control_characters_are_escaped_so_that_a_message_stays_one_line(written):
    logger, text = written
    logger.info("a\nb\r\x1b[0m\x85\u2028é\ud800")

    assert text().endswith("a\\nb\\r\\x1b[0m\\x85\\u2028é\\ud800\n")


def test_a_traceback_keeps_its_lines_and_nothing_else(written):
    logger, text = written
    try:
        raise ValueError("red \x1b[31m\nredis://me:secret@host")
    except ValueError:
        logger.exception("It failed.")

    lines = text().splitlines()
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-2:] == ["ValueError: red \\x1b[31m", "redis://me:***@host"]


def test_details_follow_the_line(written):
    logger, text = written
    log_with_details(logger, logging.ERROR, "It failed.", "one\ntwo")

    assert text().endswith("[ERROR] It failed.\none\ntwo\n")


def test_a_reader_that_went_away_fails_nothing():
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    logger = logging.Logger("a.logger")
    logger.addHandler(LineHandler(write_fd))

    logger.error("Nobody reads this.")

    os.close(write_fd)


WRITE_LONG_LINES = """
import logging, os, sys
from greenq.log_lines import LineHandler
logger = logging.Logger("a.logger")
logger.addHandler(LineHandler(int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
for number in range(20):
    logger.error("%s", sys.argv[2] * (100 if number % 2 else 100_000))
"""


def test_long_and_short_lines_of_several_processes_stay_whole_in_a_pipe():
    read_fd, write_fd = os.pipe()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_LONG_LINES, str(write_fd), letter], pass_fds=[write_fd], stdin=-1, stdout=-1
        )
        for letter in "abc"
    ]
    os.close(write_fd)
    assert [writer.stdout.readline() for writer in writers] == [b"ready\n"] * 3
    for writer in writers:
        writer.stdin.close()

    with open(read_fd) as reader:
        lines = reader.read().splitlines()

    for writer in writers:
        writer.stdout.close()
        assert writer.wait() == 0
    assert sorted(lines) == [letter * length for letter in "abc" for length in (100, 100_000) for _ in range(10)]


HOLD = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def words_of(text, count):
    """The last word of each of so many lines."""
    read = ""
    while read.count("\n") < count:
        read += text()
    return [line.rpartition(" ")[2] for line in read.splitlines()]


def test_a_line_is_written_although_another_process_was_stopped_within_its_own(written, monkeypatch):
    monkeypatch.setattr(log_writer, "_LOCK_WITHIN_S", 0.02)
    logger, text = written
    fd = logger.handlers[0]._fd
    waits = []
    logger.handlers[0]._writer = LogWriter(fd, Native(pause=lambda seconds: waits.append(seconds)), lambda count: b"")
    command = [sys.executable, "-c", HOLD, str(fd)]
    with subprocess.Popen(command, pass_fds=[fd], stdin=-1, stdout=-1) as holder:
        assert holder.stdout.readline() == b"held\n"

        logger.error("one")
        assert words_of(text, 1) == ["one"]
        waited = len(waits)
        until(lambda: not logger.handlers[0]._writer._waiting)
        logger.error("two")
        assert words_of(text, 1) == ["two"]

    assert waited
    assert len(waits) == waited  # the second line does not wait any more


def test_lines_wait_for_a_reader_and_their_process_does_not(written):
    logger, text = written

    for number in range(5000):  # more than a pipe takes
        logger.error("%d", number)

    assert words_of(text, 5000) == [str(number) for number in range(5000)]
    until(lambda: not logger.handlers[0]._writer._waiting)
    logger.error("again")
    assert words_of(text, 1) == ["again"]


def test_a_long_line_that_a_reader_keeps_waiting_stays_whole(written):
    logger, text = written

    logger.error("x" * 300_000)
    logger.error("next")

    assert words_of(text, 2) == ["x" * 300_000, "next"]


@pytest.mark.parametrize("length", [10, 100, 1000, 5000])
def test_a_terminal_that_takes_no_more_keeps_nobody_waiting(length):
    # It says that it has room as long as that is one character, so lines of several lengths are tried.
    shown_fd, fd = pty.openpty()
    tty.setraw(fd)
    writer = LogWriter(fd, Native(), lambda count: b"")
    written, is_full = [], threading.Event()

    def write_until_it_is_full():
        while not writer._waiting and len(written) < 100_000:
            written.append(f"{len(written)} {'x' * length}\n".encode())
            writer.write(written[-1])
        is_full.set()

    try:
        with beside(write_until_it_is_full):
            try:
                happens(is_full)
            except AssertionError:
                os.close(shown_fd)  # which ends the wait
                raise
        read, said = b"", b"".join(written)
        while len(read) < len(said):
            read += os.read(shown_fd, 65536)
        assert read == said
        os.close(shown_fd)
    finally:
        os.close(fd)
        os.close(writer._eager_fd)


def test_lines_that_wait_are_written_many_at_once(written, monkeypatch):
    # After each write the thread waits for the interpreter, which a job that computes and logs leaves every 5 ms.
    logger, text = written
    writer = logger.handlers[0]._writer
    logged = 0
    while len(writer._waiting) < 1000:
        logger.error("%d", logged)
        logged += 1
    written_at_once = []
    write_all = log_writer._write_all

    def write_and_note(fd, data):
        written_at_once.append(data)
        write_all(fd, data)

    monkeypatch.setattr(log_writer, "_write_all", write_and_note)

    assert words_of(text, logged) == [str(number) for number in range(logged)]
    until(lambda: not writer._waiting)
    assert len(list(filter(None, written_at_once))) < 20


def test_as_many_lines_wait_for_a_reader_as_is_said(written, monkeypatch):
    monkeypatch.setattr(log_writer, "_MOST_LINES", 10)
    logger, text = written
    while not logger.handlers[0]._writer._waiting:
        logger.error("%s", "x" * 1000)

    for number in range(10):
        logger.error("the %dth that waits with it", number)
    read = ""
    while "missing here" not in read:
        read += text()

    assert re.findall(r"the (\d)th", read) == [str(number) for number in range(9)]
    assert " 1 records are missing here" in read


@pytest.mark.parametrize("more", [False, True], ids=["and then nothing", "and then more"])
def test_records_that_find_no_room_are_counted_and_told_of(written, monkeypatch, more):
    monkeypatch.setattr(log_writer, "_MOST_LINES", 10)
    logger, text = written
    writer = logger.handlers[0]._writer
    while len(writer._waiting) < 10:
        logger.error("%s", "x" * 1000)

    for _ in range(7):
        logger.error("lost")
    read = ""
    while " 7 records are missing here: nobody read the log.\n" not in read:
        read += text()
        if more and writer._dropped and len(writer._waiting) < 10:
            logger.error("found again")

    assert "lost" not in read
    until(lambda: not writer._waiting)
    logger.error("the end")
    while "the end" not in read:
        read += text()
    assert read.count("are missing here") == 1


def test_the_end_of_a_process_waits_for_a_reader_for_a_moment_only(written, monkeypatch):
    logger, text = written
    for number in range(5000):
        logger.error("%d", number)

    logger.handlers[0].flush()  # nobody reads

    assert logger.handlers[0]._writer._waiting
    monkeypatch.setattr(log_writer, "_FLUSH_WITHIN_S", PATIENCE_S)
    with beside(logger.handlers[0].flush):
        assert len(words_of(text, 5000)) == 5000
    assert not logger.handlers[0]._writer._waiting


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://me:secret@host:6379/0", "redis://me:***@host:6379/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("amqp://me:se@cr/et@host/vhost and more", "amqp://me:***@host/vhost and more"),
        ("http://host/?password=secret&x=1", "http://host/?password=***&x=1"),
        ("http://host:80/path", "http://host:80/path"),
        ("me:secret@host", "me:secret@host"),
    ],
)
def test_passwords_in_urls_are_masked(text, expected):
    assert without_password(text) == expected


class Unprintable:
    def __repr__(self):
        raise OSError("secret")


@pytest.mark.parametrize("arguments", [("%s and %s", "secret"), ("%d", "secret"), ("%s", Unprintable())])
def test_a_record_that_cannot_be_formatted_is_a_line_without_its_arguments(written, capfd, arguments):
    logger, text = written
    message, argument = arguments
    logger.warning(message, argument)

    line = text()
    assert f"[a.logger] [WARNING] {message} (not formatted: " in line
    assert re.search(r"(TypeError|OSError), logged at \S+test_log_lines\.py:\d+\)\n$", line)
    assert "secret" not in line + capfd.readouterr().err


# -- as JSON


@pytest.fixture
def as_json():
    """A logger, and the objects it has written."""
    read_fd, write_fd = os.pipe()
    logger = logging.Logger("a.logger")
    handler = LineHandler(write_fd)
    handler.setFormatter(JsonFormatter(lambda: "a task"))
    logger.addHandler(handler)
    yield logger, lambda: [json.loads(line) for line in os.read(read_fd, 65536).decode().splitlines()]
    os.close(read_fd)
    os.close(write_fd)


def test_a_record_is_one_json_object(as_json):
    logger, written = as_json
    before = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    logger.warning("Something %s\nredis://me:secret@host \x1b \u2028 é \ud800", "happened")

    (document,) = written()
    assert before <= datetime.fromisoformat(document.pop("time").replace("Z", "+00:00")) <= datetime.now(timezone.utc)
    assert document == {
        "level": "WARNING",
        "logger": "a.logger",
        "pid": os.getpid(),
        "task": "a task",
        "message": "Something happened\nredis://me:***@host \x1b \u2028 é \ud800",
    }


def test_an_exception_a_stack_and_details_are_fields_of_their_own(as_json):
    logger, written = as_json
    try:
        raise ValueError("redis://me:secret@host")
    except ValueError:
        logger.exception("It failed.", stack_info=True)
    log_with_details(logger, logging.ERROR, "It failed.", "one\ntwo")

    first, second = written()
    assert first["message"] == "It failed."
    assert first["exception"].startswith("Traceback (most recent call last):\n")
    assert first["exception"].endswith("\nValueError: redis://me:***@host")
    assert first["stack"].startswith("Stack (most recent call last):\n")
    assert (second["message"], second["exception"]) == ("It failed.", "one\ntwo")


def test_what_a_record_is_given_beside_its_message_is_kept_whatever_it_is(as_json):
    logger, written = as_json
    itself = []
    itself.append(itself)
    given = {"order": 5, "tags": ["a"], "what": object, "far": float("inf"), "itself": itself, "url": "x://me:pw@host"}
    logger.warning("Bought.", extra={**given, "actor": "a person"})

    (document,) = written()
    assert document["extra"] == {
        "order": 5,
        "tags": ["a"],
        "what": "<class 'object'>",
        "far": "inf",
        "itself": "[[...]]",
        "url": "x://me:***@host",
        "actor": "a person",
    }


def test_passwords_deep_in_what_a_record_is_given_are_masked(as_json):
    logger, written = as_json
    logger.warning("Connected.", extra={"to": {"urls": ["x://me:secret@a", ("x://me:secret@b", 5)], 1: None}})

    (document,) = written()
    assert document["extra"] == {"to": {"urls": ["x://me:***@a", ["x://me:***@b", 5]], "1": None}}


def test_what_cannot_be_printed_costs_a_record_nothing_else(as_json):
    logger, written = as_json
    logger.warning("Bought.", extra={"what": Unprintable(), "all": [Unprintable(), 1], "huge": 10**5000})

    (document,) = written()
    what, huge = "<Unprintable that cannot be printed: OSError>", "<int that cannot be printed: ValueError>"
    assert (document["message"], document["extra"]) == ("Bought.", {"what": what, "all": [what, 1], "huge": huge})


def test_a_record_is_marked_with_its_job_and_below_it_until_that_is_over(as_json):
    logger, written = as_json
    job = LoggedJob({"message_id": "1"})
    below = job.seen_below().seen_below()

    def log(seen):
        logged_job.current.set(seen)
        logger.warning("Something happened.")

    for seen in (None, job, below):
        contextvars.Context().run(log, seen)
    job.is_over = True
    for seen in (job, below):
        contextvars.Context().run(log, seen)

    assert [document.get("message_id") for document in written()] == [None, "1", "1", "1", None]
