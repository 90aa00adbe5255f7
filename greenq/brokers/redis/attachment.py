"""What one process has of the server, from the first use until the broker is closed, or forks.

Puts the parts together; none of them knows the broker.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable
from typing import Any

from ...errors import ConnectionError
from ...message import MAX_MESSAGE_BYTES
from . import fitness
from .cluster import Cluster, ClusterCaller
from .connection import OneServer, Server, is_cluster, is_of_sentinel, where
from .keys import Layout
from .links import Caller, Link, Links
from .membership import Membership
from .messages import decode
from .peek import Alone, Peek, Servers
from .scripts import HELD, TAKE_BACK
from .sentinel import SentinelMaster


def server_of(client: Any) -> Server:
    """Where connections go of a client that is none of a cluster."""
    if is_of_sentinel(client):
        return SentinelMaster(client)
    pool = client.connection_pool
    return OneServer(pool.connection_class, pool.connection_kwargs, where(client))


class Attachment:
    """The parts, made but not yet connected.

    Parameters:
      client: Whose connections to make.
      layout(Layout): The keys.
      lease_ms(int): The length of a worker's lease.
      dead_message_ttl_ms(int): Dead letters older than this are dropped.
    """

    def __init__(self, client: Any, layout: Layout, lease_ms: int, dead_message_ttl_ms: int) -> None:
        self.layout = layout
        self.is_cluster = is_cluster(client)
        # A renewal that is late is no renewal.
        timeout_s = lease_ms / 3000
        self.links: Caller
        own: Caller
        self._servers: Servers
        self._cluster: Cluster | None = None
        if is_cluster(client):
            cluster = self._cluster = self._servers = Cluster(client)
            self.links = ClusterCaller(cluster, lambda server: Links(server, on_break=self._note_break))
            own = ClusterCaller(
                Cluster(client, timeout_s),
                lambda server: Link(server, timeout_s, on_break=self._note_break),
                move_patience_s=0,
            )
        else:
            server = self._server = server_of(client)
            self._servers = Alone(server)
            self.links = Links(server, on_break=self._note_break)
            own = Link(server, timeout_s, on_break=self._note_break)
        self.membership = Membership(
            layout, own, is_cluster=self.is_cluster, lease_ms=lease_ms, dead_message_ttl_ms=dead_message_ttl_ms
        )

    def _note_break(self) -> None:
        self.membership.note_break()
        self.links.distrust()

    def peek(self, queue_name: str) -> Peek:
        """What waits for messages of a queue."""
        return Peek(
            self._servers,
            self.layout.of(queue_name).ready,
            on_break=self._note_break,
            on_lost_claim=self.membership.lease(queue_name).note_doubt,
        )

    def close(self) -> None:
        """Return what is reserved, uncharged, and close connections. May switch."""
        self.membership.leave()
        try:
            # The leases return what could not be returned now.
            with contextlib.suppress(ConnectionError):
                self.take_back(self.membership.queues, self.membership.worker_id, is_counted=False)
        finally:
            self.links.close()

    def check(self, logger: logging.Logger) -> None:
        """See whether the server, or each master of a cluster, is one to keep messages on.

        A cluster of which a part is away is still one: that is only logged.

        Raises:
          ConnectionFailed: It cannot be reached, or is unfit.

        May switch.
        """
        if self._cluster is None:
            fitness.judge(fitness.look(self._server), logger, is_node=False)
            return
        masters = [self._cluster.server_at(node) for node in self._cluster.masters()]
        for server in masters:
            try:
                findings = fitness.look(server)
            except ConnectionError as error:
                logger.warning("A part of the cluster is away, with the queues that are there: %s.", error)
                if len(masters) == 1:
                    raise
                continue
            fitness.judge(findings, logger, is_node=True)

    def take_back(
        self,
        queue_names: Iterable[str],
        worker_id: str,
        *,
        is_counted: bool = True,
        charged: Collection[str] = (),
        cause: str = "",
    ) -> int:
        """Return what a worker holds of these queues; answer how many messages that were. May switch.

        Parameters:
          queue_names(Iterable[str]): The queues, by their canonical names.
          worker_id(str): The worker's.
          is_counted(bool): Whether it was lost. Default: True.
          charged(Collection[str]): Ids of the messages that there is evidence against.
          cause(str): How it died, as it is kept.

        Raises:
          ConnectionError: A server is away. What is on others has been returned.
        """
        taken = 0
        away: dict[str, ConnectionError] = {}
        for queue_name in queue_names:
            address = self.links.address_of(self.layout.of(queue_name).ready)
            if address in away:  # a node that does not answer is waited for once
                continue
            try:
                taken += self._take_back(queue_name, worker_id, is_counted, charged, cause)
            except ConnectionError as error:
                away[address] = error
        if away:
            raise next(iter(away.values()))
        return taken

    def _take_back(
        self, queue_name: str, worker_id: str, is_counted: bool, charged: Collection[str], cause: str
    ) -> int:
        of = self.layout.of(queue_name)
        found = self._stored_ids(queue_name, worker_id, charged) if charged else []
        args = [worker_id, int(is_counted), int(bool(charged)), cause, *found]
        taken: int = self.links.call(TAKE_BACK, of.for_take_back(), args)
        return taken

    def _stored_ids(self, queue_name: str, worker_id: str, message_ids: Collection[str]) -> list[bytes]:
        """Under which ids a dead worker holds these messages of a queue."""
        # Read here, not by a script: only the encoder can tell the id in a payload from whatever else is there.
        of = self.layout.of(queue_name)
        ids, payloads = self.links.call(HELD, of.for_held(), [worker_id, MAX_MESSAGE_BYTES])
        wanted = {each.encode("utf-8", "replace") for each in message_ids}
        return [
            message.stored_id
            for message in decode(self.layout, queue_name, "", ids, payloads, [])
            if message.message_id.encode("utf-8", "replace") in wanted
        ]
