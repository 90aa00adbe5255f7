"""Log records as lines."""

from __future__ import annotations

import logging
import os

import pytest

from greenq.log_lines import LineFormatter, LineHandler, log_with_details, without_password


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
