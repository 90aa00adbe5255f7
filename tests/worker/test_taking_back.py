"""What a worker process does where it cannot take back at once what another held."""

from __future__ import annotations

import json
import os

import pytest

from greenq.errors import ConnectionFailed
from greenq.worker.process import WorkerProcess


class Broker:
    """One that is away for the first so many calls."""

    def __init__(self, away_for):
        self.away_for = away_for
        self.calls = []

    def take_back(self, worker_id, *, charge, cause):
        self.calls.append((worker_id, charge, cause))
        if len(self.calls) <= self.away_for:
            raise ConnectionFailed("The server is away.")
        return 1


@pytest.fixture
def process():
    control_fd, command_fd = os.pipe()
    report_fd, own_fd = os.pipe()
    process = WorkerProcess(control_fd, own_fd)
    process.reports = lambda: [json.loads(line) for line in os.read(report_fd, 65536).splitlines()]
    yield process
    for fd in (control_fd, command_fd, report_fd, own_fd, process._wake_fd, process._wakeup_fd):
        os.close(fd)


def test_what_there_is_evidence_against_is_told_the_broker_when_it_is_back(process, caplog):
    process.broker = Broker(away_for=3)

    process._take_back("the dead", ["the one"], "was killed by SIGSEGV")

    assert process.broker.calls == [("the dead", ["the one"], "was killed by SIGSEGV")] * 4
    assert process.reports() == [{"event": "taken_back", "worker_id": "the dead"}]
    assert caplog.text.count("cannot be returned to its queues now. The server is away. Trying again.") == 1
