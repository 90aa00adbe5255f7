"""What becomes of a message that was lost with its worker: it runs alone, or it is given up.

Knows counts, not how a broker keeps them, nor how one message is run alone: see worker/alone.py.

    charges       deaths of its workers for which there is evidence that its run was the cause
    unwitnessed   deaths of its workers without any evidence: of the host, a lease that ran out

Only charges condemn. Who is close to that, or was there at too many deaths that nobody saw, is a
suspect: it runs alone, so that the next death says who it was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .consumer import MessageProxy

#: How many workers a message may kill before it is moved to the dead letters, where nothing else is said.
MAX_DELIVERIES = 3

#: Characters of a cause that are kept.
LONGEST_CAUSE = 300


class Evidence(NamedTuple):
    """What a broker has noted of a message.

    Attributes:
      charges, unwitnessed(int): See above.
      cause(str): How the last death with evidence was described; empty if it was not.
    """

    charges: int
    unwitnessed: int
    cause: str


def checked_max_deliveries(value: int | None) -> int | None:
    """The limit as it was given to a broker; None for no limit, which 0 stands for as well.

    Raises:
      ValueError: It is no number of deaths.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"max_deliveries is a number of lost workers, or None for no limit, not {value!r}.")
    return value or None


def short_cause(cause: str | None) -> str:
    """A cause as it is kept: one line, and not long."""
    text = " ".join((cause or "").split()).encode("utf-8", "replace").decode()
    return text if len(text) <= LONGEST_CAUSE else text[: LONGEST_CAUSE - 3] + "..."


def judge(message: MessageProxy, evidence: Evidence, max_deliveries: int | None, logger: logging.Logger) -> None:
    """Note on a fetched message what there is against it: it may be a suspect now, or failed, because it is given up.

    Parameters:
      message(MessageProxy): As it is about to be handed out.
      evidence(Evidence): What its broker has noted.
      max_deliveries(int | None): With so many charges it is given up; None for never.
      logger(logging.Logger): The broker's.
    """
    charges, unwitnessed, cause = evidence
    message.charges = charges
    if max_deliveries is None or message.failed:
        return
    if charges >= max_deliveries:
        message.fail(_reason(charges, cause))
        logger.error(
            "Message %s of queue %s goes to the dead letters: %s",
            *(message.message_id, message.queue_name, message.reason),
        )
    else:
        message.is_suspect = (charges > 0 and charges >= max_deliveries - 1) or unwitnessed >= max_deliveries


def _reason(charges: int, cause: str) -> str:
    times = "once" if charges == 1 else f"{charges} times"
    return f"Its worker was lost {times} while it ran" + (f": the last {cause}." if cause else ".")
