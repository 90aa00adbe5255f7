"""Messages as they were fetched: what a script's answer becomes.

Knows payloads and ids. Does not know how they are fetched, nor what becomes of them: see
consumer.py and settlement.py.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Any

from ...consumer import MessageProxy, Undecodable, without_eta
from ...errors import DecodeError
from ...message import MAX_MESSAGE_BYTES, Message
from ...names import canonical_queue_name
from ...suspicion import Evidence, judge
from .keys import Layout, is_own


class RedisMessage(MessageProxy):
    """A message from the server.

    Attributes:
      stored_id(bytes): Its id there, which is not the message_id.
      held_by(str): The holder under which it was fetched.
      deliveries(int): How often it was taken back from a worker that was lost.
      number(int): Grows with each message that this process fetches.
    """

    def __init__(self, message: Message[Any], stored_id: bytes, held_by: str, deliveries: int, number: int) -> None:
        self._message = message
        self.stored_id = stored_id
        self.held_by = held_by
        self.deliveries = deliveries
        self.number = number


class RedisUndecodable(Undecodable):
    """Bytes from the server that are no message; attributes as of RedisMessage."""

    def __init__(
        self,
        queue_name: str,
        payload: bytes,
        error: BaseException,
        stored_id: bytes,
        held_by: str,
        deliveries: int,
        number: int,
    ) -> None:
        super().__init__(queue_name, payload, error)
        self.stored_id = stored_id
        self.held_by = held_by
        self.deliveries = deliveries
        self.number = number


_numbers = itertools.count()


def decode(
    layout: Layout,
    queue_name: str,
    held_by: str,
    ids: list[bytes],
    payloads: list[bytes | int | None],
    deliveries: list[bytes | None],
) -> list[MessageProxy]:
    """The messages of one fetch, in their order; what is none comes as a RedisUndecodable.

    Parameters:
      layout(Layout): Which queues there can be.
      queue_name(str): The queue, by its canonical name.
      held_by(str): The holder under which they were fetched.
      ids, payloads, deliveries: As fetch.lua answers them.
    """
    messages: list[MessageProxy] = []
    read = Message._decode
    for position, (stored_id, payload) in enumerate(zip(ids, payloads, strict=True)):
        count = int(deliveries[position] or 0) if deliveries else 0
        number = next(_numbers)
        try:
            if not isinstance(payload, bytes):
                raise _no_payload(payload)
            if is_own(stored_id):
                message = read(payload)
            else:  # it may have none: it must be known by the same one wherever it is fetched
                message = read(payload, stored_id.decode("utf-8", "backslashreplace"))
            if message.queue_name != queue_name:
                _check_queue_of(message, payload, layout)
        except DecodeError as error:
            messages.append(RedisUndecodable(queue_name, error.data, error, stored_id, held_by, count, number))
            continue
        if "eta" in message.options:
            message = without_eta(message)
        messages.append(RedisMessage(message, stored_id, held_by, count, number))
    return messages


def judge_all(
    messages: Sequence[MessageProxy], noted: list[bytes | None], max_deliveries: int | None, logger: logging.Logger
) -> None:
    """Mark those of the messages of one fetch that are suspects, or are given up.

    Parameters:
      messages(Sequence[MessageProxy]): In the order in which they were fetched.
      noted(list[bytes | None]): As fetch.lua answers it; empty if there is nothing against any.
      max_deliveries(int | None): How many workers a message may kill.
      logger(logging.Logger): The broker's.
    """
    for message, against in zip(messages, noted, strict=False):
        if against is not None:
            charges, unwitnessed, cause = against.split(b" ", 2)
            evidence = Evidence(int(charges), int(unwitnessed), cause.decode("utf-8", "replace"))
            judge(message, evidence, max_deliveries, logger)


def _check_queue_of(message: Message[Any], payload: bytes, layout: Layout) -> None:
    # A retry goes to the queue that the message names.
    try:
        layout.of(canonical_queue_name(message.queue_name))
    except ValueError as error:
        raise DecodeError(str(error), payload, error) from error


def _no_payload(length: int | None) -> DecodeError:
    if length is None:
        return DecodeError("There is no payload under this id.", b"", None)
    return DecodeError(f"The message is {length:,} bytes long; at most {MAX_MESSAGE_BYTES:,} are allowed.", b"", None)
