"""The bare loop, which is no queue: bare_redis_loop.py and bare_redis_sender.py as a worker and a producer.

python app_bare.py worker CONCURRENCY
"""

from __future__ import annotations

import sys

if sys.argv[1] == "worker":
    from gevent import monkey

    monkey.patch_all()

import os
import uuid
from collections.abc import Sequence

import redis
import work
from bare_redis_sender import BODIES, READY, STORE, body, store
from producing import Producer, main

client = redis.Redis.from_url(os.environ["GREENQ_BROKER_URL"])


class BareProducer(Producer):
    """Sends by redis-py alone."""

    has_bulk = True

    async def connect(self) -> None:
        self._sha = client.script_load(STORE)

    async def send(self, job: str, number: int) -> None:
        message_id = str(uuid.uuid4())
        client.evalsha(self._sha, 2, BODIES, READY, message_id, body(message_id, number, job))

    async def send_bulk(self, job: str, numbers: Sequence[int]) -> None:
        store(client, numbers, job)


def answer(concurrency: int) -> None:
    """Run jobs until killed."""
    from bare_redis_loop import Loop

    jobs = {job.__name__: job for job in (work.noop, work.nap, work.park, work.ping)}
    Loop(client, sys.maxsize, concurrency, jobs).answer()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        answer(int(sys.argv[2]))
    else:
        main(BareProducer())
