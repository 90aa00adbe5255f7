"""What was sent and what ran, written down by all who take part, and what is wrong with it.

A ledger is a file to which every process appends a line for each thing that happened. The tests
read it: all that was sent has come to its end, and what ran twice did so for a reason that the
ledger knows. Knows no broker.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import greenq
from greenq.broker import Broker
from greenq.clock import now_ms
from greenq.middleware import CurrentMessage

#: Seconds that jobs take at most, where they take any time.
LONGEST_S = 0.1

#: Milliseconds that a job may take which would take for ever.
LIMIT_MS = 200


class Entry(NamedTuple):
    """A line of the ledger.

    Attributes:
      what(str): What happened: "asked" and "sent" of a message or several, "started" and "ended" of
        a run, "killed" of a process, "outage begins" and "outage ends".
      label(str): Of a message its first argument; of anything else a word for the reader.
      message_id(str): Of whom; of a kill the process's id.
    """

    what: str
    label: str
    message_id: str
    attempt: int
    at_ms: int
    pid: int


class Ledger:
    """A file with a line for each thing that happened; any number of processes write it.

    Parameters:
      path(Path): The file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._entries: list[Entry] = []
        self._read = 0
        self._reading = threading.Lock()

    def note(self, what: str, label: str, message_id: str, attempt: int = 0) -> None:
        """Append a line, in one call: a kill leaves all of it or nothing."""
        os.write(self._fd, json.dumps([what, label, message_id, attempt, now_ms(), os.getpid()]).encode() + b"\n")

    def entries(self, *whats: str) -> list[Entry]:
        """The lines about these, in order."""
        with self._reading:
            new = os.pread(self._fd, os.fstat(self._fd).st_size - self._read, self._read)
            new = new[: new.rfind(b"\n") + 1]  # the last one may be half there
            self._read += len(new)
            self._entries += [Entry(*json.loads(line)) for line in new.splitlines()]
            return [each for each in self._entries if each.what in whats]

    def runs(self) -> Counter[tuple[str, int]]:
        """How often each attempt of what was sent by a label began, but for retries in other processes.

        A worker that is about to die may get the retry that it has stored, and dies with it.
        """
        started = self.entries("started")
        return Counter((each.label, each.attempt) for each in started if not each.attempt or each.pid == os.getpid())

    def close(self) -> None:
        os.close(self._fd)

    # -- what is wrong

    def unexplained(self, lapsed: Iterable[int] = (), *, has_copies: bool = False) -> list[str]:
        """A line for each run that came after another one of the same attempt, for no reason.

        The reason is that the process of the one before was killed, or that it lost its lease.

        Parameters:
          lapsed(Iterable[int]): Ids of processes that lost a lease, by their own account.
          has_copies(bool): Whether this broker settles a message and stores what follows from it in
            two steps. A kill or an outage in between leaves both, and each of them runs, at any
            later time: so it explains whatever had been sent before it was over.
        """
        kills = self.entries("killed")
        killed = {each.message_id: each.at_ms for each in reversed(kills)}
        lost_lease = set(lapsed)
        asked = {each: line.at_ms for line in self.entries("asked") for each in line.message_id.split()}
        disturbances = [*((each.at_ms, each.at_ms) for each in kills), *self._outages()] if has_copies else []

        def is_explained(earlier: Entry, later: Entry) -> bool:
            return (
                killed.get(str(earlier.pid), math.inf) <= later.at_ms
                or earlier.pid in lost_lease
                or any(begin <= later.at_ms and asked[later.message_id] <= end for begin, end in disturbances)
            )

        runs: dict[tuple[str, int], list[Entry]] = defaultdict(list)
        for each in self.entries("started"):
            runs[each.message_id, each.attempt].append(each)
        return [
            f"attempt {later.attempt} of {later.message_id} ran again in {later.pid} at {later.at_ms}, though "
            f"{earlier.pid} was not killed: {self.story_of(later.message_id)}"
            for starts in runs.values()
            for earlier, later in pairwise(starts)
            if not is_explained(earlier, later)
        ]

    def _outages(self) -> Iterator[tuple[float, float]]:
        begin: float | None = None
        for each in self.entries("outage begins", "outage ends"):
            if each.what == "outage begins":
                begin = each.at_ms
            elif begin is not None:
                yield begin, each.at_ms
                begin = None
        if begin is not None:
            yield begin, math.inf

    def story_of(self, message_id: str) -> str:
        """All lines about a message, for whoever has to find out what became of it."""
        lines = [each for each in self.entries("sent", "due", "started", "ended") if message_id in each.message_id]
        return "; ".join(f"{each.what} {each.label} {each.attempt} at {each.at_ms} in {each.pid}" for each in lines)


# -- actors


def add_actors(broker: Broker, ledger: Ledger, *, until: threading.Event | None = None, longest_s: float = 0) -> None:
    """Give a broker actors that write down when they start and end; the first argument is their label.

    Parameters:
      until(Event): What ``hold`` waits for, unless it is interrupted. Default: it returns at once.
      longest_s(float): How long actors sleep at most; each time it is another time.
    """
    broker.add_middleware(CurrentMessage())

    def entered(run: Callable[[int], None]) -> Callable[..., None]:
        def enter(label: str, *_results: Any) -> None:
            job = _Job(ledger, label)
            job.note("started")
            if longest_s:
                time.sleep(random.uniform(0, longest_s))
            run(job.attempt)
            job.note("ended")

        return enter

    async def wait(label: str, *_results: Any) -> None:
        job = _Job(ledger, label)
        job.note("started")
        await asyncio.sleep(random.uniform(0, longest_s))
        job.note("ended")

    def fail_before(last: int) -> Callable[[int], None]:
        def fail(attempt: int) -> None:
            if attempt < last:
                raise RuntimeError(f"attempt {attempt} fails, as it should")

        return fail

    def hold(_attempt: int) -> None:
        if until is not None:
            until.wait()

    def overstay(attempt: int) -> None:
        if not attempt:
            time.sleep(3600)

    def add(name: str, run: Callable[[int], None], **options: Any) -> None:
        greenq.actor(broker=broker, actor_name=name, min_backoff=50, max_backoff=200, **options)(entered(run))

    add("work", lambda _attempt: None)
    add("work_elsewhere", lambda _attempt: None, queue_name="elsewhere")
    add("done", lambda _attempt: None)
    add("fail_once", fail_before(1))
    add("fail_thrice", fail_before(3))
    add("die", fail_before(1), max_retries=0)
    add("hold", hold, notify_shutdown=True)
    add("overstay", overstay, time_limit=LIMIT_MS)
    greenq.actor(broker=broker, actor_name="wait")(wait)


class _Job:
    """The message that runs now, as the ledger names it."""

    def __init__(self, ledger: Ledger, label: str) -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        self._ledger, self._label, self._message_id = ledger, label, message.message_id
        self.attempt: int = message.options.get("retries", 0)

    def note(self, what: str) -> None:
        self._ledger.note(what, self._label, self._message_id, self.attempt)
