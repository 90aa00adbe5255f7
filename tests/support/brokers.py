"""What tests of one kind of broker do with it: open several, fill one, wait at it, count what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from greenq.broker import Broker
from greenq.consumer import Consumer
from tests.contract.fetching import message

from .waiting import PATIENCE_S


@contextmanager
def opening(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A function that opens brokers, each as if in a process of its own; they are closed after the block.

    Parameters:
      make: Makes a broker of what that function is given.
    """
    opened: list[Any] = []

    def open_broker(*args: Any, **options: Any) -> Any:
        broker = make(*args, middleware=[], **options)
        opened.append(broker)
        broker.declare_queue("default")
        return broker

    yield open_broker
    for each in opened:
        each.close()
        if hasattr(each, "client"):
            each.client.close()


def consume(broker: Broker, timeout_s: float = PATIENCE_S) -> Consumer:
    """A consumer of the queue whose waits end long after anything here takes."""
    return broker.consume("default", timeout=int(timeout_s * 1000))


def send(broker: Broker, *names: Any, **options: Any) -> None:
    """Store a message for each of these, in one step; it is the message's argument."""
    broker.write([broker.prepare(message(name, **options)) for name in names])


def counts(broker: Broker, queue_name: str = "default") -> tuple[int, int, int]:
    """How many are ready, delayed and dead."""
    return broker.get_queue_message_counts(queue_name)
