"""The worker id of this process, and its lease on each queue that it consumes.

The leases are renewed, and those of the dead are taken back, by a native thread with a
connection of its own: it never waits for the others, nor they for it.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import NamedTuple

from ...errors import ConnectionError
from ...lease import LeaseKeeper
from ...runtime import current
from .failures import REDIRECTIONS
from .keys import Layout
from .links import Caller
from .peek import Peek
from .scripts import HAND_OVER, PURGE, RENEW, TAKE_BACK

#: What an answer of the script renew is a sum of.
_LOST, _OTHERS_EXPIRED, _DEAD_LETTERS_EXPIRED = 1, 2, 4
#: How many dead letters one script drops, at most.
_PURGED_AT_ONCE = 1000


class Loss(NamedTuple):
    """A lease that was lost, for the log."""

    lost: str
    next: str


class Lease:
    """The name under which this process reserves messages of one queue.

    Attributes:
      holder(str): The name now.
      known(dict[bytes, int]): Ids of the messages that were fetched and not settled, with the
        number of their last fetch: what was lost may be here again, under the same id.
      unconfirmed(set[bytes]): Ids of messages that may be settled: the answer was lost.
      is_in_doubt(bool): Whether more may be reserved than is known: a fetch failed, or the
        server lost the last things that it confirmed.
      next_holder(str): The name to which everything is being handed over; None if it is not.
      fetching: A lock, held while a fetch is under way: what is known is all there is then.
      waits(list[Peek]): The waits of this process on the queue, to be ended when the server
        does not answer the keeper.
    """

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.known: dict[bytes, int] = {}
        self.unconfirmed: set[bytes] = set()
        self.is_in_doubt = False
        self.next_holder: str | None = None
        self.fetching = threading.Lock()
        self.waits: list[Peek] = []
        self._handed_over: dict[str, str] = {}

    def note_doubt(self) -> None:
        """More may be reserved than is known."""
        self.is_in_doubt = True

    def forget(self, stored_id: bytes, number: int) -> None:
        """A message is settled; nothing if it was fetched again since this number."""
        if self.known.get(stored_id) == number:
            del self.known[stored_id]

    def hand_over(self, holder: str) -> None:
        """Go on under a name to which everything was handed over."""
        self._handed_over[self.holder] = holder
        self.holder = holder
        self.next_holder = None

    def lose(self, holder: str) -> None:
        """Go on under a name that holds nothing: what was known is others' now."""
        self.holder = holder
        self.next_holder = None
        self.known = {}

    def now(self, holder: str) -> str:
        """Who holds now what this holder fetched."""
        while holder in self._handed_over:
            holder = self._handed_over[holder]
        return holder


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
      is_announced(bool): Whether this process is to be known by it already: it may fetch, and die, at any time now.
    """

    def __init__(
        self, layout: Layout, own: Caller, *, is_cluster: bool, lease_ms: int, dead_message_ttl_ms: int
    ) -> None:
        self.worker_id = secrets.token_hex(8)
        self.is_announced = False
        self.lease_ms = lease_ms
        self._dead_message_ttl_ms = dead_message_ttl_ms
        self._layout = layout
        self._own = own
        self._is_cluster = is_cluster
        self._guard = current().native_lock()
        self._leases_by_queue: dict[str, Lease] = {}
        self._holders = 0
        self._losses: list[Loss] = []
        self._expired: set[str] = set()
        self._keeper: LeaseKeeper | None = None
        self._is_left = False
        #: Queues whose node could be reached without a break, and since when.
        self._kept_since: dict[str, float] = {}

    @property
    def queues(self) -> list[str]:
        """The queues that this process consumes, or did."""
        return list(self._leases_by_queue)

    def lease(self, queue_name: str) -> Lease:
        """The lease on a queue that this process consumes."""
        return self._leases_by_queue[queue_name]

    def join(self, queue_name: str, links: Caller) -> None:
        """Take a lease on a queue, if there is none yet. May switch.

        Raises:
          ConnectionError: The server is away.
        """
        if queue_name in self._leases_by_queue:
            return
        holder = self._new_holder()
        self._renew_some([(queue_name, holder)], links, takes=True)
        with self._guard:
            # Of two that begin at the same time one is enough; the other's lease runs out unused.
            self._leases_by_queue.setdefault(queue_name, Lease(holder))
            is_first = self._keeper is None and not self._is_left
            if is_first:
                self._keeper = LeaseKeeper(self.lease_ms, self._renew, self._take_back_expired, end=self._own.close)

    def replace(self, queue_name: str, lost: str, links: Caller) -> None:
        """Go on under a new name after this lease was lost. May switch.

        Raises:
          ConnectionError: The server is away.
        """
        lease = self._leases_by_queue[queue_name]
        if lease.holder != lost:
            return  # the keeper, or another consumer, has found the loss as well
        holder = self._new_holder()
        self._renew_some([(queue_name, holder)], links, takes=True)
        with self._guard:
            if lease.holder == lost:
                lease.lose(holder)
                self._losses.append(Loss(lost, holder))

    def clear_doubt(self, queue_name: str, links: Caller) -> None:
        """Return what is reserved and not known. To be called while nothing is fetched. May switch.

        Raises:
          ConnectionError: The server is away; the doubt remains.
        """
        lease = self._leases_by_queue[queue_name]
        of, old = self._layout.of(queue_name), lease.holder
        # The same name again after an answer that was lost: it may have everything already.
        new = lease.next_holder = lease.next_holder or self._new_holder()
        lease.is_in_doubt = False  # before, because a connection may break in the meantime
        try:
            links.call(HAND_OVER, of.for_hand_over(old, new), [old, new, self.lease_ms, *lease.known])
        except BaseException:
            lease.is_in_doubt = True
            raise
        with self._guard:
            if lease.holder == old:
                lease.hand_over(new)

    def note_break(self) -> None:
        """A connection broke, so that it may be another server now, or the same from its files.

        It may have lost the last verdicts that were confirmed, with the retries that follow
        from them: then it has messages as reserved that nobody here knows of any more.
        """
        for lease in list(self._leases_by_queue.values()):
            lease.note_doubt()

    def _new_holder(self) -> str:
        with self._guard:
            self._holders += 1
            return f"{self.worker_id}.{self._holders}"

    def take_losses(self) -> list[Loss]:
        """The leases that were lost since this was last asked."""
        if not self._losses:
            return []
        with self._guard:
            losses, self._losses = self._losses, []
        return losses

    def leave(self) -> None:
        """Stop renewing, and end all waits."""
        self._is_left = True
        if self._keeper is not None:
            self._keeper.stop()
        self._end_waits(self.queues)

    def _end_waits(self, queue_names: list[str]) -> None:
        for queue_name in queue_names:
            for wait in list(self._leases_by_queue[queue_name].waits):
                wait.interrupt()

    # -- in the keeper's native thread

    def _renew(self) -> None:
        if self._is_left:
            return
        self._expired.clear()
        held: list[tuple[str, str]] = []
        offered: set[str] = set()
        for queue_name, lease in list(self._leases_by_queue.items()):
            held.append((queue_name, lease.holder))
            # After an answer that was lost it may have everything, until the next fetch asks
            # again: which may be long, if no slot is free.
            next_holder = lease.next_holder
            if next_holder is not None:
                held.append((queue_name, next_holder))
                offered.add(next_holder)
        # All in one command, but where they are in different slots.
        portions = [[each] for each in held] if self._is_cluster else [held]
        away: dict[str, ConnectionError] = {}
        for portion in portions:
            self._renew_portion(portion, offered, away)
        # The leases on what other nodes have are kept all the same.
        if away and not self._kept_since:
            raise next(iter(away.values()))

    def _renew_portion(
        self, portion: list[tuple[str, str]], offered: set[str], away: dict[str, ConnectionError]
    ) -> None:
        names = [queue_name for queue_name, _ in portion]
        address = ""
        try:
            address = self._own.address_of(self._layout.of(names[0]).ready) if names else ""
            if address in away:  # a node that does not answer is waited for once
                raise away[address]
            answers = self._renew_some(portion, self._own, takes=False)
            for (queue_name, holder), answer in zip(portion, answers, strict=True):
                is_handed_over = self._leases_by_queue[queue_name].next_holder is not None
                is_lost = answer & _LOST and holder not in offered
                if is_lost and not is_handed_over and not self._is_left:
                    self.replace(queue_name, holder, self._own)
        except ConnectionError as error:
            away[address] = error
            for queue_name in names:
                self._kept_since.pop(queue_name, None)
            # A wait on a connection that has gone silent would notice after half a minute, and
            # what arrives on the server meanwhile would stay there. A node that says that the slot
            # is elsewhere is not silent: it tells whoever waits as well.
            if not isinstance(error.__cause__, REDIRECTIONS):
                self._end_waits(names)
            return
        now = time.monotonic()
        for queue_name, answer in zip(names, answers, strict=True):
            kept_s = now - self._kept_since.setdefault(queue_name, now)
            # The keeper sees to it that the whole was held for a lease; of a cluster, each node.
            may_take_back = not self._is_cluster or kept_s >= self.lease_ms / 1000
            if may_take_back and answer & (_OTHERS_EXPIRED | _DEAD_LETTERS_EXPIRED):
                self._expired.add(queue_name)

    def _renew_some(self, held: list[tuple[str, str]], caller: Caller, *, takes: bool) -> list[int]:
        keys: list[str] = []
        for queue_name, _ in held:
            keys += self._layout.of(queue_name).for_renew()
        holders = [holder for _, holder in held]
        answers: list[int] = caller.call(RENEW, keys, [self.lease_ms, self._dead_message_ttl_ms, int(takes), *holders])
        return answers

    def _take_back_expired(self) -> None:
        for queue_name in self._expired:
            if self._is_left:
                return
            of = self._layout.of(queue_name)
            self._own.call(TAKE_BACK, of.for_take_back(), ["", 1, 0, ""])
            purged = _PURGED_AT_ONCE
            while purged == _PURGED_AT_ONCE:
                purged = self._own.call(PURGE, of.for_purge(), [self._dead_message_ttl_ms, _PURGED_AT_ONCE])
