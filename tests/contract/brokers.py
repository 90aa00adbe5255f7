"""The brokers that the contract suites run against. A new one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from greenq.broker import Broker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker
from tests.support.redis_server import shared_server


class Case(NamedTuple):
    """One broker under test.

    Attributes:
      open: Makes the broker, closes it after the test.
    """

    open: Callable[[Path], Any]


@contextmanager
def _stub(path: Path) -> Iterator[Broker]:
    broker = StubBroker(fail_fast_default=False)
    yield broker
    broker.close()


@contextmanager
def _sqlite(path: Path) -> Iterator[Broker]:
    broker = SqliteBroker(path / "queue.db")
    yield broker
    broker.close()


@contextmanager
def _redis(path: Path) -> Iterator[Broker]:
    server = shared_server()
    server.client().flushall()
    broker = RedisBroker(url=server.url)
    yield broker
    broker.close()
    broker.client.close()


CASES = {
    "stub": Case(_stub),
    "sqlite": Case(_sqlite),
    "redis": Case(_redis),
}
