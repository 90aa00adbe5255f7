"""The brokers that the contract suites run against. A new one is a function and a line."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from greenq.broker import Broker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker
from greenq.errors import DecodeError
from greenq.message import Message
from tests.support.redis_server import shared_server


class Case(NamedTuple):
    """One broker under test.

    Attributes:
      open: Makes the broker, closes it after the test.
      dead: Reads the dead letters of a queue, oldest first, as (message or payload, reason).
    """

    open: Callable[[Path], Any]
    dead: Callable[[Any, str], list[tuple[Message[Any] | bytes, str | None]]]


@contextmanager
def _stub(path: Path) -> Iterator[Broker]:
    broker = StubBroker(fail_fast_default=False)
    yield broker
    broker.close()


def _dead_in_stub(broker: StubBroker, queue_name: str) -> list[tuple[Message[Any] | bytes, str | None]]:
    letters = broker.dead_letters_by_queue[queue_name]
    return [(getattr(letter, "payload", letter.message), letter.reason) for letter in letters]


@contextmanager
def _sqlite(path: Path) -> Iterator[Broker]:
    broker = SqliteBroker(path / "queue.db")
    yield broker
    broker.close()


def _dead_in_sqlite(broker: SqliteBroker, queue_name: str) -> list[tuple[Message[Any] | bytes, str | None]]:
    with closing(sqlite3.connect(broker.path)) as file:
        rows = file.execute("SELECT payload, reason FROM dead_letters WHERE queue = ? ORDER BY id", (queue_name,))
        return [(_message_in(bytes(payload)), reason) for payload, reason in rows]


@contextmanager
def _redis(path: Path) -> Iterator[Broker]:
    server = shared_server()
    server.client().flushall()
    broker = RedisBroker(url=server.url)
    yield broker
    broker.close()
    broker.client.close()


def _dead_in_redis(broker: RedisBroker, queue_name: str) -> list[tuple[Message[Any] | bytes, str | None]]:
    keys, client = broker.layout.of(queue_name), broker.client
    ids = client.zrange(keys.dead, 0, -1)
    return [
        (_message_in(client.hget(keys.dead_messages, each)), client.hget(keys.dead_reasons, each).decode() or None)
        for each in ids
    ]


def _message_in(payload: bytes) -> Message[Any] | bytes:
    try:
        return Message.decode(payload)
    except DecodeError:
        return payload


CASES = {
    "stub": Case(_stub, _dead_in_stub),
    "sqlite": Case(_sqlite, _dead_in_sqlite),
    "redis": Case(_redis, _dead_in_redis),
}
