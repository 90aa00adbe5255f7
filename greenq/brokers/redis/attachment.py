"""What one process has of the server, from the first use until the broker is closed, or forks.

Puts the parts together; none of them knows the broker.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ...errors import ConnectionError
from .connection import Caller, ClusterLinks, Link, Links, NodeLinks, is_cluster
from .keys import Layout
from .membership import Membership
from .scripts import TAKE_BACK


class Attachment:
    """The parts, made but not yet connected.

    Parameters:
      client: Whose connections to make.
      layout(Layout): The keys.
      lease_ms(int): The length of a worker's lease.
      dead_message_ttl_ms(int): Dead letters older than this are dropped.
    """

    def __init__(self, client: Any, layout: Layout, lease_ms: int, dead_message_ttl_ms: int) -> None:
        self.client = client
        self.layout = layout
        self.is_cluster = is_cluster(client)
        self.links: Caller = ClusterLinks(client) if self.is_cluster else Links(client)
        # A renewal that is late is no renewal.
        timeout_s = lease_ms / 3000
        own: Caller = NodeLinks(client, timeout_s) if self.is_cluster else Link(client, timeout_s)
        self.membership = Membership(
            layout, own, is_cluster=self.is_cluster, lease_ms=lease_ms, dead_message_ttl_ms=dead_message_ttl_ms
        )

    def close(self) -> None:
        """Return what is reserved, uncharged, and close connections. May switch."""
        self.membership.leave()
        try:
            # The lease returns it where the server is away.
            with contextlib.suppress(ConnectionError):
                for queue_name in self.membership.queues:
                    self.take_back(queue_name, self.membership.worker_id, charge=False)
        finally:
            self.links.close()

    def take_back(self, queue_name: str, worker_id: str, *, charge: bool) -> int:
        """Return what a worker holds of a queue; answer how many messages that were. May switch."""
        of = self.layout.of(queue_name)
        taken: int = self.links.call(
            TAKE_BACK, [of.ready, of.priorities, of.deliveries, of.workers], [worker_id, int(charge)]
        )
        return taken
