"""What type checkers complain about in the use of brokers and workers, and in brokers of one's own."""

from __future__ import annotations

from typing import Any

import greenq
from greenq import Broker, Consumer, Message, MessageProxy, Worker
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker
from greenq.middleware import AgeLimit, Retries, TimeLimit

stub = StubBroker()


@greenq.actor
def add(x: int, y: int = 0) -> str:
    return str(x + y)


greenq.set_broker("redis://127.0.0.1")  # error: arg-type | reportArgumentType
greenq.set_broker(StubBroker)  # error: arg-type | reportArgumentType
broker: StubBroker = greenq.get_broker()  # error: assignment | reportAssignmentType
stub.enqueue(add)  # error: arg-type | reportArgumentType
stub.enqueue(add.send)  # error: arg-type | reportArgumentType
stub.enqueue(add.message(1), delay="soon")  # error: arg-type | reportArgumentType
one: Message[int] = stub.enqueue(add.message(1))  # error: arg-type | reportAssignmentType
number: int = stub.enqueue(add.message(1)).get_result()  # error: assignment | reportAssignmentType
stub.enqueue_many(add.message(1))  # error: arg-type | reportArgumentType
stub.enqueue_many([add])  # error: arg-type | reportArgumentType
stub.enqueue_many([add.message(1)], delay="soon")  # error: arg-type | reportArgumentType
two: list[Message[int]] = stub.enqueue_many([add.message(1)])  # error: list-item | reportAssignmentType
stub.add_middleware(AgeLimit)  # error: arg-type | reportArgumentType
stub.add_middleware(AgeLimit(), before="Retries")  # error: arg-type | reportArgumentType
stub.add_middleware(AgeLimit(), before=Retries())  # error: arg-type | reportArgumentType
stub.join("default", timeout="1s")  # error: arg-type | reportArgumentType

SqliteBroker(3)  # error: arg-type | reportArgumentType
SqliteBroker("app.db", synchronous="OFF")  # error: arg-type | reportArgumentType
SqliteBroker("app.db", heartbeat_timeout="5s")  # error: arg-type | reportArgumentType
SqliteBroker("app.db", namespace="app")  # error: call-arg | reportCallIssue
RedisBroker("redis://127.0.0.1")  # error: call-arg | reportCallIssue
RedisBroker(url=3)  # error: arg-type | reportArgumentType
RedisBroker(client="redis://127.0.0.1")  # error: arg-type | reportArgumentType
RedisBroker(middleware=Retries())  # error: arg-type | reportArgumentType
RedisBroker(middleware=[Retries])  # error: list-item | reportArgumentType
RedisBroker(heartbeat_timeout="5s")  # error: arg-type | reportArgumentType
RabbitmqBroker("amqp://127.0.0.1")  # error: arg-type, call-arg | reportCallIssue
RabbitmqBroker(url=3)  # error: arg-type | reportArgumentType
RabbitmqBroker(max_priority="10")  # error: arg-type | reportArgumentType
StubBroker(["Retries"])  # error: list-item | reportArgumentType
Retries(max_retries="3")  # error: arg-type | reportArgumentType
Retries(3)  # error: call-arg | reportCallIssue
Retries(retry_when=lambda failures: True)  # error: arg-type, misc | reportArgumentType
TimeLimit(time_limit="1s")  # error: arg-type | reportArgumentType

Worker()  # error: call-arg | reportCallIssue
Worker("redis://127.0.0.1")  # error: arg-type | reportArgumentType
Worker(stub, 8)  # error: arg-type, call-arg | reportCallIssue
Worker(stub, worker_threads="8")  # error: arg-type | reportArgumentType
Worker(stub, queues="default")  # error: arg-type | reportArgumentType
Worker(stub, threads=8)  # error: call-arg | reportCallIssue
Worker(stub).stop("1s")  # error: arg-type | reportArgumentType


class Kept(Consumer):
    def __next__(self) -> Message[Any]:  # error: override | reportIncompatibleMethodOverride
        raise NotImplementedError

    def ack(self, message: Message[Any]) -> None: ...  # error: override | reportIncompatibleMethodOverride

    def nack(self) -> None: ...  # error: override | reportIncompatibleMethodOverride

    def requeue(self, messages: list[MessageProxy]) -> None: ...  # error: override | reportIncompatibleMethodOverride


class Keeping(Broker):
    def consume(self, queue_name: str) -> Consumer:  # error: override | reportIncompatibleMethodOverride
        raise NotImplementedError

    def enqueue(self, message: Message[Any], delay: str) -> Message[Any]:  # error: override | reportIncompatibleMethodOverride
        raise NotImplementedError

    def flush(self, queue_name: int) -> None: ...  # error: override | reportIncompatibleMethodOverride

    def get_actor(self, actor_name: str) -> str:  # error: override | reportIncompatibleMethodOverride
        return actor_name
