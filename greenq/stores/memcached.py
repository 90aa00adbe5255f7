"""Memcached as a place to keep values.

pymemcache is used because it is Python all through, so that under gevent only the greenlet
that asks waits; pylibmc, which the API reference names, is C and stops the whole process.
Memcached tells nobody when a value comes: whoever waits looks again and again. It may drop any
value at any time when its memory is full.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from ..clock import now_ms
from ..errors import ConnectionClosed, ConnectionFailed
from ..extras import require
from .values import ValueStore

require("pymemcache", "MemcachedBackend")

import pymemcache  # noqa: E402 - it may be missing
import pymemcache.exceptions  # noqa: E402 - as above

#: Seconds after which a server that does not answer counts as away.
TIMEOUT_S = 5.0
DEFAULT_PORT = 11211

#: Longer ones are refused by the server, and so are those with spaces.
_LONGEST_KEY = 200
#: What the server takes for a date and not for a time from now.
_DATES_BEGIN_S = 30 * 24 * 3600
_LAST_DATE_S = 2**31 - 1
_NEVER = 0
#: pylibmc's own parameters, for which there is no need here.
_IGNORED = ("binary", "behaviors")


#: "host", "host:port", "/path/of/a/socket", or a host and a port.
Server = str | tuple[str, int]


class Pool(Protocol):
    """What gives clients: pylibmc's pools, or a ClientPool."""

    def reserve(self) -> contextlib.AbstractContextManager[Any]: ...


class ClientPool:
    """A few clients that all threads and greenlets of a process share.

    Parameters:
      servers(list): "host", "host:port", "/path/of/a/socket" or (host, port). Keys are spread
        over them. Default: this machine.
      size(int): The most clients at the same time; whoever finds none waits.
      parameters: For pymemcache's clients. Default: ``timeout`` and ``connect_timeout`` of 5
        seconds.
    """

    def __init__(self, servers: Server | Iterable[Server] | None, size: int, parameters: dict[str, Any]) -> None:
        if isinstance(servers, (str, tuple)):
            servers = [servers]
        self._servers = [_address(each) for each in servers or ["127.0.0.1"]]
        self._parameters = {
            "timeout": TIMEOUT_S,
            "connect_timeout": TIMEOUT_S,
            "no_delay": True,
            **{name: value for name, value in parameters.items() if name not in _IGNORED},
        }
        self._size = size
        self._start_over()
        _pools.add(self)

    def _start_over(self) -> None:
        # Also in a forked child, to which the parent's connections do not belong.
        self._free: deque[Any] = deque()
        self._places = threading.BoundedSemaphore(self._size)

    @contextlib.contextmanager
    def reserve(self, block: bool = True) -> Iterator[Any]:
        """A client for the block. May switch: waits for one that is free.

        Raises:
          ConnectionFailed: All were in use for 5 seconds, or just now if block is False.
        """
        if not self._places.acquire(block, TIMEOUT_S if block else None):
            raise ConnectionFailed(f"All connections to memcached at {self} were in use, so nothing was done.")
        try:
            try:
                client = self._free.pop()
            except IndexError:
                client = self._make()
            try:
                yield client
            except BaseException:
                # It may have been left in the middle of an answer.
                client.close()
                raise
            self._free.append(client)
        finally:
            self._places.release()

    def _make(self) -> Any:
        if len(self._servers) == 1:
            return pymemcache.Client(self._servers[0], **self._parameters)
        return pymemcache.HashClient(self._servers, **self._parameters)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._free:
            with contextlib.suppress(IndexError):
                self._free.pop().close()

    def __str__(self) -> str:
        return ", ".join(each if isinstance(each, str) else f"{each[0]}:{each[1]}" for each in self._servers)


def _address(server: Any) -> tuple[str, int] | str:
    if not isinstance(server, str):
        host, port = server
        return str(host), int(port)
    if server.startswith(("/", "unix:")):
        return server.removeprefix("unix:")
    host, colon, port = server.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else (server, DEFAULT_PORT)


@contextlib.contextmanager
def client_of(pool: Any) -> Iterator[Any]:
    """A client of the pool; its errors are greenq's.

    Raises:
      ConnectionClosed: The server did not answer: what was asked for may be done or not.
    """
    try:
        with pool.reserve() as client:
            yield client
    except (OSError, pymemcache.exceptions.MemcacheUnexpectedCloseError) as error:
        raise ConnectionClosed(
            f"Memcached at {pool} did not answer: {str(error) or type(error).__name__}. Is it running, and can it be "
            "reached from here?"
        ) from error
    except pymemcache.exceptions.MemcacheError as error:
        if "All servers" not in str(error) and "out of memory" not in str(error):
            raise
        raise ConnectionFailed(f"Memcached at {pool} did nothing: {error}.") from error


def safe_key(key: str) -> str:
    """A key that the server accepts: itself, or what stands for it."""
    if len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key:
        return key
    return "greenq:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def lifetime_s(ttl_ms: int) -> int:
    """A time to live as the server has it: whole seconds, never less than what was asked for."""
    seconds = max(1, -(-ttl_ms // 1000))
    if seconds < _DATES_BEGIN_S:
        return seconds
    date = int(time.time()) + seconds
    return date if date <= _LAST_DATE_S else _NEVER


class MemcachedValues(ValueStore):
    """Keeps values on memcached servers, each with the time at which it is over, to the millisecond.

    Parameters:
      pool: What gives clients.
    """

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def put(self, key: str, data: bytes, ttl_ms: int) -> None:
        with client_of(self.pool) as client:
            client.set(safe_key(key), b"%d:%b" % (now_ms() + ttl_ms, data), expire=lifetime_s(ttl_ms), noreply=False)

    def get(self, key: str) -> bytes | None:
        with client_of(self.pool) as client:
            stored = client.get(safe_key(key))
        if stored is None:
            return None
        expires, _, data = bytes(stored).partition(b":")
        return data if int(expires) > now_ms() else None

    def delete(self, key: str) -> None:
        with client_of(self.pool) as client:
            client.delete(safe_key(key), noreply=False)

    def close(self) -> None:
        close = getattr(self.pool, "close", None)
        if close is not None:
            close()


_pools: weakref.WeakSet[ClientPool] = weakref.WeakSet()


def _start_over_in_child() -> None:
    for pool in list(_pools):
        pool._start_over()


os.register_at_fork(after_in_child=_start_over_in_child)
