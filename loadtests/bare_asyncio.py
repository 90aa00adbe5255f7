"""Plain asyncio: what coroutines cost on this machine with no queue, no broker and no gevent.

    python bare_asyncio.py --measure jobs|naps|parked

The yardstick of async_road.py. Each job is decoded from JSON and is a task of its own on
asyncio's own loop, as many at once as there are slots. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable

import psutil

JOBS = 100_000
NAPS, NAP_S, NAPPERS = 20_000, 0.1, 1_000
PARKED, PARKED_S = 10_000, 600

BODY = json.dumps(
    {
        "queue_name": "default",
        "actor_name": "noop",
        "args": [0],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.uuid4()),
        "message_timestamp": 0,
    }
).encode()


async def _run(count: int, at_once: int, work: Callable[[], Awaitable[None]]) -> float:
    """Run this many jobs; how long that took, in seconds."""
    room = asyncio.Semaphore(at_once)
    tasks = set()

    async def run() -> None:
        try:
            json.loads(BODY)
            await work()
        finally:
            room.release()

    started = time.monotonic()
    for _ in range(count):
        await room.acquire()
        task = asyncio.create_task(run())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.wait(tasks)
    return time.monotonic() - started


async def _noop() -> None:
    pass


async def _nap() -> None:
    await asyncio.sleep(NAP_S)


async def measure_jobs() -> dict[str, float]:
    """How fast it runs coroutines that return at once."""
    cpu_s = time.process_time()
    seconds = await _run(JOBS, 1000, _noop)
    return {"jobs_per_s": JOBS / seconds, "cpu_us_per_job": (time.process_time() - cpu_s) / JOBS * 1e6}


async def measure_naps() -> dict[str, float]:
    """How near to the ideal a thousand at once come that sleep."""
    cpu_s = time.process_time()
    seconds = await _run(NAPS, NAPPERS, _nap)
    return {
        "percent_of_ideal": NAPS / NAPPERS * NAP_S / seconds * 100,
        "cpu_us_per_job": (time.process_time() - cpu_s) / NAPS * 1e6,
    }


async def measure_parked() -> dict[str, float]:
    """What a task that sleeps, with its decoded job in hand, takes of memory."""

    async def park() -> None:
        message = json.loads(BODY)
        await asyncio.sleep(PARKED_S)
        message.clear()

    process = psutil.Process()
    before = process.memory_info().rss
    tasks = [asyncio.create_task(park()) for _ in range(PARKED)]
    await asyncio.sleep(0)
    taken = process.memory_info().rss - before
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return {"parked_kib": taken / PARKED / 1024}


MEASUREMENTS = {"jobs": measure_jobs, "naps": measure_naps, "parked": measure_parked}


def main() -> None:
    """Measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", choices=MEASUREMENTS, default="jobs", help="default: %(default)s")
    args = parser.parse_args()
    print(json.dumps(asyncio.run(MEASUREMENTS[args.measure]())))


if __name__ == "__main__":
    main()
