"""Actors, and what they are called and sent with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

from typing_extensions import assert_type

import greenq
from greenq import Actor, Message
from greenq.brokers.stub import StubBroker
from greenq.results import Results
from greenq.results.backends import StubBackend

P = ParamSpec("P")
R = TypeVar("R")

broker = StubBroker()
broker.add_middleware(Results(backend=StubBackend()))
greenq.set_broker(broker)


@greenq.actor
def add(x: int, y: int = 0) -> str:
    return str(x + y)


@greenq.actor()
def join(*words: str, between: str = " ", **more: int) -> str:
    return between.join(words)


@greenq.actor
async def fetch(url: str, *, tries: int = 3) -> bytes:
    return url.encode()


@greenq.actor(queue_name="q", priority=3, broker=broker)
async def configured(x: int) -> str:
    return str(x)


# They keep their signatures.
assert_type(add(1), str)
assert_type(add(1, y=2), str)
assert_type(join("a", "b", between="-", third=3), str)


def in_a_job(lines: list[str]) -> None:
    for number, _ in enumerate(lines):
        greenq.progress(number, total=len(lines))
    greenq.progress(0.5)


def in_a_worker() -> None:
    assert_type(fetch("a", tries=1), bytes)
    assert_type(configured(1), str)


assert_type(add.send(1), Message[str])
assert_type(add.send(x=1, y=2), Message[str])
assert_type(join.send("a", "b", between="-", third=3), Message[str])
assert_type(fetch.send("a", tries=1), Message[bytes])
assert_type(configured.message(1), Message[str])
assert_type(add.message(1, 2), Message[str])

# With options; of the application's own middleware, too.
assert_type(add.send_with_options(args=(1,), kwargs={"y": 2}, delay=1000, max_retries=None), Message[str])
assert_type(add.send_with_options(args=(1,), delay=timedelta(seconds=1), tenant="acme"), Message[str])
assert_type(fetch.send_with_options(args=("a",), soft_time_limit=1.5, on_success=add, on_dead="add"), Message[bytes])
assert_type(add.message_with_options(args=(1,), delay=5, broker_priority=3), Message[str])
options: dict[str, Any] = {"max_retries": 3, "tenant": "acme"}
assert_type(add.send_with_options(args=(1,), **options), Message[str])

assert_type(add.send_many([(1,), (1, 2)], delay=1000, max_age=60_000), list[Message[str]])
assert_type(fetch.send_many({"url": url} for url in ["a", "b"]), list[Message[bytes]])


def is_worth_it(failures: int, exception: BaseException) -> bool:
    return failures < 3


@greenq.actor(
    actor_name="of all options",
    max_retries=3,
    min_backoff=1000,
    max_backoff=60_000,
    retry_when=is_worth_it,
    throws=(ValueError, KeyError),
    on_retry_exhausted="add",
    on_success=add,
    on_failure="add",
    on_dead=add,
    pipe_ignore=True,
    time_limit=float("inf"),
    max_age=60_000,
    notify_shutdown=True,
    store_results=True,
    result_ttl=1000,
)
def of_all_options(x: int) -> str:
    if x:
        raise greenq.Retry("later", delay=1000)
    return ""


@greenq.actor(lane="process", max_retries=1)
def crunch(x: int) -> float:
    return x / 3


assert_type(crunch.send(1), Message[float])


@greenq.actor(max_retries=None, retry_when=None, throws=ValueError, time_limit=None, soft_time_limit=1.5)
def of_no_limits() -> None: ...


assert_type(of_all_options(0), str)
assert_type(of_no_limits.send(), Message[None])

# What is known of any actor.
every: list[Actor[..., object]] = [add, join, fetch, configured]
name: str = add.actor_name
number: int = add.priority


# Of an actor class of one's own.
class Mine(Actor[P, R]):
    def send_with_options(self, **options: Any) -> Message[R]:
        return super().send_with_options(**options)


@greenq.actor(actor_class=Mine, max_retries=3)
def mine(x: int) -> str:
    return str(x)


assert_type(mine(1), str)
assert_type(mine.send(1), Message[str])


# Results.
def read(message: Message[str]) -> None:
    assert_type(message.get_result(), str)
    assert_type(message.get_result(block=True, timeout=1000, backend=broker.get_results_backend()), str)
    assert_type(fetch.send("a").get_result(), bytes)
    assert_type(message.copy(options={"max_retries": 1}), Message[str])


async def aread(message: Message[str]) -> None:
    assert_type(await message.aget_result(timeout=1000), str)


def show(message: Message[object]) -> None:
    print(message.message_id, message.options, message.message_datetime.isoformat())


show(add.message(1))
