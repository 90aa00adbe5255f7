"""RabbitMQ over TLS: the server's certificate is verified. Runs in both worlds."""

from __future__ import annotations

import socket
import ssl

import pika
import pytest

from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.errors import ConnectionFailed
from tests.contract.fetching import acks, message, names, take
from tests.support.lines import Lines
from tests.support.processes import both_worlds, running
from tests.support.rabbitmq_server import free_ports, rabbitmq_server
from tests.support.redis_tls import make_certificates
from tests.support.waiting import PATIENCE_S, until


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
        until(lambda: is_open(port))  # it is opened after the server's other one
        yield port


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


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


BUSY = """
    import os, select, ssl, sys, time
    import pika
    import greenq
    from greenq.brokers.rabbitmq import RabbitmqBroker
    context = ssl.create_default_context(cafile=sys.argv[2])
    broker = RabbitmqBroker(url=sys.argv[1], heartbeat=1, ssl_options=pika.SSLOptions(context))
    @greenq.actor(broker=broker)
    def work(number):
        end = time.monotonic() + (5 if number == 1 else 0)
        while time.monotonic() < end: pass  # longer than a server waits for two heartbeats
        os.write(1, b"%d\\n" % number)
    worker = greenq.Worker(broker, worker_threads=8)
    worker.start()
    os.write(1, b"ready\\n")
    select.select([0], [], [])
    worker.stop(10_000)
    broker.close()
"""


@both_worlds
def test_a_job_that_stops_the_hub_for_more_than_two_heartbeats_over_tls_runs_once(open_broker, folder, port, patched):
    broker = open_broker(ssl_options=pika.SSLOptions(ssl.create_default_context(cafile=str(folder / "ca.crt"))))
    broker.enqueue_many([message(number) for number in range(1, 6)])
    with running(BUSY, f"amqps://guest:guest@127.0.0.1:{port}", folder / "ca.crt", patched=patched) as script:
        ran = Lines(script)
        ran.wait_for(lambda lines: {"1", "2", "3", "4", "5"} <= set(lines))

        broker.enqueue(message(6))
        ran.wait_for(lambda lines: "6" in lines)

        script.say()
        ran.rest()
        assert script.process.wait(PATIENCE_S) == 0, script.errors

    assert sorted(ran.lines) == ["1", "2", "3", "4", "5", "6", "ready"]
    assert broker.get_queue_message_counts("default") == (0, 0, 0)
