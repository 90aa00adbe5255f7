"""A log whose reader has stopped reading: jobs, the supervisor and a stop go on all the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from greenq.brokers.sqlite import SqliteBroker
from greenq.message import Message
from tests.support.command import APP as SAYS
from tests.support.command import ROOT, enqueue
from tests.support.processes import end_with_this_process
from tests.support.waiting import PATIENCE_S, until

APP = (
    SAYS
    + """
@greenq.actor
def babble(number):
    log.info("babbled %d %s", number, "x" * 1000)
    (HERE / f"did-{number}-{os.getpid()}").touch()
"""
)
#: More than a pipe takes, and less than is kept for a reader.
MANY = 200


@pytest.fixture
def unread(folder):
    """The command, with a pipe for a log; what it writes is read by whoever calls ``stdout.readline``."""
    with subprocess.Popen(
        [sys.executable, "-m", "greenq", "app", "-p", "1"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_this_process,
    ) as process:
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def read_until(process, pattern):
    read = ""
    while not re.search(pattern, read):
        line = process.stdout.readline().decode()
        assert line, f"it ended: {read}"
        read += line
    return read


def babble(folder, numbers):
    broker = SqliteBroker(str(folder / "queue.db"))
    broker.declare_queue("default")
    broker.enqueue_many([Message("default", "babble", (number,), {}, {}) for number in numbers])
    broker.close()


def done(folder):
    """The jobs that were done, with the pid of their worker."""
    return [path.name.split("-")[1:] for path in folder.glob("did-*")]


def test_jobs_the_supervisor_and_a_stop_go_on(unread, folder):
    read_until(unread, "Worker process is ready")
    babble(folder, range(MANY))
    until(lambda: len(done(folder)) == MANY)

    (pid,) = {pid for _, pid in done(folder)}
    os.kill(int(pid), signal.SIGKILL)  # which the supervisor has to tell the same pipe
    enqueue(folder, "babble", MANY)
    until(lambda: any(number == str(MANY) and pid_of_it != pid for number, pid_of_it in done(folder)))
    unread.send_signal(signal.SIGTERM)

    assert unread.wait(PATIENCE_S) == 0


def test_lines_come_in_order_and_whole_once_somebody_reads_again(unread, folder):
    read_until(unread, "Worker process is ready")
    babble(folder, range(MANY))
    until(lambda: len(done(folder)) == MANY)

    enqueue(folder, "say", "enough")
    read = read_until(unread, "said enough")

    babbled = re.findall(r"babbled (\d+) x{1000}\n", read)
    assert sorted(map(int, babbled)) == list(range(MANY))
    unread.send_signal(signal.SIGTERM)
    read_until(unread, "Exiting with code 0")
