"""What type checkers complain about in calls of actors and in their options."""

from __future__ import annotations

import greenq
from greenq import Actor, Message


@greenq.actor
def add(x: int, y: int = 0) -> str:
    return str(x + y)


@greenq.actor
def join(*words: str, between: str = " ", **more: int) -> str:
    return between.join(words)


@greenq.actor
async def fetch(url: str, *, tries: int = 3) -> bytes:
    return url.encode()


@greenq.actor(queue_name="q", max_retries=3)
def configured(x: int) -> str:
    return str(x)


add("one")  # error: arg-type | reportArgumentType
add()  # error: call-arg | reportCallIssue
add(1, 2, 3)  # error: call-arg | reportCallIssue
add(1, z=2)  # error: call-arg | reportCallIssue
one: int = add(1)  # error: assignment | reportAssignmentType
fetch("a", 3)  # error: call-arg | reportCallIssue
fetch(b"a")  # error: arg-type | reportArgumentType
join(1)  # error: arg-type | reportArgumentType
configured("one")  # error: arg-type | reportArgumentType

add.send("one")  # error: arg-type | reportArgumentType
add.send()  # error: call-arg | reportCallIssue
add.send(1, 2, 3)  # error: call-arg | reportCallIssue
add.send(1, z=2)  # error: call-arg | reportCallIssue
add.send(1, y="two")  # error: arg-type | reportArgumentType
add.send(1, delay=1000)  # error: call-arg | reportCallIssue
join.send("a", 2)  # error: arg-type | reportArgumentType
join.send("a", between=2)  # error: arg-type | reportArgumentType
join.send("a", third="3")  # error: arg-type | reportArgumentType
fetch.send(b"a")  # error: arg-type | reportArgumentType
fetch.send("a", 3)  # error: call-arg | reportCallIssue
fetch.send("a", tries="3")  # error: arg-type | reportArgumentType
configured.send(1, 2)  # error: call-arg | reportCallIssue
add.message("one")  # error: arg-type | reportArgumentType
add.message(1, z=2)  # error: call-arg | reportCallIssue
fetch.message()  # error: call-arg | reportCallIssue
two: Message[int] = add.send(1)  # error: assignment | reportAssignmentType

add.send_with_options((1,))  # error: call-arg | reportCallIssue
add.send_with_options(args=[1])  # error: arg-type | reportArgumentType
add.send_with_options(args=1)  # error: arg-type | reportArgumentType
add.send_with_options(kwargs=[("x", 1)])  # error: arg-type | reportArgumentType
add.send_with_options(kwargs={1: 1})  # error: dict-item | reportArgumentType
add.send_with_options(args=(1,), delay="soon")  # error: arg-type | reportArgumentType
add.send_with_options(args=(1,), delay=1.5)  # error: arg-type | reportArgumentType
add.send_with_options(args=(1,), max_retries="3")  # error: arg-type | reportArgumentType
add.send_with_options(args=(1,), time_limit="1s")  # error: arg-type | reportArgumentType
add.send_with_options(args=(1,), on_success=3)  # error: arg-type | reportArgumentType
add.send_with_options(args=(1,), broker_priority="high")  # error: arg-type | reportArgumentType
add.message_with_options(args=(1,), max_age="1h")  # error: arg-type | reportArgumentType
add.message_with_options(args=[1])  # error: arg-type | reportArgumentType
three: Message[bytes] = add.message_with_options(args=(1,))  # error: assignment | reportAssignmentType
add.send_many([1, 2])  # error: list-item | reportArgumentType
add.send_many([[1], [2]])  # error: list-item | reportArgumentType
add.send_many([(1,)], delay="soon")  # error: arg-type | reportArgumentType
add.send_many([(1,)], max_retries="3")  # error: arg-type | reportArgumentType
add.sned(1)  # error: attr-defined | reportAttributeAccessIssue, reportUnknownMemberType


@greenq.actor(max_retries="3")  # error: call-overload, untyped-decorator | reportArgumentType
def first() -> None: ...


@greenq.actor(time_limit="1s")  # error: call-overload, untyped-decorator | reportArgumentType
def second() -> None: ...


@greenq.actor(queue_name=1)  # error: call-overload, untyped-decorator | reportArgumentType
def third() -> None: ...


@greenq.actor(priority="high")  # error: call-overload, untyped-decorator | reportArgumentType
def fourth() -> None: ...


@greenq.actor(broker="redis://127.0.0.1")  # error: call-overload, untyped-decorator | reportArgumentType
def fifth() -> None: ...


@greenq.actor(lane="fast")  # error: call-overload, untyped-decorator | reportArgumentType
def laned() -> None: ...


@greenq.actor(throws="ValueError")  # error: arg-type | reportArgumentType
def sixth() -> None: ...


@greenq.actor(throws=ValueError())  # error: call-overload, untyped-decorator | reportArgumentType
def seventh() -> None: ...


@greenq.actor(retry_when=3)  # error: call-overload, untyped-decorator | reportArgumentType
def eighth() -> None: ...


@greenq.actor(on_success=len)  # error: call-overload, untyped-decorator | reportArgumentType
def ninth() -> None: ...


@greenq.actor(actor_class=dict)  # error: arg-type | reportArgumentType
def tenth() -> None: ...


@greenq.actor("name")  # error: call-overload, untyped-decorator | reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator
def eleventh() -> None: ...


greenq.Retry(delay="x")  # error: arg-type | reportArgumentType
greenq.Retry(3)  # error: arg-type | reportArgumentType
print(greenq.actr)  # error: attr-defined | reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType
Actor(add.fn)  # error: call-arg | reportCallIssue


message = add.message(1)
number: int = message.get_result()  # error: assignment | reportAssignmentType
message.get_result(block=1000)  # error: arg-type | reportArgumentType
message.get_result(timeout="1s")  # error: arg-type | reportArgumentType
message.get_result(backend="redis")  # error: arg-type | reportArgumentType
message.message_id = "other"  # error: misc | reportAttributeAccessIssue
print(message.result)  # error: attr-defined | reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType


async def read_awaited() -> int:
    await message.aget_result(block=True)  # error: call-arg | reportCallIssue
    return await message.aget_result()  # error: return-value | reportReturnType


async def read_and_forget_to_await() -> str:
    return message.aget_result()  # error: return-value | reportReturnType
