"""What verdicts become: the keys and arguments of the script that writes them.

Values in, values out: it asks no server, so that what is written can be seen without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...consumer import MessageProxy
from ...failures import dead_payload
from ...verdict import NACK, REQUEUE, Envelope, Verdict
from .keys import Layout, new_id, next_id
from .store import due


class Settlement(NamedTuple):
    """What is written for some verdicts.

    Attributes:
      elsewhere(list[Envelope]): What follows in other slots of a cluster, so not in the same
        step: to be stored before. In between it can run twice, not get lost.
      keys, args: Of the script settle.
    """

    elsewhere: list[Envelope]
    keys: list[str]
    args: list[Any]


def settlement(
    layout: Layout, queue_name: str, holder: str, verdicts: Sequence[Verdict], *, is_cluster: bool
) -> Settlement:
    """What to write for verdicts on messages of one queue that one holder has.

    Parameters:
      layout(Layout): The keys.
      queue_name(str): Where the messages are from, by its canonical name.
      holder(str): Who has them now.
      verdicts(Sequence[Verdict]): One for each message.
      is_cluster(bool): Whether a script may have only one queue's keys.
    """
    done: list[bytes] = []
    back: list[MessageProxy] = []
    dead: list[bytes | str] = []
    following: list[tuple[bytes, Envelope]] = []
    for verdict in verdicts:
        message = verdict.message
        stored_id: bytes = message.stored_id
        if verdict.action is REQUEUE:
            back.append(message)
            continue
        if verdict.action is NACK:
            dead += (stored_id, _text(verdict.reason or message.reason or ""), _payload_now(message))
        else:
            done.append(stored_id)
        if verdict.follow_ups:
            following += [(stored_id, envelope) for envelope in verdict.follow_ups]
    here, elsewhere = following, []
    if is_cluster:
        here = [each for each in following if each[1].queue_name == queue_name]
        elsewhere = [envelope for _, envelope in following if envelope.queue_name != queue_name]
    keys = list(layout.of(queue_name).for_settle(holder))
    args: list[Any] = [holder, len(done), *done, *_returned(back), len(dead) // 3, *dead]
    args += _followed(layout, queue_name, here, keys)
    return Settlement(elsewhere, keys, args)


def _returned(messages: list[MessageProxy]) -> list[Any]:
    messages.sort(key=_number, reverse=True)
    args: list[Any] = [len(messages)]
    for each in messages:
        args += (each.stored_id, next_id(each.stored_id))
    return args


def _followed(layout: Layout, queue_name: str, following: list[tuple[bytes, Envelope]], keys: list[str]) -> list[Any]:
    """The arguments for what follows; adds the keys of other queues."""
    args: list[Any] = [len(following)]
    numbers = {queue_name: 0}
    for owner, envelope in following:
        number = numbers.get(envelope.queue_name)
        if number is None:
            number = numbers[envelope.queue_name] = len(numbers)
            keys += layout.of(envelope.queue_name).for_enqueue()
        args += (owner, number, new_id(envelope.priority), envelope.payload, due(envelope))
    return args


def _number(message: MessageProxy) -> int:
    number: int = message.number
    return number


def _text(reason: str) -> bytes:
    # Without half characters, which JSON allows and UTF-8 does not.
    return reason.encode("utf-8", "replace")


def _payload_now(message: MessageProxy) -> bytes:
    """What the dead letter holds; "=" for the message as it is stored."""
    payload = dead_payload(message)
    return b"=" if payload is None else b"+" + payload
