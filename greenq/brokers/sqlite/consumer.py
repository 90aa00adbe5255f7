"""Hands out the messages of one queue of the file, and writes what became of them.

Everything is done by the store, in batches; a consumer that waits holds nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...clock import now_ms
from ...consumer import BatchConsumer, MessageProxy, Undecodable, without_eta
from ...errors import DecodeError
from ...failures import dead_payload
from ...message import Message
from ...runtime import current
from ...suspicion import Evidence, judge
from ...verdict import NACK, REQUEUE, Verdict
from .operations import Claim, Peek, Row, Settle, row, text

if TYPE_CHECKING:
    from .attachment import Attachment


class SqliteMessage(MessageProxy):
    """A message from the file.

    Attributes:
      row_id(int): Its row.
      held_by(int): The worker id under which it was fetched.
      deliveries(int): How often it was taken back from a worker that was lost.
    """

    def __init__(self, message: Message[Any], row_id: int, held_by: int, deliveries: int) -> None:
        super().__init__(message)
        self.row_id = row_id
        self.held_by = held_by
        self.deliveries = deliveries


class SqliteUndecodable(Undecodable):
    """Bytes from the file that are no message; attributes as of SqliteMessage."""

    def __init__(
        self, queue_name: str, payload: bytes, error: BaseException, row_id: int, held_by: int, deliveries: int
    ) -> None:
        super().__init__(queue_name, payload, error)
        self.row_id = row_id
        self.held_by = held_by
        self.deliveries = deliveries


class SqliteConsumer(BatchConsumer):
    """A consumer of one queue.

    Parameters:
      attachment(Attachment): Of this process to the file. Once it is closed, or in a forked
        child, everything here raises ConnectionClosed.
      queue_name(str): The canonical name.
      timeout(int): Milliseconds after which waiting ends.
      logger(logging.Logger): The broker's.
      max_deliveries(int | None): How many workers a message may kill before it is given up.
    """

    # More are a little quicker for jobs that take no time, and slower for those that do: slots
    # that became free during a long claim wait for its end.
    batch_size: ClassVar[int] = 64

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
        self._store = attachment.store
        self._membership = attachment.membership
        self._wake_up = attachment.wake_up
        self._timeout_s = timeout / 1000
        self._event = current().event()
        self._may_have_more = True
        self._is_woken = False

    # -- waiting

    def wait(self) -> bool:
        """Wait, holding nothing, until there may be something to fetch.

        Returns False if the timeout passed, or ``wake`` was called. May switch.
        """
        if self._is_woken:
            self._is_woken = False
            return False
        if self._may_have_more:
            return True
        wake_up, event = self._wake_up, self._event
        deadline = time.monotonic() + self._timeout_s
        event.clear()
        with wake_up.waiting(self.queue_name, event):
            while True:
                # After the mark is set, so that nothing stored in between is missed.
                is_ready, next_due = self._store.do(Peek(self.queue_name))
                if is_ready:
                    return True
                left_s = deadline - time.monotonic()
                pause_s = min(left_s, wake_up.look_every_s)
                if next_due is not None:
                    pause_s = min(pause_s, (next_due - now_ms()) / 1000)
                    if pause_s <= 0 < left_s:
                        return True
                if self._is_woken or left_s <= 0:
                    self._is_woken = False
                    return False
                if event.wait(pause_s) and not self._is_woken:
                    return True

    def wake(self) -> None:
        """End a wait that is under way, or else the next one. May be called from any thread."""
        self._is_woken = True
        self._event.set()

    # -- in batches

    def fetch(self, count: int) -> list[MessageProxy]:
        """Reserve the first ``count`` messages, or as many as there are. May switch."""
        membership = self._membership
        claim = Claim(self.queue_name, min(count, self.batch_size), membership, membership.lease_ms)
        held_by, ids, lengths, deliveries, evidence, payloads = self._store.do(claim)
        for lost in membership.take_losses():
            self.logger.warning(
                "The lease of worker %d ran out and its messages were given to others; going on as worker %d. This "
                "happens to a process that was stopped, or could not reach the file, for %d ms.",
                lost,
                membership.value,
                membership.lease_ms,
            )
        self._may_have_more = payloads is not None
        if payloads is None:
            return []
        messages = self._decode(payloads, json.loads(ids), json.loads(lengths), json.loads(deliveries), held_by)
        if evidence != "[]":
            self._judge(messages, {row_id: Evidence(*noted) for row_id, *noted in json.loads(evidence)})
        return messages

    def _decode(
        self, payloads: bytes, ids: list[int], lengths: list[int], deliveries: list[int], held_by: int
    ) -> list[MessageProxy]:
        messages: list[MessageProxy] = []
        decode = Message._decode
        start = 0
        for row_id, length, count in zip(ids, lengths, deliveries, strict=True):
            payload = payloads[start : start + length]
            start += length
            try:
                message = decode(payload)
            except DecodeError as error:
                messages.append(SqliteUndecodable(self.queue_name, payload, error, row_id, held_by, count))
                continue
            if "eta" in message.options:
                message = without_eta(message)
            messages.append(SqliteMessage(message, row_id, held_by, count))
        return messages

    def _judge(self, messages: list[MessageProxy], evidence: dict[int, Evidence]) -> None:
        for message in messages:
            if message.row_id in evidence:
                judge(message, evidence[message.row_id], self._max_deliveries, self.logger)

    def complete(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        """Write what became of these messages; return the verdicts that were refused.

        Refused is a verdict on a message that is not held any more under the worker id that
        fetched it; its follow-ups are not stored. May switch.
        """
        refused: list[Verdict] = []
        holders: set[int] = {verdict.message.held_by for verdict in verdicts}
        for holder in holders:  # nearly always one
            batch = [*verdicts] if len(holders) == 1 else [each for each in verdicts if each.message.held_by == holder]
            ids = self._store.do(self._settle(holder, batch))
            if ids:
                refused += [verdict for verdict in batch if verdict.message.row_id in ids]
        return refused

    def _settle(self, holder: int, verdicts: list[Verdict]) -> Settle:
        removed: list[int] = []
        returned: list[int] = []
        dead: list[tuple[int, str | None, bytes | None]] = []
        follow_ups: dict[int, list[Row]] = {}
        for verdict in verdicts:
            row_id: int = verdict.message.row_id
            if verdict.action is REQUEUE:
                returned.append(row_id)
                continue
            removed.append(row_id)
            if verdict.action is NACK:
                reason = verdict.reason or verdict.message.reason
                dead.append((row_id, reason and text(reason), dead_payload(verdict.message)))
            if verdict.follow_ups:
                follow_ups[row_id] = [row(each) for each in verdict.follow_ups]
        return Settle(holder, removed, returned, dead, follow_ups, self.queue_name)

    def close(self) -> None:
        """End a wait. What is still reserved stays so until it is settled, or the broker is closed."""
        self.wake()
