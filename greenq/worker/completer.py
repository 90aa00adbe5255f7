"""Writes verdicts to the broker, many in one step.

While one write is under way the next batch gathers, so batching adds no delay when
little happens and costs almost nothing when much does. A job's own greenlet never writes
an ack: a kill can never land in one. No hook runs here: what comes after the write runs
in a task of its own, and only if a middleware, or one of these messages, wants it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from ..broker import Broker
from ..consumer import Consumer, MessageProxy
from ..errors import ConnectionError
from ..logging import get_logger
from ..runtime import Runtime
from ..verdict import ACK, NACK, REQUEUE, Verdict
from .outage import Outage, pause_s


class Completer:
    """Writes what becomes of the messages of one queue.

    Parameters:
      runtime(Runtime): The world.
      broker(Broker): Whose after-hooks are called.
      queue_name(str): For the log.
      bound(int): How many verdicts may wait to be written; whoever brings more waits.
      outage(Outage): Told when the broker does not take them.
    """

    def __init__(self, runtime: Runtime, broker: Broker, queue_name: str, *, bound: int, outage: Outage) -> None:
        self.logger = get_logger(__name__, f"{type(self).__name__}({queue_name})")
        #: The consumer that writes; replaced when the connection had to be made anew.
        self.consumer: Consumer | None = None
        #: How many messages were settled so far; what goes back to the queue is not.
        self.settled = 0
        #: Whether a verdict that is not yet written and told is more than the ack of a job that succeeded.
        self._has_others = False
        self._runtime = runtime
        self._broker = broker
        self._bound = bound
        self._outage = outage
        self._lock = runtime.lock()
        self._pending: list[Verdict] = []
        self._wanted = runtime.event()
        self._room = runtime.event()
        self._idle = runtime.event()
        self._idle.set()
        self._is_stopping = False
        self._has_ended = False
        self._is_writing = False
        #: Batches whose after-hooks run.
        self._telling = 0
        self._queue_name = queue_name
        self._task = runtime.spawn(self._run, name=f"completer of {queue_name}")

    def hand_over(self, verdict: Verdict) -> None:
        """Have this verdict written, soon. A second one for the same message is dropped.

        May switch: waits while too many are waiting.
        """
        while len(self._pending) >= self._bound and not self._is_stopping:
            self._room.clear()
            self._room.wait(1)
        message = verdict.message
        with self._lock:
            if message._is_settled:
                return
            message._is_settled = True
            if verdict.action is not ACK or message._exception is not None or message._closings:
                self._has_others = True
            self._pending.append(verdict)
            self._idle.clear()
            if self._has_ended:
                # A job, or a fetch, that outlasted its worker brings its verdict now.
                self._has_ended = False
                self._task = self._runtime.spawn(self._run, name=f"late completer of {self._queue_name}")
        self._wanted.set()

    def lift_bound(self) -> None:
        """Let nobody wait any more: at a stop there are no more messages than there are."""
        self._bound = sys.maxsize
        self._room.set()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is written and told; False if it was not in time. Switches."""
        return self._idle.wait(timeout_s)

    def stop(self) -> None:
        """End once everything is written. Does not wait."""
        self._is_stopping = True
        self._wanted.set()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            with self._lock:
                batch = self._take_pending()
                self._is_writing = True
            self._room.set()
            if batch:
                self._write(batch)
            del batch  # what is done is not kept until there is more to do
            with self._lock:
                self._is_writing = False
                if not self._pending:
                    self._has_others = False
                    if not self._telling:
                        self._idle.set()
                    if self._is_stopping:
                        self._has_ended = True
                        return
                else:
                    self._wanted.set()

    def _take_pending(self) -> list[Verdict]:
        batch, self._pending = self._pending, []
        return batch

    def _write(self, batch: list[Verdict]) -> None:
        """Write the batch and tell of it, however long the broker is away."""
        failures = 0
        while True:
            try:
                assert self.consumer is not None, "verdicts come from a consumer's messages"
                refused = self._complete(self.consumer, batch)
            except ConnectionError as error:
                batch = self._pause(batch, error, pause_s(failures))
                failures += 1
            except Exception:
                self._write_one_by_one(batch)
                return
            else:
                self._outage.note_success(self)
                self._note_written(batch, refused)
                return

    def _pause(self, batch: list[Verdict], error: ConnectionError, wait_s: float) -> list[Verdict]:
        """Wait before the next try; answer what is to be written then.

        Verdicts that come meanwhile are written at once where the consumer can tell what is
        written: a retry that goes to a full queue holds up no other.
        """
        deadline = time.monotonic() + wait_s
        self._outage.note_failure(self, error)
        left = self._leave_unwritten(batch)
        if left is None:
            self._runtime.sleep(wait_s)  # the broker is away, and nothing else of this queue can be written
            return batch
        while (wait_s := deadline - time.monotonic()) > 0 and self._wanted.wait(wait_s):
            self._wanted.clear()
            with self._lock:
                others = self._take_pending()
            self._room.set()
            if others:
                left += self._write_once(others)
        return left

    def _write_once(self, batch: list[Verdict]) -> list[Verdict]:
        """Write what can be written; answer the rest."""
        assert self.consumer is not None
        try:
            refused = self._complete(self.consumer, batch)
        except ConnectionError:
            left = self._leave_unwritten(batch)
            return batch if left is None else left
        except Exception:
            return batch  # the next try finds out whose fault it is
        self._note_written(batch, refused)
        return []

    def _leave_unwritten(self, batch: list[Verdict]) -> list[Verdict] | None:
        """Tell of those that were written though the write failed; answer the others, or None if nobody knows."""
        unwritten = self.consumer.unwritten(batch) if self.consumer is not None else None
        if unwritten is None:
            return None
        left = set(map(id, unwritten))
        written = [verdict for verdict in batch if id(verdict) not in left]
        if written:
            self._note_written(written, ())
        return list(unwritten)

    def _note_written(self, batch: list[Verdict], refused: Sequence[Verdict]) -> None:
        self.settled += len(batch) - len(refused)
        if self._has_others:
            self.settled -= _returned(batch) - _returned(refused)
        self._tell(batch, refused)

    def _complete(self, consumer: Consumer, batch: list[Verdict]) -> Sequence[Verdict]:
        if consumer.writes_follow_ups:
            return consumer.complete(batch)
        # A consumer of the API reference may know its messages by numbers of its connection,
        # which mean other messages on the next one. What an earlier consumer handed out has
        # gone back with its connection.
        lost = [verdict for verdict in batch if verdict.message._consumer not in (None, consumer)]
        kept = [verdict for verdict in batch if verdict.message._consumer in (None, consumer)]
        return [*lost, *consumer.complete(kept)]

    def _write_one_by_one(self, batch: list[Verdict]) -> None:
        # Some verdict of the batch is unacceptable, or the consumer has an error in it. The
        # others must not suffer; that one's message stays reserved until its lease ends.
        if len(batch) == 1:
            self.logger.critical(
                "The verdict on message %s could not be written.", batch[0].message.message_id, exc_info=True
            )
            self._note_written(batch, batch)
            return
        for verdict in batch:
            self._write([verdict])

    def _tell(self, batch: list[Verdict], refused: Sequence[Verdict]) -> None:
        if refused:
            names = ", ".join(str(verdict.message.message_id) for verdict in refused[:5])
            self.logger.warning(
                "%d messages had been given to another worker before their verdicts came, so these were "
                "dropped; they run, or ran, a second time: %s%s",
                len(refused),
                names,
                ", ..." if len(refused) > 5 else ".",
            )
            left_out = set(map(id, refused))
            batch = [verdict for verdict in batch if id(verdict) not in left_out]
        hooks = self._broker.hooks
        closes = self._has_others and any(verdict.message._closings for verdict in batch)
        if closes or hooks("after_ack") or hooks("after_nack") or hooks("after_enqueue"):
            with self._lock:
                self._telling += 1
            self._runtime.spawn(lambda: self._run_hooks(batch), name="after-hooks")
        elif self._has_others:
            for verdict in batch:
                verdict.message.clear_exception()

    def _run_hooks(self, batch: list[Verdict]) -> None:
        try:
            for verdict in batch:
                self._run_hooks_of(verdict)
        finally:
            with self._lock:
                self._telling -= 1
                if not self._telling and not self._pending and not self._is_writing:
                    self._idle.set()

    def _run_hooks_of(self, verdict: Verdict) -> None:
        message = verdict.message
        for envelope in verdict.follow_ups or ():
            self._broker.emit_after("enqueue", envelope.message, envelope.delay)
        if verdict.action is ACK:
            self._broker.emit_after("ack", message)
        elif verdict.action is NACK:
            self._broker.emit_after("nack", message)
        if verdict.action is not REQUEUE:
            self._close(message)
        message.clear_exception()

    def _close(self, message: MessageProxy) -> None:
        for close in message._closings or ():
            try:
                close()
            except Exception as error:
                self.logger.warning("What follows message %s was not closed: %r", message.message_id, error)


def _returned(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.action is REQUEUE for verdict in verdicts)
