"""How often a message was lost with its worker, which RabbitMQ does not say.

RabbitMQ marks what it delivers again, whether its worker died or gave it back: a flag, no count.
(Quorum queues count, but what is given back as well.) So greenq keeps a count of its own in a
header, which can only be changed by storing the message anew: when a message with that flag is
about to be run, a copy with one more is stored instead, and the message removed. A message that
goes back unharmed has one taken off again, so that a long job survives any number of deploys.

All messages that a process had are marked when it dies, the innocent ones too. So a message that
was lost as often as it may be, but once, runs on trial: no other such message runs in that
process beside it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .publisher import Outgoing
from .wire import Delivery

#: A message that was lost with its worker so many times is dead.
MOST_LOSSES = 3

#: Where the count is kept.
HEADER = "x-greenq-losses"


def losses(delivery: Delivery) -> int:
    """How often a message was lost with its worker, as it says itself."""
    headers = delivery.properties.headers
    if not headers:
        return 0
    count = headers.get(HEADER)
    return count if isinstance(count, int) and count > 0 else 0


def copy(delivery: Delivery, queue: str, count: int) -> Outgoing:
    """The same message anew, with this count."""
    headers: dict[str, Any] | None = {HEADER: count} if count > 0 else None
    return Outgoing(queue, delivery.body, delivery.properties.priority, headers)


class Trials:
    """Lets one message at a time run that must not be lost again."""

    def __init__(self) -> None:
        self._running: int | None = None
        self._waiting: deque[Delivery] = deque()

    def may_run(self, delivery: Delivery) -> bool:
        """Whether it may; if not, it is kept until ``ended`` answers it."""
        if losses(delivery) < MOST_LOSSES - 1:
            return True
        if self._running is None or self._running == delivery.tag:
            self._running = delivery.tag
            return True
        self._waiting.append(delivery)
        return False

    def ended(self, delivery: Delivery) -> Delivery | None:
        """A message was settled; answer the next one to run, if it was on trial."""
        if self._running != delivery.tag:
            return None
        self._running = None
        return self._waiting.popleft() if self._waiting else None

    def take_waiting(self) -> list[Delivery]:
        """All that wait, to be given back."""
        waiting, self._waiting = list(self._waiting), deque()
        return waiting
