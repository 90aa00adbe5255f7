"""greenq-worker: how it starts, stops, reloads and replaces, seen from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.command import APP, ROOT, enqueue, waiting, write_module
from tests.support.waiting import PATIENCE_S, until

TIMESTAMP = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\]"


# -- start


def test_the_banner_is_printed_once_and_a_job_runs(run, folder):
    command = run("app:broker", "-p", "2", "-c", "7")
    command.wait_until_ready(2)

    enqueue(folder, "say", "hello")
    command.wait_for("said hello")

    for fact in ("queues +default", "actors +3 from app", "workers +2 processes x 7 greenlets", r"ready in \d+ ms"):
        assert len(command.wait_for(fact)) == 1


def test_a_checkout_runs_the_command_without_being_installed(run, folder):
    command = run("app", "-p", "1", program=(str(ROOT / "bin" / "greenq-worker"),), PYTHONPATH="")
    command.wait_until_ready()
    command.send(signal.SIGTERM)

    assert command.exit_code() == 0


def test_the_main_process_imports_neither_gevent_nor_the_module(run, folder):
    # importtime is of the main process alone: its workers are started without it.
    command = run("app", "-p", "1", program=("-X", "importtime", "-m", "greenq"))
    command.wait_until_ready()
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0

    imported = {line.rpartition("|")[2].strip() for line in command.lines if line.startswith("import time:")}
    assert "greenq.supervisor.supervisor" in imported
    assert not {name for name in imported if name.split(".")[0] in ("gevent", "greenlet", "app", "sqlite3")}


def test_workers_are_patched_before_anything_of_greenq_is_imported(run, folder):
    write_module(
        folder,
        "probe",
        """
        import logging, sys, threading
        from gevent.monkey import is_module_patched
        names = list(sys.modules)
        first = next(name for name in names if name.split(".")[0] == "greenq")
        early = names.index("gevent.monkey") < names.index(first)
        logging.getLogger("probe").info("patched %s early %s", is_module_patched("threading"), early)
        """,
    )
    command = run("app", "probe", "-p", "1")

    assert command.wait_for(r"patched (\w+) early (\w+)") == [("True", "True")]


def test_user_code_sees_an_empty_signal_mask(run, folder):
    write_module(
        folder,
        "probe",
        """
        import logging, signal
        from greenq import actor
        def mask():
            return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        logging.getLogger("probe").info("import mask %s", mask())
        @actor
        def tell_mask():
            logging.getLogger("probe").info("job mask %s", mask())
        """,
    )
    # The one who starts the command may block signals too.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR1))
    try:
        command = run("app", "probe", "-p", "1")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    command.wait_until_ready()
    enqueue(folder, "tell_mask")

    assert command.wait_for(r"import mask (.*)") == ["[]"]
    assert command.wait_for(r"job mask (.*)") == ["[]"]


def test_a_module_that_cannot_be_imported_ends_the_command_with_one_traceback(run, folder):
    write_module(folder, "broken", "import no_such_thing\n")
    command = run("app", "broken", "-p", "3")

    assert command.exit_code() == 2
    assert len(command.matches("No module named 'no_such_thing'")) == 2  # the line, and its traceback
    assert len(command.matches("Traceback")) == 1
    assert 'broken.py", line 1' in command.log
    assert f"It was looked for in:\n  {folder}\n" in command.log


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("nothing", "No module named 'nothing'"),
        ("app:nobody", "has no 'nobody'"),
        ("app:HERE", "not a broker"),
    ],
)
def test_a_broker_that_cannot_be_found_ends_the_command(run, spec, told):
    command = run(spec, "-p", "1")

    assert command.exit_code() == 2
    assert told in command.log


def test_a_function_as_the_broker_is_called_and_the_global_broker_used(run, folder):
    write_module(folder, "factory", "def make():\n    import app\n")
    command = run("factory:make", "-p", "1")
    command.wait_until_ready()

    enqueue(folder, "say", "made")
    command.wait_for("said made")


def test_a_broker_in_memory_is_refused(run, folder):
    write_module(folder, "inmemory", "import greenq\n")
    command = run("inmemory", "-p", "1", GREENQ_BROKER_URL="memory://")

    assert command.exit_code() == 2
    assert "in the memory of one process" in command.log
    assert "Traceback" not in command.log


def test_a_file_that_cannot_be_made_ends_the_command_with_one_line(run, folder):
    write_module(folder, "away", APP.replace('"queue.db"', '"no/such/folder/queue.db"'))
    command = run("away", "-p", "2")

    assert command.exit_code() == 3
    assert len(command.matches("the broker cannot be used")) == 1
    assert "Traceback" not in command.log


def test_a_worker_without_actors_warns(run, folder):
    write_module(folder, "empty", "from greenq.brokers.sqlite import SqliteBroker\nbroker = SqliteBroker('queue.db')\n")
    command = run("empty:broker", "-p", "2")

    command.wait_for(r"WARNING\] No actors are declared: empty:broker")


MANY_DESCRIPTORS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
from greenq.__main__ import main
sys.exit(main())
"""


def test_a_worker_hears_its_supervisor_who_has_a_thousand_files_open(run):
    # As that of hundreds of workers has, whose pipes they are.
    command = run("app", "-p", "1", "--worker-shutdown-timeout", "2s", program=("-c", MANY_DESCRIPTORS))
    command.wait_until_ready()

    command.send(signal.SIGTERM)

    assert command.exit_code() == 0


def test_options_of_more_than_a_pipe_takes_reach_the_workers(run):
    modules = ["app"] * 20_000  # words of the command line are told as they stand, too
    command = run("app", *modules, "-p", "1", "-f", "app:log")

    command.wait_until_ready()
    command.wait_for(r"Fork app:log .*: it could not go on: TypeError")


def test_a_queue_of_which_there_is_no_actor_is_a_warning_with_the_nearest_name(run):
    command = run("app", "-p", "2", "-Q", "default", "defualt", "mail")
    command.wait_until_ready(2)

    misspelt, unknown = command.wait_for(r"WARNING\] No actor is declared on the queue (.*)", 2)

    assert misspelt == "'defualt' of --queues (did you mean default?)."
    assert unknown == "'mail' of --queues; there are actors of default."


def test_a_wrong_option_is_named_with_what_is_allowed(run):
    command = run("app", "--processes", "none")

    assert command.exit_code() == 2
    assert "--processes/-p: 'none' is not a whole number of 1 or more" in command.log


def test_the_projects_file_and_the_environment_say_what_the_command_line_does_not(run, folder):
    (folder / "pyproject.toml").write_text('[tool.greenq]\nbroker = "app:broker"\nprocesses = 3\nconcurrency = 7\n')
    command = run(GREENQ_PROCESSES="1", greenq_worker_timeot="1", GREENQ_THINGS="1")
    command.wait_until_ready()

    command.wait_for("workers +1 process x 7 greenlets")
    command.wait_for(f"settings +{folder}/pyproject.toml")
    command.wait_for(r"WARNING\].* greenq_worker_timeot \(did you mean GREENQ_WORKER_TIMEOUT\?\) is unknown")
    command.wait_for(r"WARNING\].* GREENQ_THINGS is unknown")


def test_a_wrong_setting_ends_the_command_with_one_line_that_names_it(run, folder):
    command = run("app", GREENQ_RESTART_DELAY="soon")

    assert command.exit_code() == 2
    assert "error: environment variable GREENQ_RESTART_DELAY: 'soon' is not a duration" in command.log
    assert "Traceback" not in command.log


def start_and_hold(run, folder):
    """The command, held on its way: nobody reads its log yet, and no worker was started."""
    os.mkfifo(folder / "log")
    command = run("app", "-p", "1", "--pid-file", "greenq.pid", "--log-file", "log")
    deadline = time.monotonic() + PATIENCE_S
    while not ((folder / "greenq.pid").exists() and (folder / "greenq.pid").read_text()):
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.01)
    return command


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_that_comes_before_any_worker_ends_the_command_well(run, folder, signum):
    command = start_and_hold(run, folder)

    command.send(signum)

    assert command.exit_code() == 0
    assert command.log == ""
    assert not (folder / "greenq.pid").exists()


def test_a_reload_that_comes_before_any_worker_does_no_harm(run, folder):
    command = start_and_hold(run, folder)

    command.send(signal.SIGHUP)
    with (folder / "log").open() as log:
        assert any("Worker process is ready" in line for line in log)
        command.send(signal.SIGTERM)
        log.read()

    assert command.exit_code() == 0


# -- stop


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["the main process", "the group"])
def test_running_jobs_finish_after_a_signal(run, folder, signum, whom):
    command = run("app", "-p", "2")
    command.wait_until_ready(2)
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")

    (command.send if whom == "the main process" else command.send_to_all)(signum)
    command.wait_for("Stopping on")
    (folder / "go").touch()

    assert command.exit_code() == 0
    assert "held on" in command.log


def test_jobs_may_be_given_a_hundred_years_to_finish(run, folder):
    command = run("app", "-p", "1", "--worker-shutdown-timeout", "36525d")
    command.wait_until_ready()
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")

    command.send(signal.SIGTERM)
    command.wait_for("Stopping: running jobs may finish")
    (folder / "go").touch()

    assert command.exit_code() == 0
    assert "held on" in command.log
    assert "Traceback" not in command.log


def test_a_second_signal_kills(run, folder):
    command = run("app", "-p", "2")
    command.wait_until_ready(2)
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")

    command.send(signal.SIGTERM)
    command.wait_for("Stopping on")
    command.send(signal.SIGINT)

    assert command.exit_code() == 1


def test_work_given_back_at_the_deadline_is_told_by_the_exit_code(run, folder):
    command = run("app", "-p", "1", "--worker-shutdown-timeout", "200ms")
    command.wait_until_ready()
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")

    command.send(signal.SIGTERM)

    assert command.exit_code() == 7
    assert waiting(folder) == 1


def test_a_worker_that_hangs_in_an_import_stops_at_once(run, folder):
    write_module(folder, "slow", "import logging, time\nlogging.getLogger('slow').info('asleep')\ntime.sleep(600)\n")
    command = run("app", "slow", "-p", "2")
    command.wait_for("asleep", 2)

    command.send(signal.SIGTERM)

    assert command.exit_code() == 0


def test_workers_stop_when_the_main_process_is_killed(run, folder):
    command = run("app", "-p", "2")
    command.wait_until_ready(2)
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")

    command.send(signal.SIGKILL)
    command.wait_for("The supervisor has died", 2)
    (folder / "go").touch()

    command.wait_for_workers()
    assert "held on" in command.log


# -- reload


def test_a_reload_runs_the_new_code_and_loses_no_running_job(run, folder):
    command = run("app", "-p", "2")
    old = command.wait_until_ready(2)
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")

    write_module(folder, "app", APP.replace("said %s", "said, newly, %s"))
    command.send(signal.SIGHUP)
    command.wait_for("Reloaded")
    (folder / "go").touch()
    command.wait_for(r"Worker \d \(PID \d+\) exited with code 0, as part of the reload", 2)
    enqueue(folder, "say", "hello")

    command.wait_for("said, newly, hello")
    assert "held on" in command.log
    assert len(set(command.wait_until_ready(4)) - set(old)) == 2


def test_a_reload_of_broken_code_keeps_the_present_workers(run, folder):
    command = run("app", "-p", "2")
    command.wait_until_ready(2)

    write_module(folder, "app", "import no_such_thing\n")
    command.send(signal.SIGHUP)
    command.wait_for(r"ERROR\] The reload was given up")
    enqueue(folder, "say", "still here")
    command.wait_for("said still here")

    assert len(command.matches("Traceback")) == 1
    assert len(command.wait_until_ready(2)) == 2


# -- deaths


#: Minutes pass for a reload when there is a file.
IN_A_HURRY = """
import os, sys, time
from types import SimpleNamespace
from greenq.__main__ import main
from greenq.supervisor import reload
passed = {"a minute": 61, "ten minutes": 601}
now = lambda: time.monotonic() + sum(each for name, each in passed.items() if os.path.exists(name))
reload.time = SimpleNamespace(monotonic=now)
sys.exit(main())
"""

HANGS = """
import ctypes
open("a minute", "w").close()
ctypes.CDLL(None).sleep(3600)
"""


def test_a_reload_to_code_whose_import_hangs_is_told_of_and_given_up_with_its_stack(run, folder):
    command = run("app", "-p", "1", program=("-c", IN_A_HURRY))
    command.wait_until_ready()

    write_module(folder, "app", HANGS)
    command.send(signal.SIGHUP)
    command.wait_for("The reload still waits after 60 s: 1 of the new workers are not ready, Worker 1 ")
    (folder / "ten minutes").touch()

    command.wait_for("The reload was given up, .* because it was stuck: it was not ready after 600 s")
    assert 'app.py", line 4 in <module>' in command.log
    enqueue(folder, "say", "still here")
    command.wait_for("said still here")


def test_what_a_killed_worker_held_runs_on_a_living_one_and_the_worker_is_replaced(run, folder):
    command = run("app", "-p", "2")
    command.wait_until_ready(2)
    enqueue(folder, "hold", "on")
    victim = int(command.wait_for(r"holding on in (\d+)")[0])

    os.kill(victim, signal.SIGKILL)

    command.wait_for("Returned 1 messages that worker")
    assert int(command.wait_for(r"holding on in (\d+)", 2)[1]) != victim
    command.wait_for(rf"CRITICAL\] Worker \d \(PID {victim}\) was killed by SIGKILL")
    command.wait_until_ready(3)


def test_what_the_only_worker_held_is_taken_back_by_its_replacement(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()
    enqueue(folder, "hold", "on")
    victim = int(command.wait_for(r"holding on in (\d+)")[0])

    os.kill(victim, signal.SIGKILL)

    assert int(command.wait_for(r"holding on in (\d+)", 2)[1]) != victim


def test_what_a_worker_held_that_ended_itself_with_code_0_is_taken_back_at_once(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()

    enqueue(folder, "leave", "os._exit")

    command.wait_for("left by os._exit, and back")


def test_sys_exit_in_a_greenlet_of_a_job_ends_nothing_else(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()

    enqueue(folder, "leave", "sys.exit")

    command.wait_for("still here after sys.exit")
    enqueue(folder, "say", "hello")
    command.wait_for("said hello")
    assert not command.matches("is replaced")


CRASHING = """
import sys
from greenq.log_lines import configure
from greenq.supervisor import Launch, Supervisor

configure(level=10)
launch = Launch(command=(sys.executable, "-S", "-c", "import os; os._exit(9)"), environment={}, options={})
supervisor = Supervisor(launch, processes=2, stop_timeout_ms=1000, announce=print, restart_delays_s=(0,) * 9)
sys.exit(supervisor.run())
"""


def test_workers_that_die_again_and_again_are_given_up(run):
    command = run(program=("-c", CRASHING))

    assert command.exit_code() == 5
    assert len(command.matches(r"Giving up: worker \d died 10 times in a row")) == 1


# -- pid file


def test_a_second_command_with_the_same_pid_file_is_refused(run, folder):
    first = run("app", "-p", "1", "--pid-file", "greenq.pid")
    first.wait_until_ready()
    assert (folder / "greenq.pid").read_text() == f"{first.pid}\n"

    second = run("app", "-p", "1", "--pid-file", "greenq.pid")
    assert second.exit_code() == 4
    assert f"in use by process {first.pid}" in second.log

    first.send(signal.SIGTERM)
    assert first.exit_code() == 0
    assert not (folder / "greenq.pid").exists()


def test_a_pid_file_of_a_killed_command_is_replaced(run, folder):
    first = run("app", "-p", "1", "--pid-file", "greenq.pid")
    first.wait_until_ready()
    first.send(signal.SIGKILL)
    first.wait_for_workers()

    second = run("app", "-p", "1", "--pid-file", "greenq.pid")
    second.wait_until_ready()

    assert (folder / "greenq.pid").read_text() == f"{second.pid}\n"


# -- log


def test_every_process_appends_whole_lines_to_the_log_file(run, folder):
    (folder / "greenq.log").write_text("before\n")
    command = run("app", "-p", "2", "--log-file", "greenq.log")
    enqueue(folder, "say", "one\nline \x1b[31mé redis://me:secret@host/0")
    follow(folder, "greenq.log", "said one")
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0

    lines = (folder / "greenq.log").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert any(line.endswith(r"said one\nline \x1b[31mé redis://me:***@host/0") for line in lines)
    assert command.log == ""


def test_after_a_reload_the_log_goes_on_in_a_new_file_where_the_old_one_was_moved_away(run, folder):
    command = run("app", "-p", "1", "--log-file", "greenq.log")
    follow(folder, "greenq.log", "Worker process is ready")
    (folder / "greenq.log").rename(folder / "greenq.log.1")

    command.send(signal.SIGHUP)
    follow(folder, "greenq.log", "as part of the reload")
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0

    old, new = ((folder / name).read_text() for name in ("greenq.log.1", "greenq.log"))
    assert [text in old for text in ("Reloading on SIGHUP", "Stopped.", "Exiting with code 0")] == [False, True, False]
    assert [text in new for text in ("Reloading on SIGHUP", "Stopped.", "Exiting with code 0")] == [True, True, True]


def test_a_log_file_that_was_moved_away_is_left_by_all_but_the_present_workers(run, folder):
    fork = "\n\ndef wait():\n    log.info('waiting')\n    time.sleep(3600)\n"
    write_module(folder, "app", APP + fork)
    command = run("app", "-p", "1", "--log-file", "greenq.log", "--health", "0", "--fork-function", "app:wait")
    follow(folder, "greenq.log", "waiting")
    worker = re.search(r"\[PID (\d+)\].* Worker process is ready", (folder / "greenq.log").read_text())[1]
    (folder / "greenq.log").rename(folder / "greenq.log.1")

    def who_writes_to(name):
        family = [psutil.Process(command.pid), *psutil.Process(command.pid).children()]
        return {each.pid for each in family if any(file.path == str(folder / name) for file in each.open_files())}

    assert len(who_writes_to("greenq.log.1")) == 4
    write_module(folder, "app", "import no_such_thing\n")
    command.send(signal.SIGHUP)
    follow(folder, "greenq.log", "The reload was given up")

    until(lambda: who_writes_to("greenq.log.1") == {int(worker)})
    until(lambda: len(who_writes_to("greenq.log")) == 3)


def follow(folder, log, text):
    """Wait until the log file contains this."""
    subprocess.run([sys.executable, "-c", FOLLOW, log, text], cwd=folder, timeout=20, check=True)


FOLLOW = """
import os, sys, time
while not os.path.exists(sys.argv[1]) or sys.argv[2] not in open(sys.argv[1]).read():
    time.sleep(0.01)
"""


def test_a_log_file_that_cannot_be_written_is_a_wrong_option(run):
    command = run("app", "--log-file", "no/such/folder/log")

    assert command.exit_code() == 2
    assert "--log-file" in command.log
