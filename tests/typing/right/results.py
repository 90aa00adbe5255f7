"""Results, their backends, and encoders."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import redis
from typing_extensions import assert_type

import greenq
from greenq import Encoder, JSONEncoder, Message, PickleEncoder
from greenq.brokers.stub import StubBroker
from greenq.encoder import MessageData
from greenq.results import ResultBackend, Results
from greenq.results.backends import MemcachedBackend, RedisBackend, SqliteBackend, StubBackend


class Pickled(Encoder):
    def encode(self, data: MessageData) -> bytes:
        return pickle.dumps(data)

    def decode(self, data: bytes) -> dict[str, Any]:
        return dict(pickle.loads(data))


greenq.set_encoder(Pickled())
assert_type(greenq.get_encoder(), Encoder)
greenq.set_encoder(JSONEncoder())

broker = StubBroker()
broker.add_middleware(
    Results(backend=StubBackend(namespace="app"), store_results=True, result_ttl=1000, store_timeout=500)
)
greenq.set_broker(broker)
assert_type(broker.get_results_backend(), ResultBackend)


@greenq.actor(store_results=True, result_ttl=60_000)
def add(x: int, y: int) -> str:
    return str(x + y)


def make() -> list[ResultBackend]:
    return [
        SqliteBackend("results.db", synchronous="FULL", encoder=PickleEncoder()),
        RedisBackend(url="redis://127.0.0.1", namespace="app"),
        RedisBackend(client=redis.Redis()),
        RedisBackend(host="127.0.0.1", db=1),
        MemcachedBackend(servers=["127.0.0.1:11211", ("127.0.0.1", 11212)], pool_size=4),
        MemcachedBackend(servers="127.0.0.1"),
    ]


def read(backend: ResultBackend, message: Message[str]) -> None:
    assert_type(backend.get_result(message), str)
    assert_type(backend.get_result(message, block=True, timeout=1000), str)
    assert_type(backend.get_result(message.message_id), Any)
    assert_type(backend.get_each([message, message]), Iterator[str])
    assert_type(message.get_result(backend=backend), str)
    message.forget_result()


async def aread(backend: ResultBackend, message: Message[str]) -> None:
    assert_type(await backend.aget_result(message, timeout=1000), str)


class Kept(ResultBackend):
    """As the API reference has it."""

    def get_result(self, message: Message[Any] | str, *, block: bool = False, timeout: float | None = None) -> Any:
        return self.unwrap_result(self.build_message_key(message))

    def store_result(self, message: Message[Any] | str, result: Any, ttl: int) -> None: ...

    def store_exception(self, message: Message[Any] | str, exception: BaseException, ttl: int) -> None: ...


Results(backend=Kept())
add.send(1, 2)
try:
    add.message(1, 2).get_result()
except greenq.ResultMissing as error:
    assert_type(error.message, str)
