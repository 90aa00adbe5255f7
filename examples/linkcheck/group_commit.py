"""Brings the requests of a thousand greenlets to the record in few transactions.

A greenlet that wrote for itself would hold the hub, and with it all others, for as long as
the file is locked by another process. Here one native thread writes: while a transaction is
under way the next requests gather, and all of them are in the one that follows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.threadpool import ThreadPool

from .record import Claim, Record, Settlement

#: Answers many requests of one kind, in their order.
Call = Callable[[Sequence[Any]], Sequence[Any]]


class SharedRecord:
    """The record as a job sees it: each method waits until the file has it. All switch.

    Parameters:
      file(Path): The record's file.
    """

    def __init__(self, file: Path) -> None:
        self._record = Record(file)
        self._thread = ThreadPool(1)
        self._requests: list[tuple[Call, Any, AsyncResult[Any]]] = []
        self._wanted = Event()
        self._writer = gevent.spawn(self._write)

    def claim(self, claim: Claim) -> bool:
        """Start an attempt; False if this message may not fetch the page."""
        granted: bool = self._ask(self._record.claim, claim)
        return granted

    def known(self, urls: Sequence[str]) -> set[str]:
        """Those of the URLs that are recorded."""
        known: set[str] = self._ask(self._record.known, urls)
        return known

    def add(self, claims: Sequence[Claim]) -> None:
        """Add the pages that messages have been sent for."""
        self._ask(self._record.add, claims)

    def settle(self, settlement: Settlement) -> None:
        """Record what an attempt came to."""
        self._ask(self._record.settle, settlement)

    def _ask(self, call: Call, request: Any) -> Any:
        answer: AsyncResult[Any] = AsyncResult()
        self._requests.append((call, request, answer))
        self._wanted.set()
        return answer.get()

    def _write(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            batch, self._requests = self._requests, []
            by_call: dict[Call, list[tuple[Any, AsyncResult[Any]]]] = defaultdict(list)
            for call, request, answer in batch:
                by_call[call].append((request, answer))
            try:
                answers = self._thread.apply(self._transact, (by_call,))
            except Exception as error:  # the file's; each of the jobs decides what to do
                for _, _, answer in batch:
                    answer.set_exception(error)
            else:
                for answer, value in answers:
                    answer.set(value)

    def _transact(self, by_call: dict[Call, list[tuple[Any, AsyncResult[Any]]]]) -> list[tuple[AsyncResult[Any], Any]]:
        """Runs in the native thread: must not touch what belongs to greenlets."""
        answers: list[tuple[AsyncResult[Any], Any]] = []
        with self._record.transaction():
            for call, requests in by_call.items():
                values = call([request for request, _ in requests])
                answers += zip([answer for _, answer in requests], values, strict=True)
        return answers
