"""SAQ: its jobs for the benchmark, and its producer.

CONCURRENCY=N saq app_saq.settings
"""

from __future__ import annotations

import math
import os
from typing import Any

import work
from producing import Producer, main
from saq import Queue

queue = Queue.from_url(os.environ["GREENQ_BROKER_URL"])


async def noop(_: Any, *, number: int) -> None:
    """Return at once."""
    work.noop(number)


async def nap(_: Any, *, number: int) -> None:
    """Wait for 100 ms."""
    await work.nap_on_loop(number)


async def park(_: Any, *, number: int) -> None:
    """Wait until the worker is killed."""
    await work.park_on_loop(number)


async def ping(_: Any, *, number: int) -> None:
    """Say when it started."""
    work.ping(number)


async def due(_: Any, *, number: int) -> None:
    """Note how late it started."""
    work.due(number)


settings = {
    "queue": queue,
    "functions": [noop, nap, park, ping, due],
    "concurrency": int(os.environ.get("CONCURRENCY", "10")),
}

#: No time limit, which is 10 s as it comes, no result, and another attempt where a worker is lost.
_OPTIONS = {"timeout": 0, "ttl": -1, "retries": 2}


class SaqProducer(Producer):
    """Sends by SAQ: many by coroutines at once."""

    on_loop = True

    async def connect(self) -> None:
        await queue.connect()

    async def send(self, job: str, number: int) -> None:
        await queue.enqueue(job, number=number, **_OPTIONS)

    async def send_later(self, job: str, number: int, due_ms: int) -> None:
        # It counts in seconds.
        await queue.enqueue(job, number=number, scheduled=math.ceil(due_ms / 1000), **_OPTIONS)


if __name__ == "__main__":
    main(SaqProducer())
