"""Stores messages: envelopes as the scripts take them.

Producers store what they send; a consumer, on a cluster, what follows on another queue. Knows
the keys and the script; not who sends, nor who waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...clock import now_ms
from ...verdict import Envelope
from .keys import new_id
from .scripts import ENQUEUE

if TYPE_CHECKING:
    from .attachment import Attachment


def store(attachment: Attachment, envelopes: Sequence[Envelope]) -> None:
    """Store messages, all of them or none; on a cluster, all of one queue or none. May switch."""
    by_queue: dict[str, list[Envelope]] = {}
    for envelope in envelopes:
        by_queue.setdefault(envelope.queue_name, []).append(envelope)
    keys: list[str] = []
    args: list[Any] = []
    for queue_name, batch in by_queue.items():
        of = attachment.layout.of(queue_name)
        if attachment.is_cluster:
            attachment.links.call(ENQUEUE, of.for_enqueue(), _stored(batch))
        else:
            keys += of.for_enqueue()
            args += _stored(batch)
    if keys:
        attachment.links.call(ENQUEUE, keys, args)


def _stored(envelopes: list[Envelope]) -> list[Any]:
    plain: list[Any] = []
    others: list[Any] = []
    for envelope in envelopes:
        if envelope.priority or envelope.due_ms is not None:
            others += (new_id(envelope.priority), envelope.payload, due(envelope))
        else:
            plain += (new_id(0), envelope.payload)
    return [len(plain) // 2, len(others) // 3, *plain, *others]


def due(envelope: Envelope) -> str:
    """When a message is due, as the scripts take it."""
    if envelope.due_ms is None:
        return ""
    if envelope.delay is None:
        return str(envelope.due_ms)  # an eta is a time; the server's clock is the one that counts
    return f"+{max(0, envelope.due_ms - now_ms())}"
