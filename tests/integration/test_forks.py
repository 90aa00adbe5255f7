"""Fork functions of middleware: processes beside the workers, seen from outside."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from tests.support.command import APP, Command, enqueue, waiting, write_module
from tests.support.waiting import until

MIDDLEWARE = """
from greenq.middleware import Middleware

def tell(what):
    logging.getLogger("fork").info("%s in %d", what, os.getpid())

def stay():
    from gevent.monkey import is_module_patched
    mask = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    try:
        # In here already: who reads it may end this process before the next line.
        tell(f"patched {is_module_patched('threading')} mask {mask} argv {sys.argv[1]} stays")
        while True:
            time.sleep(60)
    finally:
        tell("cleaned up")

def return_at_once():
    tell("returned")
    return 0

def fail_once():
    marker = HERE / "failed"
    if marker.exists():
        tell("works now")
        return 0
    marker.touch()
    tell("fails")
    return 3

def raise_an_error():
    raise RuntimeError("cannot reach redis://me:confidential@host")

def return_text():
    return "redis://me:confidential@host is away"

class Forking(Middleware):
    def __init__(self, *functions):
        self.functions = list(functions)
    @property
    def forks(self):
        return self.functions
"""


@pytest.fixture
def folder(tmp_path):
    write_module(tmp_path, "app", APP + MIDDLEWARE)
    assert waiting(tmp_path) == 0
    return tmp_path


@pytest.fixture
def run(folder):
    """Starts the command with these fork functions; ends all of its processes after the test."""
    commands = []

    def start(functions, *arguments):
        write_module(folder, "use", f"import app\napp.broker.add_middleware(app.Forking({functions}))\n")
        command = Command(folder, "app", "use", *arguments)
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()


def gone(pid):
    """Whether a process that is nobody's child here has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


def test_a_fork_function_runs_once_in_a_plain_process_of_its_own(run):
    command = run("app.stay", "-p", "2")
    workers = command.wait_until_ready(2)

    ((patched, mask, argv, pid),) = command.wait_for(r"patched (\w+) mask (\S+) argv (\w+) stays in (\d+)")

    assert (patched, mask, argv) == ("False", "[]", "app")
    assert int(pid) not in [*workers, command.pid]


def test_a_fork_function_is_told_to_end_by_term_and_may_clean_up(run):
    command = run("app.stay", "-p", "1")
    command.wait_for("stays")

    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert len(command.matches("cleaned up")) == 1


def test_a_fork_function_ends_while_the_workers_still_finish_their_jobs(run, folder):
    command = run("app.stay", "-p", "1")
    command.wait_for("stays")
    enqueue(folder, "hold", "one")
    command.wait_for("holding one")

    command.send(signal.SIGTERM)
    command.wait_for("cleaned up")
    (folder / "go").touch()

    assert command.exit_code() == 0
    assert len(command.matches("held one")) == 1


def test_a_fork_function_that_returns_is_not_started_again(run):
    command = run("app.return_at_once", "-p", "1")
    command.wait_for("has returned, and is not started again")

    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert len(command.matches("returned in")) == 1


def test_a_fork_function_that_fails_is_started_again(run):
    command = run("app.fail_once", "-p", "1")

    command.wait_for("works now")

    assert len(command.matches("Fork app:fail_once .* exited with code 3")) == 1


def test_what_a_fork_function_raises_or_returns_instead_of_a_number_is_in_the_log(run):
    command = run("app.raise_an_error, app.return_text", "-p", "1", "--log-format", "json")
    command.wait_for("is started again", 2)

    told = {}
    for document in map(json.loads, command.lines):
        if document["level"] == "ERROR":
            told.setdefault(re.sub(r" \(PID \d+\)", "", document["message"]), document.get("exception", ""))
    raised = "Fork app:raise_an_error: it could not go on: RuntimeError: cannot reach redis://me:***@host"
    returned = "Fork app:return_text: it ended with 'redis://me:***@host is away'"
    assert sorted(told) == [raised, returned]
    assert told[raised].startswith("Traceback (most recent call last):\n")
    assert "in raise_an_error" in told[raised]
    assert "greenq/" not in told[raised]
    assert "confidential" not in command.log


def test_a_fork_function_that_is_killed_is_started_again(run):
    command = run("app.stay", "-p", "1")
    (pid,) = command.wait_for(r"stays in (\d+)")

    os.kill(int(pid), signal.SIGKILL)

    assert len(set(command.wait_for(r"stays in (\d+)", 2))) == 2


def test_a_function_that_cannot_be_imported_is_told_and_the_others_run(run):
    command = run("lambda: 0, app.return_at_once", "-p", "1")

    command.wait_for("returned in")

    assert len(command.matches(r"The fork function use:<lambda> of Forking is not run")) == 1


def test_the_functions_of_a_list_run_each_once(run):
    command = run("app.return_at_once, app.stay, app.return_at_once", "-p", "1")
    command.wait_for("stays")
    command.wait_for("has returned")

    assert len(command.matches("returned in")) == 1


def test_a_reload_starts_fork_functions_anew(run):
    command = run("app.stay", "-p", "1")
    command.wait_for("stays")

    command.send(signal.SIGHUP)

    first, second = command.wait_for(r"stays in (\d+)", 2)
    assert first != second
    assert command.matches(r"cleaned up in (\d+)") == [first]


def test_functions_of_the_command_line_run_as_those_of_middleware_do_and_each_once(run):
    command = run("app.stay", "-p", "1", "-f", "app:return_at_once", "--fork=app:stay", "-f", "app:fail_once")
    command.wait_for("has returned, and is not started again", 2)
    command.wait_for("stays in")

    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert len(command.matches("stays in")) == 1
    assert len(command.matches("works now")) == 1
    assert len(command.matches("cleaned up")) == 1


def test_a_function_of_the_command_line_that_is_not_there_is_told_and_the_workers_work(run, folder):
    command = run("", "-p", "1", "-f", "app:no_such_function")
    command.wait_for(r"ERROR.* could not find the fork function 'app:no_such_function'")

    enqueue(folder, "say", "hello")
    command.wait_for("said hello")


SECOND_WORKER_WAITS = """
import os, time
import app
try:
    (app.HERE / "first").mkdir()
except FileExistsError:
    app.tell("waits")
    while not (app.HERE / "go").exists():
        time.sleep(0.01)  # the test makes a file, and can tell this process in no other way
"""


def test_fork_functions_wait_until_all_workers_are_ready(run, folder):
    write_module(folder, "slow", SECOND_WORKER_WAITS)
    command = run("app.return_at_once", "slow", "-p", "2", "--verbose")
    command.wait_until_ready()
    enqueue(folder, "say", "hello")
    command.wait_for("said hello")
    assert not command.matches("Fork .* was started")

    (folder / "go").touch()

    command.wait_for("Fork .* was started")


def test_fork_functions_wait_no_longer_than_the_timeout(run, folder):
    write_module(folder, "slow", SECOND_WORKER_WAITS)
    command = run("app.return_at_once", "slow", "-p", "2", "--worker-fork-timeout", "50ms", "--use-spawn")

    command.wait_for("returned in")

    assert len(command.wait_until_ready()) == 1


def test_a_function_never_runs_twice_at_once_however_fast_reloads_follow(run, folder):
    write_module(
        folder,
        "slow",
        """
        import time
        import app
        def stay():
            app.tell("slow stays")
            try:
                while True:
                    time.sleep(60)
            except SystemExit:
                app.tell("cleans up")
                while not (app.HERE / "go").exists():
                    time.sleep(0.01)  # the test makes a file, and can tell this process in no other way
                app.tell("has left")
                raise
        """,
    )
    command = run("__import__('slow').stay", "-p", "1", "--verbose")
    command.wait_for("slow stays")
    for count in (1, 2):
        command.send(signal.SIGHUP)
        command.wait_for("as part of the reload", count)  # the old worker is gone, and the functions are seen to
    command.wait_for("cleans up")
    assert len(command.matches(r"Fork slow:stay \(PID \d+\) was started")) == 1

    (folder / "go").touch()
    command.wait_for("slow stays", 2)

    assert len(command.matches("has left")) == 1
    assert len(command.matches(r"Fork slow:stay \(PID \d+\) was started")) == 2


def test_a_reload_ends_functions_that_are_gone_from_the_code(run, folder):
    command = run("app.stay", "-p", "1")
    command.wait_for("stays")
    write_module(folder, "use", "import app\n")

    command.send(signal.SIGHUP)
    command.wait_for("cleaned up")
    command.wait_for("as part of the reload")

    assert len(command.matches("stays in")) == 1


def test_a_fork_function_ends_with_its_supervisor(run):
    command = run("app.stay", "-p", "1")
    (pid,) = command.wait_for(r"stays in (\d+)")

    command.send(signal.SIGKILL)

    command.wait_for("cleaned up")
    until(lambda: gone(int(pid)))


def test_a_second_signal_kills_fork_functions_too(run, folder):
    write_module(
        folder,
        "stubborn",
        """
        import time
        import app
        def stay():
            while True:
                try:
                    app.tell("stays")
                    time.sleep(60)
                except SystemExit:
                    app.tell("does not go")
        """,
    )
    command = run("__import__('stubborn').stay", "-p", "1")
    command.wait_for("stays")
    command.send(signal.SIGTERM)
    command.wait_for("does not go")

    command.send(signal.SIGTERM)

    assert command.exit_code() == 1
