"""Clients, and the connections that are made after their pattern.

redis-py's own ways are dangerous for a queue: it repeats a command whose answer was lost,
up to ten times, so that a message is stored twice; its pool raises when it is empty; a
time-out of 5 s ends a longer block. So connections are taken from redis-py, with its TLS,
its log-in and its parser, and everything above them is ours: nothing is repeated, time-outs
are explicit, and each role has its own.

    links.py      a few connections for scripts, each used by one task at a time
    peek.py       one that blocks on a list; each consumer has one of its own
    sentinel.py   finds the master that Sentinel speaks of, for each new connection
    cluster.py    finds the node that has a queue's slot
    failures.py   what errors mean
"""

from __future__ import annotations

import socket
from typing import Any, Protocol

import redis
import redis.backoff
import redis.cluster
import redis.retry
import redis.sentinel

from .failures import explain

#: Seconds after which a server that does not answer counts as away, unless the client says otherwise.
TIMEOUT_S = 5.0
#: How many connections a process opens for scripts, at most; on a cluster to each node.
MOST_LINKS = 16

#: What belongs to a client's own pool, and to a version of the protocol that is not used here.
_OF_THE_POOL = ("maint_notifications", "oss_cluster", "orig_", "himport", "cache", "connection_pool")

#: A machine that vanished without a word is noticed after 5 + 3 * 2 seconds of silence, also
#: by whoever waits for messages for longer.
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}.items()
    if hasattr(socket, name)
}


# -- clients


def make_client(url: str | None, parameters: dict[str, Any]) -> Any:
    """A redis-py client that repeats nothing and connects when it is used."""
    settings: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "protocol": 2,
        "retry": _no_retry(),
    }
    if url is None or not url.startswith("unix:"):
        settings |= {"socket_connect_timeout": TIMEOUT_S, "socket_keepalive": True}
    if url is None:
        return redis.Redis(**settings | parameters)
    of_the_pool = {"max_connections": MOST_LINKS, "timeout": TIMEOUT_S}
    return redis.Redis(
        connection_pool=redis.BlockingConnectionPool.from_url(url, **of_the_pool | settings | parameters)
    )


def is_cluster(client: Any) -> bool:
    """Whether a client is one of a cluster."""
    return isinstance(client, redis.cluster.RedisCluster)


def is_of_sentinel(client: Any) -> bool:
    """Whether a client asks Sentinel where its server is."""
    return not is_cluster(client) and isinstance(client.connection_pool, redis.sentinel.SentinelConnectionPool)


def check_client(client: Any) -> None:
    """Refuse a client that would turn payloads into text, or one of replicas.

    Raises:
      ValueError: It decodes responses, or comes from Sentinel's ``slave_for``.
    """
    if getattr(client.get_encoder(), "decode_responses", False):
        raise ValueError(
            "A client with decode_responses=True turns messages into text, which breaks those that are no UTF-8. "
            "Give the broker a client of its own without decode_responses."
        )
    if is_of_sentinel(client) and not client.connection_pool.is_master:
        raise ValueError("Replicas take no messages. Give the broker the client of a master: sentinel.master_for(...).")


def where(client: Any) -> str:
    """The server's address, for people; without user and password."""
    if is_cluster(client):
        return "the cluster at " + ", ".join(f"{node.host}:{node.port}" for node in client.get_nodes()[:3])
    if is_of_sentinel(client):
        return f"Sentinel's master {client.connection_pool.service_name!r}"
    kwargs = client.connection_pool.connection_kwargs
    if "path" in kwargs:
        return str(kwargs["path"])
    return f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"


def database_of(client: Any) -> int:
    """The number of the database that a client uses; a cluster has only 0."""
    return 0 if is_cluster(client) else int(client.connection_pool.connection_kwargs.get("db") or 0)


# -- connections


class Server(Protocol):
    """Where connections go.

    Attributes:
      address(str): For people; without user and password.
    """

    address: str

    def open(self, timeout_s: float | None = None) -> Any:
        """A new connection of redis-py that nobody else uses, connected.

        Parameters:
          timeout_s(float): For the server to answer. Default: as the client has it.

        Raises:
          Errors of redis-py, OSError: As for ``failures.explain``.
          ConnectionFailed: It is not known where the server is.

        May switch.
        """
        ...

    def is_current(self, connection: Any) -> bool:
        """Whether a connection still leads where a new one would. May switch."""
        ...


class OneServer:
    """A server whose address is known.

    Parameters:
      connection_class: One of redis-py's.
      parameters: Of the connection, as a client has them.
      address(str): For people.
    """

    def __init__(self, connection_class: Any, parameters: dict[str, Any], address: str) -> None:
        self.address = address
        self._class = connection_class
        self._parameters = explicit(parameters)

    def open(self, timeout_s: float | None = None) -> Any:
        connection = self._class(**within(self._parameters, timeout_s))
        connection.connect()
        return connection

    def is_current(self, connection: Any) -> bool:
        """Always: an address is where it is."""
        return True


def explicit(parameters: dict[str, Any]) -> dict[str, Any]:
    """A client's parameters for connections that are of nobody's pool and repeat nothing."""
    own = {name: value for name, value in parameters.items() if not name.startswith(_OF_THE_POOL)}
    own |= {"protocol": 2, "retry": _no_retry(), "retry_on_error": [], "health_check_interval": 0}
    own.pop("retry_on_timeout", None)
    own["socket_timeout"] = own.get("socket_timeout") or TIMEOUT_S
    if "path" not in own:
        own["socket_connect_timeout"] = own.get("socket_connect_timeout") or TIMEOUT_S
        own["socket_keepalive"] = True
        if not isinstance(own.get("socket_keepalive_options"), dict):
            own["socket_keepalive_options"] = _KEEPALIVE
    return own


def within(parameters: dict[str, Any], timeout_s: float | None) -> dict[str, Any]:
    """Explicit parameters with another time-out."""
    if timeout_s is None:
        return parameters
    others = {**parameters, "socket_timeout": timeout_s}
    if "socket_connect_timeout" in others:
        others["socket_connect_timeout"] = min(others["socket_connect_timeout"], timeout_s)
    return others


def _no_retry() -> Any:
    return redis.retry.Retry(redis.backoff.NoBackoff(), 0)


def try_connection(server: Server) -> None:
    """Connect and log in, choose the database, and disconnect.

    Raises:
      ConnectionError: It cannot be reached, or refused.

    May switch.
    """
    try:
        server.open().disconnect()
    except Exception as error:
        explained = explain(error, server.address, was_sent=False, stores=False)
        if explained is None:
            raise
        raise explained from error


def ask(server: Server, *command: Any, timeout_s: float | None = None) -> Any:
    """A server's answer to a command that stores nothing, over a connection of its own.

    Raises:
      ConnectionError: It cannot be reached, or refused.

    May switch.
    """
    connection = None
    try:
        connection = server.open(timeout_s)
        connection.send_command(*command)
        return connection.read_response()
    except Exception as error:
        explained = explain(error, server.address, was_sent=False, stores=False)
        if explained is None:
            raise
        raise explained from error
    finally:
        if connection is not None:
            connection.disconnect()
