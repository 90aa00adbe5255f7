"""Values on Redis: strings with a time to live. Whoever waits is told by a mailbox."""

from __future__ import annotations

import os
import re
import weakref
from typing import Any

from ..values import Bell, ValueStore, Watch, text
from .client import Script, call, check_client, command, is_cluster, make_client
from .mailbox import Mailbox
from .writer import Value, Writer

#: Between two looks of one who is told, in seconds, and of one who cannot be told now.
LOOK_EVERY_S = 30.0
_LOOK_OFTEN_EVERY_S = 0.2
#: How long the server remembers who waits: longer than between two looks.
_REMEMBERED_MS = 90_000

_TAG = re.compile(r"\{[^}]+\}")

_PUT = Script(__package__, "put", is_repeatable=True)
_LOOK = Script(__package__, "look", is_repeatable=True)


class RedisValues(ValueStore):
    """Keeps values on a Redis server.

    Parameters:
      client: A redis-py client; then url and parameters do not count.
      url(str): An address as redis-py has it.
      parameters(dict): For redis.Redis.

    Attributes:
      client: The client.
    """

    def __init__(self, client: Any, url: str | None, parameters: dict[str, Any]) -> None:
        self._owns_client = client is None
        self.client = make_client(url, parameters) if client is None else client
        check_client(self.client)
        self._mailbox = Mailbox(self.client)
        self._writer = Writer(self._write)
        _all.add(self)

    def put(self, key: str, data: bytes, ttl_ms: int) -> None:
        value = Value(text(key), data, ttl_ms)
        if is_cluster(self.client):  # where each key may be on another server
            self._write([value])
        else:
            self._writer.put(value)

    def _write(self, values: list[Value]) -> None:
        keys = [name for value in values for name in (value.key, _waiting(value.key))]
        call(self.client, _PUT, keys, [part for value in values for part in (value.data, value.ttl_ms)])

    def get(self, key: str) -> bytes | None:
        data: bytes | None = command(self.client, "GET", text(key))
        return data

    def delete(self, key: str) -> None:
        command(self.client, "DEL", text(key))

    def watch(self, key: str, bell: Bell) -> Watch:
        return _Told(self, self._mailbox, text(key), bell)

    def close(self) -> None:
        self._mailbox.close()
        if self._owns_client:
            self.client.close()
            self.client.connection_pool.disconnect()


class _Told(Watch):
    def __init__(self, store: RedisValues, mailbox: Mailbox, key: str, bell: Bell) -> None:
        super().__init__(store, key)
        self._client = store.client
        self._mailbox = mailbox
        self._bell = bell
        mailbox.add(key, bell)

    def look(self) -> bytes | None:
        keys = [self._key, _waiting(self._key)]
        data: bytes | None = call(self._client, _LOOK, keys, [self._mailbox.name, _REMEMBERED_MS])
        return data

    def pause_s(self) -> float:
        return LOOK_EVERY_S if self._mailbox.is_open else _LOOK_OFTEN_EVERY_S

    def close(self) -> None:
        self._mailbox.remove(self._key, self._bell)


def _waiting(key: str) -> str:
    # In the same slot of a cluster as the key itself, which may name its slot in braces.
    return key + ":waiting" if _TAG.search(key) else "{" + key + "}:waiting"


_all: weakref.WeakSet[RedisValues] = weakref.WeakSet()


def _start_over_in_child() -> None:
    for values in list(_all):
        values._writer.start_over()


os.register_at_fork(after_in_child=_start_over_in_child)
