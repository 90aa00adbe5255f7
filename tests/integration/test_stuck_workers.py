"""What the supervisor does about workers that are stuck or die, seen with workers that act it."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.command import ROOT, Command

SUPERVISE = """
import os, sys
from greenq.log_lines import configure
from greenq.supervisor import Launch, Supervisor

folder, role, processes = sys.argv[1:]
configure(level=10)
command = (sys.executable, "-m", "tests.support.acting_worker", folder, role)
launch = Launch(command=command, environment=dict(os.environ), options={})
supervisor = Supervisor(launch, processes=int(processes), stop_timeout_ms=1000, announce=lambda facts, first: None)
sys.exit(supervisor.run())
"""


#: The system has nobody to reap: all that were killed hang in it.
NOBODY_ENDS = """
import os
from greenq.supervisor import child
child._REAP_AFTER_KILL_S = 0.2
os.waitpid = lambda pid, options: (0, 0)
"""


@pytest.fixture
def supervise(tmp_path):
    """Starts a supervisor whose first worker plays this role; ends everything after the test."""
    commands = []

    def start(role, processes=1, *, first=""):
        command = Command(ROOT, str(tmp_path), role, str(processes), program=("-c", first + SUPERVISE))
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()


def taken_back(command, how="told (?:first )?"):
    """What the one who takes back was told, at its start or later."""
    return json.loads(command.wait_for(how + r'(\{.*"worker_id".*\})')[0])


def pid_of_the_first(command):
    return int(command.wait_for(r"Worker 1 \(PID (\d+)\) was started")[0])


def test_a_worker_whose_job_is_past_its_hard_limit_is_killed_and_its_stack_logged(supervise):
    command = supervise("spins", 2)
    pid = pid_of_the_first(command)

    (line,) = command.wait_for(rf"(ERROR\] Worker 1 \(PID {pid}\) was killed by SIGKILL.*)")

    assert "because it was stuck: a job kept it busy beyond its time limit and --hard-limit" in line
    assert " MiB; message spinner had the CPU." in line
    command.wait_for(r'acting_worker.py", line \d+ in _spin')
    told = taken_back(command)
    assert (told["worker_id"], told["charge"]) == (f"id-{pid}", ["spinner"])
    assert told["cause"].startswith("was killed by SIGKILL, because it was stuck: a job kept it busy")
    assert told["cause"].endswith(" MiB")
    command.wait_for("Worker 1 is replaced at once")


def test_a_worker_whose_interpreter_is_held_by_c_code_is_killed_with_its_stacks(supervise):
    command = supervise("holds_the_interpreter", 2)

    (line,) = command.wait_for(r"(ERROR\] Worker 1 .* was killed by SIGKILL.*)")

    assert "nothing in it moved for 1 s, two thirds of its lease" in line
    assert "message holder had the CPU" in line
    command.wait_for("in holds_the_interpreter")
    assert taken_back(command)["charge"] == ["holder"]


def test_a_worker_that_tells_of_an_overdue_job_is_killed_and_that_job_charged(supervise):
    command = supervise("is_overdue", 2)

    (line,) = command.wait_for(r"(ERROR\] Worker 1 .* was killed by SIGKILL.*)")

    assert "message overdue-id of resize went on beyond its time limit of 2 s and --hard-limit" in line
    assert taken_back(command)["charge"] == ["overdue-id"]


def test_what_a_killed_one_held_is_told_its_replacement_at_its_start_where_nobody_else_lives(supervise):
    command = supervise("spins", 1)
    pid = pid_of_the_first(command)

    told = taken_back(command, "told first ")

    assert (told["worker_id"], told["charge"]) == (f"id-{pid}", ["spinner"])
    command.wait_for("Worker 1 .* was started", 2)
    assert not command.matches('"command": "take_back"')


def test_a_segfault_is_told_with_its_traceback_its_memory_and_its_message(supervise):
    command = supervise("segfaults", 2)

    (line,) = command.wait_for(r"(CRITICAL\] Worker 1 .* was killed by SIGSEGV.*)")

    assert " MiB; message breaker had the CPU." in line
    command.wait_for("Fatal Python error: Segmentation fault")
    command.wait_for("in segfaults")
    told = taken_back(command)
    assert told["charge"] == ["breaker"]
    assert told["cause"].startswith("was killed by SIGSEGV; ")


def test_a_death_at_which_no_job_had_the_cpu_charges_nobody(supervise):
    command = supervise("segfaults_in_nobodys_job", 2)

    assert taken_back(command)["charge"] == []
    (line,) = command.wait_for(r"(CRITICAL\] Worker 1 .* was killed by SIGSEGV.*)")
    assert "had the CPU" not in line


def test_a_suspect_that_ran_alone_is_charged_whoever_had_the_cpu(supervise):
    command = supervise("dies_of_the_one_that_runs_alone", 2)

    assert taken_back(command)["charge"] == ["suspect"]
    (line,) = command.wait_for(r"(CRITICAL\] Worker 1 .* was killed by SIGKILL.*)")
    assert line.endswith("; message suspect ran alone.")


def test_a_suspect_that_runs_alone_no_more_is_not_charged(supervise):
    command = supervise("dies_after_one_ran_alone", 2)

    assert taken_back(command)["charge"] == []


def test_a_job_that_ends_its_process_with_code_0_is_charged(supervise):
    command = supervise("exits", 2)

    told = taken_back(command)

    assert (told["charge"], told["cause"].split(";")[0]) == (["leaver"], "exited with code 0")


def test_a_paused_worker_is_killed_and_replaced(supervise):
    command = supervise("waits", 2)
    pid = pid_of_the_first(command)
    command.wait_for("said that it is ready", 2)

    os.kill(pid, signal.SIGSTOP)

    command.wait_for(rf"ERROR\] Worker 1 \(PID {pid}\) was killed by SIGKILL.*or the process was paused")
    assert taken_back(command)["charge"] == []
    command.wait_for(r"Worker 1 .* was started", 2)


def test_a_worker_that_is_killed_because_its_time_to_stop_is_over_charges_nobody(supervise):
    command = supervise("ignores_the_stop", 2)
    pid = pid_of_the_first(command)
    command.wait_for("said that it is ready", 2)

    os.kill(command.pid, signal.SIGHUP)

    command.wait_for(rf"Worker 1 \(PID {pid}\) did not exit in time")
    told = taken_back(command)
    assert (told["worker_id"], told["charge"]) == (f"id-{pid}", [])


def test_a_worker_that_writes_rubbish_where_it_reports_is_understood_where_it_does_not(supervise):
    command = supervise("writes_rubbish", 2)

    assert taken_back(command)["charge"] == ["suspect"]


def test_a_worker_that_reports_without_end_keeps_nobody_from_being_heard_and_stopped(supervise):
    command = supervise("writes_without_end", 2)
    command.wait_for("said that it is ready", 2)

    os.kill(command.pid, signal.SIGTTIN)
    command.wait_for("said that it is ready", 3)
    os.kill(command.pid, signal.SIGTERM)

    assert command.exit_code() == 0


def test_what_one_held_that_a_job_ended_while_it_stopped_is_taken_back(supervise):
    command = supervise("exits_while_it_stops", 2)
    pid = pid_of_the_first(command)
    command.wait_for("said that it is ready", 2)

    os.kill(command.pid, signal.SIGHUP)

    told = taken_back(command)
    assert (told["worker_id"], told["charge"]) == (f"id-{pid}", [])


def test_what_one_held_that_gave_it_back_itself_is_not_taken_back(supervise):
    command = supervise("waits", 1)
    command.wait_for("said that it is ready")

    os.kill(command.pid, signal.SIGHUP)

    command.wait_for(r"Worker 1 \(PID \d+\) exited with code 0, as part of the reload")
    os.kill(command.pid, signal.SIGTERM)
    assert command.exit_code() == 0
    assert not command.matches("worker_id")


def test_a_killed_worker_that_hangs_in_the_kernel_is_told_of_once_and_holds_no_stop_up(supervise):
    command = supervise("spins", first=NOBODY_ENDS)
    pid = pid_of_the_first(command)
    command.wait_for(rf"ERROR\] Worker 1 \(PID {pid}\) was killed and does not end")

    command.send(signal.SIGTERM)

    assert command.exit_code() == 1
    assert len(command.matches("does not end")) == 1
