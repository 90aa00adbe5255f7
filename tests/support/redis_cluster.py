"""A Redis cluster of three masters, each on a free port of loopback."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import Any

import redis
from redis.crc import key_slot

from .redis_server import RedisServer, shared
from .waiting import PATIENCE_S

SLOTS = 16_384
_MASTERS = 3


class ClusterNode(RedisServer):
    """A node.

    Attributes:
      id(str): Its name in the cluster.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            **{
                "cluster_enabled": "yes",
                "cluster_node_timeout": "1000",
                "repl_diskless_sync_delay": "0",
                **settings,
            }
        )
        self.id = self.ask("MYID").decode()

    def ask(self, *command: Any) -> Any:
        """The answer to a command about the cluster, as it comes."""
        connection = self.admin.connection_pool.get_connection()
        try:
            connection.send_command("CLUSTER", *command)
            return connection.read_response()
        finally:
            self.admin.connection_pool.release(connection)

    def meet(self, other: ClusterNode) -> None:
        self.ask("MEET", "127.0.0.1", other.port)


class RedisClusterServers:
    """A cluster that runs.

    Parameters:
      replicas(int): How many masters, from the first on, have a replica.
      settings: Of each node.
    """

    def __init__(self, *, replicas: int = 0, **settings: Any) -> None:
        self.masters: list[ClusterNode] = []
        self.replicas: list[ClusterNode] = []
        self._clients: list[Any] = []
        try:
            self._found(replicas, settings)
        except BaseException:
            self.end()
            raise

    def _found(self, replicas: int, settings: dict[str, Any]) -> None:
        for number in range(_MASTERS):
            node = ClusterNode(**settings)
            self.masters.append(node)
            node.ask("SET-CONFIG-EPOCH", number + 1)
            node.ask("ADDSLOTSRANGE", SLOTS * number // _MASTERS, SLOTS * (number + 1) // _MASTERS - 1)
        for _ in range(replicas):
            self.replicas.append(ClusterNode(**settings))
        for node in [*self.masters[1:], *self.replicas]:
            self.masters[0].meet(node)
        self._wait(lambda node: node.ask("INFO").count(b"cluster_state:ok") == 1, self.masters)
        for replica, master in zip(self.replicas, self.masters, strict=False):
            _until(lambda replica=replica, master=master: _follows(replica, master))
        self._wait(lambda node: node.ask("INFO").count(b"cluster_state:ok") == 1, self.nodes)
        for replica in self.replicas:
            _until(lambda replica=replica: replica.admin.info("replication")["master_link_status"] == "up")

    @property
    def nodes(self) -> list[ClusterNode]:
        return [*self.masters, *self.replicas]

    def _wait(self, holds: Any, nodes: list[ClusterNode]) -> None:
        _until(lambda: all(map(holds, nodes)))

    def client(self, **parameters: Any) -> Any:
        """A cluster client, closed with the cluster."""
        client = redis.RedisCluster(host="127.0.0.1", port=self.masters[0].port, **parameters)
        self._clients.append(client)
        return client

    def master_of(self, key: str) -> ClusterNode:
        """The node that has a key, as the first node that runs says."""
        slot = key_slot(key.encode())
        for node in self.nodes:
            if node.process.poll() is None:
                for first, last, master, *_ in node.ask("SLOTS"):
                    if first <= slot <= last:
                        return next(each for each in self.nodes if each.port == master[1])
        raise AssertionError(f"nobody has {key}")

    def wait_until_agreed(self) -> None:
        """Wait until all masters know of the latest change of the cluster."""
        _until(lambda: len({_epoch(node) for node in self.masters if node.process.poll() is None}) == 1)

    def other_than(self, node: ClusterNode) -> ClusterNode:
        """A master that is another one."""
        return next(each for each in self.masters if each is not node)

    def flush(self) -> None:
        for node in self.masters:
            node.admin.flushall()

    def end(self) -> None:
        for client in self._clients:
            with suppress(redis.exceptions.RedisError):
                client.close()
        for node in self.nodes:
            node.end()


class SlotMove:
    """A slot on its way from one master to another, one step at a time.

    Parameters:
      cluster: The cluster.
      key(str): One of the slot's keys.
    """

    def __init__(self, cluster: RedisClusterServers, key: str) -> None:
        self.slot = key_slot(key.encode())
        self.source = cluster.master_of(key)
        self.target = cluster.other_than(self.source)
        self._cluster = cluster

    def begin(self) -> None:
        """Tell both nodes, once all know of the move before."""
        # The target's claim is the next epoch that it knows of: a node that had made a later one would win.
        self._cluster.wait_until_agreed()
        self.target.ask("SETSLOT", self.slot, "IMPORTING", self.source.id)
        self.source.ask("SETSLOT", self.slot, "MIGRATING", self.target.id)

    def move_keys(self, *keys: str) -> None:
        """Move these keys, or all."""
        names = keys or self.source.ask("GETKEYSINSLOT", self.slot, 1000)
        for name in names:
            self.source.admin.execute_command("MIGRATE", "127.0.0.1", self.target.port, name, 0, 5000)

    def end(self) -> None:
        """Make the target the slot's master."""
        for node in (self.target, self.source, *self._cluster.masters):
            node.ask("SETSLOT", self.slot, "NODE", self.target.id)

    def run(self) -> None:
        """All of it."""
        self.begin()
        self.move_keys()
        self.end()


def _epoch(node: ClusterNode) -> bytes:
    return next(line for line in node.ask("INFO").splitlines() if line.startswith(b"cluster_current_epoch"))


def _follows(replica: ClusterNode, master: ClusterNode) -> bool:
    try:
        replica.ask("REPLICATE", master.id)
    except redis.exceptions.ResponseError:  # they have not met yet
        return False
    return True


def _until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "the cluster did not come together"
        time.sleep(0.01)


def shared_cluster() -> RedisClusterServers:
    """The cluster that tests share, started by the first; empty it before use."""
    return shared(RedisClusterServers)


@contextmanager
def redis_cluster(**settings: Any):
    cluster = RedisClusterServers(**settings)
    try:
        yield cluster
    finally:
        cluster.end()
