"""A queue, a ledger, and workers that are killed one at a time, at a chosen call to their broker."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import greenq

from .ledger import Ledger
from .nursery import NURSERY
from .places import QUEUES, Place
from .processes import Script, running
from .waiting import PATIENCE_S, until


@contextmanager
def nurseries() -> Iterator[Callable[[bool], Script]]:
    """For each world a process of which workers are forks; a new one if the last has ended."""
    found: dict[bool, Script] = {}

    def nursery(patched: bool) -> Script:
        if patched not in found or found[patched].process.poll() is not None:
            lives_s = 3600  # not as long as one test, but as all
            found[patched] = resources.enter_context(running(NURSERY, patched=patched, lives_s=lives_s))
        return found[patched]

    with ExitStack() as resources:
        yield nursery


class Stage:
    """A place whose queues are empty, and what happens there.

    Parameters:
      place(Place): The broker.
      path(Path): Of the ledger.
      nursery(Script): Of which workers are forks.
    """

    def __init__(self, place: Place, path: Path, nursery: Script) -> None:
        self.ledger = Ledger(path)
        self.broker: Any = place.open(self.ledger)
        self.broker.flush_all()
        self._order = {"place": place, "path": str(path)}
        self._place = place
        self._nursery = nursery

    def close(self) -> None:
        self.broker.close()
        self.ledger.close()

    def send(self, actor_name: str, label: str, **options: Any) -> greenq.Message[Any]:
        return self.broker.get_actor(actor_name).send_with_options(args=(label,), **options)

    def start_worker(self, death: str, *, slots: int = 4, queues: Any = ("default",), **order: Any) -> None:
        self._say(death=death, slots=slots, queues=queues, **order)

    def _say(self, **order: Any) -> None:
        self._nursery.say(json.dumps({**self._order, **order}))

    def expect_death(self) -> None:
        end_both = threading.Timer(PATIENCE_S, self._nursery.process.kill)
        end_both.start()
        try:
            assert self._nursery.line() == "-9", self._nursery.errors
        finally:
            end_both.cancel()

    def kill_a_worker(self, death: str, **order: Any) -> None:
        self.start_worker(death, **order)
        self.expect_death()

    def kill_a_sender(self, death: str, label: str) -> None:
        self._say(death=death, sends=label)
        self.expect_death()

    def stop_the_worker(self) -> None:
        self._nursery.say("stop")

    def worker_ids(self) -> list[str]:
        """Under which those held messages that were killed."""
        return [each.message_id for each in self.ledger.entries("held") if each.message_id]

    def take_back_from_the_dead(self) -> None:
        """As a supervisor has it done that saw them die. Nothing where the server sees it itself."""
        if self._place.has_leases:
            for worker_id in self.worker_ids():
                self.broker.take_back(worker_id)

    def ends_as(self, *outcomes: dict[Any, int]) -> None:
        """Have a worker that nobody kills run what is left; it is one of these, and nothing else is left anywhere."""
        self.take_back_from_the_dead()
        worker = greenq.Worker(self.broker, worker_threads=4)
        worker.start()
        try:
            with suppress(AssertionError):  # which could not say what there is instead
                until(lambda: self._found() in outcomes)
            for name in QUEUES:
                self._place.join(self.broker, name)
        finally:
            worker.stop()
            self.broker.close()
        found = self._found()
        assert found in outcomes, f"{found} is none of {outcomes}"
        for name in QUEUES:
            counts = self.broker.queue_counts(name)
            assert (counts.ready, counts.reserved or 0, counts.delayed) == (0, 0, 0), counts

    def _found(self) -> Counter[Any]:
        found: Counter[Any] = Counter(self.ledger.runs())
        return found + Counter(dead=self.broker.queue_counts("default").dead)
