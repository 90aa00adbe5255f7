"""Runs a suspect with nothing beside it, so that a death meanwhile says who it was.

Knows slots and messages. What makes a suspect is in suspicion.py; whoever looks at deaths is told
through ``tell``.

One at a time: no slot is given out, what runs is waited for, and for its verdicts to be written; it runs,
slots are given out again. All waits have an end, because a queue must not stand still for hours on a
suspicion: most of what kills does so soon, and a death later on, or beside others, is judged by who had
the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..consumer import MessageProxy
from ..logging import get_logger
from ..runtime import Runtime
from .job_marks import marked
from .slots import Slots

if TYPE_CHECKING:
    from .consumer import ConsumerThread

#: Seconds for which a suspect waits for the jobs that run already, and then for the broker to take the
#: verdicts. Then it runs beside them.
PATIENCE_S = 5.0

#: Seconds after such a wait in vain in which the next suspects do not wait.
IMPATIENT_S = 60.0

#: Seconds after which others run beside a suspect that has not ended.
ALONE_S = 60.0

#: How often who waits for the broker looks whether that is still wanted.
_LOOK_EVERY_S = 0.2


class Solitude:
    """Where one suspect at a time runs alone.

    Parameters:
      runtime(Runtime): The world.
      slots(Slots): That nobody gets meanwhile.

    Attributes:
      tell(Callable[[str | None], object]): Called with the id of a message before it runs alone, and with
        None when it has ended, or others run again. Must not wait.
    """

    def __init__(self, runtime: Runtime, slots: Slots) -> None:
        self.logger = get_logger(__name__, type(self))
        self.tell: Callable[[str | None], object] = lambda message_id: None
        self._runtime = runtime
        self._slots = slots
        self._impatient_until = 0.0

    def run(self, message: MessageProxy, consumer: ConsumerThread) -> bool:
        """Have a suspect run, in the one slot that was taken for it; False if it is to go back instead.

        Returns when it has been delivered, not when it has ended; it has not been if this raises. Switches:
        waits for what runs.
        """
        if not self._slots.shut():
            return False  # one of another queue has its turn
        is_attended = False
        try:
            is_alone = self._wait_for_others(consumer)
            if not consumer.is_fetching:
                return False
            if is_alone:
                self._announce(message)
                is_attended = True
        finally:
            if not is_attended:
                self._slots.reopen()
        self._slots.deliver([message], consumer)
        return True

    def _wait_for_others(self, consumer: ConsumerThread) -> bool:
        """Wait for what runs, and goes back; whether there is nothing of it now."""
        now = time.monotonic()
        patience_s = 0.0 if now < self._impatient_until else PATIENCE_S
        if self._slots.wait_until_one(patience_s, lambda: consumer.is_fetching) and self._wait_until_written(consumer):
            return True
        if patience_s and consumer.is_fetching:
            self._impatient_until = time.monotonic() + IMPATIENT_S
        return False

    def _wait_until_written(self, consumer: ConsumerThread) -> bool:
        """Wait for the verdicts of all queues, whose messages would be lost with a suspect that kills."""
        deadline = time.monotonic() + PATIENCE_S
        for each in list(consumer.worker.consumers.values()):
            while not each.completer.flush(min(_LOOK_EVERY_S, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline or not consumer.is_fetching:
                    return False
        return True

    def _announce(self, message: MessageProxy) -> None:
        """Tell that it runs alone, and have somebody tell when it does no longer."""
        inner = message._message
        self.logger.info(
            "Message %s of actor %s runs alone for %.0f s at most: its worker was lost %d times, %d of them seen to be "
            "because of it.",
            *(inner.message_id, inner.actor_name, ALONE_S, message.deliveries, message.charges),
            extra=marked(inner),
        )
        self.tell(inner.message_id)
        try:
            # Before it runs: if there is no thread for this, nobody would ever give out slots again.
            self._runtime.spawn(lambda: self._attend(message), name="attendant of a suspect")
        except BaseException:
            self.tell(None)
            raise

    def _attend(self, message: MessageProxy) -> None:
        has_ended = self._slots.wait_until_free(ALONE_S)
        try:
            # First, so that the death of what runs next is not taken for this one's.
            self.tell(None)
        finally:
            self._slots.reopen()
        if not has_ended:
            self.logger.info("Others run beside message %s again, which goes on.", message._message.message_id)
