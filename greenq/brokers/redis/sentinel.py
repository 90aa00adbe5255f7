"""Finds the master that Sentinel speaks of, anew for each connection.

redis-py's own way asks by clients that all tasks and threads share, repeats ten times what
fails, and turns the READONLY of a master that became a replica, which did nothing, into a
connection that broke. So the sentinels are asked here, one after the other, each over a
connection of its own; from redis-py come the names and the settings that its Sentinel was
given.

After a planned failover the old master goes on for ten seconds, until the sentinels have
told it to follow the new one, and forgets then what it confirmed in the meantime. It does
not say so, and closes no connection. So the sentinels are asked once a second, by whoever
uses a connection, whether the master is still the same.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import redis
import redis.exceptions

from ...errors import BrokerUnusable, ConnectionError, ConnectionFailed
from .connection import OneServer, ask, explicit, where, within

#: Seconds after which a sentinel that does not answer is passed over, unless its client says otherwise.
_PATIENCE_S = 1.0
#: Seconds for which an answer of the sentinels is taken for true.
_TRUE_FOR_S = 1.0


class SentinelMaster:
    """The server that is the master now.

    Parameters:
      client: What ``sentinel.master_for`` gave.
    """

    def __init__(self, client: Any) -> None:
        pool = client.connection_pool
        manager = pool.sentinel_manager
        self.address = where(client)
        self._name = pool.service_name
        self._host_instead = getattr(manager, "_force_master_ip", None)
        self._fewest_others = manager.min_other_sentinels
        is_tls = issubclass(pool.connection_class, redis.SSLConnection)
        self._class: Any = redis.SSLConnection if is_tls else redis.Connection
        self._parameters = explicit(pool.connection_kwargs)
        self._master: tuple[str, int] | None = None
        self._asked_at = 0.0
        self._sentinels = [_sentinel(each, manager.sentinel_kwargs) for each in manager.sentinels]

    def open(self, timeout_s: float | None = None) -> Any:
        """As of Server. Asks the sentinels first, so that it leads to the master of this moment."""
        host, port = self._master = self._find()
        self._asked_at = time.monotonic()
        connection = self._class(**{**within(self._parameters, timeout_s), "host": host, "port": port})
        connection.connect()
        return connection

    def is_current(self, connection: Any) -> bool:
        """Whether a connection leads to the master. Asks the sentinels once a second. May switch."""
        now = time.monotonic()
        if now - self._asked_at >= _TRUE_FOR_S:
            self._asked_at = now  # before, so that one task asks and no other waits for it
            # While nobody knows another master, the one that answers is as good as any.
            with contextlib.suppress(ConnectionFailed):
                self._master = self._find()
        return self._master is None or (connection.host, connection.port) == self._master

    def _find(self) -> tuple[str, int]:
        answers = []
        lasting = 0
        for sentinel in list(self._sentinels):
            try:
                state = _pairs(ask(sentinel, "SENTINEL", "MASTER", self._name))
            except (ConnectionError, redis.exceptions.ResponseError) as error:
                is_lasting = isinstance(error, BrokerUnusable)
                lasting += is_lasting
                answers.append(f"{sentinel.address} says: {error if is_lasting else error.__cause__ or error}")
                continue
            why_not = self._why_not(state)
            if why_not is None:
                # The one that answers is asked first the next time.
                self._sentinels = [sentinel, *(each for each in self._sentinels if each is not sentinel)]
                return self._host_instead or state["ip"], int(state["port"])
            answers.append(f"{sentinel.address} says: {why_not}")
        if lasting == len(answers):
            raise BrokerUnusable(f"No sentinel of {self._name!r} can be used. {'; '.join(answers)}")
        raise ConnectionFailed(
            f"No sentinel knows a living master {self._name!r}. Either a failover is under way, "
            f"or the name is not the one in sentinel.conf. {'; '.join(answers)}"
        )

    def _why_not(self, state: dict[str, str]) -> str | None:
        flags = state.get("flags", "").split(",")
        for flag in ("s_down", "o_down"):
            if flag in flags:
                return f"the master at {state.get('ip')}:{state.get('port')} is down ({flag})"
        if int(state.get("num-other-sentinels", 0)) < self._fewest_others:
            return f"fewer than {self._fewest_others} other sentinels are seen"
        return None


def _sentinel(client: Any, given: dict[str, Any]) -> OneServer:
    pool = client.connection_pool
    # redis-py has time-outs of its own where nobody gave any.
    patience = {name: given.get(name) or _PATIENCE_S for name in ("socket_timeout", "socket_connect_timeout")}
    return OneServer(pool.connection_class, {**pool.connection_kwargs, **patience}, where(client))


def _pairs(answer: list[bytes]) -> dict[str, str]:
    texts = [each.decode("utf-8", "replace") for each in answer]
    return dict(zip(texts[::2], texts[1::2], strict=True))
