"""Signals that somebody sends to a worker process instead of the main one."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import command as support
from tests.support.command import enqueue
from tests.support.waiting import until

APP = support.APP


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
