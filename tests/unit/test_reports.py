"""What workers report, as the supervisor reads it: what is no report is left out, and costs little."""

from __future__ import annotations

import os

import pytest

from greenq.json_lines import LONGEST_LINE, Decoder, encode
from greenq.supervisor.reports import Reports
from tests.support.acting_worker import RUBBISH


@pytest.fixture
def pipe():
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    yield read_fd, write_fd
    os.close(read_fd)
    os.close(write_fd)


def test_a_report_between_lines_that_are_none_is_read(pipe):
    read_fd, write_fd = pipe
    reports = Reports(read_fd)
    read = []
    for rubbish in RUBBISH:
        for start in range(0, len(rubbish) + 1, 50_000):
            os.write(write_fd, (rubbish + b"\n")[start : start + 50_000])
            read += reports.read()
        os.write(write_fd, encode({"event": "job_done"}))
        read += reports.read()

    assert read == [{"event": "job_done"}] * len(RUBBISH)


def test_who_writes_without_end_is_not_read_without_end():
    fd = os.open("/dev/zero", os.O_RDONLY)
    try:
        assert Reports(fd).read() == []
    finally:
        os.close(fd)


def test_a_line_that_does_not_end_is_not_kept_and_the_next_one_is_read():
    decoder = Decoder()
    for _ in range(3 * LONGEST_LINE // 65536):
        assert decoder.feed(b"7" * 65536) == []

    assert len(decoder._rest) <= LONGEST_LINE
    assert decoder.feed(b'{"event": "half"}\n' + encode({"event": "job_done"})) == [{"event": "job_done"}]
