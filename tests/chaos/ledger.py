"""A ledger of jobs: ids in, starts and ends out. What is lost, and what ran twice, is seen in it.

Each line is written in one step, so that a kill leaves whole lines.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from greenq.default_broker import broker_from_url
from greenq.message import Message
from tests.support.waiting import until

#: The module that the command runs. A job waits for its file, or ends by itself.
APP = """
import ctypes, os, pathlib, signal, time
import greenq
from greenq.errors import Shutdown

HERE = pathlib.Path(__file__).parent
POLL_S = 0.1  # a thousand jobs that looked more often would be what the command is slow of
_fd = os.open(HERE / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(event, name):
    os.write(_fd, f"{event} {name} {os.getpid()} {time.monotonic()}\\n".encode())

@greenq.actor(max_retries=0)
def hold(name):
    note("start", name)
    while not (HERE / "go").exists():
        time.sleep(POLL_S)
    note("end", name)

@greenq.actor(max_retries=0)
def die(name):
    note("start", name)
    if not (HERE / "died").exists():
        (HERE / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    note("end", name)

def is_first(name):
    marker = HERE / ("was stuck in " + name)
    if marker.exists():
        return False
    marker.touch()
    return True

@greenq.actor(max_retries=0, time_limit=1000)
def spin_on(name):
    note("start", name)
    if is_first(name):
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    note("end", name)

@greenq.actor(max_retries=0, time_limit=1000)
def wait_on(name):
    note("start", name)
    if is_first(name):
        while True:
            try:
                time.sleep(0.05)
            except BaseException:
                pass
    note("end", name)

@greenq.actor(max_retries=0, time_limit=60_000)
def hold_the_interpreter(name):
    note("start", name)
    if is_first(name):
        while True:
            ctypes.PyDLL(None).sleep(3600)
    note("end", name)

@greenq.actor(max_retries=0)
def take(name, seconds):
    note("start", name)
    time.sleep(seconds)
    note("end", name)

@greenq.actor(max_retries=0)
def stay(name):
    note("start", name)
    while not (HERE / "free").exists():
        time.sleep(POLL_S)
    note("end", name)

@greenq.actor(max_retries=0)
def ignore(name):
    note("start", name)
    while not (HERE / "free").exists():
        try:
            time.sleep(POLL_S)
        except BaseException:
            pass
    note("end", name)

@greenq.actor(max_retries=0)
def spin(name):
    note("start", name)
    while not (HERE / "free").exists():
        pass
    note("end", name)
"""

#: Jobs that cannot be interrupted, at their first run; at the next one they end at once.
WAYS_TO_BE_STUCK = ("spin_on", "wait_on", "hold_the_interpreter")


class Entry(NamedTuple):
    """A line."""

    event: str
    name: str
    pid: int
    at: float


class Place(NamedTuple):
    """Where jobs are sent, run and noted."""

    kind: str
    url: str
    folder: Path

    def send(self, actor_name: str, *calls: tuple[Any, ...]) -> None:
        """Store a message for each of these calls."""
        with self._broker() as broker:
            broker.enqueue_many([Message("default", actor_name, call, {}, {}) for call in calls])

    def ready(self) -> int:
        """How many messages wait for a worker."""
        with self._broker() as broker:
            return int(broker.queue_counts("default").ready)

    def _broker(self) -> Any:
        from contextlib import closing

        broker = broker_from_url(self.url)
        broker.declare_queue("default")
        return closing(broker)

    def let_go(self, how: str = "go") -> None:
        """Let the jobs end that wait for this file: go, or free."""
        (self.folder / how).touch()

    def entries(self) -> list[Entry]:
        ledger = self.folder / "ledger"
        if not ledger.exists():
            return []
        lines = ledger.read_text().splitlines()
        return [Entry(event, name, int(pid), float(at)) for event, name, pid, at in map(str.split, lines)]

    def count(self, event: str) -> Counter[str]:
        """How often this is noted of each job."""
        return Counter(entry.name for entry in self.entries() if entry.event == event)

    def wait_for(self, event: str, count: int) -> list[Entry]:
        """Wait until so many such lines are there; they are returned."""
        until(lambda: self.count(event).total() >= count)
        return [entry for entry in self.entries() if entry.event == event]
