"""huey with greenlets: its jobs for the benchmark, and its producer.

huey_consumer app_huey.huey --worker-type greenlet --workers N
"""

from __future__ import annotations

if __name__ != "__main__":
    from gevent import monkey

    monkey.patch_all()

import datetime
import os

import redis
import work
from huey import RedisHuey
from producing import Producer, main

#: Each greenlet waits on a connection of its own, and redis-py's pool has 100 as it comes, and raises then.
CONNECTIONS = 1_100

_pool = redis.ConnectionPool.from_url(os.environ["GREENQ_BROKER_URL"], max_connections=CONNECTIONS)
huey = RedisHuey("benchmark", connection_pool=_pool, results=False)

tasks = {
    job.__name__: huey.task(name=job.__name__)(job) for job in (work.noop, work.nap, work.park, work.ping, work.due)
}


class HueyProducer(Producer):
    """Sends by huey, which has no call for many messages."""

    async def send(self, job: str, number: int) -> None:
        tasks[job](number)

    async def send_later(self, job: str, number: int, due_ms: int) -> None:
        due = datetime.datetime.fromtimestamp(due_ms / 1000)  # local time, as it takes it
        tasks[job].schedule(args=(number,), eta=due)


if __name__ == "__main__":
    main(HueyProducer())
