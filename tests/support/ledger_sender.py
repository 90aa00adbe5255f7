"""Sends all kinds of jobs until there is a line to read, and notes each send that returned."""

from __future__ import annotations

import json
import os
import random
import select
import sys
import threading
from pathlib import Path
from typing import Any

import greenq
from greenq.clock import now_ms

from .ledger import Ledger
from .places import Place

#: What is sent, and how often: the actors of a chain, one after the other; or of a group, with its callback.
CHAINS = {
    "work": 55,
    "fail_once": 12,
    "fail_thrice": 4,
    "overstay": 3,
    "wait": 10,
    "work, fail_once, work_elsewhere": 8,
    "work, die": 2,
}
GROUP, GROUPS = "work, wait, fail_once, done", 6

#: Senders, and seconds between two messages of each.
_SENDERS, _PAUSE_S = 3, 0.02

SENDER = """
from tests.support.ledger_sender import main
main()
"""


def main() -> None:
    """Send from a few threads at once. Arguments: a place as JSON, the ledger's path, a seed."""
    place, path, seed = Place(*json.loads(sys.argv[1])), sys.argv[2], sys.argv[3]
    ledger = Ledger(Path(path))
    options = {} if place.has_leases else {"send_timeout": 5000}
    broker = place.open(ledger, **options)
    is_over = threading.Event()

    def send_all(number: int) -> None:
        sender = _Sender(broker, ledger, random.Random(f"{seed}, {number}"))
        while not is_over.wait(_PAUSE_S):
            sender.send_something()

    threads = [threading.Thread(target=send_all, args=(number,)) for number in range(_SENDERS)]
    for each in threads:
        each.start()
    select.select([0], [], [])
    is_over.set()
    for each in threads:
        each.join()
    broker.close()
    os._exit(0)


class _Sender:
    def __init__(self, broker: greenq.Broker, ledger: Ledger, chance: random.Random) -> None:
        self._broker, self._ledger, self._random = broker, ledger, chance

    def send_something(self) -> None:
        names = self._random.choices([*CHAINS, GROUP], [*CHAINS.values(), GROUPS])[0].split(", ")
        delay = self._random.choice([None, None, self._random.randrange(2000)])
        messages = [self._broker.get_actor(name).message(name) for name in names]
        is_group = ", ".join(names) == GROUP
        composed: Any
        if is_group:
            composed = greenq.group(messages[:-1], broker=self._broker)
            composed.add_completion_callback(messages[-1])
        else:
            composed = greenq.pipeline(messages, broker=self._broker)
        ids = " ".join(each.message_id for each in messages)
        self._ledger.note("asked", "", ids)
        if delay is not None:
            for each in messages[:-1] if is_group else messages[:1]:
                self._ledger.note("due", "", each.message_id, now_ms() + delay)
        try:
            composed.run(delay=delay)
        except greenq.ConnectionError:
            return  # they may be stored or not; nothing was promised
        self._ledger.note("sent", "group" if is_group else "chain", ids)
