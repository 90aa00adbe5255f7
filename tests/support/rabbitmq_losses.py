"""Losses on RabbitMQ: of connections, and of workers, whose messages come marked."""

from __future__ import annotations

import socket

import pika

from tests.contract.fetching import message

from .waiting import PATIENCE_S, until


def lose(connection):
    """Cut the connection at the socket. In the loop, or where it cannot run meanwhile."""
    connection._transport._sock.shutdown(socket.SHUT_RDWR)


def cut_off(consumer):
    """Lose the connection, and have this noticed."""
    subscription = consumer._subscription
    consumer._attachment.loop.soon(lambda: lose(subscription._channel.connection))
    until(lambda: subscription.lost is not None)


def consume_after(broker, consumer):
    """The next consumer after its connection was lost, as a worker makes it."""
    following = broker.consume("default", prefetch=10, timeout=PATIENCE_S * 1000)
    consumer.close()
    return following


def publish_marked(broker, *counts):
    """Messages with these counts of losses, which RabbitMQ has delivered before; named by them."""
    broker.declare_queue("default", ensure=True)
    _publish_marked(broker, [(count, message(count).encode()) for count in counts])


def mark_all(broker, count):
    """Give all messages of the queue this count of losses, and have RabbitMQ count them as delivered before."""
    found = [broker.channel.basic_get("default", auto_ack=True) for _ in range(_ready(broker))]
    _publish_marked(broker, [(count, body) for _, _, body in found])


def _publish_marked(broker, bodies):
    for count, body in bodies:
        properties = pika.BasicProperties(headers={"x-greenq-losses": count}, delivery_mode=2)
        broker.channel.basic_publish("", "default", body, properties)
    until(lambda: _ready(broker) == len(bodies))
    for method, _, _ in [broker.channel.basic_get("default") for _ in bodies]:
        broker.channel.basic_nack(method.delivery_tag)


def _ready(broker):
    return broker.channel.queue_declare("default", passive=True).method.message_count
