"""Sends jobs, in each of the ways that the benchmark measures: what all producers share.

    python app_NAME.py single|bulk COUNT
    python app_NAME.py fill JOB COUNT
    python app_NAME.py later JOB COUNT DUE_MS
    python app_NAME.py latency COUNT SECONDS

Knows no queue: each has a producer of its own, in its file. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from telling import PIPE_VARIABLE

#: How many messages a bulk call stores, and how many coroutines send at once where there is none.
BATCH = 1000
AT_ONCE = 100
#: Between two sends of which the latency is measured, so that the worker is idle again.
PAUSE_S = 0.005


class Producer:
    """Sends the jobs of one queue. Its methods are coroutines because some queues' are."""

    #: Whether it needs asyncio's loop.
    on_loop = False
    #: Whether one call stores many messages.
    has_bulk = False

    async def connect(self) -> None:
        """Called first."""

    async def send(self, job: str, number: int) -> None:
        """Store one message."""
        raise NotImplementedError

    async def send_bulk(self, job: str, numbers: Sequence[int]) -> None:
        """Store many, as quickly as this queue can."""
        if not self.on_loop:
            for number in numbers:
                await self.send(job, number)
            return
        for start in range(0, len(numbers), AT_ONCE):
            await asyncio.gather(*(self.send(job, number) for number in numbers[start : start + AT_ONCE]))

    async def send_later(self, job: str, number: int, due_ms: int) -> None:
        """Store one message that is due at this time, in Unix milliseconds."""
        raise NotImplementedError

    async def send_bulk_later(self, job: str, numbers: Sequence[int], due_ms: int) -> None:
        """Store many that are due at this time, as quickly as this queue can."""
        if not self.on_loop:
            for number in numbers:
                await self.send_later(job, number, due_ms)
            return
        for start in range(0, len(numbers), AT_ONCE):
            await asyncio.gather(*(self.send_later(job, number, due_ms) for number in numbers[start : start + AT_ONCE]))


async def _single(producer: Producer, count: int) -> dict[str, float]:
    await producer.send("noop", 0)  # connects
    started = time.monotonic()
    for number in range(count):
        await producer.send("noop", number)
    return {"per_s": count / (time.monotonic() - started)}


async def _bulk(producer: Producer, count: int) -> dict[str, float]:
    await producer.send("noop", 0)
    started = time.monotonic()
    await _fill(producer, "noop", count)
    return {"per_s": count / (time.monotonic() - started)}


async def _fill(producer: Producer, job: str, count: int) -> dict[str, float]:
    for start in range(0, count, BATCH):
        await producer.send_bulk(job, range(start, min(start + BATCH, count)))
    return {}


async def _later(producer: Producer, job: str, count: int, due_ms: int) -> dict[str, float]:
    for start in range(0, count, BATCH):
        await producer.send_bulk_later(job, [due_ms] * min(BATCH, count - start), due_ms)
    return {}


async def _latency(producer: Producer, count: int, seconds: int) -> dict[str, float]:
    latencies_ms: list[float] = []
    ends = time.monotonic() + seconds
    with open(os.environ[PIPE_VARIABLE], "r+b", buffering=0) as pipe:
        while len(latencies_ms) < count and time.monotonic() < ends:
            time.sleep(PAUSE_S)  # the worker is to be idle, for as long as is measured
            sent = time.monotonic()
            await producer.send("ping", 0)
            answer = json.loads(pipe.readline())
            latencies_ms.append((answer["started"] - sent) * 1000)
    latencies_ms.sort()
    return {
        "p50_ms": latencies_ms[len(latencies_ms) // 2],
        "p99_ms": latencies_ms[len(latencies_ms) * 99 // 100],
        "count": len(latencies_ms),
    }


_WAYS: dict[str, Any] = {"single": _single, "bulk": _bulk, "fill": _fill, "later": _later, "latency": _latency}


async def _connect_and(producer: Producer, way: str, args: list[str]) -> dict[str, float]:
    await producer.connect()
    figures: dict[str, float] = await _WAYS[way](producer, *(int(arg) if arg.isdigit() else arg for arg in args))
    return figures


def main(producer: Producer) -> None:
    """Do what the command line says; print one line of JSON."""
    work = _connect_and(producer, sys.argv[1], sys.argv[2:])
    figures = asyncio.run(work) if producer.on_loop else _without_loop(work)
    print(json.dumps(figures), flush=True)


def _without_loop(work: Coroutine[Any, Any, dict[str, float]]) -> dict[str, float]:
    # Nothing that it calls waits for a loop, so it runs to its end: the queue's code runs as in any other process.
    try:
        work.send(None)
    except StopIteration as stop:
        figures: dict[str, float] = stop.value
        return figures
    raise RuntimeError("A producer that needs asyncio's loop has to say so by on_loop.")
