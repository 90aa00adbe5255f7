"""The broker on RabbitMQ: confirmed and pipelined, with delays held by the server."""

from .broker import RabbitmqBroker

__all__ = ["RabbitmqBroker"]
