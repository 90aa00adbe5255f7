"""Celery under gevent: its jobs for the benchmark, and its producer.

celery --app app_celery worker --pool gevent --concurrency N
"""

from __future__ import annotations

import datetime
import os

import work
from celery import Celery
from producing import Producer, main

app = Celery(
    "app_celery",
    broker=os.environ["GREENQ_BROKER_URL"],
    task_acks_late=True,  # at least once, as the others
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
    # What is due later than this is delivered again and again, as its documentation warns.
    broker_transport_options={"visibility_timeout": 12 * 3600},
)

tasks = {
    job.__name__: app.task(job, name=job.__name__) for job in (work.noop, work.nap, work.park, work.ping, work.due)
}


class CeleryProducer(Producer):
    """Sends by Celery, which stores each message of a group by a call of its own."""

    async def send(self, job: str, number: int) -> None:
        tasks[job].delay(number)

    async def send_later(self, job: str, number: int, due_ms: int) -> None:
        due = datetime.datetime.fromtimestamp(due_ms / 1000, datetime.timezone.utc)
        tasks[job].apply_async((number,), eta=due)


if __name__ == "__main__":
    main(CeleryProducer())
