"""The peer on RabbitMQ: the same no-op jobs on Dramatiq, as its documentation says to run them.

    dramatiq-gevent --processes 1 --threads THREADS peers.dramatiq_rabbitmq:broker
    python peers/dramatiq_rabbitmq.py COUNT

As a program it sends this many messages. The server is the one that GREENQ_BROKER_URL names.
"""

from __future__ import annotations

import os
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from ending import die_with_parent
from telling import Stretch, expected

die_with_parent()  # its worker processes outlive its command otherwise

broker = RabbitmqBroker(url=os.environ["GREENQ_BROKER_URL"])
dramatiq.set_broker(broker)

_stretch = Stretch(expected)


def _noop(number: int) -> None:
    _stretch.begin()
    _stretch.end()


noop = dramatiq.actor(_noop, actor_name="noop")


def main() -> None:
    """Send."""
    for number in range(int(sys.argv[1])):
        noop.send(number)
    print("{}")


if __name__ == "__main__":
    main()
