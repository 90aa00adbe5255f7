"""What the worker of soak.py runs: jobs that succeed, fail, overstay and come again, and one that looks at it all.

A worker imports it as ``soak_jobs:broker``; what it sees it tells through a pipe, see telling.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections import Counter

import psutil
from greenlet import greenlet
from telling import tell

import greenq
from greenq.middleware import CurrentMessage

#: Every so many jobs one fails at its first attempt. The numbers of the others: see soak.py.
AGAIN_EVERY = 20
LIMIT_MS = 50

broker = greenq.get_broker()
broker.add_middleware(CurrentMessage())
_ended: Counter[str] = Counter()


@greenq.actor(max_retries=3, min_backoff=20, max_backoff=100)
def work(number: int) -> None:
    """Wait for some milliseconds; every 20th fails at its first attempt."""
    time.sleep(number % 5 / 1000)
    message = CurrentMessage.get_current_message()
    if number % AGAIN_EVERY == 0 and message is not None and not message.options.get("retries"):
        _ended["attempts that failed"] += 1
        raise OSError("the peer has closed the connection")
    _ended["done"] += 1


@greenq.actor(max_retries=0)
def go_wrong(number: int) -> None:
    """Fail for good."""
    _ended["failed"] += 1
    raise ValueError(f"job {number} is wrong")


@greenq.actor(max_retries=0, time_limit=LIMIT_MS)
def overstay(number: int) -> None:
    """Wait for longer than allowed."""
    try:
        time.sleep(600)
    finally:
        _ended["failed"] += 1


@greenq.actor
async def wait(number: int) -> None:
    """Wait for some milliseconds, as a coroutine."""
    await asyncio.sleep(number % 5 / 1000)
    _ended["done"] += 1


@greenq.actor
def look(number: int) -> None:
    """Tell what the process holds, and how many jobs have ended in it."""
    gc.collect()
    process = psutil.Process()
    tell(
        rss=process.memory_info().rss,
        descriptors=process.num_fds(),
        threads=process.num_threads(),
        greenlets=sum(isinstance(each, greenlet) for each in gc.get_objects()),
        pid=os.getpid(),
        done=_ended["done"],
        failed=_ended["failed"],
    )
