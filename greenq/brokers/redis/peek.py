"""Waits until there is something in a list, and leaves it there.

``BLMOVE list list LEFT LEFT`` moves nothing, but blocks while the list is empty. It stays
under way over several waits, so that an idle consumer sends one command in half a minute.

A claim may be sent behind it: a script that the server runs when the wait is over, so that the
first message is here without another round trip. What it answers to nobody, because the
connection was given up, is reserved and not known: that is told to whoever keeps the lease.
"""

from __future__ import annotations

import _socket  # the system's sockets, which gevent does not patch
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import redis.exceptions

from ...errors import ConnectionClosed
from ...runtime import current
from .connection import TIMEOUT_S, Server
from .failures import REDIRECTIONS, REPLIES, explain

#: Seconds for which the server holds a peek. Each end costs an idle consumer one look at
#: its queue, the net under lost wake-ups.
BLOCK_S = 30
#: Seconds between two looks at a queue of a server whose memory is full.
_PAUSE_WHEN_FULL_S = 0.2


class Servers(Protocol):
    """Knows which server has which list."""

    def server_of(self, key: str) -> Server:
        """The server that has this key. May switch: it may have to be asked for."""
        ...

    def note_redirection(self, key: str, error: Exception, asked: Server) -> None:
        """Learn from an answer that says that the list is elsewhere."""
        ...


class Alone:
    """A server that has every list.

    Parameters:
      server(Server): The one.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def server_of(self, key: str) -> Server:
        return self._server

    def note_redirection(self, key: str, error: Exception, asked: Server) -> None:
        """Nothing: its address does not depend on the list."""


class Claim(NamedTuple):
    """A script that is run when a wait is over.

    Attributes:
      holder(str): For whom it reserves.
      command(tuple): What is sent.
    """

    holder: str
    command: tuple[Any, ...]


class Claimed(NamedTuple):
    """What a claim has reserved.

    Attributes:
      holder(str): For whom.
      answer: The script's.
    """

    holder: str
    answer: Any


class Peek:
    """One connection that waits on one list.

    Parameters:
      servers(Servers): Know where the list is.
      key(str): The list.
      on_break: As of Link.
      on_lost_claim: Called when the answer to a claim will not be known.

    Attributes:
      claimed(Claimed): What a claim has reserved, for whoever waits to take; None if nothing.
    """

    def __init__(
        self, servers: Servers, key: str, *, on_break: Callable[[], None], on_lost_claim: Callable[[], None]
    ) -> None:
        self.claimed: Claimed | None = None
        self._servers = servers
        self._key = key
        self._on_break = on_break
        self._on_lost_claim = on_lost_claim
        self._claim: Claim | None = None  # that is under way
        self._server: Server | None = None
        self._connection: Any = None
        self._ends_at: float | None = None  # of the command that is under way

    @property
    def is_claiming(self) -> bool:
        """Whether a claim is under way: it may have been answered meanwhile."""
        return self._claim is not None

    def wait(self, timeout_s: float, is_woken: Callable[[], bool], claim: Claim | None = None) -> bool:
        """Wait; True if there was something, or if it is time to look.

        Parameters:
          timeout_s(float): For how long, at most.
          is_woken: Whether to stop waiting.
          claim(Claim): Sent behind the wait, if one is begun. Its answer is found in ``claimed``.

        Raises:
          ConnectionError: The server is away.

        May switch.
        """
        try:
            return self._wait(timeout_s, is_woken, claim)
        except redis.exceptions.OutOfMemoryError:
            # A full server blocks nobody on a list, but can be emptied.
            self._ends_at = None
            current().sleep(min(timeout_s, _PAUSE_WHEN_FULL_S))
            return not is_woken()
        except BaseException as error:
            had_connection = self._connection is not None
            self.close()
            if is_woken():
                return False
            if isinstance(error, REDIRECTIONS):
                # Fetching goes where the list is now, or waits until it is somewhere.
                assert self._server is not None
                self._servers.note_redirection(self._key, error, self._server)
                return True
            if had_connection:
                self._on_break()
            if isinstance(error, redis.exceptions.ResponseError) and "UNBLOCKED" in str(error):
                return True  # this master became a replica; the fetch finds out who is the master now
            explained = self._explained(error)
            if explained is error:
                raise
            raise explained from error

    def _explained(self, error: BaseException) -> BaseException:
        address = "an unknown address" if self._server is None else self._server.address
        explained = explain(error, address, was_sent=False, stores=False)
        if explained is None:
            return error
        if isinstance(error, REPLIES):
            return explained
        return ConnectionClosed(f"Redis at {address} is away: {(str(error) or type(error).__name__).rstrip('.')}")

    def _wait(self, timeout_s: float, is_woken: Callable[[], bool], claim: Claim | None) -> bool:
        if self._connection is not None and not self._is_current():
            self.close()
            self._on_break()
            return True
        self._send(claim)
        assert self._ends_at is not None
        # Here, because interrupt() found nothing to interrupt before.
        if is_woken():
            return False
        left_s = self._ends_at + TIMEOUT_S - time.monotonic()
        if self._connection.can_read(max(0.0, min(timeout_s, left_s))):
            self._read()
            return True
        if timeout_s >= left_s:
            raise redis.exceptions.TimeoutError("no answer in time")
        return False

    def _is_current(self) -> bool:
        return self._server is None or self._server.is_current(self._connection)

    def _send(self, claim: Claim | None) -> None:
        if self._ends_at is not None:
            return
        if self._connection is None:
            self._server = self._servers.server_of(self._key)
            self._connection = self._server.open()
        commands: list[tuple[Any, ...]] = [("BLMOVE", self._key, self._key, "LEFT", "LEFT", BLOCK_S)]
        if claim is not None:
            commands.append(claim.command)
        self._claim = claim  # before it is sent, because sending may fail half-way
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        self._ends_at = time.monotonic() + BLOCK_S

    def _read(self) -> None:
        self._ends_at = None
        try:
            self._connection.read_response()
        finally:
            # The server runs it also when it refused to wait.
            if self._claim is not None:
                self._read_claimed(self._claim)

    def _read_claimed(self, claim: Claim) -> None:
        try:
            answer = self._connection.read_response()
        except redis.exceptions.NoScriptError:
            answer = None  # the next fetch makes it known
        except redis.exceptions.ResponseError:
            answer = None
            self._on_lost_claim()  # the next fetch meets the same error, and tells it
        self._claim = None
        if answer is not None:
            self.claimed = Claimed(claim.holder, answer)

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
        claim, self._claim = self._claim, None
        self._ends_at = None
        if connection is not None:
            connection.disconnect()
        if claim is not None:
            self._on_lost_claim()
