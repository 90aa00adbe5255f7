"""The peer on RabbitMQ: the same no-op jobs on Celery under gevent.

    celery --app peers.celery_rabbitmq worker --pool gevent --concurrency N
    python peers/celery_rabbitmq.py COUNT

As a program it sends this many messages. The server is the one that GREENQ_BROKER_URL names.
"""

from __future__ import annotations

import os
import sys

from celery import Celery
from telling import Stretch, expected

app = Celery(
    "peers.celery_rabbitmq",
    broker=os.environ["GREENQ_BROKER_URL"],
    task_acks_late=True,  # at least once, as the others
    task_ignore_result=True,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)

_stretch = Stretch(expected)


def _noop(number: int) -> None:
    _stretch.begin()
    _stretch.end()


noop = app.task(_noop, name="noop")


def main() -> None:
    """Send."""
    for number in range(int(sys.argv[1])):
        noop.delay(number)
    print("{}")


if __name__ == "__main__":
    main()
