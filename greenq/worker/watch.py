"""Watches who has the CPU of a worker, and interrupts a job that never waits.

    cpu.py       kept at every switch: which job has it, and since when
    alarm.py     interrupts the one that is overdue and never waits

Only where gevent has patched: a job in a native thread keeps nobody waiting, and is interrupted at
its next line anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..alarm import alarm
from ..logging import get_logger
from ..runtime import Interruptible, Runtime
from .deadlines import Deadlines
from .job_marks import marked
from .whereabouts import whereabouts

if TYPE_CHECKING:
    from ..consumer import MessageProxy

_LOOK_EVERY_S = 0.05


class Watch:
    """The watch of one worker. Of no effect where gevent has not patched, and in any but the main thread.

    Parameters:
      runtime(Runtime): The world.
      deadlines(Deadlines): Of the worker's jobs.
    """

    def __init__(self, runtime: Runtime, deadlines: Deadlines) -> None:
        self.logger = get_logger(__name__, type(self))
        self._runtime = runtime
        self._deadlines = deadlines
        deadlines.on_soft = self._tell_soft_limit
        self._end_switches: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin, with the worker. Does not wait."""
        self._end_switches = self._runtime.watch_switches(_LOOK_EVERY_S, self._turn)
        if self._end_switches is not None and alarm.start():
            self._deadlines.arm_alarm = alarm.arm

    def stop(self) -> None:
        """End, once its jobs have. Does not wait."""
        if self._end_switches is None:
            return
        alarm.stop()
        self._end_switches()
        self._end_switches = None

    def _turn(self) -> None:
        """The hub has a turn."""

    def _tell_soft_limit(self, guard: Interruptible) -> None:
        # In the hub, where a log must not wait; where the job is has to be looked at now.
        where = whereabouts(guard.stack())
        self._runtime.spawn(lambda: self._log_soft_limit(guard.message, where), name="soft time limit")

    def _log_soft_limit(self, message: MessageProxy, where: str) -> None:
        self.logger.warning("%s", _soft_limit(message, where), extra=marked(message._message))


def _soft_limit(message: MessageProxy, where: str) -> str:
    inner = message._message
    return (
        f"Message {inner.message_id} of actor {inner.actor_name} still runs after its soft time limit of "
        f"{message.soft_time_limit_ms:g} ms: at {where}."
    )
