"""greenq-worker and its broker: one that is away at the start, or later, and one that refuses."""

from __future__ import annotations

import os
import signal
import sqlite3
import time

import pytest

from greenq.brokers.redis import RedisBroker
from greenq.message import Message
from tests.support.command import APP, Command, write_module
from tests.support.redis_server import redis_server
from tests.support.redis_tls import shared_tls_server

REDIS_APP = APP.replace(
    "from greenq.brokers.sqlite import SqliteBroker", "from greenq.brokers.redis import RedisBroker"
)
REDIS_APP = REDIS_APP.replace('SqliteBroker(str(HERE / "queue.db"))', 'RedisBroker(url=os.environ["APP_REDIS"])')


@pytest.fixture
def server():
    with redis_server() as server:
        yield server


@pytest.fixture
def away(server):
    """A server that is not there yet."""
    server.stop()
    return server


@pytest.fixture
def folder(tmp_path):
    """A directory with the module ``app``, whose broker is the Redis server."""
    write_module(tmp_path, "app", REDIS_APP)
    return tmp_path


@pytest.fixture
def run(folder, server):
    """Starts the command in that directory; ends all of its processes after the test."""
    commands = []

    def start(*arguments, url=server.url, **options):
        command = Command(folder, *arguments, APP_REDIS=url, **options)
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()


def enqueue(server, actor_name, *args):
    broker = RedisBroker(url=server.url)
    try:
        broker.declare_queue("default")
        broker.enqueue(Message("default", actor_name, args, {}, {}))
    finally:
        broker.close()
        broker.client.close()


# -- away at the start


def test_a_broker_that_comes_up_late_is_used_and_the_wait_is_told_once(run, away):
    command = run("app", "-p", "3")
    command.wait_for(r"WARNING\] Worker \d \(PID \d+\) waits: the broker is away\. .* Trying again for 30 s")

    away.start()
    command.wait_until_ready(3)
    enqueue(away, "say", "hello")
    command.wait_for("said hello")

    assert len(command.matches("Trying again")) == 1
    assert not command.matches("could not start")


def test_a_broker_that_stays_away_ends_the_command_with_one_line(run, away):
    started = time.monotonic()
    url = f"redis://user:secret@127.0.0.1:{away.port}/0"
    command = run("app", "-p", "3", "--wait-for-broker", "1s", url=url)

    assert command.exit_code() == 3
    assert time.monotonic() - started > 1
    (line,) = command.matches(r"CRITICAL\] (.*)")
    assert f"127.0.0.1:{away.port}" in line
    assert "could not start: the broker is away" in line
    assert "for 1 s" in line
    assert "--wait-for-broker" in line
    assert "secret" not in command.log
    assert "Traceback" not in command.log


def test_a_wait_of_zero_is_one_try(run, away):
    command = run("app", "-p", "2", "--wait-for-broker", "0")

    assert command.exit_code() == 3
    assert len(command.matches("It was tried once")) == 1
    assert not command.matches("waits: ")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["the main process", "the group"])
def test_a_signal_ends_the_wait_at_once_and_well(run, away, signum, whom):
    command = run("app", "-p", "2", "--wait-for-broker", "10m")
    command.wait_for("waits: the broker is away")

    (command.send if whom == "the main process" else command.send_to_all)(signum)

    assert command.exit_code() == 0
    assert not command.matches("CRITICAL|ERROR")


def test_workers_that_wait_end_when_the_main_process_is_killed(run, away):
    command = run("app", "-p", "2", "--wait-for-broker", "10m")
    command.wait_for("waits: the broker is away")

    command.send(signal.SIGKILL)

    command.wait_for_workers()


def test_a_module_that_needs_the_broker_to_be_imported_is_told_with_one_line(run, folder, away):
    write_module(folder, "app", REDIS_APP + "\nsay.send('so early')\n")
    command = run("app", "-p", "2")

    assert command.exit_code() == 3
    (line,) = command.matches(r"CRITICAL\] (.*)")
    assert f"it could not import 'app', which uses the broker. Redis at 127.0.0.1:{away.port}" in line
    assert "Traceback" not in command.log


def test_what_is_unfit_about_a_server_is_told_once_for_all_workers_and_their_replacements(run, server):
    command = run("app", "-p", "3")
    victim = command.wait_until_ready(3)[0]

    os.kill(victim, signal.SIGKILL)
    command.wait_until_ready(4)

    remark = rf"WARNING\] Redis at 127\.0\.0\.1:{server.port} writes nothing to disk"
    assert len(command.matches(remark)) == 1


# -- a broker that refuses


def test_a_wrong_password_is_not_waited_for(run, server):
    server.client().config_set("requirepass", "right")
    command = run("app", "-p", "2", "--wait-for-broker", "10m", url=server.url.replace("//", "//:wrong@"))

    assert command.exit_code() == 3
    (line,) = command.matches(r"CRITICAL\] (.*)")
    assert f"the broker cannot be used. Redis at 127.0.0.1:{server.port} refused" in line
    assert not command.matches("waits: ")


def test_a_certificate_that_cannot_be_verified_is_not_waited_for(run):
    url = shared_tls_server().url.partition("?")[0]
    command = run("app", "-p", "2", "--wait-for-broker", "10m", url=url)

    assert command.exit_code() == 3
    (line,) = command.matches(r"CRITICAL\] (.*)")
    assert "the broker cannot be used. Redis at 127.0.0.1" in line
    assert "ssl_ca_certs=" in line
    assert "stored" not in line
    assert not command.matches("waits: ")


def test_a_file_that_is_no_database_is_not_waited_for(run, folder):
    write_module(folder, "app", APP)
    (folder / "queue.db").write_text("Dear diary, " * 1000)
    command = run("app", "-p", "2", "--wait-for-broker", "10m")

    assert command.exit_code() == 3
    assert len(command.matches("the broker cannot be used. .*queue.db is not a database")) == 1
    assert not command.matches("waits: ")


# -- away later


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_that_dies_while_the_broker_is_away_is_replaced_by_one_that_waits(run, server, processes):
    command = run("app", "-p", str(processes), "--wait-for-broker", "0")
    victim = command.wait_until_ready(processes)[0]
    server.stop()
    command.wait_for("The broker is away", processes)

    os.kill(victim, signal.SIGKILL)
    command.wait_for(r"waits: the broker is away\. .* Trying again as long as it takes")
    server.start()
    command.wait_until_ready(processes + 1)
    enqueue(server, "say", "hello")

    command.wait_for("said hello")
    assert not command.matches("could not start")


def test_a_reload_while_the_broker_is_away_is_given_up_and_ends_nothing(run, server):
    command = run("app", "-p", "2", "--wait-for-broker", "500ms")
    command.wait_until_ready(2)
    server.stop()
    command.wait_for("The broker is away", 2)

    command.send(signal.SIGHUP)
    command.wait_for("waits: the broker is away")
    command.wait_for(r"ERROR\] The reload was given up")
    server.start()
    enqueue(server, "say", "hello")

    command.wait_for("said hello")
    assert len(command.matches("could not start")) == 1


@pytest.mark.in_time
def test_a_stop_beside_a_broker_that_stands_still_ends_in_its_time(run, server):
    command = run("app", "-p", "1", "--worker-shutdown-timeout", "1s")
    enqueue(server, "say", "hello")
    command.wait_for("said hello")
    server.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()

    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert time.monotonic() - began < 4  # of 10 s: two answers are waited for, 5 s each
    assert len(command.matches(r"WARNING\] The broker did not answer in time.* when the lease ends")) == 1


#: A worker that becomes ready once and dies; those after it find no broker.
UNLUCKY = """
import os, pathlib, sys
starts = pathlib.Path("starts")
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
if number == 0:
    os.write(int(sys.argv[-1]), b'{"event":"ready","worker_id":null}\\n')
os._exit(9 if number == 0 else 3)
"""
SUPERVISED = f"""
import sys
from greenq.log_lines import configure
from greenq.supervisor import Launch, Supervisor

configure(level=10)
launch = Launch(command=(sys.executable, "-S", "-c", {UNLUCKY!r}), environment={{}}, options={{}})
supervisor = Supervisor(
    launch, processes=1, stop_timeout_ms=1000, announce=lambda *_: None, restart_delays_s=(0,) * 9
)
sys.exit(supervisor.run())
"""


def test_workers_that_find_no_broker_when_they_are_started_again_are_never_given_up(run, folder):
    command = run(program=("-c", SUPERVISED))

    command.wait_for("Worker 1 is replaced at once", 20)
    command.wait_for(r"Worker 1 \(PID \d+\) exited with code 3", 19)
    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert not command.matches("Giving up")


# -- the lease


@pytest.fixture
def lease_ms(server):
    """How long the lease of the one worker still lasts, by the server's clock."""

    def left():
        client = server.client()
        ((_, until_ms),) = client.zrange("greenq:default~workers", 0, -1, withscores=True)
        seconds, microseconds = client.time()
        return until_ms - seconds * 1000 - microseconds / 1000

    return left


@pytest.mark.parametrize("given", ["", ", heartbeat_timeout=60_000"])
def test_the_lease_of_the_command_line_wins(run, folder, lease_ms, given):
    # A broker that is in use before the worker starts has it, too.
    source = REDIS_APP.replace('["APP_REDIS"])', f'["APP_REDIS"]{given})') + "\nsay.send('so early')\n"
    write_module(folder, "app", source)
    command = run("app", "-p", "1", "--lease", "2s")
    command.wait_until_ready()

    command.wait_for("said so early")
    assert 0 < lease_ms() <= 2000
    command.wait_for("lease +2 s")


def test_without_an_option_the_lease_is_the_brokers(run, folder, server, lease_ms):
    write_module(folder, "app", REDIS_APP.replace('["APP_REDIS"])', '["APP_REDIS"], heartbeat_timeout=60_000)'))
    command = run("app", "-p", "1")
    command.wait_until_ready()

    enqueue(server, "say", "hello")
    command.wait_for("said hello")
    assert 15_000 < lease_ms() <= 60_000
    command.wait_for("lease +60 s")


def test_the_lease_of_the_command_line_holds_for_a_file(run, folder):
    write_module(folder, "app", APP)
    command = run("app", "-p", "1", "--lease", "2s")
    command.wait_until_ready()

    with sqlite3.connect(folder / "queue.db") as file:
        ((until_ms,),) = file.execute("SELECT lease_until FROM workers")
    assert 0 < until_ms - time.time() * 1000 <= 2000


@pytest.mark.in_time
def test_what_a_machine_held_that_died_is_run_elsewhere_after_the_lease(run, server):
    first = run("app", "-p", "1", "--lease", "1s")
    first.wait_until_ready()
    enqueue(server, "hold", "on")
    (worker,) = {int(pid) for pid in first.wait_for(r"holding on in (\d+)")}
    os.kill(first.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    died = time.monotonic()

    second = run("app", "-p", "1", "--lease", "1s")
    second.wait_for("holding on in")

    assert time.monotonic() - died < 10  # of 15 s, if nobody had listened


def test_a_lease_for_a_broker_without_leases_is_refused(run, folder):
    write_module(
        folder,
        "own",
        "from greenq.broker import Broker, set_broker\nclass OwnBroker(Broker): pass\nset_broker(OwnBroker())\n",
    )
    command = run("own", "-p", "2", "--lease", "2s")

    assert command.exit_code() == 2
    assert len(command.matches("--lease cannot be used here: OwnBroker has no leases")) == 1
    assert "Traceback" not in command.log
