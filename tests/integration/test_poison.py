"""Messages that may have killed their workers, with the real command: who is innocent is cleared."""

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
from tests.support.redis_server import shared_server
from tests.support.waiting import until

APP = """
import os, pathlib, time
import greenq

HERE = pathlib.Path(__file__).parent
_fd = os.open(HERE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, name):
    os.write(_fd, f"{event} {name} {os.getpid()}\\n".encode())

@greenq.actor(max_retries=0)
def wait(name):
    note("start", name)
    while not (HERE / "go").exists():
        time.sleep(0.05)
    note("end", name)
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

    def start(*arguments):
        commands.append(Command(place.folder, "app", *arguments, GREENQ_BROKER_URL=place.url))
        return commands[-1]

    yield start
    for command in commands:
        command.end()


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
