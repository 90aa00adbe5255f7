"""Enqueueing many messages: in portions, and what is known where a portion failed.

Does not know brokers but by what they offer everybody: see broker.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .errors import ConnectionError, ConnectionFailed, EnqueueManyFailed
from .message import Message
from .verdict import Envelope

if TYPE_CHECKING:
    from .broker import Broker

#: What one portion of many messages is, at most: short enough for a server that does nothing
#: else meanwhile, long enough for the round trip not to count.
_PORTION = 1000
_PORTION_BYTES = 8 * 1024 * 1024


def enqueue_portions(broker: Broker, messages: Iterable[Message[Any]], delay: int | None) -> list[Message[Any]]:
    """Store them by ``broker.write``; see Broker.enqueue_many. May switch."""
    envelopes = [broker.prepare(message, delay=delay) for message in messages]
    enqueued: list[Message[Any]] = []
    for portion in _portions(envelopes):
        try:
            broker.write(portion)
        except ConnectionError as error:
            tried = [envelope.message for envelope in portion]
            rest = [envelope.message for envelope in envelopes[len(enqueued) + len(portion) :]]
            raise _partly(error, enqueued, tried, rest) from error
        enqueued += [envelope.message for envelope in portion]
        if broker.hooks("after_enqueue"):
            for envelope in portion:
                broker.emit_after("enqueue", envelope.message, envelope.delay)
    return enqueued


def enqueue_each(broker: Broker, messages: list[Message[Any]], delay: int | None) -> list[Message[Any]]:
    """The same with a broker of the API reference, which knows one message at a time. May switch."""
    enqueued: list[Message[Any]] = []
    for message in messages:
        try:
            enqueued.append(broker.enqueue(message, delay=delay))
        except ConnectionError as error:
            raise _partly(error, enqueued, [message], messages[len(enqueued) + 1 :]) from error
    return enqueued


def _portions(envelopes: list[Envelope]) -> Iterator[list[Envelope]]:
    portion: list[Envelope] = []
    size = 0
    for envelope in envelopes:
        size += len(envelope.payload)
        if portion and (len(portion) == _PORTION or size > _PORTION_BYTES):
            yield portion
            portion, size = [], len(envelope.payload)
        portion.append(envelope)
    if portion:
        yield portion


def _partly(
    error: ConnectionError, enqueued: list[Message[Any]], tried: list[Message[Any]], rest: list[Message[Any]]
) -> EnqueueManyFailed:
    in_doubt = [] if isinstance(error, ConnectionFailed) else tried
    left = [*tried, *rest] if not in_doubt else rest
    return EnqueueManyFailed(
        f"{len(enqueued)} messages are stored, {len(in_doubt)} may be, {len(left)} are not: {error}",
        enqueued,
        in_doubt,
        left,
    )
