"""Where the ledger's actors have their queues: one broker that workers share, which any process can open."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from greenq.broker import Broker
from greenq.middleware import GroupCallbacks
from greenq.rate_limits.backends import SqliteBackend

from .ledger import Ledger, add_actors
from .waiting import PATIENCE_S

#: The queues of the ledger's actors.
QUEUES = ["default", "elsewhere"]

#: The brokers that workers share, and the two kinds of queues that RabbitMQ has.
KINDS = ["sqlite", "redis", "rabbitmq-classic", "rabbitmq-quorum"]


class Place(NamedTuple):
    """A broker, as it is told to other processes.

    Attributes:
      kind(str): One of KINDS.
      address(str): A path or a URL.
      lease_ms(int): The length of a lease, where there are leases. Default: the broker's.
    """

    kind: str
    address: str
    lease_ms: int | None = None

    @property
    def has_leases(self) -> bool:
        """Whether what a dead worker held is returned by others, and not by the server."""
        return not self.kind.startswith("rabbitmq")

    def open(
        self, ledger: Ledger, *, until: threading.Event | None = None, longest_s: float = 0, **options: Any
    ) -> Broker:
        """A broker with the actors of the ledger; the options are the broker's own.

        Groups are counted in a file beside the ledger.
        """
        broker = self._broker_of(options)
        if self.lease_ms is not None and self.has_leases:
            broker.set_lease(self.lease_ms)
        broker.add_middleware(GroupCallbacks(SqliteBackend(ledger.path.with_name("groups.db"))))
        add_actors(broker, ledger, until=until, longest_s=longest_s)
        return broker

    def join(self, broker: Any, queue_name: str) -> None:
        """Wait until nothing is left of a queue but dead letters."""
        # RabbitMQ counts what has been delivered nowhere, so it is asked several times.
        options = {} if self.has_leases else {"min_successes": 3}
        broker.join(queue_name, interval=10, timeout=PATIENCE_S * 1000, **options)

    def _broker_of(self, options: dict[str, Any]) -> Broker:
        # A process imports the client of its own broker alone.
        if self.kind == "sqlite":
            from greenq.brokers.sqlite import SqliteBroker

            return SqliteBroker(self.address, **options)
        if self.kind == "redis":
            from greenq.brokers.redis import RedisBroker

            return RedisBroker(url=self.address, **options)
        from greenq.brokers.rabbitmq import RabbitmqBroker

        return RabbitmqBroker(url=self.address, queue_type=self.kind.removeprefix("rabbitmq-"), **options)
