"""The pid file: who may have it, and what is left of it."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys

import pytest

from greenq.supervisor import PidFile, PidFileError

HOLD = """
import sys
from greenq.supervisor import PidFile
with PidFile(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "greenq.pid"


@pytest.fixture
def holder(path):
    """Another process that holds the file."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate(timeout=20)


def test_it_has_the_pid_while_it_is_held_and_is_gone_afterwards(path):
    mask = os.umask(0o077)
    try:
        with PidFile(str(path)):
            assert path.read_text() == f"{os.getpid()}\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(mask)

    assert not path.exists()


def test_a_held_one_is_refused_and_left_alone(path, holder):
    with pytest.raises(PidFileError, match=f"in use by process {holder.pid}"), PidFile(str(path)):
        pass

    assert path.read_text() == f"{holder.pid}\n"


def test_one_of_a_killed_process_is_replaced(path, holder):
    holder.kill()
    # Dead and not yet reaped, as in a container whose first process does not reap.
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)

    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_one_with_its_own_pid_is_accepted(path):
    # A main process of a container often has the pid that its predecessor had.
    path.write_text(str(os.getpid()))

    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_one_that_names_a_running_process_is_refused_even_without_a_lock(path):
    path.write_text(str(os.getppid()))

    with pytest.raises(PidFileError, match="which is running"), PidFile(str(path)):
        pass


def test_one_whose_pid_went_to_a_later_process_is_replaced(path):
    path.write_text(str(os.getppid()))
    os.utime(path, (0, 0))

    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["important!", "", "-1", "0", "12 34"])
def test_a_file_that_is_no_pid_file_is_refused_and_left_alone(path, content):
    path.write_text(content)

    with pytest.raises(PidFileError, match="left alone"), PidFile(str(path)):
        pass

    assert path.read_text() == content


def test_a_symbolic_link_is_refused(path, tmp_path):
    target = tmp_path / "target"
    target.write_text("1")
    path.symlink_to(target)

    with pytest.raises(PidFileError, match="symbolic link"), PidFile(str(path)):
        pass

    assert target.read_text() == "1"


def test_a_fifo_is_refused_without_waiting(path):
    os.mkfifo(path)

    with pytest.raises(PidFileError, match="no regular file"), PidFile(str(path)):
        pass


def test_one_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(PidFileError, match="No such file or directory"), PidFile(str(tmp_path / "no" / "pid")):
        pass


def test_it_is_removed_only_by_the_process_that_wrote_it(path):
    with PidFile(str(path)) as held:
        child = os.fork()
        if child == 0:
            held.__exit__()
            os._exit(0)
        os.waitpid(child, 0)
        assert path.exists()


def test_a_file_of_somebody_else_in_its_place_is_not_removed(path):
    with PidFile(str(path)):
        path.unlink()
        path.write_text("somebody else's")

    assert path.read_text() == "somebody else's"


def test_the_lock_does_not_pass_to_programs_that_are_started(path):
    with PidFile(str(path)):
        program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)

    path.write_text("1")
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    program.communicate(timeout=20)
