"""Lanes of greenq-worker: threads and processes beside a real worker's hub, on the embedded broker."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

from tests.support.command import APP as HOLDING_APP
from tests.support.command import enqueue, waiting, write_module
from tests.support.waiting import until

APP = (
    HOLDING_APP
    + """
import ctypes, hashlib, re, threading
from greenq.results import Results
from greenq.results.backends import SqliteBackend

broker.add_middleware(Results(backend=SqliteBackend(str(HERE / "results.db")), store_results=True))

@greenq.actor
def seven():
    return 7

@greenq.actor(lane="process", max_retries=0)
def wait_for_another():
    log.info("the other says %r", seven.send().get_result(block=True))

@greenq.actor(lane="thread", max_retries=0)
def hash_in_thread():
    log.info("hashing in %s", greenq.runtime.current().task_name())
    while not (HERE / "go").exists():
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200_000)
    log.info("hashed")

@greenq.actor(lane="thread", max_retries=0)
def chatter(number):
    for line in range(1000):
        log.info("chatter %d, line %d.", number, line)

@greenq.actor(max_retries=0)
def murmur(number):
    for line in range(1000):
        log.info("murmur %d, line %d.", number, line)

@greenq.actor(lane="process", max_retries=0)
def hold_in_process(text):
    log.info("holding %s in %d, child of %d", text, os.getpid(), os.getppid())
    while not (HERE / "go").exists():
        time.sleep(0.01)
    print("printed", text)
    say.send(text)

@greenq.actor(lane="process", max_retries=0)
def hold_interpreter():
    log.info("holding the interpreter in %d, child of %d", os.getpid(), os.getppid())
    sum(range(10**15))  # looks at no signal, and lets nobody in

@greenq.actor(lane="thread", max_retries=0, time_limit=200)
def sleep_in_c():
    log.info("sleeping in C")
    ctypes.CDLL(None).sleep(600)

@greenq.actor(lane="process", max_retries=0, time_limit=200, soft_time_limit=50)
def add_in_c():
    log.info("adding in C")
    sum(range(10**15))  # looks at no signal, and lets nobody in

@greenq.actor(lane="process", max_retries=0, time_limit=200)
def match():
    re.match(r"(a+)+$", "a" * 40 + "b")

@greenq.actor(lane="process", max_retries=0)
def crash():
    ctypes.string_at(0)

@greenq.actor(lane="process", max_retries=0)
def ignore_the_stop():
    log.info("ignoring the stop in %d", os.getpid())
    while True:
        try:
            time.sleep(600)
        except BaseException as error:
            log.info("ignored %s", type(error).__name__)

@greenq.actor(lane="process", max_retries=0)
def start_a_program():
    import subprocess
    program = subprocess.Popen(["sleep", "600"])
    log.info("started %d in %d", program.pid, os.getpid())
    program.wait()
"""
)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_job_that_computes_in_a_thread_lets_its_neighbours_go_on(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()
    enqueue(folder, "hash_in_thread")
    command.wait_for(r"hashing in lane 1")
    enqueue(folder, "say", "meanwhile")
    command.wait_for("said meanwhile")
    assert not command.matches("hashed")
    (folder / "go").touch()
    command.wait_for("hashed")


def test_threads_and_greenlets_log_at_the_same_time(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()
    for number in range(4):
        enqueue(folder, "chatter", number)
        enqueue(folder, "murmur", number)

    lines = command.wait_for(r"\[INFO\] (chatter|murmur) (\d), line (\d+)\.", 8000)
    assert len(set(lines)) == 8000


def test_a_job_in_a_process_logs_prints_and_sends_as_any_other(run, folder):
    write_module(
        folder,
        "more",
        """
        import greenq, logging, os
        import app

        @greenq.actor(lane="process")
        def more():
            logging.getLogger("more").info("of another module, in %d", os.getpid())
        """,
    )
    command = run("app", "more", "-p", "1", "--lane-processes", "1")
    (worker,) = command.wait_until_ready()
    enqueue(folder, "hold_in_process", "here")
    ((pid, parent),) = command.wait_for(
        r"\[PID (\d+)\] \[lane 1\] \[app\] \[INFO\] holding here in \d+, child of (\d+)"
    )
    assert int(parent) == worker
    assert int(pid) != worker
    (folder / "go").touch()
    command.wait_for("printed here")
    command.wait_for("said here")
    enqueue(folder, "more")
    assert command.wait_for(r"of another module, in (\d+)") == [pid]


def test_a_job_in_a_process_reads_the_result_of_another_message(run, folder):
    command = run("app", "-p", "1")
    enqueue(folder, "wait_for_another")
    command.wait_for("the other says 7")


def test_the_json_log_of_a_process_is_marked_with_the_job(run, folder):
    (folder / "go").touch()
    command = run("app", "-p", "1", "--log-format", "json")
    enqueue(folder, "hold_in_process", "here")
    (line,) = command.wait_for(r'\{.*"message": "holding here.*\}')

    record = json.loads(line)
    assert (record["actor"], record["queue"], record["attempt"], record["task"]) == (
        "hold_in_process",
        "default",
        1,
        "lane 1",
    )
    assert record["message_id"]


def test_limits_and_crashes_in_processes_leave_the_worker_alone(run, folder):
    command = run("app", "-p", "1")
    (worker,) = command.wait_until_ready()
    enqueue(folder, "match")
    command.wait_for("Time limit of 200 ms exceeded in message .* of actor match")
    enqueue(folder, "crash")
    command.wait_for("Fatal Python error: Segmentation fault")
    command.wait_for(r"of actor crash failed: LaneDied: The process of a lane \(PID \d+\) was killed by SIGSEGV")
    enqueue(folder, "say", "still here")
    command.wait_for("said still here")
    assert command.wait_until_ready() == [worker]


def test_the_hard_limit_kills_a_process_alone(run, folder):
    command = run("app", "-p", "1", "--hard-limit", "1s")
    (worker,) = command.wait_until_ready()
    enqueue(folder, "add_in_c")
    command.wait_for("of actor add_in_c still runs after its soft time limit of 50 ms")
    command.wait_for("of actor add_in_c went on for 1 s after its time limit: its process was killed")
    enqueue(folder, "say", "still here")
    command.wait_for("said still here")
    assert command.wait_until_ready() == [worker]


def test_the_hard_limit_kills_the_worker_of_a_thread_that_is_stuck(run, folder):
    command = run("app", "-p", "1", "--hard-limit", "1s")
    (worker,) = command.wait_until_ready()
    enqueue(folder, "sleep_in_c")
    command.wait_for("sleeping in C")
    command.wait_until_ready(2)
    assert not is_alive(worker)


def test_a_process_that_cannot_import_the_application_fails_its_job_and_tells_why(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()
    source = (folder / "app.py").read_text()
    (folder / "app.py").write_text("import no_such_module\n")
    enqueue(folder, "match")
    command.wait_for(
        r"of actor match failed: LaneDied: The process of a lane could not start: it could not import 'app'"
    )
    command.wait_for("No module named 'no_such_module'")

    (folder / "app.py").write_text(source)
    enqueue(folder, "match")
    command.wait_for("Time limit of 200 ms exceeded in message .* of actor match")


@pytest.mark.parametrize("actor", ["hold_in_process", "hold_interpreter"])
def test_a_worker_that_is_killed_takes_its_processes_with_it(run, folder, actor):
    command = run("app", "-p", "1")
    (worker,) = command.wait_until_ready()
    enqueue(folder, actor, *(["here"] if actor == "hold_in_process" else []))
    ((child, parent),) = command.wait_for(r"holding .* in (\d+), child of (\d+)")
    assert int(parent) == worker

    os.kill(worker, signal.SIGKILL)

    until(lambda: not is_alive(int(child)))
    # And the message runs again.
    command.wait_for(r"holding .* in (\d+), child of (\d+)", 2)


def test_a_signal_to_the_whole_group_does_not_strike_a_job_in_a_process(run, folder):
    command = run("app", "-p", "1")
    command.wait_until_ready()
    enqueue(folder, "hold_in_process", "here")
    command.wait_for("holding here")
    command.send_to_all(signal.SIGTERM)
    command.wait_for("Stopping on SIGTERM")
    (folder / "go").touch()

    assert command.exit_code() == 0
    assert command.matches("printed here")
    assert waiting(folder) == 1  # what it has sent


def test_a_stop_gives_the_message_of_a_process_back_that_ignores_it(run, folder):
    command = run("app", "-p", "1", "--worker-shutdown-timeout", "3s")  # a tenth of it is for the end of the job
    command.wait_until_ready()
    enqueue(folder, "ignore_the_stop")
    (child,) = command.wait_for(r"ignoring the stop in (\d+)")
    command.send(signal.SIGTERM)

    assert command.exit_code() == 7
    assert command.matches("ignored Shutdown")
    assert not is_alive(int(child))
    assert waiting(folder) == 1


def test_what_a_job_has_started_is_killed_with_its_process(run, folder):
    command = run("app", "-p", "1", "--worker-shutdown-timeout", "0")
    command.wait_until_ready()
    enqueue(folder, "start_a_program")
    ((program, child),) = command.wait_for(r"started (\d+) in (\d+)")
    command.send(signal.SIGTERM)

    assert command.exit_code() == 7
    until(lambda: not is_alive(int(program)) and not is_alive(int(child)))
