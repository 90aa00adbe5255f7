"""What is seen of running jobs from outside: greenq top, stack and health, the page of health, USR1."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from greenq.brokers.sqlite import SqliteBroker
from greenq.json_lines import encode
from greenq.message import Message
from tests.support.command import APP as HOLDS
from tests.support.command import ROOT, Command, enqueue, write_module
from tests.support.waiting import PATIENCE_S, until

APP = (
    HOLDS
    + """
@greenq.actor(queue_name="images", time_limit=300_000)
def resize():
    greenq.progress(3, total=10)
    wait_for_go()

def wait_for_go():
    while not (HERE / "go").exists():
        time.sleep(0.1)  # two thousand that looked more often would be why it answers late

@greenq.actor
def compute():
    while not (HERE / "go").exists():
        ends_at = time.monotonic() + 0.005
        while time.monotonic() < ends_at:
            pass
        time.sleep(0.001)

@greenq.actor
def spin():
    log.info("spinning")
    while not (HERE / "go").exists():
        pass
"""
)
#: `greenq` that sees the supervisors of one test alone, and not all that this user runs on the machine.
GREENQ = """
import sys
from greenq import control_socket
from greenq.cli.admin import main
directory = sys.argv.pop(1)
control_socket.directories = lambda: [directory]
sys.exit(main())
"""
SERVED = r"Health is served on http://127\.0\.0\.1:(\d+)/health"


@pytest.fixture
def runtime():
    """The directory of control sockets; a short one."""
    with tempfile.TemporaryDirectory(prefix="gq-") as directory:
        yield directory


@pytest.fixture
def run(folder, runtime):
    """Starts the command with its control socket in that directory; ends all of its processes after the test."""
    commands = []

    def start(*arguments, **env):
        command = Command(folder, "app", *arguments, XDG_RUNTIME_DIR=runtime, **env)
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()


@pytest.fixture
def greenq(runtime, folder):
    """Runs `greenq` to its end."""

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-c", GREENQ, f"{runtime}/greenq", *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )

    return call


def put(folder, queue, actor, message_id=None):
    broker = SqliteBroker(str(folder / "queue.db"))
    try:
        broker.declare_queue(queue)
        message = Message(queue, actor, (), {}, {}, **({"message_id": message_id} if message_id else {}))
        broker.enqueue(message)
        return message.message_id
    finally:
        broker.close()


def jobs_of(greenq, command, *arguments):
    return json.loads(greenq("top", "--json", "--pid", command.pid, *arguments).stdout)


def control_path(runtime, command):
    return Path(runtime) / "greenq" / f"{command.pid}.sock"


# -- top and stack


def test_top_lists_the_jobs_of_all_workers(run, folder, greenq):
    command = run("-p", "2", "-c", "1")
    pids = command.wait_until_ready(2)
    ids = {put(folder, "images", "resize") for _ in range(2)}
    until(lambda: jobs_of(greenq, command)["count"] == 2)

    jobs = jobs_of(greenq, command)["jobs"]
    shown = greenq("top", "--sort", "limit")
    grouped = greenq("top", "--pid", command.pid, "--group-by", "top-frame", "--limit", "1")

    assert {job["message_id"] for job in jobs} == ids
    assert {job["pid"] for job in jobs} == set(pids)
    for job in jobs:
        assert (job["actor"], job["queue"], job["done"], job["total"]) == ("resize", "images", 3, 10)
        assert job["function"] == "wait_for_go"
        assert job["file"] == str(folder / "app.py")
        assert 0 < job["left_ms"] <= 300_000
    assert shown.stdout.startswith("2 jobs in flight in 2 workers\n")
    assert all(each in shown.stdout for each in ids)
    assert grouped.stdout.splitlines()[-1].split()[0] == "2"
    assert "wait_for_go" in grouped.stdout


def test_top_tells_which_job_has_the_cpu(run, folder, greenq):
    command = run("-p", "1", "-c", "2")
    command.wait_until_ready()
    put(folder, "images", "resize")
    put(folder, "default", "compute")

    def cpu():
        return {job["actor"]: job["cpu"] for job in jobs_of(greenq, command, "--sort", "cpu")["jobs"]}

    until(lambda: (cpu().get("compute") or 0) > 0.3)
    shares = cpu()
    assert list(shares) == ["compute", "resize"]
    assert shares["compute"] > shares["resize"]


def test_stack_shows_the_whole_way_of_one_job_wherever_it_runs(run, folder, greenq):
    command = run("-p", "2", "-c", "1")
    command.wait_until_ready(2)
    ids = [put(folder, "images", "resize") for _ in range(2)]
    until(lambda: jobs_of(greenq, command)["count"] == 2)

    for message_id in ids:
        shown = greenq("stack", message_id)
        assert shown.returncode == 0
        assert f"Message {message_id} of actor resize, queue images" in shown.stdout
        assert [line.rpartition(" in ")[2] for line in shown.stdout.splitlines()[2:4]] == ["resize", "wait_for_go"]
        told = json.loads(greenq("stack", message_id, "--json").stdout)
        assert [frame["function"] for frame in told["frames"]][:2] == ["resize", "wait_for_go"]
    missing = greenq("stack", "nobody\x1b[2J")
    assert missing.returncode == 1
    assert r"No job of message nobody\x1b[2J is in flight here." in missing.stderr


def test_names_from_messages_do_not_reach_the_terminal_as_they_are(run, folder, greenq):
    command = run("-p", "1")
    command.wait_until_ready()
    put(folder, "images", "resize", message_id="\x1b[2J\nevil")
    until(lambda: jobs_of(greenq, command)["count"] == 1)

    shown = greenq("top").stdout

    assert r"\x1b[2J\nevil" in shown
    assert "\x1b" not in shown


def test_a_worker_whose_hub_does_not_turn_is_named_and_the_others_are_listed(run, folder, greenq):
    command = run("-p", "2", "-c", "1")
    command.wait_until_ready(2)
    put(folder, "images", "resize")
    until(lambda: jobs_of(greenq, command)["count"] == 1)
    guilty = put(folder, "default", "spin")
    (pid,) = command.wait_for(r"\[PID (\d+)\].* spinning")

    told = {}
    until(lambda: told.update(jobs_of(greenq, command)) or told["jobs"])  # of who answers within a second
    health = greenq("health")

    assert [job["actor"] for job in told["jobs"]] == ["resize"]
    assert told["problems"] == [
        f"Worker {number} (PID {pid}) has not answered for 1 s: its hub does not turn, message {guilty} has its CPU."
        for number in "12"
        if f"Worker {number} (" in told["problems"][0]
    ]
    assert health.returncode == 1
    assert f"(PID {pid}) has not answered within 5 s: its hub does not turn, message {guilty}" in health.stdout
    (folder / "go").touch()


def test_without_a_supervisor_it_is_said(greenq):
    for command in ("top", "health"):
        told = greenq(command)
        assert told.returncode == 1
        assert "No greenq-worker of this user runs here" in told.stdout + told.stderr


def test_a_screen_is_drawn_again_and_again_until_q(run, folder, runtime):
    command = run("-p", "1")
    command.wait_until_ready()
    outside, inside = pty.openpty()
    shown = subprocess.Popen(
        [sys.executable, str(ROOT / "bin" / "greenq"), "top", "--interval", "100ms", "--pid", str(command.pid)],
        env={**os.environ, "XDG_RUNTIME_DIR": runtime, "COLUMNS": "150", "LINES": "20"},
        stdin=inside,
        stdout=inside,
    )
    os.close(inside)

    def read_until(text):
        read = b""
        while text not in read:
            read += os.read(outside, 4096)
        return read

    assert read_until(b"0 jobs in flight").startswith(b"\x1b[?1049h")
    put(folder, "images", "resize")
    read_until(b"wait_for_go")
    os.write(outside, b"q")

    read_until(b"\x1b[?1049l")
    assert shown.wait(PATIENCE_S) == 0
    os.close(outside)


# -- the control socket


def test_the_socket_is_the_users_alone_and_gone_with_the_command(run, runtime):
    command = run("-p", "1")
    command.wait_until_ready()
    path = control_path(runtime, command)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0
    assert list(path.parent.iterdir()) == []


def test_the_socket_can_be_elsewhere_or_nowhere(run, runtime, greenq, folder):
    silent = run("-p", "1", "--control", "off")
    elsewhere = run("-p", "1", "--control", f"{runtime}/mine")
    for command in (silent, elsewhere):
        command.wait_until_ready()

    assert greenq("top").returncode == 1
    assert greenq("top", "--control", f"{runtime}/mine").stdout.startswith("0 jobs in flight")
    silent.send(signal.SIGUSR1)  # which needs no socket
    silent.wait_for("SIGUSR1: 0 jobs are in flight")


def test_a_socket_that_was_asked_for_and_cannot_be_ends_the_command_and_the_usual_one_does_not(run, runtime):
    Path(runtime, "greenq").mkdir(mode=0o755)
    Path(runtime, "greenq").chmod(0o755)
    wanted = run("--control", f"{runtime}/no/such")
    usual = run("-p", "1", TMPDIR=runtime)

    assert wanted.exit_code() == 2
    assert wanted.wait_for(r"greenq-worker: error: The control socket .* cannot be made: No such file or directory\.")
    usual.wait_until_ready()


def connect(path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(PATIENCE_S)
    client.connect(str(path))
    return client


def read_all(client):
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(65536):
            data += more
    return data


def test_nonsense_is_answered_with_what_may_be_asked(run, runtime, greenq):
    command = run("-p", "1")
    command.wait_until_ready()

    for said in (b"hello", b"{}", b'{"request":"kill"}', b"[" * 60_000, b"\xff"):
        client = connect(control_path(runtime, command))
        client.sendall(said + b"\n")
        told = {"end": True, "error": "A request is one of jobs, stack, health, as JSON."}
        assert json.loads(read_all(client)) == told
        client.close()

    assert greenq("health").returncode == 0


def test_who_says_nothing_or_too_much_is_dropped_and_nobody_waits(run, runtime, greenq):
    command = run("-p", "1")
    command.wait_until_ready()
    path = control_path(runtime, command)
    silent = [connect(path) for _ in range(16)]
    one_too_many = connect(path)

    assert read_all(one_too_many) == b""
    assert read_all(silent[0]) == b""  # some seconds later
    babbler = connect(path)
    with contextlib.suppress(OSError):
        for _ in range(100):
            babbler.sendall(b"x" * 65536)
    assert read_all(babbler) == b""

    assert greenq("health").returncode == 0
    for client in (*silent, one_too_many, babbler):
        client.close()


def test_who_does_not_read_its_answer_is_dropped_and_nobody_waits(run, runtime, folder, greenq):
    # A thousand jobs are more than a socket takes.
    command = run("-p", "1", "-c", "2000")
    command.wait_until_ready()
    broker = SqliteBroker(str(folder / "queue.db"))
    broker.declare_queue("images")
    broker.enqueue_many([Message("images", "resize", (), {}, {}) for _ in range(2000)])
    broker.close()
    until(lambda: jobs_of(greenq, command)["count"] == 2000)
    idle = connect(control_path(runtime, command))
    idle.sendall(encode({"request": "jobs"}))

    assert greenq("health").returncode == 0
    assert jobs_of(greenq, command)["count"] == 2000
    end = select.poll()
    end.register(idle, 0)  # of its end alone, which is told whatever is unread
    until(lambda: end.poll(0))
    assert b'"end": true' not in read_all(idle)
    idle.close()


# -- USR1


def test_usr1_logs_every_job_with_its_stack(run, folder, greenq):
    command = run("-p", "2", "-c", "2")
    command.wait_until_ready(2)
    ids = [put(folder, "images", "resize") for _ in range(4)]
    until(lambda: jobs_of(greenq, command)["count"] == 4)

    command.send(signal.SIGUSR1)

    command.wait_for(r"SIGUSR1: 2 jobs are in flight\.", 2)
    command.wait_for(r"2 jobs of actor resize in wait_for_go at \S+app\.py:\d+: ", 2)
    command.wait_for(r'app\.py", line \d+, in wait_for_go\n    time\.sleep\(0\.1\)', 2)
    assert all(each in command.log for each in ids)


def test_usr1_harms_nobody_who_gets_it_too_and_says_who_does_not_answer(run, folder):
    command = run("-p", "2", "-c", "1")
    command.wait_until_ready(2)
    enqueue(folder, "spin")
    (pid,) = command.wait_for(r"\[PID (\d+)\].* spinning")

    command.send_to_all(signal.SIGUSR1)

    command.wait_for(rf"\(PID {pid}\) does not answer, so what it runs is not logged")
    command.wait_for(r"SIGUSR1: 0 jobs are in flight")
    (folder / "go").touch()
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0


# -- health


def served(command):
    return int(command.wait_for(SERVED)[-1])


def page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def codes(port):
    return page(port, "/health")[0], page(port, "/ready")[0]


def test_health_and_readiness_from_the_start_to_the_stop(run, folder):
    write_module(folder, "slow", "import pathlib, time\nwhile not pathlib.Path('up').exists(): time.sleep(0.01)\n")
    command = run("slow", "-p", "1", "--health", "0")
    port = served(command)

    until(lambda: codes(port) == (200, 503))
    assert page(port, "/ready")[1]["reasons"] == ["No worker has started yet."]
    (folder / "up").touch()
    until(lambda: codes(port) == (200, 200))
    assert page(port, "/other")[0] == 404
    enqueue(folder, "hold", "one")
    command.wait_for("holding one")
    command.send(signal.SIGTERM)
    until(lambda: codes(port) == (200, 503))
    assert page(port, "/ready")[1]["reasons"] == ["The command is stopping."]
    (folder / "go").touch()

    assert command.exit_code() == 0
    with pytest.raises(urllib.error.URLError):
        page(port, "/health")


@pytest.mark.in_time
@pytest.mark.parametrize("stopped", ["worker", "supervisor"])
def test_a_process_that_is_stopped_is_unhealthy_within_ten_seconds_and_well_when_it_goes_on(run, stopped):
    command = run("-p", "2", "--health", "0")
    pids = command.wait_until_ready(2)
    port = served(command)
    until(lambda: codes(port) == (200, 200))
    pid = pids[0] if stopped == "worker" else command.pid

    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: page(port, "/health")[0] == 503)
    took_s = time.monotonic() - began
    reasons = page(port, "/health")[1]["reasons"]
    os.kill(pid, signal.SIGCONT)

    assert took_s < 10
    assert [(str(pid) if stopped == "worker" else "does not answer") in reason for reason in reasons] == [True]
    until(lambda: codes(port) == (200, 200))


def test_a_reload_does_not_make_it_unready(run):
    command = run("-p", "1", "--health", "0")
    command.wait_until_ready()
    port = served(command)
    until(lambda: codes(port) == (200, 200))

    command.send(signal.SIGHUP)
    seen = set()
    while not command.matches("as part of the reload"):
        seen.add(codes(port))

    assert seen == {(200, 200)}


def test_a_command_that_is_quiet_is_live_and_not_ready(run):
    command = run("-p", "1", "--health", "0")
    command.wait_until_ready()
    port = served(command)
    until(lambda: codes(port) == (200, 200))

    command.send(signal.SIGTSTP)

    until(lambda: codes(port) == (200, 503))
    assert "they are paused" in page(port, "/ready")[1]["reasons"][0]


def test_the_health_command_is_for_health_checks(run, greenq):
    command = run("-p", "1")
    command.wait_until_ready()

    assert greenq("health", "--ready").returncode == 0
    assert json.loads(greenq("health", "--json").stdout)["live"] is True
    assert greenq("health", "--pid", 1).returncode == 1


def test_health_needs_the_control_socket(run):
    command = run("--health", "0", "--control", "off")

    assert command.exit_code() == 2
    assert "--health asks the supervisor by its control socket" in command.log


# -- systemd


def test_systemd_is_told_when_all_workers_are_ready_and_hears_of_the_loop(run, runtime):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"{runtime}/notify")
        systemd.settimeout(PATIENCE_S)
        command = run("-p", "2", NOTIFY_SOCKET=f"{runtime}/notify", WATCHDOG_USEC="200000")

        def wait_for(text):
            while text not in (heard := systemd.recv(4096).decode()):
                pass
            return heard

        wait_for("READY=1\nSTATUS=2 of 2 workers are ready")
        assert len(command.matches("Worker process is ready")) == 2 or command.wait_until_ready(2)
        for _ in range(3):
            wait_for("WATCHDOG=1")
        command.send(signal.SIGHUP)
        wait_for("RELOADING=1\nMONOTONIC_USEC=")
        wait_for("READY=1")
        command.send(signal.SIGTERM)
        wait_for("STOPPING=1")
        assert command.exit_code() == 0
