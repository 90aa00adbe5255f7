"""How connections are made, shared and given up, and what their errors mean.

redis-py's own ways are dangerous for a queue: it repeats a command whose answer was lost,
up to ten times, so that a message is stored twice; its pool raises when it is empty; a
time-out of 5 s ends a longer block. So connections are taken from redis-py, with its TLS,
its log-in and its parser, and everything above them is here: nothing is repeated, time-outs
are explicit, and each role has its own.

    Links     a few connections for scripts, each used by one task at a time
    Link      one of them; the keeper of the lease has one of its own
    Peek      one that blocks on a list; each consumer has one of its own
"""

from __future__ import annotations

import _socket  # the system's sockets, which gevent does not patch
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import redis
import redis.backoff
import redis.cluster
import redis.exceptions
import redis.retry

from ...errors import BrokerUnusable, ConnectionClosed, ConnectionError, ConnectionFailed
from ...runtime import Event, current
from .scripts import Script

#: Seconds after which a server that does not answer counts as away, unless the client says otherwise.
TIMEOUT_S = 5.0
#: How many connections a process opens for scripts, at most.
MOST_LINKS = 16
#: Seconds for which the server holds a peek. Each end costs an idle consumer one look at
#: its queue, the net under lost wake-ups.
BLOCK_S = 30
#: A connection that was idle for longer is looked at before it is used: the server may have
#: closed it, and an error at that moment says nothing of the message.
_IDLE_S = 1.0

#: Beginnings of what a server says that did nothing.
_NOTHING_DONE = (
    *("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"),
    *("OOM", "MISCONF", "NOREPLICAS", "NOAUTH", "NOPERM", "WRONGPASS", "BUSY", "max number of clients"),
)

#: What belongs to a client's own pool, and to a version of the protocol that is not used here.
_OF_THE_POOL = ("maint_notifications", "oss_cluster", "orig_", "himport", "cache")


# -- clients


def make_client(url: str | None, parameters: dict[str, Any]) -> Any:
    """A redis-py client that repeats nothing and connects when it is used."""
    settings: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "socket_keepalive": True,
        "protocol": 2,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        **parameters,
    }
    if url is not None:
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=MOST_LINKS, timeout=TIMEOUT_S, **settings)
        return redis.Redis(connection_pool=pool)
    return redis.Redis(**settings)


def is_cluster(client: Any) -> bool:
    """Whether a client is one of a cluster."""
    return isinstance(client, redis.cluster.RedisCluster)


def check_client(client: Any) -> None:
    """Refuse a client that would turn payloads into text.

    Raises:
      ValueError: It decodes responses.
    """
    if getattr(client.get_encoder(), "decode_responses", False):
        raise ValueError(
            "A client with decode_responses=True turns messages into text, which breaks those that are no UTF-8. "
            "Give the broker a client of its own without decode_responses."
        )


def where(client: Any) -> str:
    """The server's address, for people; without user and password."""
    if is_cluster(client):
        return "the cluster at " + ", ".join(f"{node.host}:{node.port}" for node in client.get_nodes()[:3])
    kwargs = client.connection_pool.connection_kwargs
    if "path" in kwargs:
        return str(kwargs["path"])
    if "host" in kwargs:
        return f"{kwargs['host']}:{kwargs.get('port', 6379)}"
    return str(getattr(client.connection_pool, "service_name", "the server"))


# -- errors


@contextlib.contextmanager
def _explained(address: str, *, was_sent: bool = True) -> Iterator[None]:
    """Turn redis-py's errors into greenq's; those of the application's making stay as they are."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        explained = explain(error, address, was_sent=was_sent)
        if explained is None:
            raise
        raise explained from error


def explain(error: BaseException, address: str, *, was_sent: bool) -> ConnectionError | None:
    """What an error of redis-py means; None if it is none of the connection.

    Parameters:
      address(str): Of the server.
      was_sent(bool): Whether the server may have got the command.
    """
    text = (str(error) or type(error).__name__).rstrip(".")
    if isinstance(error, _REPLIES):
        # Of a script, older servers put the code inside a longer sentence.
        if isinstance(error, _REFUSALS) or any(f"{code} " in text for code in _NOTHING_DONE):
            kind = BrokerUnusable if isinstance(error, _LASTING) else ConnectionFailed
            return kind(f"Redis at {address} refused, so nothing was stored: {text}")
        return None
    if not isinstance(error, _BROKEN):
        return None
    if not was_sent:
        return ConnectionFailed(f"Redis at {address} cannot be reached, so nothing was stored: {text}")
    return ConnectionClosed(
        f"Redis at {address} did not answer: {text}. What was to be stored may or may not be: doing it again can "
        "run a message twice"
    )


#: Errors that are an answer of the server.
_REPLIES = (
    redis.exceptions.ResponseError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.AuthenticationError,
)
#: Answers that say by their class that nothing was done.
_REFUSALS = (
    redis.exceptions.BusyLoadingError,
    redis.exceptions.AuthenticationError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.AskError,
    redis.exceptions.OutOfMemoryError,  # of a script, only before its first write
)
#: Refusals that stay until somebody changes the password or the user's rights.
_LASTING = (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)
#: Errors of which nobody knows what they left behind.
_BROKEN = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ClusterError,
    OSError,
)


# -- scripts


class Caller(Protocol):
    """Runs scripts."""

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script; return its answer. Nothing is repeated.

        Raises:
          ConnectionFailed: Nothing was done.
          ConnectionClosed: It may have been done, or not.

        May switch.
        """
        ...

    def close(self) -> None: ...


class Link:
    """One connection for scripts, used by one task at a time.

    Parameters:
      client: Whose connections to make.
      timeout_s(float): For the server to answer. Default: as the client has it.
    """

    def __init__(self, client: Any, timeout_s: float | None = None) -> None:
        self._address = where(client)
        self._connection = _connection(client, timeout_s)
        self._used_at = 0.0

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        connection = self._connection
        was_sent = False
        try:
            self._connect()
            was_sent = True
            connection.send_command("EVALSHA", script.sha, len(keys), *keys, *args)
            try:
                answer = connection.read_response()
            except redis.exceptions.NoScriptError:
                # A server that restarted, was flushed or promoted does not know it. EVAL
                # also makes it known; a second time is a real error.
                connection.send_command("EVAL", script.text, len(keys), *keys, *args)
                answer = connection.read_response()
        except (redis.exceptions.RedisError, OSError) as error:
            explained = explain(error, self._address, was_sent=was_sent)
            if explained is None:
                raise
            # Also after a refusal: a master that became a replica stays one, and its name
            # may lead to another server now.
            connection.disconnect()
            raise explained from error
        self._used_at = time.monotonic()
        return answer

    def command(self, *args: Any) -> Any:
        """Run a command that stores nothing. Raises and switches like ``call``."""
        with _explained(self._address, was_sent=False):
            self._connect()
            self._connection.send_command(*args)
            return self._connection.read_response()

    def _connect(self) -> None:
        connection = self._connection
        if self._used_at and time.monotonic() - self._used_at > _IDLE_S:
            try:
                is_stale = connection.can_read()
            except redis.exceptions.ConnectionError:
                is_stale = True
            if is_stale:
                connection.disconnect()
        connection.connect()

    def close(self) -> None:
        self._used_at = 0.0
        self._connection.disconnect()


class Links:
    """A few links that all tasks and threads of a process share.

    Parameters:
      client: Whose connections to make.
    """

    def __init__(self, client: Any) -> None:
        self._address = where(client)
        self._client = client
        # Taken and put back at the same end, so that few stay in use.
        self._free: deque[Link] = deque()
        self._not_made = deque(range(MOST_LINKS))
        self._waiting: deque[Event] = deque()
        self._is_closed = False

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        link = self._take()
        try:
            return link.call(script, keys, args)
        except ConnectionError:
            # Where one connection broke the others did too, and may only not know it yet:
            # each would cost its next user an outage of its own.
            self._renew_free()
            raise
        finally:
            self._put(link)

    def _renew_free(self) -> None:
        for _ in range(len(self._free)):
            try:
                link = self._free.popleft()
            except IndexError:
                return
            link.close()
            self._free.append(link)

    def _take(self) -> Link:
        if self._is_closed:
            raise ConnectionClosed("The broker was closed, so nothing was stored")
        link = self._free_one()
        if link is not None:
            return link
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            event = current().event()
            self._waiting.append(event)
            # After it is seen to wait, so that none that is put back in between is missed.
            link = self._free_one()
            if link is None:
                event.wait(max(0.0, deadline - time.monotonic()))
                link = self._free_one()
            with contextlib.suppress(ValueError):
                self._waiting.remove(event)
            if link is not None:
                return link
            if time.monotonic() >= deadline:
                raise ConnectionFailed(
                    f"All {MOST_LINKS} connections to Redis at {self._address} were in use for {TIMEOUT_S:.0f} s, so "
                    "nothing was stored"
                )

    def _free_one(self) -> Link | None:
        # Both ends of a deque are safe in all threads.
        try:
            return self._free.pop()
        except IndexError:
            pass
        try:
            self._not_made.pop()
        except IndexError:
            return None
        return Link(self._client)

    def _put(self, link: Link) -> None:
        if self._is_closed:
            link.close()
            return
        self._free.append(link)
        if self._waiting:
            with contextlib.suppress(IndexError):
                self._waiting.popleft().set()

    def close(self) -> None:
        self._is_closed = True
        while True:
            try:
                self._free.pop().close()
            except IndexError:
                return


class ClusterLinks:
    """Runs scripts by way of a cluster client, which knows where each slot is.

    Parameters:
      client: The cluster client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._is_closed = False

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if self._is_closed:
            raise ConnectionClosed("The broker was closed, so nothing was stored")
        with _explained("the cluster"):
            try:
                return self._client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return self._client.execute_command("EVAL", script.text, len(keys), *keys, *args)

    def close(self) -> None:
        self._is_closed = True


class NodeLinks:
    """A link of one's own to each node of a cluster, for a native thread.

    The cluster client's connections belong to the greenlets of one hub.

    Parameters:
      client: The cluster client, which is only asked where a key is.
      timeout_s(float): For a node to answer.
    """

    def __init__(self, client: Any, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._links: dict[str, Link] = {}

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with _explained("the cluster", was_sent=False):
            node = self._client.get_node_from_key(keys[0])
        link = self._links.get(node.name)
        if link is None:
            link = self._links[node.name] = Link(self._client.get_redis_connection(node), self._timeout_s)
        return link.call(script, keys, args)

    def close(self) -> None:
        for link in self._links.values():
            link.close()


def _connection(client: Any, timeout_s: float | None = None) -> Any:
    """A connection like those of a client, but of nobody's pool."""
    pool = client.connection_pool
    kwargs = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(_OF_THE_POOL)}
    timeout_s = timeout_s or kwargs.get("socket_timeout") or TIMEOUT_S
    kwargs.update(
        protocol=2,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        retry_on_error=[],
        socket_timeout=timeout_s,
        socket_connect_timeout=min(kwargs.get("socket_connect_timeout") or TIMEOUT_S, timeout_s),
        health_check_interval=0,
    )
    kwargs.pop("retry_on_timeout", None)
    return pool.connection_class(**kwargs)


# -- waiting


class Peek:
    """Waits until there is something in a list, and leaves it there.

    ``BLMOVE list list LEFT LEFT`` moves nothing, but blocks while the list is empty. It stays
    under way over several waits, so that an idle consumer sends one command in half a minute.

    Parameters:
      client: Whose connections to make.
      key(str): The list.
    """

    def __init__(self, client: Any, key: str) -> None:
        self._client = client
        self._key = key
        self._connection: Any = None
        self._address = where(client)
        self._ends_at: float | None = None  # of the command that is under way

    def wait(self, timeout_s: float, is_woken: Callable[[], bool]) -> bool:
        """Wait; True if there was something, or if it is time to look.

        Raises:
          ConnectionClosed: The server is away.

        May switch.
        """
        try:
            with _explained(self._address):
                self._send()
                assert self._ends_at is not None
                # Here, because interrupt() found nothing to interrupt before.
                if is_woken():
                    return False
                left_s = self._ends_at + TIMEOUT_S - time.monotonic()
                if self._connection.can_read(max(0.0, min(timeout_s, left_s))):
                    self._ends_at = None
                    self._connection.read_response()
                    return True
                if timeout_s >= left_s:
                    raise redis.exceptions.TimeoutError("no answer in time")
                return False
        except BaseException:
            self.close()
            if is_woken():
                return False
            raise

    def _send(self) -> None:
        if self._ends_at is not None:
            return
        if self._connection is None:
            self._connection = self._connect()
        self._connection.send_command("BLMOVE", self._key, self._key, "LEFT", "LEFT", BLOCK_S)
        self._ends_at = time.monotonic() + BLOCK_S

    def _connect(self) -> Any:
        client = self._client
        if is_cluster(client):
            client = client.get_redis_connection(client.get_node_from_key(self._key))
        connection = _connection(client)
        connection.connect()
        return connection

    def interrupt(self) -> None:
        """End a wait that is under way. May be called from any thread."""
        sock = getattr(self._connection, "_sock", None)
        if sock is None:
            return
        # By a twin of its descriptor: gevent's own sockets may be touched by their hub's
        # thread alone, and this one may belong to another.
        with contextlib.suppress(OSError):
            twin = _socket.socket(fileno=os.dup(sock.fileno()))
            try:
                twin.shutdown(_socket.SHUT_RDWR)
            finally:
                twin.close()

    def close(self) -> None:
        """Let go of the connection; called by whoever waits."""
        connection, self._connection = self._connection, None
        self._ends_at = None
        if connection is not None:
            connection.disconnect()
