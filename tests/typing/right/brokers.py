"""Brokers: chosen, asked, written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typing_extensions import assert_type

import greenq
from greenq import Actor, Broker, Consumer, Message, MessageProxy, Worker
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker
from greenq.middleware import AgeLimit, Retries, TimeLimit

stub = StubBroker([Retries(max_retries=3), TimeLimit(time_limit=1000)])
stub.add_middleware(AgeLimit(max_age=60_000), before=Retries)
greenq.set_broker(stub)
assert_type(greenq.get_broker(), Broker)


@greenq.actor
def add(x: int, y: int = 0) -> str:
    return str(x + y)


@greenq.actor
def count(words: list[str]) -> int:
    return len(words)


assert_type(stub.enqueue(add.message(1)), Message[str])
assert_type(stub.enqueue(add.message(1), delay=1000), Message[str])
assert_type(stub.enqueue_many([add.message(1), add.message(2)], delay=1000), list[Message[str]])
some: list[Message[Any]] = [add.message(1), count.message([])]
assert_type(stub.enqueue_many(some), list[Message[Any]])
assert_type(stub.get_actor("add"), Actor[Any, Any])
ready, delayed, dead = stub.get_queue_message_counts("default")
assert_type(ready, int)
assert_type(stub.worker_id, "str | None")


def make() -> list[Broker]:
    return [
        SqliteBroker("app.db", synchronous="FULL", heartbeat_timeout=5000, dead_message_ttl=1000),
        RedisBroker(url="redis://127.0.0.1", namespace="app", heartbeat_timeout=5000, middleware=[Retries()]),
        RedisBroker(host="127.0.0.1", port=6379, db=1),
        RabbitmqBroker(url="amqp://127.0.0.1", confirm_delivery=True, max_priority=10),
        StubBroker(fail_fast_default=False),
    ]


def work(broker: Broker) -> None:
    worker = Worker(broker, queues={"default"}, worker_timeout=1000, worker_threads=8, concurrency=100)
    worker.start()
    worker.pause()
    worker.resume()
    worker.join()
    worker.stop(timeout=1000)
    assert_type(worker.jobs_done, int)


class Kept(Consumer):
    def __init__(self, messages: list[Message[Any]]) -> None:
        self.messages = messages

    def __next__(self) -> MessageProxy | None:
        return MessageProxy(self.messages.pop(0)) if self.messages else None

    def ack(self, message: MessageProxy) -> None:
        print(message.message_id)

    def nack(self, message: MessageProxy) -> None:
        print(message.options)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        self.messages += [each.message for each in messages]

    def close(self) -> None: ...


class Keeping(Broker):
    """As the API reference has it, with an enqueue of its own."""

    def __init__(self) -> None:
        super().__init__(middleware=[])
        self.kept: list[Message[Any]] = []

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:
        return Kept(self.kept)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        self.kept.append(message)
        return message

    def flush(self, queue_name: str) -> None:
        self.kept.clear()


greenq.set_broker(Keeping())
greenq.get_broker().enqueue(add.message(1))
