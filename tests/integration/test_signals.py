"""greenq-worker made quiet, and given workers or rid of them, by signals."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import command as support
from tests.support.command import enqueue, waiting
from tests.support.waiting import until

APP = support.APP


def hold(command, folder, name="on"):
    """Have a job run until it is let go; the pid of its worker."""
    enqueue(folder, "hold", name)
    return int(command.wait_for(rf"holding {name} in (\d+)")[0])


@pytest.mark.parametrize("whom", ["the main process", "the group"])
def test_a_quiet_command_finishes_its_jobs_and_takes_no_others_until_a_reload(run, folder, whom):
    command = run("app", "-p", "2")
    command.wait_until_ready(2)
    hold(command, folder)

    (command.send if whom == "the main process" else command.send_to_all)(signal.SIGTSTP)
    command.wait_for("Quiet: nothing new is begun", 2)
    enqueue(folder, "say", "later")
    (folder / "go").touch()
    command.wait_for("held on")

    until(lambda: waiting(folder) == 1)  # the job's own message is settled in a moment
    command.send(signal.SIGHUP)
    command.wait_for("said later")
    assert command.log.index("Reloading on SIGHUP") < command.log.index("said later")


def test_a_quiet_command_stops_on_term(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()
    command.send(signal.SIGTSTP)
    command.wait_for("Quiet: nothing new is begun")
    enqueue(folder, "say", "never")

    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert waiting(folder) == 1


def test_who_replaces_a_quiet_worker_is_quiet_too_and_gives_back_what_that_one_ran(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()
    victim = hold(command, folder)
    command.send(signal.SIGTSTP)
    command.wait_for("Quiet: nothing new is begun")

    os.kill(victim, signal.SIGKILL)
    command.wait_until_ready(2)
    command.wait_for("Returned 1 messages")
    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert waiting(folder) == 1
    assert len(command.matches("holding on")) == 1


def test_ttin_adds_a_worker_and_ttou_drains_one(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()
    command.send(signal.SIGTTIN)
    command.wait_for("The number of workers is 2 from now on, on SIGTTIN")
    command.wait_until_ready(2)
    for name in ("a", "b", "c"):
        hold(command, folder, name)

    command.send(signal.SIGTTOU)
    command.wait_for("The number of workers is 1 from now on, on SIGTTOU")
    command.wait_for("Stopping: running jobs may finish")
    (folder / "go").touch()

    command.wait_for(r"Worker 2 \(PID \d+\) exited with code 0, because one worker fewer is wanted")
    command.wait_for("held ", 3)
    enqueue(folder, "say", "still here")
    command.wait_for("said still here")


def test_one_worker_is_the_least(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()

    command.send(signal.SIGTTOU)
    command.wait_for("SIGTTOU changes nothing: one worker is the least")
    enqueue(folder, "say", "still here")

    command.wait_for("said still here")


def test_a_worker_that_is_asked_for_during_a_reload_comes_after_it(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()

    command.send(signal.SIGHUP)
    command.wait_for("Reloading on SIGHUP")
    command.send(signal.SIGTTIN)

    command.wait_until_ready(3)
    command.wait_for(r"Worker 1 \(PID \d+\) exited with code 0, as part of the reload")
    reloaded, last = command.log.index("Reloaded"), command.log.rindex("Worker process is ready")
    assert reloaded < last
