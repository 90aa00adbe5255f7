"""Dramatiq under gevent: its jobs for the benchmark, and its producer, as its documentation says to run them.

dramatiq-gevent --processes 1 --threads N app_dramatiq:broker
"""

from __future__ import annotations

import os
import time

import dramatiq
import redis
import work
from dramatiq.brokers.redis import RedisBroker
from ending import die_with_parent
from producing import Producer, main

#: As many as it ran quickest with, of 16 to 2,000. One for each of its thousand greenlets
#: made it a third slower.
CONNECTIONS = 128

die_with_parent()  # its worker processes outlive its command otherwise

_pool = redis.BlockingConnectionPool.from_url(os.environ["GREENQ_BROKER_URL"], max_connections=CONNECTIONS, timeout=60)
broker = RedisBroker(client=redis.Redis(connection_pool=_pool))
dramatiq.set_broker(broker)

actors = {
    job.__name__: dramatiq.actor(job, actor_name=job.__name__, time_limit=2000 * work.PARKED_S)
    for job in (work.noop, work.nap, work.park, work.ping, work.due)
}


class DramatiqProducer(Producer):
    """Sends by Dramatiq, which has no call for many messages."""

    async def send(self, job: str, number: int) -> None:
        actors[job].send(number)

    async def send_later(self, job: str, number: int, due_ms: int) -> None:
        actors[job].send_with_options(args=(number,), delay=due_ms - int(time.time() * 1000))


if __name__ == "__main__":
    main(DramatiqProducer())
