"""The worker id of this process, and its lease on each queue that it consumes.

The leases are renewed, and those of the dead are taken back, by a native thread with a
connection of its own: it never waits for the others, nor they for it.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from ...lease import LeaseKeeper
from ...runtime import current
from .connection import Caller
from .keys import Layout
from .scripts import PURGE, RENEW, TAKE_BACK

#: What an answer of the script renew is a sum of.
_LOST, _OTHERS_EXPIRED, _DEAD_LETTERS_EXPIRED = 1, 2, 4
#: How many dead letters one script drops, at most.
_PURGED_AT_ONCE = 1000


class Loss(NamedTuple):
    """A lease that was lost, for the log."""

    lost: str
    next: str


class Membership:
    """This process among those that consume.

    Parameters:
      layout(Layout): The keys.
      own(Caller): A connection that nobody else uses.
      is_cluster(bool): Whether a script may have only one queue's keys.
      lease_ms(int): The length of a lease.
      dead_message_ttl_ms(int): Dead letters older than this are dropped.

    Attributes:
      worker_id(str): New for each process.
    """

    def __init__(
        self, layout: Layout, own: Caller, *, is_cluster: bool, lease_ms: int, dead_message_ttl_ms: int
    ) -> None:
        self.worker_id = secrets.token_hex(8)
        self.lease_ms = lease_ms
        self._dead_message_ttl_ms = dead_message_ttl_ms
        self._layout = layout
        self._own = own
        self._is_cluster = is_cluster
        self._guard = current().native_lock()
        self._holders: dict[str, str] = {}
        self._leases = 0
        self._losses: list[Loss] = []
        self._expired: set[str] = set()
        self._keeper: LeaseKeeper | None = None
        self._is_left = False

    @property
    def queues(self) -> list[str]:
        """The queues that this process consumes, or did."""
        return list(self._holders)

    def holder(self, queue_name: str) -> str:
        """The name under which this process reserves messages of a queue now."""
        return self._holders[queue_name]

    def join(self, queue_name: str, links: Caller) -> None:
        """Take a lease on a queue, if there is none yet. May switch.

        Raises:
          ConnectionError: The server is away.
        """
        if queue_name in self._holders:
            return
        holder = self._new_holder()
        self._renew_some([(queue_name, holder)], links, takes=True)
        with self._guard:
            # Of two that begin at the same time one is enough; the other's lease runs out unused.
            self._holders.setdefault(queue_name, holder)
            is_first = self._keeper is None and not self._is_left
            if is_first:
                self._keeper = LeaseKeeper(self.lease_ms, self._renew, self._take_back_expired)

    def replace(self, queue_name: str, lost: str, links: Caller) -> None:
        """Go on under a new name after this lease was lost. May switch.

        Raises:
          ConnectionError: The server is away.
        """
        if self._holders[queue_name] != lost:
            return  # the keeper, or another consumer, has found the loss as well
        holder = self._new_holder()
        self._renew_some([(queue_name, holder)], links, takes=True)
        with self._guard:
            if self._holders[queue_name] == lost:
                self._holders[queue_name] = holder
                self._losses.append(Loss(lost, holder))

    def _new_holder(self) -> str:
        with self._guard:
            self._leases += 1
            return f"{self.worker_id}.{self._leases}"

    def take_losses(self) -> list[Loss]:
        """The leases that were lost since this was last asked."""
        if not self._losses:
            return []
        with self._guard:
            losses, self._losses = self._losses, []
        return losses

    def leave(self) -> None:
        """Stop renewing."""
        self._is_left = True
        if self._keeper is not None:
            self._keeper.stop()

    # -- in the keeper's native thread

    def _renew(self) -> None:
        if self._is_left:
            return
        self._expired.clear()
        held = list(self._holders.items())
        # All in one command, but where they are in different slots.
        portions = [[each] for each in held] if self._is_cluster else [held]
        for portion in portions:
            answers = self._renew_some(portion, self._own, takes=False)
            for (queue_name, holder), answer in zip(portion, answers, strict=True):
                if answer & _LOST and not self._is_left:
                    self.replace(queue_name, holder, self._own)
                if answer & (_OTHERS_EXPIRED | _DEAD_LETTERS_EXPIRED):
                    self._expired.add(queue_name)

    def _renew_some(self, held: list[tuple[str, str]], caller: Caller, *, takes: bool) -> list[int]:
        keys: list[str] = []
        for queue_name, _ in held:
            of = self._layout.of(queue_name)
            keys += (of.workers, of.dead)
        holders = [holder for _, holder in held]
        answers: list[int] = caller.call(RENEW, keys, [self.lease_ms, self._dead_message_ttl_ms, int(takes), *holders])
        return answers

    def _take_back_expired(self) -> None:
        for queue_name in self._expired:
            if self._is_left:
                return
            of = self._layout.of(queue_name)
            self._own.call(TAKE_BACK, [of.ready, of.priorities, of.deliveries, of.workers], ["", 1])
            keys = [of.dead, of.dead_messages, of.dead_reasons]
            while self._own.call(PURGE, keys, [self._dead_message_ttl_ms, _PURGED_AT_ONCE]) == _PURGED_AT_ONCE:
                pass
