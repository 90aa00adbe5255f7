"""What the RabbitMQ broker says to the server: what it declares, and how many frames of acks it sends.

Through a proxy that keeps what was sent. Runs in both worlds.
"""

from __future__ import annotations

import struct
import threading
from typing import NamedTuple

import pytest

import greenq
from greenq.brokers.rabbitmq import RabbitmqBroker
from tests.support.rabbitmq_server import shared_server
from tests.support.tcp_proxy import tcp_proxy
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


# -- acks


class Ack(NamedTuple):
    """A frame that removes a message, or all up to it."""

    channel: int
    tag: int
    is_multiple: bool

    def covers(self, tag):
        return self.tag == tag or (self.is_multiple and self.tag > tag)


_PROTOCOL_HEADER = 8
_METHOD_FRAME, _BASIC_ACK = 1, 60 << 16 | 80


def acks_in(sent):
    """All acks in what a client sent."""
    data, found = bytes(sent), []
    position = _PROTOCOL_HEADER
    while position + 7 <= len(data):
        kind, channel, size = struct.unpack_from(">BHI", data, position)
        if position + size + 8 > len(data):
            break  # it is on its way
        if kind == _METHOD_FRAME and struct.unpack_from(">I", data, position + 7)[0] == _BASIC_ACK:
            found.append(Ack(channel, *struct.unpack_from(">Q?", data, position + 11)))
        position += size + 8
    return found


def test_acks_of_ten_thousand_jobs_are_joined_and_none_covers_a_job_that_still_runs(vhost):
    before, behind = 9_500, 500
    sender = RabbitmqBroker(url=vhost.url, middleware=[])
    with tcp_proxy(vhost.server.port) as proxy:
        broker = RabbitmqBroker(url=proxy.url_of(vhost.url))
        ran, may_end = [], threading.Event()

        @greenq.actor(broker=broker)
        def work(number):
            if number == before:
                may_end.wait()
            ran.append(number)

        def acks():
            return [ack for sent in proxy.sent for ack in acks_in(sent)]

        def is_acknowledged(tag):
            return any(ack.covers(tag) for ack in acks())

        sender.declare_queue("default")
        for start in range(0, before + 1 + behind, 1000):
            sender.enqueue_many(
                [work.message(number) for number in range(start, min(start + 1000, before + 1 + behind))]
            )
        worker = greenq.Worker(broker, worker_threads=64)
        worker.start()
        until(lambda: len(ran) == before + behind)
        # The only consumer of the queue: tags are places in it. Those behind the long one have to be
        # acknowledged one by one, because AMQP joins only what nothing in between is missing from.
        long_one = before + 1
        until(lambda: sum(ack.tag > long_one for ack in acks()) == behind)
        until(lambda: is_acknowledged(before))
        while_it_ran = acks()
        may_end.set()
        until(lambda: is_acknowledged(long_one))
        worker.stop()
        broker.close()
    counts = sender.get_queue_message_counts("default")
    sender.close()

    assert [ack for ack in while_it_ran if ack.covers(long_one)] == []
    assert len(while_it_ran) - behind < before / 5
    assert counts == (0, 0, 0)
