"""Actors that write every run into a ledger, and workers that are killed at a chosen call to RabbitMQ.

What is wrapped here is private to the broker, and deliberately so: between two calls to the server is
where a crash hurts, and nothing in greenq has to know that somebody looks.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import posix  # its fork and waitpid are not gevent's, and know no hub
import random
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker, publisher
from greenq.brokers.rabbitmq.consumer import RabbitmqConsumer
from greenq.brokers.rabbitmq.publisher import Publisher
from greenq.brokers.rabbitmq.subscription import Subscription
from greenq.clock import now_ms
from greenq.middleware import CurrentMessage

from .processes import end_with_this_process
from .waiting import PATIENCE_S

#: Seconds that jobs take at most, where they take any time.
LONGEST_S = 0.1


class Entry(NamedTuple):
    """A line of the ledger."""

    what: str
    label: str
    message_id: str
    attempt: int
    at_ms: int
    pid: int


class Ledger:
    """A file with a line for each thing that happened; any number of processes write it.

    Parameters:
      path(Path): The file; made by the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, what: str, label: str, message_id: str, attempt: int = 0) -> None:
        """Append a line, in one call: a kill leaves all of it or nothing."""
        os.write(self._fd, json.dumps([what, label, message_id, attempt, now_ms(), os.getpid()]).encode() + b"\n")

    def entries(self, *whats: str) -> list[Entry]:
        """The lines about these, in order."""
        # What is behind the last end of a line is being written at this moment: a file grows page by page.
        *lines, _ = self.path.read_text().split("\n")
        found = [Entry(*json.loads(line)) for line in lines]
        return [each for each in found if each.what in whats]

    def runs(self) -> Counter[tuple[str, int]]:
        """How often each attempt of what was sent by a label began, but for retries in other processes.

        A worker that is about to die may get the retry that it has stored, and dies with it.
        """
        started = self.entries("started")
        return Counter((each.label, each.attempt) for each in started if not each.attempt or each.pid == os.getpid())


def open_ledger_broker(
    url: str,
    kind: str,
    ledger: Ledger,
    *,
    until: threading.Event | None = None,
    longest_s: float = 0,
    **options: Any,
) -> RabbitmqBroker:
    """A broker with the actors of the ledger.

    Parameters:
      kind(str): Of its queues: "classic" or "quorum".
      until(Event): What ``hold`` waits for, unless it is interrupted. Default: it returns at once.
      longest_s(float): How long actors sleep at most; each time it is another time.
    """
    broker = RabbitmqBroker(url=url, queue_type=kind, **options)
    broker.add_middleware(CurrentMessage())

    def entered(run: Callable[[int], None]) -> Callable[..., None]:
        def enter(label: str, *_results: Any) -> None:
            message = CurrentMessage.get_current_message()
            assert message is not None
            attempt = message.options.get("retries", 0)
            ledger.note("started", label, message.message_id, attempt)
            if longest_s:
                time.sleep(random.uniform(0, longest_s))
            run(attempt)
            ledger.note("ended", label, message.message_id, attempt)

        return enter

    def fail_before(last: int) -> Callable[[int], None]:
        def fail(attempt: int) -> None:
            if attempt < last:
                raise RuntimeError(f"attempt {attempt} fails, as it should")

        return fail

    def hold(_attempt: int) -> None:
        if until is not None:
            until.wait()

    def add(name: str, run: Callable[[int], None], **options: Any) -> None:
        greenq.actor(broker=broker, actor_name=name, min_backoff=50, max_backoff=200, **options)(entered(run))

    add("work", lambda _attempt: None)
    add("work_elsewhere", lambda _attempt: None, queue_name="elsewhere")
    add("fail_once", fail_before(1))
    add("fail_thrice", fail_before(3))
    add("die", fail_before(1), max_retries=0)
    add("hold", hold, notify_shutdown=True)
    return broker


# -- scripts

#: Runs what comes; lets what it holds go on at a first line, and stops at a second.
WORKER = """
import logging, os, pathlib, select, sys, threading
import greenq
from tests.support.rabbitmq_ledger import Ledger, open_ledger_broker
logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
go_on = threading.Event()
broker = open_ledger_broker(*sys.argv[1:3], Ledger(pathlib.Path(sys.argv[3])), until=go_on)
worker = greenq.Worker(broker, worker_threads=32)
worker.start()
def wait_for_line():
    select.select([0], [], [])  # in place of readline, which would stop a hub
    os.read(0, 100)
wait_for_line()
go_on.set()
wait_for_line()
worker.stop(20_000)
broker.close()
"""

#: Sends from twenty greenlets or threads until there is a line, and notes each send that returned.
SENDER = """
import os, pathlib, select, sys, threading
import greenq
from tests.support.rabbitmq_ledger import Ledger, open_ledger_broker
ledger = Ledger(pathlib.Path(sys.argv[3]))
broker = open_ledger_broker(*sys.argv[1:3], ledger, send_timeout=5000)
work, is_over = broker.get_actor("work"), threading.Event()
def send_all():
    while not is_over.wait(0.04):
        try:
            sent = work.send("plain")
        except greenq.ConnectionError:
            continue
        ledger.note("sent", "plain", sent.message_id)
threads = [threading.Thread(target=send_all) for _ in range(20)]
for thread in threads: thread.start()
select.select([0], [], [])
is_over.set()
for thread in threads: thread.join()
broker.close()
"""


# -- deaths

#: Each call to the server: whose it is, its name, and whether one with these arguments and answer counts.
CALLS: dict[str, tuple[Any, str, Callable[[Any, Any], bool]]] = {
    # To take what the server has sent; a look that finds nothing does not count.
    "fetch": (RabbitmqConsumer, "fetch", lambda consumer, found: consumer._subscription.has_some or bool(found)),
    # To store something: the bytes have gone to the socket; the server's answer, from here on the message is stored.
    "publish": (publisher, "write", lambda _connection, _sent: True),
    "confirm": (Publisher, "_note", lambda _publisher, _answer: True),
    # To remove a message, and to return it.
    "ack": (Subscription, "_acknowledge", lambda _subscription, _answer: True),
    "return": (Subscription, "_return", lambda _subscription, _answer: True),
}


def die_at(death: str, ledger: Ledger) -> None:
    """Have this process killed before or after the next call of a kind, say "before ack"."""
    _die(death, ledger, lambda: True)


def die_sometime(lives_s: float, ledger: Ledger) -> None:
    """Have this process killed at one of these calls, whichever chance has it.

    Parameters:
      lives_s(float): Seconds from the first such call, on average.
    """
    left_s, ends_at = random.expovariate(1 / lives_s), math.inf

    def is_time() -> bool:
        nonlocal ends_at
        ends_at = min(ends_at, time.monotonic() + left_s)
        return time.monotonic() >= ends_at

    _die(
        f"{random.choice(['before', 'after'])} {random.choice(['fetch', 'publish', 'confirm', 'ack'])}", ledger, is_time
    )


def _die(death: str, ledger: Ledger, is_time: Callable[[], bool]) -> None:
    when, _, call = death.partition(" ")
    owner, name, counts = CALLS[call]
    really = getattr(owner, name)

    def die_if(moment: str, is_one: bool) -> None:
        if moment == when and is_one and is_time():
            ledger.note("died", death, "")
            os.kill(os.getpid(), signal.SIGKILL)

    def around(first: Any, *args: Any, **options: Any) -> Any:
        die_if("before", counts(first, None))
        answer = really(first, *args, **options)
        die_if("after", counts(first, answer))
        return answer

    setattr(owner, name, around)


# -- workers that are there at once

#: A script that reads what workers to run, one at a time. Each is a fork of it, so it need not import anything.
NURSERY = """
from tests.support.rabbitmq_ledger import run_nursery
run_nursery()
"""


def run_nursery() -> None:
    """Run a worker for each line, and tell how it ended; with ``again`` one after the other, for ever."""
    end_with_this_process()  # the one that started it: it has no other end
    while line := os.read(0, 10_000):
        order = json.loads(line)
        again = order.pop("again", False)
        while True:
            pid = posix.fork()
            if not pid:
                end_with_this_process()
                faulthandler.dump_traceback_later(PATIENCE_S / 2)  # whoever waits for its death is told why it lives
                _work(**order)
            _, status = posix.waitpid(pid, 0)
            if not again:
                break
        print(os.waitstatus_to_exitcode(status), flush=True)


def _work(
    url: str,
    kind: str,
    path: str,
    slots: int,
    queues: list[str],
    death: str | None = None,
    lives_s: float = 0,
) -> None:
    """Be a worker until this process dies, or is told to stop."""
    ledger = Ledger(Path(path))
    if death is not None:
        die_at(death, ledger)
        broker = open_ledger_broker(url, kind, ledger, until=threading.Event())
    else:
        random.seed()  # each fork would die the same death
        die_sometime(lives_s, ledger)
        broker = open_ledger_broker(url, kind, ledger, longest_s=LONGEST_S)
    worker = greenq.Worker(broker, queues=set(queues), worker_threads=slots)
    worker.start()
    select.select([0], [], [])  # not a read, which would stop a hub
    os.read(0, 100)
    worker.stop(5000)
    broker.close()
    os._exit(0)
