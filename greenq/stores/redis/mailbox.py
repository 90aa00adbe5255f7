"""Hears which keys were filled, for all who wait in this process, over one connection.

A blocking command for each of them would take a connection for each: a worker with a
thousand jobs that wait for others would run out of files. The connection belongs to a task
of its own, so it does not matter which thread, greenlet or asyncio loop waits. In a patched
process that is a greenlet: a native thread would have a hub of its own there, and where two
hubs import one of gevent's own modules at the same time, one of them fails with a LoopExit.
"""

from __future__ import annotations

import _socket  # the system's sockets, which gevent does not patch
import contextlib
import contextvars
import os
import secrets
import weakref
from typing import Any

import redis.exceptions

from ...logging import get_logger
from ...runtime import current
from ..values import Bell
from .client import make_connection, where

#: An idle connection is tried this often, in seconds: a server that vanished does not say so.
_TRY_EVERY_S = 15.0
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


class Mailbox:
    """The mailbox of one process, and who waits for what.

    Parameters:
      client: Whose connections to make.

    Attributes:
      name(str): The channel that is published to.
      is_open(bool): Whether what is published now is heard.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._guard = current().native_lock()
        self._start_over()
        _mailboxes.add(self)

    def _start_over(self) -> None:
        self.name = "greenq:mailbox:" + secrets.token_hex(16)
        self.is_open = False
        self._bells: dict[str, list[Bell]] = {}
        self._listener: _Listener | None = None

    def add(self, key: str, bell: Bell) -> None:
        """Have this bell rung when the key is filled, and when letters may have been lost."""
        with self._guard:
            self._bells.setdefault(key, []).append(bell)
            if self._listener is None:
                self._listener = _Listener(self, self._client)

    def remove(self, key: str, bell: Bell) -> None:
        with self._guard:
            bells = self._bells.get(key, [])
            if bell in bells:
                bells.remove(bell)
            if not bells:
                self._bells.pop(key, None)

    def ring(self, key: str) -> None:
        with self._guard:
            bells = list(self._bells.get(key, ()))
        for bell in bells:
            bell()

    def ring_all(self) -> None:
        with self._guard:
            bells = [bell for each in self._bells.values() for bell in each]
        for bell in bells:
            bell()

    def close(self) -> None:
        """End the task and its connection; the next who waits begins anew."""
        with self._guard:
            listener, self._listener = self._listener, None
            self.is_open = False
        if listener is not None:
            listener.stop()

    def forget_listener(self, listener: object) -> None:
        with self._guard:
            if self._listener is listener:
                self._listener = None
                self.is_open = False

    def _forget(self) -> None:
        # In a forked child, which has no such task; the lock may have been held at the fork.
        self._guard = current().native_lock()
        listener = self._listener
        self._start_over()
        if listener is not None:
            _left_to_the_parent.append(listener)
            listener.let_go()


class _Listener:
    """The task, from the first who waits until the mailbox is closed."""

    def __init__(self, mailbox: Mailbox, client: Any) -> None:
        self.logger = get_logger(__name__, type(self))
        self._mailbox = mailbox
        self._client = client
        self._connection: Any = None
        self._stop = current().event()
        # Not in the context of the job that happens to wait first.
        contextvars.Context().run(lambda: current().spawn(self._run, name="greenq-mailbox"))

    def stop(self) -> None:
        self._stop.set()
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            # By a twin of its descriptor: the socket itself may belong to another thread's hub.
            with contextlib.suppress(OSError):
                twin = _socket.socket(fileno=os.dup(sock.fileno()))
                try:
                    twin.shutdown(_socket.SHUT_RDWR)
                finally:
                    twin.close()

    def let_go(self) -> None:
        """End, in a forked child, without touching the connection, which is the parent's.

        A greenlet goes on in the child as well, and would take the parent's letters.
        """
        self._stop.set()
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                mine, other = _socket.socketpair()
                os.dup2(mine.fileno(), sock.fileno(), inheritable=False)
                mine.close()
                other.close()

    def _run(self) -> None:
        try:
            self._run_on()
        finally:
            # Also if somebody ended it from outside: the next who waits starts another one.
            self._hang_up()
            self._mailbox.forget_listener(self)

    def _run_on(self) -> None:
        pause_s = _SHORTEST_PAUSE_S
        while not self._stop.is_set():
            try:
                self._subscribe()
                pause_s = _SHORTEST_PAUSE_S
                self._listen()
            except (redis.exceptions.RedisError, OSError) as error:
                if not self._stop.is_set():
                    self.logger.debug("The connection to Redis at %s broke: %r", where(self._client), error)
            except Exception:
                self.logger.critical("Listening for results failed and begins anew.", exc_info=True)
            self._hang_up()
            if self._stop.is_set() or self._stop.wait(pause_s):
                return
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _subscribe(self) -> None:
        connection = self._connection = make_connection(self._client)
        connection.connect()
        if self._stop.is_set():
            return
        connection.send_command("SUBSCRIBE", self._mailbox.name)
        connection.read_response()
        if self._stop.is_set():
            return
        self._mailbox.is_open = True
        # What came before was published to nobody.
        self._mailbox.ring_all()

    def _listen(self) -> None:
        is_tried = False
        while not self._stop.is_set():
            if self._connection.can_read(_TRY_EVERY_S):
                kind, *_, letter = self._connection.read_response()
                is_tried = False
                if kind == b"message":
                    self._mailbox.ring(letter.decode("utf-8", "surrogateescape"))
            elif is_tried:
                raise redis.exceptions.TimeoutError("no answer in time")
            else:
                self._connection.send_command("PING")
                is_tried = True

    def _hang_up(self) -> None:
        if not self._stop.is_set():
            self._mailbox.is_open = False
            self._mailbox.ring_all()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()


_mailboxes: weakref.WeakSet[Mailbox] = weakref.WeakSet()
_left_to_the_parent: list[_Listener] = []


def _forget_in_child() -> None:
    for mailbox in list(_mailboxes):
        mailbox._forget()


os.register_at_fork(after_in_child=_forget_in_child)
