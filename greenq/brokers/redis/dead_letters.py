"""The dead letters of one queue on the server: each call is one script, on the keys of that queue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ...inspection import PAGE_BYTES, DeadLetter, IndexedDeadLetters, Page, not_a_cursor
from ...message import MAX_MESSAGE_BYTES
from ...runtime import current
from .keys import Keys, next_id
from .scripts import COUNT, DELETE_DEAD, LOOK, SEND_BACK, Script

if TYPE_CHECKING:
    from .broker import RedisBroker

#: The time of death and the id of a letter, as it stands in ``after``.
_CURSOR = re.compile(r"([0-9]+(?:\.[0-9]+)?):(.*)", re.ASCII | re.DOTALL)
#: The server's clock shows another millisecond after that.
_A_MILLISECOND_S = 0.0011


class RedisDeadLetters(IndexedDeadLetters):
    """See DeadLetters.

    Parameters:
      broker(RedisBroker): Where the queue is.
      queue_name(str): The queue.

    Raises:
      ValueError: No queue can have this name.
    """

    def __init__(self, broker: RedisBroker, queue_name: str) -> None:
        super().__init__(queue_name)
        self._broker = broker
        self._keys = broker.layout.of(self.queue_name)

    def count(self) -> int:
        return self._broker.queue_counts(self.queue_name).dead

    def _page(self, after: str | None, limit: int, oldest_first: bool, until: str | None = None) -> Page:
        time, id = ("", b"") if after is None else _place(after)
        letters, times, more = self._look(["oldest" if oldest_first else "newest", limit, until or "", time, id])
        return Page(letters, f"{times[-1].decode()}:{letters[-1].id}" if more else None)

    def _find(self, ids: list[str]) -> list[DeadLetter]:
        return self._look(["ids", *map(_stored_id, ids)])[0]

    def _look(self, args: list[Any]) -> tuple[list[DeadLetter], list[bytes], int]:
        answer = self._call(LOOK, self._keys.for_look(), [MAX_MESSAGE_BYTES, PAGE_BYTES, *args])
        ids, times, reasons, lengths, payloads, deliveries, more = answer
        letters = [
            DeadLetter(
                id=quote_from_bytes(id, safe="~!"),
                queue_name=self.queue_name,
                died_at_ms=int(float(times[position])),
                reason=(reasons[position] or b"").decode("utf-8", "replace") or None,
                payload=payloads[position],
                size=lengths[position],
                deliveries=int(deliveries[position] or 0),
            )
            for position, id in enumerate(ids)
        ]
        return letters, times[: len(letters)], more

    def _now(self) -> str | None:
        *_, dead, now = self._call(COUNT, self._keys.for_count(), [])
        if not dead:
            return None
        # Times of death are in milliseconds: what is sent back from now on must not die in this one.
        current().sleep(_A_MILLISECOND_S)
        return str(now)

    def _send_back(self, letters: list[tuple[str, bytes | None]]) -> int:
        args: list[str | bytes] = []
        for id, payload in letters:
            stored_id = _stored_id(id)
            args += (stored_id, next_id(stored_id), b"=" if payload is None else b"+" + payload)
        return self._acted(SEND_BACK, self._keys.for_send_back(), args)

    def _delete(self, ids: list[str]) -> int:
        return self._acted(DELETE_DEAD, self._keys.for_delete_dead(), ["", *map(_stored_id, ids)])

    def _delete_oldest(self, count: int, until: str) -> int:
        return self._acted(DELETE_DEAD, self._keys.for_delete_dead(), [until, count])

    def _acted(self, script: Script, keys: Keys, args: list[Any]) -> int:
        acted: int = self._call(script, keys, args)
        return acted

    def _call(self, script: Script, keys: Keys, args: list[Any]) -> Any:
        return self._broker._attach().links.call(script, keys, args)


def _place(after: str) -> tuple[str, bytes]:
    found = _CURSOR.fullmatch(after)
    if found is None:
        raise not_a_cursor(after)
    return found[1], _stored_id(found[2])


def _stored_id(id: str) -> bytes:
    return unquote_to_bytes(id.encode("utf-8", "surrogatepass"))
