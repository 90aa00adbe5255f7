"""Messages that kill their workers, with the real command: they end as dead letters, and nobody else does."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import closing

import pytest

from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.message import Message
from tests.support.command import Command, write_module
from tests.support.memory_limit import memory_limit
from tests.support.redis_server import redis_server, shared_server
from tests.support.waiting import until

APP = """
import ctypes, os, pathlib, time
import greenq

HERE = pathlib.Path(__file__).parent
_fd = os.open(HERE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, name):
    os.write(_fd, f"{event} {name} {os.getpid()}\\n".encode())

@greenq.actor(max_retries=0)
def sleep(name):
    note("start", name)
    time.sleep(1)
    note("end", name)

@greenq.actor(max_retries=0)
def wait(name):
    note("start", name)
    while not (HERE / "go").exists():
        time.sleep(0.05)
    note("end", name)

@greenq.actor(max_retries=0)
def die(how):
    note("start", how)
    time.sleep(0.3)  # the neighbours begin
    if how == "exit":
        os._exit(1)
    if how == "segfault":
        ctypes.string_at(0)
    note("busy", how)
    eaten = []
    while True:  # until it is killed, by the test or by the kernel
        if how == "memory":
            eaten.append(b"x" * 2**24)
"""

#: Each way to die, and how it is told.
WAYS = {
    "exit": "exited with code 1",
    "segfault": "was killed by SIGSEGV",
    "kill": "was killed by SIGKILL",
    "memory": "was killed by SIGKILL",
}

#: Runs the command in a group of processes: the path of the file with their pids is the first argument.
IN_A_GROUP = """
import os, sys
with open(sys.argv[1], "w") as group:
    group.write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "greenq", *sys.argv[2:]])
"""


class Place:
    """A directory with the application, its ledger and, for SQLite, its queue."""

    def __init__(self, kind, folder):
        self.folder = folder
        self.url = shared_server().url if kind == "redis" else f"sqlite:///{folder}/queue.db"
        self.kind = kind
        write_module(folder, "app", APP)

    def broker(self):
        broker = RedisBroker(url=self.url) if self.kind == "redis" else SqliteBroker(self.folder / "queue.db")
        broker.declare_queue("default")
        return closing(broker)

    def send(self, actor_name, *names):
        with self.broker() as broker:
            broker.enqueue_many([Message("default", actor_name, (name,), {}, {}) for name in names])

    def lines(self):
        ledger = self.folder / "ledger"
        return [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []

    def count(self, event):
        return Counter(name for noted, name, _ in self.lines() if noted == event)

    def pids(self, name, event="start"):
        """The workers in which this job began, or came to another point, in this order."""
        return [int(pid) for noted, each, pid in self.lines() if (noted, each) == (event, name)]

    def letters(self):
        with self.broker() as broker:
            return list(broker.dead_letters_of("default").each())

    def is_done(self):
        with self.broker() as broker:
            return not any(broker.get_queue_message_counts("default")[:2])


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    if request.param == "redis":
        shared_server().client().flushall()
    return Place(request.param, tmp_path)


@pytest.fixture
def run(place):
    """Starts the command there; ends all of its processes after the test."""
    commands = []

    def start(*arguments, group=None):
        program = {"program": ("-c", IN_A_GROUP, str(group))} if group is not None else {}
        commands.append(Command(place.folder, "app", *arguments, **program, GREENQ_BROKER_URL=place.url))
        return commands[-1]

    yield start
    for command in commands:
        command.end()


@pytest.fixture
def crowded():
    """A group of processes that are killed by the kernel when they take more than so much memory."""
    with memory_limit(256) as group:
        yield group


@pytest.mark.parametrize("how", WAYS)
def test_a_job_that_kills_its_worker_is_a_dead_letter_after_three_deaths_and_its_neighbours_are_done(
    request, place, how
):
    group = request.getfixturevalue("crowded") if how == "memory" else None
    run = request.getfixturevalue("run")
    neighbours = [f"neighbour-{number}" for number in range(50)]
    place.send("sleep", *neighbours[:25])
    place.send("die", how)
    place.send("sleep", *neighbours[25:])

    run("-p", "1", "-c", "100", group=group)
    for death in range(3 if how == "kill" else 0):
        until(lambda death=death: len(place.pids(how, "busy")) == death + 1)
        os.kill(place.pids(how)[-1], signal.SIGKILL)
    until(lambda: place.letters() and place.is_done())

    assert len(place.pids(how)) == 3
    (letter,) = place.letters()
    assert letter.message.actor_name == "die"
    assert letter.reason.startswith(f"Its worker was lost 3 times while it ran: the last {WAYS[how]}; ")
    assert letter.reason.endswith(" MiB.")
    assert place.count("end") == dict.fromkeys(neighbours, 1)
    assert max(place.count("start").values()) <= 3  # its own run, and those that two deaths cut short


def test_deaths_that_nobody_saw_condemn_nobody_and_make_suspects_that_run_one_at_a_time(run, place):
    names = [f"job-{number}" for number in range(10)]
    place.send("wait", *names)

    run("-p", "1", "-c", "100")
    for death in range(3):
        until(lambda death=death: place.count("start").total() == 10 * (death + 1))
        os.kill(place.pids(names[0])[-1], signal.SIGKILL)
    until(lambda: place.count("start").total() == 31)
    (place.folder / "go").touch()
    until(place.is_done)

    assert not place.letters()
    assert place.count("end") == dict.fromkeys(names, 1)
    last_life = [event for event, _, _ in place.lines()[30:]]
    assert last_life == ["start", "end"] * 10


def test_a_suspect_whose_worker_dies_three_times_while_it_runs_alone_is_a_dead_letter(run, place):
    place.send("wait", "suspect")

    run("-p", "2", "-c", "100")
    for death in range(6):  # after three that nobody saw it runs alone
        until(lambda death=death: place.count("start").total() == death + 1)
        os.kill(place.pids("suspect")[-1], signal.SIGKILL)
    until(lambda: place.letters() and place.is_done())

    assert place.count("start") == {"suspect": 6}
    (letter,) = place.letters()
    assert letter.reason.startswith("Its worker was lost 3 times while it ran: the last was killed by SIGKILL; ")
    assert letter.deliveries == 6


def test_evidence_that_is_found_while_the_server_is_away_counts_when_it_is_back(tmp_path):
    write_module(tmp_path, "app", APP)
    with redis_server(appendonly="yes", appendfsync="always") as server:
        place = Place("redis", tmp_path)
        place.url = server.url
        command = Command(tmp_path, "app", "-p", "2", GREENQ_BROKER_URL=server.url)
        try:
            command.wait_until_ready(2)
            place.send("die", "kill")
            until(lambda: place.pids("kill", "busy"))

            server.stop(signal.SIGKILL)
            os.kill(place.pids("kill")[0], signal.SIGKILL)
            command.wait_for("cannot be returned to its queues now")
            server.start()
            until(lambda: len(place.pids("kill", "busy")) == 2)

            (noted,) = server.client().hgetall("greenq:default~evidence").values()
            assert noted.startswith(b"1 0 was killed by SIGKILL; ")
        finally:
            command.end()


GROUP = """
import os, pathlib
import greenq
from greenq.default_broker import broker_from_url
from greenq.results import Results
from greenq.results.backends.sqlite import SqliteBackend

broker = broker_from_url(os.environ["GREENQ_BROKER_URL"])
broker.max_deliveries = 1
broker.add_middleware(Results(backend=SqliteBackend(pathlib.Path(__file__).parent / "results.db")))
greenq.set_broker(broker)

@greenq.actor(max_retries=0, store_results=True)
def leave():
    os._exit(1)

@greenq.actor(max_retries=0, store_results=True)
def stay(name):
    return name
"""

SEND_GROUP = """
import greenq
from group_app import leave, stay

group = greenq.group([stay.message("one"), leave.message(), stay.message("two")]).run()
try:
    print(list(group.get_results(block=True, timeout=30_000)))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_who_waits_for_a_group_is_told_that_a_member_was_given_up_at_the_first_death(place):
    write_module(place.folder, "group_app", GROUP)
    command = Command(place.folder, "group_app", "-p", "1", GREENQ_BROKER_URL=place.url)
    sender = Command(place.folder, program=("-c", SEND_GROUP), GREENQ_BROKER_URL=place.url)
    try:
        sender.wait_for(
            r"ResultFailure member 2 of 3, leave\(\), failed: .* Its worker was lost once while it ran: "
            r"the last exited with code 1; \d+ MiB"
        )
        # Its verdict is written after that.
        until(lambda: [letter.message.actor_name for letter in place.letters()] == ["leave"])
    finally:
        sender.end()
        command.end()
