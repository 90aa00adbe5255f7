"""Messages that were stored anew while nobody knows whether their copies are there yet.

An alarm of the server's that begins while a copy is on its way leaves it unread: it is stored when
the alarm ends, or never. If the original went back before that, both would run; so it stays here,
unacknowledged, until the server has answered for its copy, or can not any more. If its channel is lost
meanwhile (after the server's consumer_timeout, say), it comes again, and stays again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from ...errors import ConnectionError, ConnectionFailed
from .loop import Loop
from .losses import losses
from .publisher import Batch
from .subscription import Subscription
from .wire import Delivery

#: Seconds between two looks for the server's answers.
_LOOK_EVERY_S = 0.25


def is_in_doubt(error: ConnectionError | None) -> bool:
    """Whether what failed with this error may be stored all the same."""
    return error is not None and not isinstance(error, ConnectionFailed)


class InDoubt:
    """Those of one subscription.

    Parameters:
      loop(Loop): Where the connections live.
      subscription(Subscription): From which they came.
      before(InDoubt | None): Those of the one before, which was lost.
    """

    def __init__(self, loop: Loop, subscription: Subscription, before: InDoubt | None = None) -> None:
        self._loop = loop
        self._subscription = subscription
        self._kept: list[tuple[Delivery, Batch]] = []
        self._timer: Any = None
        #: Copies of what comes again, by that.
        self._copies = {} if before is None else {_key(delivery): batch for delivery, batch in before._kept}

    @property
    def deliveries(self) -> list[Delivery]:
        """Those that are kept."""
        return [delivery for delivery, _ in self._kept]

    def keep(self, pairs: Sequence[tuple[Delivery, Batch]]) -> None:
        """Keep messages until it is known what became of their copies, each in a batch. Does not wait.

        Then they are acknowledged, or go back as they came.
        """
        if pairs:
            self._loop.soon(partial(self._keep, pairs))

    # In the loop, where alone a batch ends, from here on.

    def _keep(self, pairs: Sequence[tuple[Delivery, Batch]]) -> None:
        self._kept = [*self._kept, *pairs]
        if self._timer is None:
            self._look()

    def keep_again(self, delivery: Delivery) -> bool:
        """Keep what was kept when its channel was lost; False if it was not, or its copy is not stored."""
        batch = self._copies.pop(_key(delivery), None)
        if batch is None or not (batch.is_under_way or batch.error is None):
            return False
        self._keep([(delivery, batch)])
        return True

    def _look(self) -> None:
        self._timer = None
        if self._subscription.lost is not None:
            return  # it has returned them, and they come again
        ended = [(delivery, batch) for delivery, batch in self._kept if not batch.is_under_way]
        self._kept = [(delivery, batch) for delivery, batch in self._kept if batch.is_under_way]
        with contextlib.suppress(ConnectionError):
            self._subscription.acknowledge_stored([delivery for delivery, batch in ended if batch.error is None])
            self._subscription.give_back([delivery.tag for delivery, batch in ended if batch.error is not None])
        if self._kept:
            self._timer = self._loop.later(_LOOK_EVERY_S, self._look)


def _key(delivery: Delivery) -> tuple[bytes, int]:
    # Its copy has the same bytes, but mostly another count.
    return delivery.body, losses(delivery)
