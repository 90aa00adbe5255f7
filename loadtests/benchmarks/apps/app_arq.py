"""arq: its jobs for the benchmark, and its producer.

CONCURRENCY=N arq app_arq.Settings
"""

from __future__ import annotations

import datetime
import os
from typing import Any

import work
from arq import create_pool, func
from arq.connections import RedisSettings
from producing import Producer, main

_redis = RedisSettings.from_dsn(os.environ["GREENQ_BROKER_URL"])


async def noop(_: dict[str, Any], number: int) -> None:
    """Return at once."""
    work.noop(number)


async def nap(_: dict[str, Any], number: int) -> None:
    """Wait for 100 ms."""
    await work.nap_on_loop(number)


async def park(_: dict[str, Any], number: int) -> None:
    """Wait until the worker is killed."""
    await work.park_on_loop(number)


async def ping(_: dict[str, Any], number: int) -> None:
    """Say when it started."""
    work.ping(number)


async def due(_: dict[str, Any], due_ms: int) -> None:
    """Note how late it started."""
    work.due(due_ms)


class Settings:
    """Of the worker."""

    functions = tuple(func(job, keep_result=0) for job in (noop, nap, park, ping, due))
    redis_settings = _redis
    max_jobs = int(os.environ.get("CONCURRENCY", "10"))
    job_timeout = 2 * work.PARKED_S


class ArqProducer(Producer):
    """Sends by arq: many by coroutines at once."""

    on_loop = True

    async def connect(self) -> None:
        self._pool = await create_pool(_redis)

    async def send(self, job: str, number: int) -> None:
        await self._pool.enqueue_job(job, number)

    async def send_later(self, job: str, number: int, due_ms: int) -> None:
        due = datetime.datetime.fromtimestamp(due_ms / 1000, datetime.timezone.utc)
        await self._pool.enqueue_job(job, number, _defer_until=due)


if __name__ == "__main__":
    main(ArqProducer())
