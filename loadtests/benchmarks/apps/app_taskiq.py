"""taskiq: its jobs for the benchmark, and its producer.

taskiq worker app_taskiq:broker --workers 1 --max-async-tasks N
"""

from __future__ import annotations

import os

import work
from ending import die_with_parent
from producing import Producer, main
from taskiq_redis import RedisStreamBroker

die_with_parent()  # its worker process outlives its command otherwise

broker = RedisStreamBroker(url=os.environ["GREENQ_BROKER_URL"])


async def noop(number: int) -> None:
    """Return at once."""
    work.noop(number)


async def ping(number: int) -> None:
    """Say when it started."""
    work.ping(number)


tasks = {
    name: broker.task(task_name=name)(job)
    for name, job in {"noop": noop, "nap": work.nap_on_loop, "park": work.park_on_loop, "ping": ping}.items()
}


class TaskiqProducer(Producer):
    """Sends by taskiq: many by coroutines at once."""

    on_loop = True

    async def connect(self) -> None:
        await broker.startup()

    async def send(self, job: str, number: int) -> None:
        await tasks[job].kiq(number)


if __name__ == "__main__":
    main(TaskiqProducer())
