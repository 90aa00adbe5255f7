"""Signals that somebody sends to a worker process instead of the main one."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support import command as support
from tests.support.command import enqueue, write_module
from tests.support.waiting import until

APP = support.APP

#: Its workers say when they may hold messages, and become ready when they are let go.
SLOW_START = """
import time
from app import HERE, broker, log
import greenq

class Waits(greenq.Middleware):
    def after_worker_boot(self, broker, worker):
        log.info("may hold messages")
        while not (HERE / "go").exists():
            time.sleep(0.01)

broker.add_middleware(Waits())
"""


@pytest.fixture
def holding(run, folder):
    """A command whose only worker runs a job that waits, and that worker's pid."""
    command = run("app", "-p", "1")
    command.wait_until_ready()
    enqueue(folder, "hold", "on")
    (pid,) = command.wait_for(r"holding on in (\d+)")
    return command, int(pid)


def has_ended_after_another(pid):
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_that_is_told_to_end_finishes_its_jobs_and_is_replaced(holding, folder):
    command, pid = holding

    os.kill(pid, signal.SIGTERM)
    command.wait_for("Stopping: running jobs may finish")
    (folder / "go").touch()

    command.wait_for("held on")
    assert len(set(command.wait_until_ready(2))) == 2
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0


def test_a_worker_that_is_told_twice_ends_at_once_and_its_jobs_run_again(holding, folder):
    command, pid = holding

    os.kill(pid, signal.SIGTERM)
    command.wait_for("Stopping: running jobs may finish")
    until(lambda: has_ended_after_another(pid))  # one that comes in the same moment is taken for the same

    command.wait_for("holding on", 2)
    (folder / "go").touch()
    command.wait_for("held on")


def test_a_second_signal_before_it_is_ready_may_be_the_supervisors_own_and_does_not_kill(run, folder):
    # Who stops a service sends TERM to the whole group, and the supervisor sends one to those who start.
    write_module(folder, "slow", SLOW_START)
    command = run("app", "slow", "-p", "1")
    (pid,) = command.wait_for(r"\[PID (\d+)\].* may hold messages")

    os.kill(int(pid), signal.SIGTERM)
    command.wait_for("Received SIGTERM")
    time.sleep(0.06)  # what comes sooner is taken for the same signal
    os.kill(int(pid), signal.SIGTERM)
    (folder / "go").touch()

    assert command.wait_for(rf"Worker 1 \(PID {pid}\) exited with code (\d)") == ["0"]


@pytest.mark.parametrize(
    "signum",
    [signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGQUIT],
)
def test_what_is_for_the_main_process_does_nothing_to_a_worker(holding, folder, signum):
    command, pid = holding

    os.kill(pid, signum)
    (folder / "go").touch()
    command.wait_for("held on")
    enqueue(folder, "say", "more")

    command.wait_for("said more")
    assert command.wait_until_ready() == [pid]
