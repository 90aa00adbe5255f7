"""What a worker process does where it cannot take back at once what another held."""

from __future__ import annotations

import json
import os
import sys

import pytest

from greenq.errors import ConnectionFailed
from greenq.worker import process as module
from greenq.worker.process import WorkerProcess


class Broker:
    """One that is away, or has another error, for the first so many calls."""

    def __init__(self, away_for, error=None):
        self.away_for = away_for
        self.error = error or ConnectionFailed("The server is away.")
        self.calls = []

    def take_back(self, worker_id, *, charge, cause):
        self.calls.append((worker_id, charge, cause))
        if len(self.calls) <= self.away_for:
            raise self.error
        return 1


@pytest.fixture
def process():
    control_fd, command_fd = os.pipe()
    report_fd, own_fd = os.pipe()
    process = WorkerProcess(control_fd, own_fd)
    process.reports = lambda: [json.loads(line) for line in os.read(report_fd, 65536).splitlines()]
    yield process
    for fd in (command_fd, report_fd, process._control_fd, process._report_fd, process._wake_fd, process._wakeup_fd):
        os.close(fd)


def test_what_there_is_evidence_against_is_told_the_broker_when_it_is_back(process, caplog):
    process.broker = Broker(away_for=3)

    process._take_back("the dead", ["the one"], "was killed by SIGSEGV")

    assert process.broker.calls == [("the dead", ["the one"], "was killed by SIGSEGV")] * 4
    assert process.reports() == [{"event": "taken_back", "worker_id": "the dead"}]
    assert caplog.text.count("cannot be returned to its queues now. The server is away. Trying again.") == 1


def test_an_error_of_the_broker_is_no_reason_to_call_it_done_at_once(process, caplog):
    process.broker = Broker(away_for=3, error=RuntimeError("can't start new thread"))

    process._take_back("the dead", ["the one"], "was killed by SIGSEGV")

    assert len(process.broker.calls) == 4
    assert process.reports() == [{"event": "taken_back", "worker_id": "the dead"}]
    assert "could not be returned" not in caplog.text


def test_an_error_of_the_broker_that_lasts_ends_it(process, caplog, monkeypatch):
    monkeypatch.setattr(module, "_TAKE_BACK_S", 0.05)
    process.broker = Broker(away_for=sys.maxsize, error=RuntimeError("can't start new thread"))

    process._take_back("the dead", ["the one"], "was killed by SIGSEGV")

    assert len(process.broker.calls) > 1
    assert process.reports() == [{"event": "taken_back", "worker_id": "the dead"}]
    assert caplog.text.count("could not be returned to its queues; it is when the lease runs out") == 1
