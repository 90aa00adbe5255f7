"""The broker on RabbitMQ: confirmed and pipelined, with delays held by the server."""

from ...extras import require

require("pika", "RabbitmqBroker")

from .broker import RabbitmqBroker  # noqa: E402 - it imports pika, which may be missing

__all__ = ["RabbitmqBroker"]
