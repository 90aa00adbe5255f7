"""The dead letters of one queue in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from ...clock import now_ms
from ...failures import dead_payload
from ...inspection import PAGE_BYTES, DeadLetter, IndexedDeadLetters, Page, not_a_cursor
from ...message import MAX_MESSAGE_BYTES
from .queue import Entry

if TYPE_CHECKING:
    from .broker import StubBroker


class Death(NamedTuple):
    """What a dead letter's proxy remembers. The numbers grow."""

    number: int
    at_ms: int
    entry: Entry

    @classmethod
    def now(cls, entry: Entry) -> Death:
        """The death of the message in this entry, at this moment."""
        return cls(next(_numbers), now_ms(), entry)


_numbers = itertools.count(1)


class StubDeadLetters(IndexedDeadLetters):
    """See DeadLetters. What a test itself put into ``dead_letters_by_queue`` is among them.

    Parameters:
      broker(StubBroker): Whose queue it is.
      queue_name(str): The queue.
    """

    def __init__(self, broker: StubBroker, queue_name: str) -> None:
        super().__init__(queue_name)
        self._broker = broker
        self._lock = broker._lock

    def count(self) -> int:
        return len(self._broker.dead_letters_by_queue.get(self.queue_name, ()))

    def _page(self, after: str | None, limit: int, oldest_first: bool, until: str | None = None) -> Page:
        place = (0 if oldest_first else math.inf) if after is None else _number(after)
        if place is None:
            raise not_a_cursor(after or "")
        last = math.inf if until is None else int(until)
        with self._lock:
            numbered = self._numbered()
        if oldest_first:
            chosen = [number for number in numbered if place < number <= last]
        else:
            chosen = [number for number in reversed(numbered) if number < place and number <= last]
        letters: list[DeadLetter] = []
        size = 0
        for number in chosen[:limit]:
            letter = self._letter(numbered[number])
            size += len(letter.payload or b"")
            if letters and size > PAGE_BYTES:
                break
            letters.append(letter)
        return Page(letters, letters[-1].id if len(chosen) > len(letters) else None)

    def _find(self, ids: list[str]) -> list[DeadLetter]:
        with self._lock:
            numbered = self._numbered()
        found = (numbered.get(_number(id) or 0) for id in ids)
        return [self._letter(proxy) for proxy in found if proxy is not None]

    def _now(self) -> str | None:
        with self._lock:
            return str(max(self._numbered(), default=0)) if self.count() else None

    def _send_back(self, letters: list[tuple[str, bytes | None]]) -> int:
        queue = self._broker._queue(self.queue_name)
        payloads = {_number(id): payload for id, payload in letters}
        with self._lock:
            taken = self._take(payloads.keys())
            for proxy in taken:
                number, _, entry = proxy.death
                payload = payloads[number]
                queue.add(entry.payload if payload is None else payload, entry.priority, None)
        return len(taken)

    def _delete(self, ids: list[str]) -> int:
        with self._lock:
            return len(self._take({_number(id) for id in ids}))

    def _delete_oldest(self, count: int, until: str) -> int:
        with self._lock:
            numbers = [number for number in self._numbered() if number <= int(until)]
            return len(self._take(set(numbers[:count])))

    # -- with the lock held

    def _numbered(self) -> dict[int, Any]:
        """The proxies of the dead by number, the first to die first."""
        proxies: list[Any] = self._broker.dead_letters_by_queue.get(self.queue_name, [])
        for proxy in proxies:
            if getattr(proxy, "death", None) is None:
                payload = getattr(proxy, "payload", None) or proxy.message.encode()
                proxy.death = Death.now(Entry(0, 0, 0, payload))
        return {proxy.death.number: proxy for proxy in sorted(proxies, key=lambda proxy: proxy.death.number)}

    def _take(self, numbers: Collection[int | None]) -> list[Any]:
        """Take those with these numbers out of the list, which stays the same object."""
        numbered = self._numbered()
        taken = [proxy for number, proxy in numbered.items() if number in numbers]
        if taken:
            left = [proxy for number, proxy in numbered.items() if number not in numbers]
            self._broker.dead_letters_by_queue[self.queue_name][:] = left
        return taken

    # -- without it

    def _letter(self, proxy: Any) -> DeadLetter:
        number, at_ms, entry = proxy.death
        payload: bytes = dead_payload(proxy) or entry.payload
        size = len(payload)
        shown = payload if size <= MAX_MESSAGE_BYTES else None
        return DeadLetter(str(number), self.queue_name, at_ms, proxy.reason, shown, size)


def _number(id: str) -> int | None:
    """The number that an id stands for; None if it is no id of ours."""
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None
