"""greenq-worker --watch: workers that run the present code, and lose nothing over it."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.command import APP, Command, enqueue, write_module

BY = {"watchfiles": (), "polling": ("--watch-use-polling",)}


@pytest.fixture
def run(run, folder):
    """Starts the command, and waits until it watches."""

    def start(*arguments, **env):
        command = run("app", "-p", "1", "--watch", ".", *arguments, **env)
        command.wait_until_ready()
        command.wait_for(f"Watching {folder} for changes")
        return command

    return start


@pytest.mark.parametrize("by", BY)
def test_a_change_reloads_the_workers_and_a_running_job_finishes(run, folder, by):
    command = run(*BY[by])
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")

    write_module(folder, "app", APP.replace("said %s", "said, newly, %s"))
    command.wait_for(r"Reloading on a change of app\.py")
    command.wait_for("Reloaded")
    (folder / "go").touch()
    command.wait_for("exited with code 0, as part of the reload")
    enqueue(folder, "say", "hello")
    command.wait_for("said, newly, hello")
    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert len(command.matches("held on")) == 1
    assert len(command.matches("Reloading on")) == 1
    assert command.matches("Traceback|KeyboardInterrupt") == []


def test_a_job_that_does_not_finish_in_time_is_run_again_by_the_new_code(run, folder):
    command = run("--worker-shutdown-timeout", "200ms")
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")

    write_module(folder, "app", APP.replace("held %s", "held, newly, %s"))
    command.wait_for("holding on", 2)
    (folder / "go").touch()

    command.wait_for("held, newly, on")


def test_broken_code_keeps_the_present_workers_until_it_is_mended(run, folder):
    command = run()

    write_module(folder, "app", "import no_such_thing\n")
    command.wait_for(r"ERROR\] The reload was given up")
    enqueue(folder, "say", "still here")
    command.wait_for("said still here")
    write_module(folder, "app", APP.replace("said %s", "said, mended, %s"))
    command.wait_for("exited with code 0, as part of the reload")
    enqueue(folder, "say", "hello")

    command.wait_for("said, mended, hello")


def test_files_of_other_patterns_are_watched_on_demand_and_some_are_not(run, folder):
    command = run("-i", "*.yaml", "-x", "ignored*", GREENQ_WATCH_USE_POLLING="yes")

    (folder / "ignored.py").write_text("x = 1\n")
    (folder / "conf").mkdir()
    (folder / "conf" / "a.yaml").write_text("x: 1\n")

    assert command.wait_for(r"Reloading on a change of (\S+):") == ["conf/a.yaml"]


def test_a_watcher_that_dies_is_started_again_and_what_nobody_saw_is_loaded(run, folder):
    command = run("--verbose", "--watch-use-polling")
    (pid,) = command.wait_for(r"Fork greenq\.watcher:watch \(PID (\d+)\) was started")

    os.kill(int(pid), signal.SIGSTOP)
    write_module(folder, "app", APP.replace("said %s", "said, newly, %s"))
    os.kill(int(pid), signal.SIGKILL)
    command.wait_for("exited with code 0, as part of the reload")
    enqueue(folder, "say", "hello")
    command.wait_for("said, newly, hello")
    (folder / "new.py").write_text("")

    command.wait_for(r"Reloading on a change of new\.py")


def test_without_the_extra_the_command_says_what_to_install_or_to_take(folder):
    write_module(
        folder,
        "without",
        """
        import importlib.util, sys
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *more: None if name == "watchfiles" else found(name, *more)
        from greenq.__main__ import main
        sys.exit(main())
        """,
    )
    command = Command(folder, "app", "--watch", ".", program=("-m", "without"))
    try:
        assert command.exit_code() == 2
    finally:
        command.end()

    assert "--watch needs watchfiles, which is not installed: pip install" in command.log
    assert "--watch-use-polling" in command.log
