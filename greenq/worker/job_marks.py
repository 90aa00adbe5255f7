"""Marks the log records of a job with its message, actor, queue and attempt.

The middleware only in worker processes whose log is JSON: see process.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..logged_job import FIELD, LoggedJob, current
from ..middleware import Middleware
from ..names import canonical_queue_name

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy
    from ..message import Message


def marked(message: Message[Any]) -> dict[str, Any]:
    """What a record is given as ``extra`` that is made of a message before its job begins, or beside it."""
    return {FIELD: _marks(message)}


def _marks(message: Message[Any]) -> dict[str, Any]:
    retries = message.options.get("retries")
    return {
        "message_id": message.message_id,
        "actor": message.actor_name,
        "queue": canonical_queue_name(message.queue_name),
        "attempt": retries + 1 if type(retries) is int else 1,
    }


class JobMarks(Middleware):
    """Has to be the first of a broker's middleware, so that what the others log is marked."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        current.set(LoggedJob(_marks(message._message)))

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        self._end()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self._end()

    def _end(self) -> None:
        # The value stays: what is logged on the way to the verdict is still this job's.
        job = current.get()
        if job is not None:
            job.is_over = True
