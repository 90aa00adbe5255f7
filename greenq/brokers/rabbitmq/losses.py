"""How often a message was lost with its worker, which RabbitMQ does not say.

RabbitMQ marks what it delivers again, whether its worker died or gave it back: a flag, no count.
(Quorum queues count, but what is given back as well.) So greenq keeps a count of its own in a
header, which can only be changed by storing the message anew: when a message with that flag is
about to be run, a copy with one more is stored instead, and the message removed. A message that
goes back unharmed has one taken off again, so that a long job survives any number of deploys.

All messages that a process had are marked when it dies, the innocent ones too. So a process gives
the last chance to one message at a time, and only then counts it: the others wait as they came,
and are no worse off when the one on trial kills the process.

That would take hours for a thousand long jobs, which two deaths of one process, or of a node, can
leave. So it lasts for a few seconds only. Then those that wait run beside each other and are not
counted, twice as many each second. A killer among them takes the process with it, and is nearer to
the front for the next one, where it is alone: for n that wait, some log2(n) deaths more.
"""

from __future__ import annotations

import enum
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .publisher import Outgoing
from .wire import Delivery

#: In place of the number of losses after which a message is dead, where there is no limit.
ANY_NUMBER = sys.maxsize

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

#: Seconds until it is tried again to count a loss for which nothing can be stored.
_COUNTED_AGAIN_S = 1.0

#: Seconds for which messages are tried one at a time, and for which there must have been none to
#: try before that begins again.
ALONE_S = 10.0

#: Seconds for those that ``next`` has answered to be judged.
_SHORTEST_WAIT_S = 0.1

#: After that two run beside each other, and twice as many each time after so many seconds. There are no
#: more than RabbitMQ sends ahead.
_DOUBLED_EVERY_S = 1.0
_MOST_DOUBLINGS = 16


class Chance(enum.Enum):
    """How a message may have its last chance."""

    ALONE = "it is counted, and the only one"
    BESIDE = "it runs as it came, beside others, uncounted"
    LATER = "it waits until ``next`` answers it"


class Trials:
    """Gives the last chance to one message at a time, and after a while to more.

    Parameters:
      on_begin: Called when the first of a series is tried.
      most_losses(int): With so many a message is dead.
    """

    def __init__(self, on_begin: Callable[[], None], most_losses: int) -> None:
        self._on_begin = on_begin
        self._most_losses = most_losses
        self._lock = threading.Lock()
        #: The copy that is on trial here, once it has come.
        self._running: int | None = None
        #: Until when one that was stored is waited for, on the monotonic clock.
        self._expected_until = 0.0
        self._waiting: deque[Delivery] = deque()
        #: Tags of those that run beside each other.
        self._beside: set[int] = set()
        #: When the first of the series was to be tried, and the latest, on the monotonic clock.
        self._began_at = self._latest_at = -math.inf

    def judge(self, delivery: Delivery, *, can_count: bool) -> Chance:
        """How a message may have its last chance. If later, it is kept until ``next`` answers it.

        Parameters:
          can_count(bool): Whether its loss can be counted now. If not, no message is alone.
        """
        with self._lock:
            now = time.monotonic()
            begins = not (self._waiting or self._beside) and now - self._latest_at >= ALONE_S
            if begins:
                self._began_at = now
            self._latest_at = now
            width = self._width(now)
            if width == 1 and not can_count:
                self._expected_until = max(self._expected_until, now + _COUNTED_AGAIN_S)
            if not self._room(now):
                self._waiting.append(delivery)
                chance = Chance.LATER
            elif width > 1:
                self._beside.add(delivery.tag)
                chance = Chance.BESIDE
            else:
                self._expected_until = now + _COPY_COMES_S
                chance = Chance.ALONE
        if begins:
            self._on_begin()
        return chance

    def _width(self, now: float) -> int:
        """How many may be tried at a time."""
        beyond_s = now - self._began_at - ALONE_S
        return 1 if beyond_s < 0 else 2 << min(_MOST_DOUBLINGS, int(beyond_s / _DOUBLED_EVERY_S))

    def _room(self, now: float) -> int:
        """How many more may be tried now."""
        width = self._width(now)
        if width == 1 and now < self._expected_until:
            return 0
        return max(0, width - len(self._beside) - (self._running is not None))

    def came(self, delivery: Delivery) -> None:
        """A message is about to run."""
        if losses(delivery) >= self._most_losses - 1:
            with self._lock:
                if self._running is None:
                    self._running = delivery.tag

    def ended(self, delivery: Delivery) -> None:
        """A message was settled."""
        with self._lock:
            self._beside.discard(delivery.tag)
            if self._running == delivery.tag:
                self._running = None
                self._expected_until = 0.0

    def next(self) -> list[Delivery]:
        """The next messages to try, if there is room for some."""
        with self._lock:
            if not self._waiting:
                return []
            now = time.monotonic()
            count = min(self._room(now), len(self._waiting))
            if count:
                self._latest_at = now
            return [self._waiting.popleft() for _ in range(count)]

    def keep(self, deliveries: list[Delivery]) -> None:
        """Have messages that ``next`` answered wait on."""
        with self._lock:
            self._waiting.extendleft(reversed(deliveries))

    @property
    def wait_s(self) -> float | None:
        """Seconds until it is worth asking again, if nothing is settled before; None if nothing waits."""
        with self._lock:
            if not self._waiting:
                return None
            now = time.monotonic()
            wider_s = self._began_at + ALONE_S - now
            if wider_s <= 0:
                return _DOUBLED_EVERY_S - (now - self._began_at - ALONE_S) % _DOUBLED_EVERY_S
            if self._running is not None:
                return wider_s
            return max(_SHORTEST_WAIT_S, min(wider_s, self._expected_until - now))

    def take_waiting(self) -> list[Delivery]:
        """All that wait, to be given back."""
        with self._lock:
            waiting, self._waiting = list(self._waiting), deque()
        return waiting
