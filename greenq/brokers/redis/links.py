"""Connections for scripts: how they are shared and given up.

Links     a few connections, each used by one task at a time
Link      one of them; the keeper of the lease has one of its own
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis.exceptions

from ...errors import ConnectionClosed, ConnectionFailed
from ...runtime import Event, current
from .connection import MOST_LINKS, TIMEOUT_S, Server
from .failures import REDIRECTIONS, explain, storing
from .scripts import Script

#: A connection that was idle for longer is looked at before it is used: the server may have
#: closed it, and an error at that moment says nothing of the message.
_IDLE_S = 1.0


class Caller(Protocol):
    """Runs scripts."""

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script; return its answer. Nothing is repeated that may have been done.

        Raises:
          ConnectionFailed: Nothing was done.
          ConnectionClosed: It may have been done, or not.

        May switch.
        """
        ...

    def address_of(self, key: str) -> str:
        """Which server a script on this key goes to, as far as is known."""
        ...

    def distrust(self) -> None:
        """Make connections anew: one of this process was broken, so others may be."""
        ...

    def close(self) -> None: ...


class Link:
    """One connection for scripts, used by one task at a time.

    Parameters:
      server(Server): Where it goes.
      timeout_s(float): For the server to answer. Default: as the client has it.
      on_break: Called when a connection that was in use is given up: the next one may lead
        to a server that has forgotten the last things that it confirmed.
    """

    def __init__(self, server: Server, timeout_s: float | None = None, *, on_break: Callable[[], None]) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._on_break = on_break
        #: Of the Links that it belongs to; grows when their connections are not trusted any more.
        self.generation = 0
        self._connection: Any = None
        self._used_at = 0.0

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        was_sent = False
        try:
            connection = self._open()
            was_sent = True
            connection.send_command("EVALSHA", script.sha, len(keys), *keys, *args)
            try:
                answer = connection.read_response()
            except redis.exceptions.NoScriptError:
                # A server that restarted, was flushed or promoted does not know it. EVAL
                # also makes it known; a second time is a real error.
                connection.send_command("EVAL", script.text, len(keys), *keys, *args)
                answer = connection.read_response()
        except BaseException as error:
            explained = explain(error, self._server.address, was_sent=was_sent)
            is_in_order = isinstance(error, redis.exceptions.ResponseError) and explained is None
            if not is_in_order and not isinstance(error, REDIRECTIONS):
                # Also after a refusal: a master that became a replica stays one, and its
                # name may lead to another server now.
                self._give_up()
            if explained is None:
                raise
            raise explained from error
        self._used_at = time.monotonic()
        return answer

    def _open(self) -> Any:
        if self._connection is not None and time.monotonic() - self._used_at > _IDLE_S:
            try:
                is_stale = self._connection.can_read()
            except redis.exceptions.ConnectionError:
                is_stale = True
            if is_stale:
                self._give_up()
        if self._connection is not None and not self._server.is_current(self._connection):
            self._give_up()
        if self._connection is None:
            with storing():
                self._connection = self._server.open(self._timeout_s)
        return self._connection

    def _give_up(self) -> None:
        if self._connection is not None:
            self.close()
            self._on_break()

    def address_of(self, key: str) -> str:
        return self._server.address

    def distrust(self) -> None:
        """Nothing: whether it is broken is seen when it is used."""

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


class Links:
    """A few links that all tasks and threads of a process share.

    Parameters:
      server(Server): Where they go.
      on_break: As of Link.
    """

    def __init__(self, server: Server, *, on_break: Callable[[], None]) -> None:
        self._server = server
        self._on_break = on_break
        # Taken and put back at the same end, so that few stay in use.
        self._free: deque[Link] = deque()
        self._not_made = deque(range(MOST_LINKS))
        self._waiting: deque[Event] = deque()
        self._generation = 0
        self._is_closed = False

    def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        link = self._take()
        if link.generation != self._generation:
            link.close()
            link.generation = self._generation
        try:
            return link.call(script, keys, args)
        finally:
            self._put(link)

    def address_of(self, key: str) -> str:
        return self._server.address

    def distrust(self) -> None:
        # Else each of them would fail once more, one after the other.
        self._generation += 1

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
                    f"All {MOST_LINKS} connections to Redis at {self._server.address} were in use for "
                    f"{TIMEOUT_S:.0f} s, so nothing was stored"
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
        return Link(self._server, on_break=self._on_break)

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
