"""Hands out the messages of one queue on the server, and writes what became of them.

Everything is one script for a whole batch; a consumer that waits holds nothing. What is fetched
becomes messages in messages.py, and what verdicts become is in settlement.py.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...consumer import BatchConsumer, MessageProxy
from ...errors import ConnectionClosed, ConnectionError
from ...message import MAX_MESSAGE_BYTES
from ...runtime import current
from ...verdict import Verdict
from .keys import Keys
from .messages import decode, judge_all
from .peek import Claim
from .scripts import FETCH, SETTLE
from .settlement import settlement
from .store import store

if TYPE_CHECKING:
    from .attachment import Attachment


class RedisConsumer(BatchConsumer):
    """A consumer of one queue.

    Parameters:
      attachment(Attachment): Of this process to the server. Once it is closed, or in a forked
        child, everything here raises ConnectionClosed.
      queue_name(str): The canonical name.
      timeout(int): Milliseconds after which waiting ends.
      logger(logging.Logger): The broker's.
      max_deliveries(int | None): How many workers a message may kill before it is given up.
    """

    batch_size: ClassVar[int] = 500

    def __init__(
        self,
        attachment: Attachment,
        queue_name: str,
        timeout: int,
        logger: logging.Logger,
        *,
        max_deliveries: int | None,
    ) -> None:
        self.logger = logger
        self._max_deliveries = max_deliveries
        self.queue_name = queue_name
        self._attachment = attachment
        self._links = attachment.links
        self._membership = attachment.membership
        self._lease = attachment.membership.lease(queue_name)
        self._keys = attachment.layout.of(queue_name)
        self._peek = attachment.peek(queue_name)
        self._lease.waits.append(self._peek)
        self._timeout_s = timeout / 1000
        self._may_have_more = True
        self._due_at: float | None = None  # of the next delayed message, by the monotonic clock
        self._is_woken = False
        self._is_waiting = False
        self._is_closed = False

    # -- waiting

    def wait(self) -> bool:
        """Wait, holding nothing, until there may be something to fetch.

        Returns False if the timeout passed, or ``wake`` was called.

        Raises:
          ConnectionClosed: The server is away, or the broker was closed.

        May switch.
        """
        if self._is_closed:
            raise ConnectionClosed("The consumer was closed")
        if self._end_wait_if_woken():
            return False
        if self._peek.is_claiming:
            # It is left under way when a wait ends early, because something else is due.
            self._peek.wait(0, lambda: self._is_woken)
            self._take_claimed()
            if self._end_wait_if_woken():
                return self.taken_by_wait is not None
        if self._lease.is_in_doubt:
            self._may_have_more = True  # fetching clears it up, and may find something
        if self.taken_by_wait is None and not self._may_have_more:
            self._is_waiting = True
            try:
                # What was fetched just now starts before the command to wait is sent.
                current().sleep(0)
                self._may_have_more = self._wait()
            finally:
                self._is_waiting = False
                self._end_wait_if_woken()
            self._take_claimed()
        return self.taken_by_wait is not None or self._may_have_more

    def _end_wait_if_woken(self) -> bool:
        if not (self._is_woken or self._is_closed):
            return False
        # What was interrupted is of no use any more. What it has reserved is returned by rest().
        self._peek.close()
        self._is_woken = False
        return True

    def rest(self) -> None:
        self._peek.close()
        # If that fails, the next fetch does it, or the end of the lease.
        with contextlib.suppress(ConnectionError):
            self._clear_doubt()

    def _take_claimed(self) -> None:
        claimed, self._peek.claimed = self._peek.claimed, None
        if claimed is None:
            return
        with self._lease.fetching:
            if self._lease.holder != claimed.holder:
                # It was asked for under a name that was given up; what it had was returned then.
                self._may_have_more = True
                return
            messages = self._note_fetched(*claimed)
        if messages:
            self.taken_by_wait = messages[0]

    def _wait(self) -> bool:
        timeout_s = self._timeout_s
        if self._due_at is not None:
            timeout_s = min(timeout_s, max(0.0, self._due_at - time.monotonic()))
        claim = self._claim() if self.claims_ahead and not self._attachment.is_cluster else None
        if self._peek.wait(timeout_s, lambda: self._is_woken, claim):
            return True
        return not self._is_woken and self._due_at is not None and time.monotonic() >= self._due_at

    def _claim(self) -> Claim:
        holder = self._lease.holder
        keys, args = self._fetch_of(holder, 1)
        return Claim(holder, ("EVALSHA", FETCH.sha, len(keys), *keys, *args))

    def wake(self) -> None:
        """End a wait that is under way, or else the next one. May be called from any thread."""
        self._is_woken = True
        self._peek.interrupt()

    # -- in batches

    def fetch(self, count: int) -> list[MessageProxy]:
        """Reserve the first ``count`` messages, or as many as there are.

        Raises:
          ConnectionError: The server is away. What it may have reserved goes back with the
            next fetch.

        May switch.
        """
        taken = self.hand_over_taken()
        if taken is not None:
            return [taken]
        membership = self._membership
        with self._lease.fetching:
            messages = self._note_fetched(*self._reserve(min(count, self.batch_size)))
        for lost, following in membership.take_losses():
            self.logger.warning(
                "The lease %s ran out and its messages were given to others; going on with lease %s. This happens to "
                "a process that was stopped, or could not reach Redis, for %d ms.",
                lost,
                following,
                membership.lease_ms,
            )
        return messages

    def _reserve(self, count: int) -> tuple[str, Any]:
        membership, lease = self._membership, self._lease
        if lease.is_in_doubt:
            membership.clear_doubt(self.queue_name, self._links)
        while True:
            holder = lease.holder
            try:
                fetched = self._links.call(FETCH, *self._fetch_of(holder, count))
            except BaseException:
                lease.is_in_doubt = True
                raise
            if fetched is not None:
                return holder, fetched
            membership.replace(self.queue_name, holder, self._links)

    def _fetch_of(self, holder: str, count: int) -> tuple[Keys, list[Any]]:
        return self._keys.for_fetch(holder), [holder, self._membership.lease_ms, count, MAX_MESSAGE_BYTES]

    def _note_fetched(self, holder: str, fetched: Any) -> list[MessageProxy]:
        ids, payloads, deliveries, more, due_ms, noted = fetched
        messages = decode(self._attachment.layout, self.queue_name, holder, ids, payloads, deliveries)
        if noted:
            judge_all(messages, noted, self._max_deliveries, self.logger)
        self._lease.known.update((message.stored_id, message.number) for message in messages)
        self._may_have_more = bool(more)
        self._due_at = None if due_ms < 0 else time.monotonic() + due_ms / 1000
        return messages

    def complete(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        """Write what became of these messages; return the verdicts that were refused.

        Refused is a verdict on a message that is not held any more under the lease with which
        it was fetched; its follow-ups are not stored.

        Raises:
          ConnectionError: Nothing is known of any of them; try again.

        May switch.
        """
        by_holder: dict[str, list[Verdict]] = {}
        for verdict in verdicts:
            holder: str = verdict.message.held_by  # nearly always the same one
            batch = by_holder.get(holder)
            if batch is None:
                by_holder[holder] = [verdict]
            else:
                batch.append(verdict)
        refused: list[Verdict] = []
        lease = self._lease
        ids = [verdict.message.stored_id for verdict in verdicts]
        try:
            for holder, batch in by_holder.items():
                refused += self._settle_held(holder, batch)
        except BaseException:
            lease.unconfirmed.update(ids)
            raise
        for verdict in verdicts:
            lease.forget(verdict.message.stored_id, verdict.message.number)
        if lease.unconfirmed:
            lease.unconfirmed.difference_update(ids)
        return refused

    def _clear_doubt(self) -> None:
        with self._lease.fetching:
            if self._lease.is_in_doubt:
                self._membership.clear_doubt(self.queue_name, self._links)

    def _settle_held(self, holder: str, verdicts: list[Verdict]) -> list[Verdict]:
        lease = self._lease
        while True:
            now = lease.now(holder)
            has_lease, *refused = self._settle(now, verdicts)
            if not refused:
                return []
            next_holder = lease.next_holder
            verdicts = _of(verdicts, set(refused))
            if next_holder is not None and lease.now(holder) == now:
                # They may have been handed over, by a step whose answer has not come yet.
                has_next_lease, *refused = self._settle(next_holder, verdicts)
                if not refused:
                    return []
                has_lease = has_lease or has_next_lease
                verdicts = _of(verdicts, set(refused))
            if lease.now(holder) != now:
                continue  # they were handed over in between: ask whoever holds them now
            ids = set(refused)
            if has_lease:
                # Written by an attempt whose answer was lost.
                ids -= lease.unconfirmed
            return _of(verdicts, ids)

    def _settle(self, holder: str, verdicts: list[Verdict]) -> list[Any]:
        attachment = self._attachment
        is_cluster = attachment.is_cluster
        elsewhere, keys, args = settlement(attachment.layout, self.queue_name, holder, verdicts, is_cluster=is_cluster)
        if elsewhere:
            store(attachment, elsewhere)
        answer: list[Any] = self._links.call(SETTLE, keys, args)
        return answer

    def close(self) -> None:
        """End a wait. What is still reserved stays so until it is settled, or the broker is closed."""
        self._is_closed = True
        with contextlib.suppress(ValueError):
            self._lease.waits.remove(self._peek)
        self.wake()
        if not self._is_waiting:
            self._peek.close()


def _of(verdicts: list[Verdict], ids: set[bytes]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.message.stored_id in ids]
