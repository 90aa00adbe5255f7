"""The command as process 1, as in a container: it needs no init above it.

A process is the first of a namespace of its own here, by unshare(1); it need not be in a container for that.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import psutil
import pytest

from tests.support.command import APP, Command, enqueue, write_module
from tests.support.waiting import until

FIRST = ("--pid", "--fork", "--mount-proc", "--kill-child")
UNSHARE = ("unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), *FIRST)

#: Runs the command as the first process, in place of itself.
PROGRAM = f"""
import os, sys
os.execvp("unshare", [*{UNSHARE!r}, sys.executable, "-m", "greenq", *sys.argv[1:]])
"""

ORPHANS = (
    APP
    + """
import subprocess

@greenq.actor
def leave_a_child():
    subprocess.run(["sh", "-c", "sleep 600 &"])
    log.info("left a child, in a job of %d, whose parent is %d", os.getpid(), os.getppid())
"""
)


@pytest.fixture(autouse=True)
def namespaces():
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed, so no process can be the first one here")
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no process can be the first one here: {tried.stderr.strip()}")


@pytest.fixture
def command(tmp_path):
    write_module(tmp_path, "app", ORPHANS)
    command = Command(tmp_path, "app", "-p", "1", program=("-c", PROGRAM))
    yield command
    command.end()


def first(command):
    (process,) = psutil.Process(command.pid).children()
    return process


def test_as_process_1_it_stops_gracefully_on_term(command, tmp_path):
    command.wait_until_ready()
    enqueue(tmp_path, "hold", "on")
    command.wait_for("holding on")

    first(command).send_signal(signal.SIGTERM)
    command.wait_for("Stopping on SIGTERM")
    (tmp_path / "go").touch()

    assert command.exit_code() == 0
    assert "held on" in command.log


def test_as_process_1_it_reaps_what_jobs_leave_behind(command, tmp_path):
    command.wait_until_ready()
    enqueue(tmp_path, "leave_a_child")
    ((_, parent),) = command.wait_for(r"left a child, in a job of (\d+), whose parent is (\d+)")
    assert parent == "1"

    orphans = []

    def is_adopted():
        orphans[:] = [child for child in first(command).children() if child.name() == "sleep"]
        return bool(orphans)

    until(is_adopted)
    orphans[0].kill()
    until(lambda: not orphans[0].is_running())  # a zombie would be

    first(command).send_signal(signal.SIGTERM)
    assert command.exit_code() == 0
