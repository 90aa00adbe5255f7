"""A worker as its supervisor sees it: what is told to it, and what is left of it."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path

import pytest

from greenq.supervisor.child import Child, Launch, Stuck
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]

SHOW = """
import json, os, signal, sys
from greenq.shared_page import SharedPage, name_bytes
told = json.load(open(int(sys.argv[-3])))
if told["page_fd"] is not None:
    SharedPage(told["page_fd"]).sign.value = name_bytes("the one")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start():
    """Starts this program as a worker is started, and waits for its end."""
    children = []

    def start(program, **options):
        launch = Launch((sys.executable, "-c", program), {**os.environ, "PYTHONPATH": str(ROOT)}, {})
        child = Child(1, launch, patient=False, **options)
        children.append(child)
        child.was_reaped(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
        child.close()
        return child

    yield start
    for child in children:
        child.forget()


def test_what_a_worker_showed_in_its_page_is_there_after_its_death(start):
    child = start(SHOW, is_watched=True)

    assert child.returncode == -9
    assert child.page.message_on_cpu == "the one"


def test_a_worker_starts_the_same_where_the_system_has_no_files_in_memory(start, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")

    child = start(SHOW, is_watched=True)

    assert child.page.message_on_cpu == "the one"


def test_a_process_beside_the_workers_has_no_page(start):
    child = start(SHOW)

    assert child.returncode == -9
    assert child.page is None


WAIT = "import signal, sys; signal.pause()"


@pytest.fixture
def waiting():
    """A child that reads nothing and does nothing; ended after the test."""
    child = Child(1, Launch((sys.executable, "-c", WAIT), {**os.environ}, {}), patient=False, is_watched=True)
    yield child
    child.kill()
    child.was_reaped(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
    child.close()
    child.forget()


def test_nothing_is_sent_to_a_pid_that_was_reaped(start, monkeypatch):
    child = start(SHOW, is_watched=True)
    sent = []
    monkeypatch.setattr(os, "kill", lambda *args: sent.append(args))

    child.condemn(Stuck("its last report was that one of its jobs is overdue"))
    child.stop(1)
    child.kill()

    assert sent == []


def test_a_stuck_worker_is_not_spared_because_it_is_told_to_stop(waiting):
    waiting.condemn(Stuck("it is"))

    waiting.stop(600)

    assert waiting.kill_at < time.monotonic() + 1


def test_a_worker_that_becomes_stuck_while_it_stops_has_no_more_time_for_that(waiting):
    waiting.stop(0.1)
    told_to_end_at = waiting.kill_at

    waiting.condemn(Stuck("it is"))

    assert waiting.kill_at == told_to_end_at


LISTEN = """
import json, os, sys, time
from pathlib import Path
from greenq.json_lines import Decoder
folder, told, decoder = Path(sys.argv[1]), [], Decoder()
while not (folder / "listen").exists():
    time.sleep(0.01)
while len(told) < 2 and (data := os.read(int(sys.argv[-2]), 65536)):
    told += decoder.feed(data)
(folder / "told").write_text(json.dumps(told))
"""


def test_a_command_of_which_the_pipe_took_a_half_is_finished_before_the_next(tmp_path):
    command = (sys.executable, "-c", LISTEN, str(tmp_path))
    child = Child(1, Launch(command, {**os.environ, "PYTHONPATH": str(ROOT)}, {}), patient=False)
    long, short = {"command": "stack", "message_id": "x" * 100_000}, {"command": "stop"}

    assert child.ask(long)
    assert not child.ask(short)  # the other half is not told yet
    (tmp_path / "listen").touch()
    until(lambda: child.ask(short))
    child.was_reaped(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
    child.close()

    assert json.loads((tmp_path / "told").read_text()) == [long, short]


def test_one_that_does_not_read_now_is_made_quiet_when_it_reads_again(tmp_path):
    command = (sys.executable, "-c", LISTEN, str(tmp_path))
    child = Child(1, Launch(command, {**os.environ, "PYTHONPATH": str(ROOT)}, {}), patient=False)
    long = {"command": "stack", "message_id": "x" * 100_000}
    assert child.ask(long)

    child.be_quiet()
    (tmp_path / "listen").touch()
    until(lambda: child.say_the_rest() or os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    child.was_reaped(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
    child.close()

    assert json.loads((tmp_path / "told").read_text()) == [long, {"command": "quiet"}]


@pytest.mark.parametrize("what", ["shared_page.make", "SharedPage", "LastWords", "nameless_fd", "subprocess.Popen"])
def test_a_start_for_which_the_system_has_no_room_leaves_nothing_behind(monkeypatch, what):
    def fail(*args, **options):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(f"greenq.supervisor.child.{what}", fail)
    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match="Cannot allocate memory"):
        Child(1, Launch((sys.executable, "-c", ""), {}, {}), patient=False, is_watched=True)

    assert os.listdir("/proc/self/fd") == before
