"""Jobs that no interrupt ends, in the workers of the real command: killed with their process, and told."""

from __future__ import annotations

import re

import pytest

from tests.support.command import Command, enqueue, write_module

pytestmark = pytest.mark.starts_both_worlds

APP = """
import logging, os, pathlib, time
import greenq
from greenq.brokers.sqlite import SqliteBroker

HERE = pathlib.Path(__file__).parent
log = logging.getLogger("app")
broker = SqliteBroker(str(HERE / "queue.db"))
greenq.set_broker(broker)

def swallow(again):
    while True:
        try:
            again()
        except BaseException as error:
            log.info("swallowed %s", type(error).__name__)

def spin():
    while True:
        pass

@greenq.actor(time_limit=300)
def stubborn(how):
    marker = HERE / "was-there"
    if marker.exists():
        log.info("back in %d", os.getpid())
        return
    marker.touch()
    swallow(spin if how == "spins" else lambda: time.sleep(0.01))

@greenq.actor(time_limit=300)
def parent():
    marker = HERE / "was-there"
    if marker.exists():
        log.info("back in %d", os.getpid())
        return
    marker.touch()
    import gevent
    gevent.spawn(swallow, spin).join()

@greenq.actor
def neighbour():
    log.info("neighbour in %d", os.getpid())
    while not (HERE / "was-there").exists() or not (HERE / "go").exists():
        time.sleep(0.01)
    log.info("neighbour is done")

@greenq.actor
def busy(seconds):
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        pass  # here
    log.info("busy is done")
"""


@pytest.fixture
def run(tmp_path):
    write_module(tmp_path, "app", APP)
    commands = []

    def start(*arguments, **env):
        command = Command(tmp_path, "app", "-p", "1", *arguments, **env)
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()


def test_a_greenlet_that_spins_is_killed_when_a_job_that_it_keeps_waiting_is_beyond_its_hard_limit(run, tmp_path):
    command = run("--hard-limit", "500ms")
    (first,) = command.wait_until_ready()
    enqueue(tmp_path, "parent")
    (back,) = command.wait_for(r"back in (\d+)")

    assert int(back) != first


@pytest.mark.parametrize("how", ["spins", "waits"])
def test_a_job_that_swallows_its_interrupt_is_killed_with_its_process_and_charged(run, tmp_path, how):
    command = run(GREENQ_HARD_LIMIT="500ms")
    command.wait_until_ready()
    enqueue(tmp_path, "neighbour")
    command.wait_for(r"neighbour in \d+")
    enqueue(tmp_path, "stubborn", how)

    command.wait_for("swallowed TimeLimitExceeded")
    command.wait_for("because it was stuck")
    (tmp_path / "go").touch()
    command.wait_for("neighbour is done")
    (back,) = command.wait_for(r"back in (\d+)")
    first, second = command.wait_until_ready(2)

    assert len(command.matches("swallowed")) == 1
    assert int(back) == second != first
    assert command.matches("neighbour in") == ["neighbour in"] * 2


def test_a_job_that_keeps_the_cpu_is_told_with_its_line_and_a_spinning_one_costs_no_lease(run, tmp_path):
    command = run("--lease", "1s", "--block-warn", "300ms")
    command.wait_until_ready()
    enqueue(tmp_path, "neighbour")
    command.wait_for(r"neighbour in \d+")
    enqueue(tmp_path, "busy", 3)

    (line,) = command.wait_for(r"WARNING.* of actor busy kept the CPU .*")
    command.wait_for("busy is done")
    (tmp_path / "was-there").touch()
    (tmp_path / "go").touch()
    command.wait_for("neighbour is done")

    found = re.search(r"kept the CPU for (\d+) ms: at .*app\.py:(\d+) in busy\.", line)
    assert found, line
    assert int(found[1]) >= 3000
    assert int(found[2]) - APP[: APP.index("# here")].count("\n") in (0, 1, 2)  # a line of the loop
    assert command.matches("because it was stuck") == []
    assert command.matches("neighbour in") == ["neighbour in"]
