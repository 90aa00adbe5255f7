"""The peer: the same no-op jobs on Dramatiq, as its documentation says to run them.

    dramatiq-gevent --processes 1 --threads 1000 peers.dramatiq_noop:broker
    python peers/dramatiq_noop.py COUNT

As a program it sends this many messages. The server is the one that GREENQ_BROKER_URL names.
"""

from __future__ import annotations

import os
import sys

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from ending import die_with_parent
from telling import Stretch, expected

#: As many as it ran quickest with, of 16 to 2,000. One for each of its thousand greenlets
#: made it a third slower.
CONNECTIONS = 128

die_with_parent()  # its worker processes outlive its command otherwise

_pool = redis.BlockingConnectionPool.from_url(os.environ["GREENQ_BROKER_URL"], max_connections=CONNECTIONS, timeout=60)
broker = RedisBroker(client=redis.Redis(connection_pool=_pool))
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
