"""RabbitMQ over TLS: the server's certificate is verified. Runs in both worlds."""

from __future__ import annotations

import ssl

import pika
import pytest

from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.errors import ConnectionFailed
from tests.contract.fetching import acks, message, names, take
from tests.support.rabbitmq_server import free_ports, rabbitmq_server
from tests.support.redis_tls import make_certificates


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    (folder / "server.key").chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def port(folder):
    (port,) = free_ports(1)
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(folder / "ca.crt"),
        "ssl_options.certfile": str(folder / "server.crt"),
        "ssl_options.keyfile": str(folder / "server.key"),
        "ssl_options.verify": "verify_none",
    }
    with rabbitmq_server(settings):
        yield port


@pytest.fixture
def open_broker(port):
    brokers = []

    def open_broker(**options):
        broker = RabbitmqBroker(url=f"amqps://guest:guest@127.0.0.1:{port}", middleware=[], **options)
        broker.declare_queue("default")
        brokers.append(broker)
        return broker

    yield open_broker
    for broker in brokers:
        broker.close()


def test_messages_go_both_ways_over_tls(open_broker, folder):
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    broker = open_broker(ssl_options=pika.SSLOptions(context))
    consumer = broker.consume("default", prefetch=2000, timeout=20_000)

    broker.enqueue_many(message(number, "x" * 1000) for number in range(2000))
    fetched = take(consumer, 2000)
    consumer.complete(acks(fetched))

    assert names(fetched) == list(range(2000))
    broker.join("default", 2, 10, timeout=5000)


def test_a_server_that_nobody_vouches_for_is_refused(open_broker):
    with pytest.raises(ConnectionFailed, match="certificate verify failed"):
        open_broker().connect()
