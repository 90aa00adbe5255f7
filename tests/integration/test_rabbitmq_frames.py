"""What the RabbitMQ broker says to the server: what it declares, and asks for.

Runs in both worlds.
"""

from __future__ import annotations

import threading

import pytest

import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker
from tests.support.rabbitmq_server import shared_server
from tests.support.waiting import happens, until


@pytest.fixture
def vhost():
    with shared_server().vhost() as vhost:
        yield vhost


# -- what is declared


@pytest.mark.parametrize("options", [{"max_priority": 10}, {"queue_type": "quorum"}], ids=["classic", "quorum"])
def test_nothing_is_asked_of_the_server_that_rabbitmq_4_refuses(vhost, options):
    broker = RabbitmqBroker(url=vhost.url, **options)

    @greenq.actor(broker=broker, max_retries=1, min_backoff=10)
    def fail():
        raise RuntimeError("as it should")

    @greenq.actor(broker=broker, queue_name="elsewhere")
    def work():
        ran.set()

    ran = threading.Event()
    worker = greenq.Worker(broker, worker_threads=4)
    worker.start()
    fail.send()
    work.send_with_options(delay=50)
    happens(ran)
    until(lambda: broker.get_queue_message_counts("default") == (0, 0, 1))
    assert [each.message.actor_name for each in broker.dead_letters_of("default").each()] == ["fail"]
    # The management's list may be some seconds old; these are not.
    queues = vhost.server.control("list_queues", "-p", vhost.name, "name", "durable", "auto_delete")
    asked = ("vhost", "number", "consumer_count", "global_prefetch_count", "transactional")
    channels = vhost.server.control("list_channels", *asked)
    worker.stop()
    broker.close()

    # RabbitMQ 4 has no transient queues that others can see, and no limit that all consumers of a channel share.
    _, *kinds = (line.split("\t") for line in queues.splitlines())
    assert {"default", "default.DQ", "default.XQ", "elsewhere", "elsewhere.DQ.16ms"} <= {name for name, *_ in kinds}
    assert [kind for kind in kinds if kind[1:] != ["true", "false"]] == []
    ours = [line[1:] for line in map(str.split, channels.splitlines()) if line[0] == vhost.name]
    assert sum(int(consumers) for _, consumers, *_ in ours) == 4
    assert [rest for _, _, *rest in ours] == [["0", "false"]] * len(ours)
