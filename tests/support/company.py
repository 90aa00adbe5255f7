"""greenq-worker with two processes, who sends to it, who kills it, and what came of it all."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from .command import ROOT, Command
from .ledger import Entry, Ledger
from .ledger_sender import SENDER
from .nursery import NURSERY
from .places import QUEUES, Place
from .processes import Script
from .waiting import PATIENCE_S, until

#: Of leases, where there are any: the longest time for which what the dead held is nobody's.
LEASE_MS = 3000

#: What the command says of processes that lost their lease, or that it killed itself.
_LAPSED = [r"\[PID (\d+)\].* ran out and its messages were given to others", r"\(PID (\d+)\) was killed"]

#: What is worth reading of what the command said: not what jobs say that fail as they should.
_TELLING = r"WorkerProcess|MainProcess|Consumer|Completer|Outage|Broker|CRITICAL"


class Company:
    """A command at work, and a process that sends to it.

    Parameters:
      place(Place): The broker, as the command and the sender reach it.
      folder(Path): For the ledger.
      seed: Of all chances.
      own_place(Place): The broker, as it is reached here. Default: in the same way.
    """

    def __init__(self, place: Place, folder: Path, seed: object, own_place: Place | None = None) -> None:
        self.ledger = Ledger(folder / "ledger")
        self.broker: Any = (own_place or place).open(self.ledger)
        self.disturbed: Counter[str] = Counter()
        self._place, self._seed = place, seed
        self._random = random.Random(f"{seed}, kills")
        self._commands: list[Command] = []
        self._dead: dict[str, Any] = {}
        self.start()
        self._sender = Script(SENDER, json.dumps(place), self.ledger.path, seed, lives_s=3600)
        self._nursery: Script | None = None

    def start(self) -> None:
        """Start the command, for the first time or again."""
        self.command = Command(
            ROOT,
            *("tests.support.ledger_app:broker", "-p", "2", "-c", "50"),
            GREENQ_LEDGER_PLACE=json.dumps(self._place),
            GREENQ_LEDGER_FILE=str(self.ledger.path),
        )
        self._commands.append(self.command)

    def add_mortals(self) -> None:
        """Have workers beside the command's, one after the other, that are killed at a random call to the broker."""
        self._nursery = Script(NURSERY, patched=True, lives_s=3600)
        order = {"place": self._place, "path": str(self.ledger.path), "queues": QUEUES}
        self._nursery.say(json.dumps({**order, "slots": 16, "lives_s": 0.5, "again": True}))

    def _end_mortals(self) -> None:
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            for each in psutil.Process(nursery.pid).children():
                self.ledger.note("killed", "the last mortal", str(each.pid))
            nursery.end()

    def end(self) -> None:
        """Kill everybody."""
        self._end_mortals()
        self._sender.end()
        for each in self._commands:
            each.end()
        self.broker.close()
        self.ledger.close()

    # -- who kills

    def at_work(self) -> list[psutil.Process]:
        """The command's workers that have run something."""
        if self.command.process.poll() is not None:
            self.start()  # it was killed, or gave up; what is left of it ends by itself
        pids = {each.pid for each in self.ledger.entries("started")}
        with suppress(psutil.NoSuchProcess):
            return [each for each in psutil.Process(self.command.pid).children() if each.pid in pids]
        return []

    def wait_until_at_work(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        until(lambda: found.extend(self.at_work()) or found)
        return found

    def kills(self, cut: Callable[[], object] | None = None) -> Iterator[None]:
        """Do one thing after the other to those who are at work, for ever.

        Parameters:
          cut: Closes all connections to the broker, where there are any.
        """
        acts = [self.kill_a_worker, self.kill_the_supervisor, self.kill_a_worker, self.kill_the_tree]
        if cut is not None:
            acts.append(lambda: self._cut(cut))
        self._random.shuffle(acts)
        while True:
            for act in acts:
                act()
                yield

    def kill_a_worker(self) -> None:
        self._kill("worker", self._random.choice(sorted(self.wait_until_at_work(), key=lambda each: each.pid)))

    def kill_the_supervisor(self) -> None:
        self.wait_until_at_work()
        self._kill("supervisor", psutil.Process(self.command.pid))
        self.command.process.wait(PATIENCE_S)

    def kill_the_tree(self) -> None:
        self.wait_until_at_work()
        for each in psutil.Process(self.command.pid).children():
            self.ledger.note("killed", "tree", str(each.pid))
        self.command.end()
        self.disturbed["a tree killed"] += 1

    def _cut(self, cut: Callable[[], object]) -> None:
        self.wait_until_at_work()
        self.ledger.note("outage begins", "cut", "")
        cut()
        self.ledger.note("outage ends", "cut", "")
        self.disturbed["cut"] += 1

    def _kill(self, label: str, process: psutil.Process) -> None:
        self.disturbed[f"a {label} killed"] += 1
        self.ledger.note("killed", label, str(process.pid))
        with suppress(psutil.NoSuchProcess):
            process.kill()

    @contextmanager
    def outage(self, name: str) -> Iterator[None]:
        """The time of the block, and until what was sent after it has run, is an outage."""
        before = len(self.ended())
        until(lambda: len(self.ended()) > before)
        self.ledger.note("outage begins", name, "")
        yield
        over_at_ms = self._now()
        self.disturbed[name] += 1
        until(lambda: self._has_run_what_was_sent_since(over_at_ms))
        self.ledger.note("outage ends", name, "")

    def _now(self) -> int:
        self.ledger.note("over", "", "")
        return self.ledger.entries("over")[-1].at_ms

    def _has_run_what_was_sent_since(self, at_ms: int) -> bool:
        ended = self.ended()
        sent = [each for each in self.ledger.entries("sent") if each.at_ms > at_ms]
        return any(each.message_id.split()[0] in ended for each in sent)

    # -- what came of it

    def ended(self) -> set[str]:
        """Ids of what has come to its end."""
        return {each.message_id for each in self.ledger.entries("ended")}

    def lost(self) -> list[str]:
        """Ids of what was sent, or had to follow from that, and has come to no end."""
        ended = self.ended()
        sent = self.ledger.entries("sent")
        if not any(each not in ended for line in sent for each in line.message_id.split()):
            return []
        letters = [letter for name in QUEUES for letter in self.broker.dead_letters_of(name).each()]
        self._dead = {letter.message.message_id: letter for letter in letters}
        return [each for line in sent for each in self._lost_of(line, ended)]

    def _lost_of(self, line: Entry, ended: set[str]) -> list[str]:
        ids = line.message_id.split()
        if line.label == "group":
            *members, callback = ids
            is_dead = any(each in self._dead for each in members)
            wanted = members if is_dead else [*members, callback]
            return [each for each in wanted if each not in ended and each not in self._dead]
        found = []
        for each in ids:
            if each in self._dead:
                break  # what comes after it is not sent
            if each not in ended:
                found.append(each)
        return found

    def settle(self) -> None:
        """Send nothing more, and wait until everything has run; or until nothing comes to its end any more.

        After many kills much is under suspicion, and runs one after the other.
        """
        self._end_mortals()
        self._sender.say()
        self._sender.process.wait(PATIENCE_S)
        self.at_work()
        left, last_at = -1, time.monotonic()
        while missing := len(self.lost()):
            if missing != left:
                left, last_at = missing, time.monotonic()
            elif time.monotonic() - last_at > PATIENCE_S:
                return  # what is missing is told by problems()
            time.sleep(0.2)  # each look takes dead letters in hand
        for name in QUEUES:
            self._place.join(self.broker, name)

    def problems(self) -> list[str]:
        """What is wrong, a line each; see Ledger.unexplained."""
        ledger = self.ledger
        lost = [f"{each} was lost: {ledger.story_of(each)}" for each in self.lost()]
        logs = "\n".join(each.log for each in self._commands)
        lapsed = [int(pid) for pattern in _LAPSED for pid in re.findall(pattern, logs)]
        asked = {each for line in ledger.entries("asked") for each in line.message_id.split()}
        due = {each.message_id: each.attempt for each in ledger.entries("due")}
        started = ledger.entries("started")
        strange = [f"{each} was never sent" for each in started if each.message_id not in asked]
        early = [f"{each} is early" for each in started if each.at_ms < due.get(each.message_id, 0)]
        dead = [
            f"{letter.message} died: {letter.reason}"
            for letter in self._dead.values()
            if letter.message.actor_name != "die" and "lost" not in (letter.reason or "")
        ]
        twice = ledger.unexplained(lapsed, has_copies=not self._place.has_leases)
        return [*self._left(), *lost, *twice, *strange, *early, *dead]

    def _left(self) -> list[str]:
        """A line for each queue that something never leaves.

        RabbitMQ does not count what runs. That may be more than is missed, after an outage: a second
        copy, or what was stored though nobody was told. It may come back once more, as a retry.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = {name: self.broker.queue_counts(name) for name in QUEUES}
            left = {name: each for name, each in found.items() if each.ready or each.reserved or each.delayed}
            if not left or time.monotonic() > deadline:
                return [f"{name} still has {counts}" for name, counts in left.items()]
            time.sleep(0.05)  # between two looks: no server tells when a queue has become empty

    def summary(self) -> str:
        """What happened, in a line."""
        started = self.ledger.entries("started")
        runs = Counter((each.message_id, each.attempt) for each in started)
        return (
            f"seed {self._seed}: {len(self.ledger.entries('sent'))} sends confirmed of "
            f"{len(self.ledger.entries('asked'))}, {len(runs)} attempts, {len(started) - len(runs)} runs more; "
            f"{len(self._dead)} dead; {dict(self.disturbed)}"
        )

    def assert_nothing_is_wrong(self) -> None:
        """Fail with the seed, what is suspicious, and what the command said last, if anything is."""
        problems = self.problems()
        kills = [f"{each.label} {each.message_id} killed at {each.at_ms}" for each in self.ledger.entries("killed")]
        log = [line for each in self._commands for line in each.lines if re.search(_TELLING, line)]
        assert not problems, "\n".join([self.summary(), *problems[:20], *kills, "The commands said:", *log[-60:]])
        assert len(self.ledger.entries("sent")) > 20, self.summary()
