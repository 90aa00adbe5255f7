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
from tests.support.redis_cluster import shared_cluster
from tests.support.redis_server import shared_server
from tests.support.redis_tls import shared_tls_server


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
    with _closing(RedisBroker(url=server.url)) as broker:
        yield broker


@contextmanager
def _redis_with_tls(path: Path) -> Iterator[Broker]:
    server = shared_tls_server()
    server.client().flushall()
    with _closing(RedisBroker(url=server.url)) as broker:
        yield broker


@contextmanager
def _redis_cluster(path: Path) -> Iterator[Broker]:
    cluster = shared_cluster()
    cluster.flush()
    with _closing(RedisBroker(client=cluster.client())) as broker:
        yield broker


@contextmanager
def _closing(broker: RedisBroker) -> Iterator[Broker]:
    yield broker
    broker.close()
    broker.client.close()


CASES = {
    "stub": Case(_stub),
    "sqlite": Case(_sqlite),
    "redis": Case(_redis),
    "redis with TLS and few rights": Case(_redis_with_tls),
    "redis cluster": Case(_redis_cluster),
}
