"""The brokers that the contract suites run against. A new one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from greenq.broker import Broker
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker
from greenq.inspection import QueueCounts
from tests.support import rabbitmq_server
from tests.support.redis_cluster import shared_cluster
from tests.support.redis_server import shared_server
from tests.support.redis_tls import shared_tls_server


class Case(NamedTuple):
    """One broker under test.

    Attributes:
      open: Makes the broker, closes it after the test.
      orders(str): Which priorities it tells apart: "all", only those that are "raised" above
        the usual one, or "none".
      keeps_places(bool): Whether what a stopped worker returns is still in front of the rest.
      pushes(bool): Whether messages come to a consumer of this process before it takes them. The
        broker counts these no more, nor what is reserved.
      reads_by_holding(bool): Whether nobody else can see, or act on, a dead letter while it is read.
      before_delays: What the first delay of a queue would wait for, done beforehand.
    """

    open: Callable[[Path], Any]
    orders: str = "all"
    keeps_places: bool = True
    pushes: bool = False
    reads_by_holding: bool = False
    before_delays: Callable[[Any], None] | None = None

    def counts(self, broker: Any, queue_name: str = "default") -> QueueCounts:
        """What the broker counts, and what was pushed to this process as ready; who took something counts himself."""
        counts: QueueCounts = broker.queue_counts(queue_name)
        if not self.pushes:
            return counts
        in_hand = broker._attach().in_hand(queue_name)
        return counts._replace(ready=counts.ready + in_hand, reserved=0)


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
def _redis_with_tls_and_few_rights(path: Path) -> Iterator[Broker]:
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


class _QuickToJoin(RabbitmqBroker):
    """Looks around more often: in these tests nobody else has messages in hand."""

    def join(self, queue_name: str, min_successes: int = 3, idle_time: int = 20, **options: Any) -> None:
        super().join(queue_name, min_successes, idle_time, **options)


def _declare_a_ladder(broker: Any) -> None:
    # It takes 0.1 s, once in a queue's life, which is longer than these tests' delays.
    broker._attach().ensure("default")
    broker._attach().ensure_ladder("default")


def _rabbitmq(**options: Any) -> Callable[[Path], Any]:
    @contextmanager
    def open_broker(path: Path) -> Iterator[Broker]:
        with rabbitmq_server.shared_server().vhost() as vhost:
            broker = _QuickToJoin(url=vhost.url, **options)
            yield broker
            broker.close()

    return open_broker


_RABBITMQ: Any = {"keeps_places": False, "pushes": True, "reads_by_holding": True, "before_delays": _declare_a_ladder}

CASES = {
    "stub": Case(_stub),
    "sqlite": Case(_sqlite),
    "redis": Case(_redis),
    "redis-tls": Case(_redis_with_tls_and_few_rights),
    "redis cluster": Case(_redis_cluster),
    "rabbitmq": Case(_rabbitmq(max_priority=10), "raised", **_RABBITMQ),
    "rabbitmq-quorum": Case(_rabbitmq(queue_type="quorum"), "none", **_RABBITMQ),
}
