"""Actors as classes."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

import greenq
from greenq import Message
from greenq.brokers.stub import StubBroker

greenq.set_broker(StubBroker())


class Base(greenq.GenericActor):
    class Meta:
        abstract = True
        queue_name = "q"
        max_retries = 3

    def title(self) -> str:
        raise NotImplementedError

    def perform(self, x: int, *, loud: bool = False) -> str:
        self.logger.info("Message %d.", x)
        return self.title() * x


class Derived(Base):
    def title(self) -> str:
        return self.queue_name


class Awaited(greenq.GenericActor):
    async def perform(self, x: int) -> bytes:
        return str(x).encode()


class Again(greenq.GenericActor):
    def perform(self, left: int) -> None:
        if left:
            self.send(left - 1)
            self.send_with_options(args=(left - 1,), delay=1000)


assert_type(Derived.send(1, loud=True), Message[str])
assert_type(Derived.message(x=1), Message[str])
assert_type(Awaited.send(1), Message[bytes])
assert_type(Awaited.message(1), Message[bytes])
assert_type(Derived.send_with_options(args=(1,), delay=10, max_retries=None, tenant="acme"), Message[str])
assert_type(Awaited.send_with_options(kwargs={"x": 1}), Message[bytes])
assert_type(Derived.message_with_options(args=(1,)), Message[str])
assert_type(Awaited.message_with_options(args=(1,), max_age=1000), Message[bytes])
assert_type(Derived.send_many([(1,), {"x": 2}], delay=1000), list[Message[str]])
assert_type(Awaited.send_many([(1,)]), list[Message[bytes]])
assert_type(Derived.__actor__.send(1), Message[str])
text: str = Derived(1)
queue: str = Derived.queue_name
options: dict[str, Any] = Derived.options


def in_a_worker() -> bytes:
    data: bytes = Awaited(1)
    assert_type(Awaited.__actor__(1), bytes)
    return data


@greenq.actor(on_success=Derived, on_dead=Awaited)
def told() -> int:
    return 1
