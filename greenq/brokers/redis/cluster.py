"""A cluster: which node has a queue's slot, and what to do when it moves.

redis-py's cluster client repeats a command whose answer was lost, and its map and
connections are shared by all threads. So from it come only the nodes' addresses and the
connections' settings; the map of slots, redirections and connections are ours.

    MOVED                   nothing was done; the answer says where: go there
    ASK, TRYAGAIN           nothing was done; the slot is being moved: wait until it has been
    CLUSTERDOWN             nothing was done; raised
    cannot be connected to  nothing was sent; ask the others where the slot is now, go there
    broke after sending     raised; the next command asks the others first

A slot that is being moved has its keys on two nodes, and each node refuses what touches keys
it does not have. Redis sees that beforehand only for the keys that a script names; a key that
the script makes up, or empties on its way, breaks it off in the middle, and half of it would
stay done. So every script names one more key, which never exists: then both nodes refuse the
script as a whole. That is why ASK is not followed: the node that it names would say TRYAGAIN.
See docs/decisions/a-key-that-never-exists.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import redis.exceptions
from redis.crc import key_slot

from ...errors import ConnectionClosed, ConnectionFailed
from ...runtime import current
from .connection import TIMEOUT_S, OneServer, ask, where
from .failures import REPLIES, storing
from .links import Caller
from .scripts import Script

#: Seconds for which a script waits until its slot has been moved, and between two tries.
MOVE_PATIENCE_S = TIMEOUT_S
_PAUSE_S = 0.05
#: How often one script is sent elsewhere; more is a cluster that does not agree with itself.
_MOST_REDIRECTIONS = 5
#: Ends the name of the key that never exists. No queue's name has a "~".
_NEVER = "~never"


class Node(NamedTuple):
    """The address of a node."""

    host: str
    port: int


class Cluster:
    """Knows the nodes of a cluster, and which one has which slot.

    Shared by tasks and threads: what it knows is replaced, never changed in between, and it
    asks over connections that it makes for the question.

    Parameters:
      client: A cluster client.
      timeout_s(float): For a node to say where the slots are. Default: as the client has it.

    Attributes:
      address(str): For people.
    """

    def __init__(self, client: Any, timeout_s: float | None = None) -> None:
        self._timeout_s = timeout_s
        self.address = where(client)
        manager = client.nodes_manager
        nodes = client.get_nodes()
        pool = client.get_redis_connection(nodes[0]).connection_pool
        self._class = pool.connection_class
        # Without what the client does on its connections, such as to read from replicas.
        self._parameters = {**pool.connection_kwargs, "redis_connect_func": None}
        self._remap: Callable[[str, int], tuple[str, int]] = getattr(manager, "remap_host_port", lambda *pair: pair)
        self._servers: dict[Node, OneServer] = {}
        self._slots: dict[int, Node] = {}
        # Those that the application named may be names that lead to other nodes one day.
        self._named = [Node(each.host, int(each.port)) for each in list(manager.startup_nodes.values())]
        self._known: list[Node] = []

    # -- nodes

    def node_of(self, slot: int) -> Node:
        """The node that has a slot, as far as is known.

        Raises:
          ConnectionFailed: No node can be asked, or none has it.

        May switch: asks the cluster when nothing is known.
        """
        node = self._slots.get(slot)
        if node is None:
            self.refresh()
            node = self._slots.get(slot)
        if node is None:
            raise ConnectionFailed(f"No node of {self.address} has slot {slot}. Look at CLUSTER SLOTS")
        return node

    def server_at(self, node: Node) -> OneServer:
        """How to connect to a node."""
        server = self._servers.get(node)
        if server is None:
            host, port = self._remap(*node)
            address = f"{host}:{port}"
            made = OneServer(self._class, {**self._parameters, "host": host, "port": port}, address)
            server = self._servers.setdefault(node, made)
        return server

    def masters(self) -> list[Node]:
        """The nodes that have slots, as the cluster says now.

        Raises:
          ConnectionFailed: No node can be asked.

        May switch.
        """
        self.refresh()
        return sorted(set(self._slots.values()))

    # -- what is known of slots

    def learn(self, slot: int, node: Node) -> None:
        """Note what a node said about a slot."""
        self._slots[slot] = node

    def forget(self, slot: int) -> None:
        """Ask before this slot is used the next time."""
        self._slots.pop(slot, None)

    def refresh(self, *, last: Node | None = None) -> None:
        """Ask one node after the other for the whole map, until one answers.

        Parameters:
          last(Node): Asked only if no other one answers.

        Raises:
          ConnectionFailed: None answers.

        May switch.
        """
        refusals = []
        for node in self._in_turn(last):
            try:
                answer = ask(self.server_at(node), "CLUSTER", "SLOTS", timeout_s=self._timeout_s)
            except (ConnectionFailed, redis.exceptions.ResponseError) as error:
                refusals.append(f"{node.host}:{node.port}: {error.__cause__ or error}")
                continue
            slots = dict(_slots(answer, node))
            if slots:
                self._slots = slots
                self._known = list(dict.fromkeys(slots.values()))
                return
            refusals.append(f"{node.host}:{node.port} knows of no slots")
        raise ConnectionFailed(f"No node of {self.address} says where the slots are. {'; '.join(refusals)}")

    def _in_turn(self, last: Node | None) -> Iterable[Node]:
        nodes = dict.fromkeys([*self._known, *self._named])
        if last in nodes:
            del nodes[last]
            nodes[last] = None
        return list(nodes)

    # -- as Servers of a Peek

    def server_of(self, key: str) -> OneServer:
        """The node that has a key. May switch."""
        return self.server_at(self.node_of(_slot_of(key)))

    def note_redirection(self, key: str, error: Exception, asked: Any) -> None:
        """Learn from the answer MOVED."""
        if isinstance(error, redis.exceptions.MovedError):
            slot = _slot_of(key)
            node = self._slots.get(slot)
            self.learn(slot, Node(error.host or (node.host if node else "localhost"), error.port))


class ClusterCaller:
    """Runs scripts on the nodes that have their keys.

    Parameters:
      cluster(Cluster): Knows the nodes.
      make: Makes what runs scripts on one node.
      move_patience_s(float): How long a script waits until its slot has been moved. Default: 5.
    """

    def __init__(
        self, cluster: Cluster, make: Callable[[OneServer], Caller], *, move_patience_s: float | None = None
    ) -> None:
        self._cluster = cluster
        self._make = make
        self._move_patience_s = MOVE_PATIENCE_S if move_patience_s is None else move_patience_s
        self._callers: dict[Node, Caller] = {}
        self._is_closed = False

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if self._is_closed:
            raise ConnectionClosed("The broker was closed, so nothing was stored")
        slot = _slot_of(keys[0])
        keys = [*keys, keys[0].partition("}")[0] + "}" + _NEVER]
        waits_until = time.monotonic() + self._move_patience_s
        redirections = 0
        has_asked = False
        while True:
            with storing():
                node = self._cluster.node_of(slot)
            try:
                return self._caller_at(node).call(script, keys, args)
            except ConnectionClosed:
                self._cluster.forget(slot)
                raise
            except ConnectionFailed as error:
                cause = error.__cause__
                if isinstance(cause, redis.exceptions.MovedError):
                    self._cluster.learn(slot, Node(cause.host or node.host, cause.port))
                    redirections += 1
                    if redirections > _MOST_REDIRECTIONS:
                        raise
                elif isinstance(cause, (redis.exceptions.AskError, redis.exceptions.TryAgainError)):
                    if time.monotonic() >= waits_until:
                        raise
                    current().sleep(_PAUSE_S)
                elif isinstance(cause, REPLIES) or has_asked:
                    raise
                else:
                    # Nothing was sent, so that another node may be tried.
                    has_asked = True
                    with storing():
                        self._cluster.refresh(last=node)
                        now = self._cluster.node_of(slot)
                    if now == node:
                        raise

    def _caller_at(self, node: Node) -> Caller:
        caller = self._callers.get(node)
        if caller is None:
            caller = self._callers.setdefault(node, self._make(self._cluster.server_at(node)))
        return caller

    def address_of(self, key: str) -> str:
        return self._cluster.server_of(key).address

    def distrust(self) -> None:
        for caller in list(self._callers.values()):
            caller.distrust()

    def close(self) -> None:
        self._is_closed = True
        for caller in list(self._callers.values()):
            caller.close()


def _slot_of(key: str) -> int:
    return key_slot(key.encode())


def _slots(answer: list[Any], asked: Node) -> Iterable[tuple[int, Node]]:
    """What CLUSTER SLOTS says: ranges, each with its master and then its replicas."""
    for first, last, master, *_ in answer:
        host = master[0].decode() if master[0] else ""
        # A node may not know its own name; it is reachable where it was asked.
        node = Node(asked.host if host in ("", "?") else host, int(master[1]))
        for slot in range(int(first), int(last) + 1):
            yield slot, node
