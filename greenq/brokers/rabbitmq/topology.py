"""Names and arguments of everything that is declared on the server: data, and how to choose among it.

    default             the queue, as Dramatiq declares it too
    default.DQ          its delay queue: messages with an eta that somebody has to look at. Foreign
                        producers put theirs here; the rungs put theirs here when they time out
    default.XQ          its dead letters, kept for a week
    default.DQ.16ms     the rungs of its ladder of delays, declared when the first message is delayed:
    default.DQ.64ms     each keeps every message for the time in its name, then passes it to default.DQ
    ...                 (up to twelve days)

                 too early: the next rung                    due: run it
                 +-----------------------------------+      +------------> worker
                 v                                   |      |
    send --> default.DQ.4096ms -- time-out --> default.DQ --+

A message that is due in 10 s waits twice in the rung of 4 s, once in that of 1 s, and so on: all
of a rung's messages wait equally long, so none is held up by one in front of it, and the worker
that looks at the eta in between holds nothing. All are durable and on the default exchange.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...names import dead_letter_queue_name, delay_queue_name

#: How long the rungs keep a message, in milliseconds. Four times as long each: a message goes
#: through one and a half of each on average, and the server keeps 14 queues, not 28.
RUNGS_MS = tuple(16 * 4**n for n in range(14))

#: A message may wait longer than it has to by half of that, and by this, to save the small rungs.
_MOST_LATE_MS = 200

#: A priority on the wire is one byte, and higher means earlier.
MOST_PRIORITY = 255

#: RabbitMQ counts what is returned, too, so its own limit must never be met: greenq counts itself.
#: With a limit, what is returned goes back to its place; without one, to the end. For dead letters,
#: too: each look returns them, and RabbitMQ 4 drops what was returned 20 times if nobody says more.
_DELIVERY_LIMIT = 2**31 - 1
DELIVERY_LIMIT = "x-delivery-limit"

#: AMQP's names have 255 bytes, and the longest of ours has this much more than the queue's.
_LONGEST_NAME = 255 - len(".DQ.1073741824ms")


class Queue(NamedTuple):
    """A queue of the server's."""

    name: str
    arguments: dict[str, Any]


class Topology:
    """What belongs to a queue of the application's.

    Parameters:
      queue_type(str): "classic" or "quorum".
      queue_arguments(dict): Further arguments of the queue itself.
      max_priority(int): The highest priority that the queue tells from others; None for none.
      dead_message_ttl_ms(int): How long dead letters are kept.
    """

    def __init__(
        self,
        queue_type: str = "classic",
        queue_arguments: Mapping[str, Any] | None = None,
        max_priority: int | None = None,
        dead_message_ttl_ms: int = 604_800_000,
    ) -> None:
        if queue_type not in ("classic", "quorum"):
            raise ValueError(f"queue_type is 'classic' or 'quorum', not {queue_type!r}.")
        if max_priority is not None and not 1 <= max_priority <= MOST_PRIORITY:
            raise ValueError(f"max_priority is a number from 1 to {MOST_PRIORITY}, not {max_priority!r}.")
        if max_priority is not None and queue_type == "quorum":
            raise ValueError("Quorum queues have no max_priority: leave it out, or use classic queues.")
        self.queue_type = queue_type
        self.queue_arguments = dict(queue_arguments or {})
        self.max_priority = max_priority
        self.dead_message_ttl_ms = dead_message_ttl_ms

    def of(self, queue_name: str) -> list[Queue]:
        """The queue, its delay queue and its dead letters; what others point to comes first."""
        # A Dramatiq deployment declares them exactly so, but for the type.
        to_the_dead: dict[str, Any] = {
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead_letter_queue_name(queue_name),
        }
        if self.max_priority is not None:
            to_the_dead["x-max-priority"] = self.max_priority
        kind: dict[str, Any] = {}
        limit: dict[str, Any] = {}
        if self.queue_type == "quorum":
            kind = {"x-queue-type": "quorum"}
            limit = {DELIVERY_LIMIT: _DELIVERY_LIMIT}
        return [
            Queue(dead_letter_queue_name(queue_name), {**kind, **limit, "x-message-ttl": self.dead_message_ttl_ms}),
            Queue(queue_name, {**kind, **limit, **to_the_dead, **self.queue_arguments}),
            Queue(delay_queue_name(queue_name), {**kind, **limit, **to_the_dead}),
        ]

    def ladder(self, queue_name: str) -> list[Queue]:
        """The rungs of a queue.

        Quorum queues whatever the queue itself is, because only they pass a message on in such
        a way that a crash of the node between two queues does not cost it.
        """
        arguments = {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": delay_queue_name(queue_name),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        return [Queue(rung_name(queue_name, ms), {**arguments, "x-message-ttl": ms}) for ms in RUNGS_MS]


def rung_name(queue_name: str, keeps_ms: int) -> str:
    return f"{delay_queue_name(queue_name)}.{keeps_ms}ms"


def rung_for(queue_name: str, wait_ms: int) -> str:
    """Where a message should wait that is due in so many milliseconds."""
    longest_that_fits = RUNGS_MS[0]
    for keeps_ms in RUNGS_MS:
        if keeps_ms >= wait_ms:
            if keeps_ms - wait_ms <= min(wait_ms / 2, _MOST_LATE_MS):
                return rung_name(queue_name, keeps_ms)
            break
        longest_that_fits = keeps_ms
    return rung_name(queue_name, longest_that_fits)


def wire_priority(priority: int) -> int:
    """The priority on the wire of one that is lower first; 0 is the lowest there."""
    return max(0, min(-priority, MOST_PRIORITY))


def check_name(queue_name: str) -> None:
    """Refuse a name that is too long for the server.

    Raises:
      ValueError: It is.
    """
    if len(queue_name.encode()) > _LONGEST_NAME:
        raise ValueError(
            f"{queue_name!r} is too long for a queue on RabbitMQ: at most {_LONGEST_NAME} bytes are allowed."
        )
