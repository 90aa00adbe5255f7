"""How often a message was lost with its worker, which RabbitMQ does not say.

RabbitMQ marks what it delivers again, whether its worker died or gave it back: a flag, no count.
(Quorum queues count, but what is given back as well.) So greenq keeps a count of its own in a
header, which can only be changed by storing the message anew: when a message with that flag is
about to be run, a copy with one more is stored instead, and the message removed. A message that
goes back unharmed has one taken off again, so that a long job survives any number of deploys.

All messages that a process had are marked when it dies, the innocent ones too. So a process gives
the last chance to one message at a time, and only then counts it: the others wait as they came,
and are no worse off when the one on trial kills the process.
"""

from __future__ import annotations

import time
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


#: Seconds after which a copy that was stored for its trial must have come to another process.
_COPY_COMES_S = 5.0


class Trials:
    """Gives the last chance to one message at a time."""

    def __init__(self) -> None:
        #: The copy that is on trial here, once it has come.
        self._running: int | None = None
        #: Until when one that was stored is waited for, on the monotonic clock.
        self._expected_until = 0.0
        self._waiting: deque[Delivery] = deque()

    def may_begin(self, delivery: Delivery) -> bool:
        """Whether a message may have its last chance now; if not, it is kept until ``next`` answers it."""
        if self._running is None and time.monotonic() >= self._expected_until:
            self._expected_until = time.monotonic() + _COPY_COMES_S
            return True
        self._waiting.append(delivery)
        return False

    def came(self, delivery: Delivery) -> None:
        """A message is about to run."""
        if losses(delivery) >= MOST_LOSSES - 1 and self._running is None:
            self._running = delivery.tag

    def ended(self, delivery: Delivery) -> None:
        """A message was settled."""
        if self._running == delivery.tag:
            self._running = None
            self._expected_until = 0.0

    def next(self) -> Delivery | None:
        """The next message to try, if nothing is on trial."""
        if self._waiting and self._running is None and time.monotonic() >= self._expected_until:
            return self._waiting.popleft()
        return None

    def postpone(self, delivery: Delivery, wait_s: float) -> None:
        """Have a message wait, and nothing be tried for so long."""
        self._waiting.append(delivery)
        self._expected_until = max(self._expected_until, time.monotonic() + wait_s)

    def keep(self, delivery: Delivery) -> None:
        """Have a message that ``next`` answered wait on."""
        self._waiting.appendleft(delivery)

    @property
    def wait_s(self) -> float | None:
        """Seconds until it is worth asking again, if nothing is settled before; None if nothing waits."""
        if not self._waiting:
            return None
        return max(0.0, self._expected_until - time.monotonic()) + 0.01

    def take_waiting(self) -> list[Delivery]:
        """All that wait, to be given back."""
        waiting, self._waiting = list(self._waiting), deque()
        return waiting
