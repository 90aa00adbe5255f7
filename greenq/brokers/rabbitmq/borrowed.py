"""pika's blocking connections for the application's own use: one for each thread, or greenlet.

``broker.connection`` and ``broker.channel`` of the API. Opened when they are asked for, closed
when their thread or greenlet ends; nothing of greenq's uses them.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import pika
import pika.exceptions

from ...errors import ConnectionFailed
from ...runtime import current
from . import pika_log
from .connection import explain
from .parameters import where_all


class _Borrowed:
    """One thread's connection. Its end ends the connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.channel: Any = None

    def close(self) -> None:
        # pika fails with an AttributeError where the server ends the connection in this moment.
        with contextlib.suppress(pika.exceptions.AMQPError, OSError, AttributeError):
            if self.connection.is_open:
                self.connection.close()

    def __del__(self) -> None:
        # Whoever lets go of it last, the hub perhaps, must not wait for the server.
        connection = self.connection
        with contextlib.suppress(Exception):  # the interpreter may be at its end
            if connection.is_open:
                current().spawn(_Borrowed(connection).close, name="close a connection")


class BorrowedConnections:
    """The connections of all threads and greenlets.

    Parameters:
      endpoints(list[pika.ConnectionParameters]): The servers, in the order in which to try them.
    """

    def __init__(self, endpoints: Sequence[pika.ConnectionParameters]) -> None:
        self._endpoints = endpoints
        self._local = threading.local()
        self._all: weakref.WeakSet[_Borrowed] = weakref.WeakSet()

    def connection(self) -> Any:
        """This thread's connection. May switch."""
        return self._mine().connection

    def channel(self) -> Any:
        """This thread's channel. May switch."""
        mine = self._mine()
        if mine.channel is None or not mine.channel.is_open:
            mine.channel = mine.connection.channel()
        return mine.channel

    def _mine(self) -> _Borrowed:
        mine: _Borrowed | None = getattr(self._local, "mine", None)
        if mine is None or not mine.connection.is_open:
            try:
                with pika_log.kept_back:  # what it would say is in the error
                    pika_log.watch()
                    mine = _Borrowed(pika.BlockingConnection(list(self._endpoints)))
            except (pika.exceptions.AMQPError, OSError) as error:
                where = where_all(self._endpoints)
                raise ConnectionFailed(f"RabbitMQ at {where} cannot be reached: {explain(error)}") from None
            self._all.add(mine)
            self._local.mine = mine
        return mine

    def drop_channel(self) -> None:
        """Close this thread's channel, if it has one. May switch."""
        mine: _Borrowed | None = getattr(self._local, "mine", None)
        if mine is not None and mine.channel is not None:
            channel, mine.channel = mine.channel, None
            with contextlib.suppress(pika.exceptions.AMQPError, OSError):
                if channel.is_open:
                    channel.close()

    def drop_connection(self) -> None:
        """Close this thread's connection, if it has one. May switch."""
        mine: _Borrowed | None = getattr(self._local, "mine", None)
        if mine is not None:
            del self._local.mine
            mine.close()

    def close(self) -> None:
        """Close all of them. May switch."""
        for each in list(self._all):
            each.close()
        self._local = threading.local()
