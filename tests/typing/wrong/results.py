"""What type checkers complain about in the use of results, and in encoders and backends of one's own."""

from __future__ import annotations

from typing import Any

import greenq
from greenq import Encoder, Message
from greenq.results import ResultBackend, Results
from greenq.results.backends import MemcachedBackend, RedisBackend, SqliteBackend, StubBackend

print(greenq.results.Result)  # error: attr-defined | reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType
print(greenq.results.backends.RedisBackends)  # error: attr-defined | reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType

Results()  # error: call-arg | reportCallIssue
Results(StubBackend())  # error: call-arg | reportCallIssue
Results(backend="redis")  # error: arg-type | reportArgumentType
Results(backend=StubBackend)  # error: arg-type | reportArgumentType
Results(backend=StubBackend(), result_ttl="1h")  # error: arg-type | reportArgumentType
Results(backend=StubBackend(), store_results="no")  # error: arg-type | reportArgumentType
StubBackend("app")  # error: call-arg | reportCallIssue
StubBackend(namespace=3)  # error: arg-type | reportArgumentType
StubBackend(encoder=Encoder)  # error: arg-type | reportArgumentType
SqliteBackend(3)  # error: arg-type | reportArgumentType
SqliteBackend("results.db", synchronous="OFF")  # error: arg-type | reportArgumentType
RedisBackend("redis://127.0.0.1")  # error: call-arg | reportCallIssue
RedisBackend(url=3)  # error: arg-type | reportArgumentType
RedisBackend(client="redis://127.0.0.1")  # error: arg-type | reportArgumentType
MemcachedBackend(servers=3)  # error: arg-type | reportArgumentType
MemcachedBackend(pool=3)  # error: arg-type | reportArgumentType
MemcachedBackend(pool_size="4")  # error: arg-type | reportArgumentType


def read(backend: ResultBackend, message: Message[str]) -> None:
    backend.get_result(3)  # error: call-overload | reportArgumentType, reportCallIssue
    backend.get_result(message, timeout="1s")  # error: call-overload | reportArgumentType, reportCallIssue
    backend.store_result(message, 3)  # error: call-arg | reportCallIssue
    for each in backend.get_each([message]):
        each += 1  # error: operator | reportOperatorIssue, reportUnknownVariableType


def read_one(backend: ResultBackend, message: Message[str]) -> int:
    return backend.get_result(message)  # error: return-value | reportReturnType


class Wrong(Encoder):
    def encode(self, data: dict[str, Any]) -> str:  # error: override | reportIncompatibleMethodOverride
        return ""

    def decode(self, data: str) -> dict[str, Any]:  # error: override | reportIncompatibleMethodOverride
        return {}


class Incomplete(Encoder):
    def encode(self, data: dict[str, Any]) -> bytes:
        return b""


Incomplete()  # error: abstract | reportAbstractUsage
greenq.set_encoder(Wrong)  # error: arg-type | reportArgumentType
greenq.set_encoder("json")  # error: arg-type | reportArgumentType


class Kept(ResultBackend):
    def get_result(self, message: Message[Any]) -> Any: ...  # error: override | reportIncompatibleMethodOverride

    def store_result(self, message: Message[Any] | str, result: Any, ttl: str) -> None: ...  # error: override | reportIncompatibleMethodOverride
