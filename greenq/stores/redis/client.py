"""A client that is safe to use for what must not be done twice, and what its errors mean.

redis-py repeats a command whose answer was lost, up to ten times, which would take two slots
of a limiter; its pool raises when it is empty. So the clients made here repeat nothing, wait
for a connection when all are in use, and have time-outs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import redis
import redis.backoff
import redis.cluster
import redis.exceptions
import redis.retry

from ...errors import ConnectionClosed, ConnectionError, ConnectionFailed

#: Seconds after which a server that does not answer counts as away.
TIMEOUT_S = 5.0
#: How many connections a process opens for commands, at most.
MOST_CONNECTIONS = 16

#: Beginnings of what a server says that did nothing.
_NOTHING_DONE = (
    *("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"),
    *("OOM", "MISCONF", "NOREPLICAS", "NOAUTH", "NOPERM", "WRONGPASS", "BUSY", "max number of clients"),
)
#: What belongs to a client's own pool, and to a version of the protocol that is not used here.
_OF_THE_POOL = ("maint_notifications", "oss_cluster", "orig_", "himport", "cache")


def make_client(url: str | None, parameters: dict[str, Any]) -> Any:
    """A redis-py client that connects when it is used."""
    settings: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "socket_keepalive": True,
        "protocol": 2,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        **parameters,
    }
    most = settings.pop("max_connections", MOST_CONNECTIONS)
    if url is not None:
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=most, timeout=TIMEOUT_S, **settings)
        return redis.Redis(connection_pool=pool)
    # The client knows which of its parameters make which kind of connection.
    given = redis.Redis(**settings).connection_pool
    kwargs = _connection_kwargs(given)
    pool_class: Any = redis.BlockingConnectionPool
    return redis.Redis(connection_pool=pool_class(most, TIMEOUT_S, given.connection_class, **kwargs))


def check_client(client: Any) -> None:
    """Refuse a client that would turn values into text.

    Raises:
      ValueError: It decodes responses.
    """
    if getattr(client.get_encoder(), "decode_responses", False):
        raise ValueError(
            "A client with decode_responses=True turns what is stored into text, which breaks what is no UTF-8. Give "
            "greenq a client of its own without decode_responses."
        )


def make_connection(client: Any) -> Any:
    """A connection like those of a client, but of nobody's pool and without retries."""
    if is_cluster(client):
        client = client.get_redis_connection(client.get_random_node())
    kwargs = _connection_kwargs(client.connection_pool)
    timeout_s = kwargs.get("socket_timeout") or TIMEOUT_S
    kwargs.update(
        protocol=2,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        retry_on_error=[],
        socket_timeout=timeout_s,
        socket_connect_timeout=kwargs.get("socket_connect_timeout") or TIMEOUT_S,
        health_check_interval=0,
    )
    kwargs.pop("retry_on_timeout", None)
    return client.connection_pool.connection_class(**kwargs)


def _connection_kwargs(pool: Any) -> dict[str, Any]:
    return {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(_OF_THE_POOL)}


def is_cluster(client: Any) -> bool:
    """Whether a client is one of a cluster."""
    return isinstance(client, redis.cluster.RedisCluster)


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


class Script:
    """A Lua script: one verb, done in one step.

    Parameters:
      package(str): Whose folder ``scripts`` it is in.
      name(str): Of the file, without ".lua".
      is_repeatable(bool): Whether doing it twice comes to the same. Then it is done once more
        when the connection broke.
    """

    def __init__(self, package: str, name: str, *, is_repeatable: bool) -> None:
        self.name = name
        self.is_repeatable = is_repeatable
        self.text = (resources.files(package) / "scripts" / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name!r})"


def call(client: Any, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """Run a script; return its answer. May switch.

    Raises:
      ConnectionFailed: Nothing was done.
      ConnectionClosed: It may have been done, or not.
    """

    def run() -> Any:
        try:
            return client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            # A server that restarted, was flushed or promoted does not know it. EVAL also
            # makes it known.
            return client.execute_command("EVAL", script.text, len(keys), *keys, *args)

    return _explained(client, run, is_repeatable=script.is_repeatable)


def command(client: Any, *args: Any) -> Any:
    """Run a command that may be done twice; return its answer. Raises and switches like ``call``."""
    return _explained(client, lambda: client.execute_command(*args), is_repeatable=True)


def _explained(client: Any, run: Callable[[], Any], *, is_repeatable: bool) -> Any:
    try:
        return run()
    except (redis.exceptions.RedisError, OSError) as error:
        explained = explain(error, where(client))
        if explained is None:
            raise
        # After a time-out the second try would only wait as long again.
        is_quick = not isinstance(error, (redis.exceptions.TimeoutError, TimeoutError))
        if isinstance(explained, ConnectionClosed) and is_repeatable and is_quick:
            return _explained(client, run, is_repeatable=False)
        raise explained from error


def explain(error: BaseException, address: str) -> ConnectionError | None:
    """What an error of redis-py means; None if it is none of the connection."""
    text = (str(error) or type(error).__name__).rstrip(".")
    # Of a script, older servers put the code inside a longer sentence.
    if any(f"{code} " in text for code in _NOTHING_DONE) or isinstance(error, _REFUSALS):
        return ConnectionFailed(f"Redis at {address} refused, so nothing was done: {text}.")
    if isinstance(error, redis.exceptions.ResponseError) or not isinstance(error, _BROKEN):
        return None
    return ConnectionClosed(
        f"Redis at {address} did not answer: {text}. Is it running, and can it be reached from here? What was asked "
        "for may have been done or not."
    )


#: Answers that say by their class that nothing was done.
_REFUSALS = (
    redis.exceptions.BusyLoadingError,
    redis.exceptions.AuthenticationError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.NoPermissionError,
)
_BROKEN = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ClusterError,
    OSError,
)
