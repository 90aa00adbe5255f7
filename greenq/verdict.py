"""What becomes of a message, and what follows from it.

A verdict is a value: it is formed where the job ran and written, with many others in
one step, by the consumer that fetched the message (see Consumer.complete).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .broker import MessageProxy
    from .message import Message


class Action(enum.Enum):
    """The three things that can become of a fetched message."""

    ACK = "ack"  # it is done: remove it
    NACK = "nack"  # it has failed for good: move it to the dead letters
    REQUEUE = "requeue"  # it goes back to its place in the queue, as if never fetched


# Globals, because to look a member up on its class takes three times as long before Python 3.12, and every job does.
ACK, NACK, REQUEUE = Action.ACK, Action.NACK, Action.REQUEUE


class Envelope(NamedTuple):
    """A message ready to be stored: encoded, and with all that a broker needs to place it."""

    message: Message[Any]
    payload: bytes
    queue_name: str
    """The canonical name."""
    priority: int
    """Lower first; among equals the first come is the first served."""
    delay: int | None
    """Milliseconds, as given by the sender; None if it was not delayed."""
    due_ms: int | None
    """Unix time in milliseconds before which it must not run; None if at once."""


class Verdict:
    """What is to become of one fetched message.

    Attributes:
      action(Action): What happens to the message itself.
      message(MessageProxy): The message as it was fetched.
      follow_ups(list[Envelope]): Messages stored in the same step as an ack or a nack: a
        retry, what comes next. Either all of it is written or nothing.
      reason(str | None): Of a nack, for whoever reads the dead letters.
    """

    __slots__ = ("action", "follow_ups", "message", "reason")

    def __init__(
        self,
        action: Action,
        message: MessageProxy,
        *,
        follow_ups: list[Envelope] | None = None,
        reason: str | None = None,
    ) -> None:
        self.action = action
        self.message = message
        self.follow_ups = follow_ups
        self.reason = reason

    def __repr__(self) -> str:
        return f"Verdict({self.action.value}, {self.message!r})"
