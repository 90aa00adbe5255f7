"""What type checkers complain about in class-based actors."""

from __future__ import annotations

import greenq
from greenq import Message


class Loud(greenq.GenericActor):
    class Meta:
        max_retries = 3

    def perform(self, x: int, *, loud: bool = False) -> str:
        return self.titel() * x  # error: attr-defined, no-any-return | reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType


class Awaited(greenq.GenericActor):
    async def perform(self, x: int) -> bytes:
        return str(x).encode()


Loud.send("one")  # error: arg-type | reportArgumentType
Loud.send()  # error: call-arg | reportCallIssue
Loud.send(1, True)  # error: call-arg | reportCallIssue
Loud.message(1, quiet=True)  # error: call-arg | reportCallIssue
Awaited.send("one")  # error: arg-type | reportArgumentType
Awaited.message(1, 2)  # error: call-arg | reportCallIssue
one: Message[int] = Loud.send(1)  # error: assignment | reportAssignmentType
two: Message[str] = Awaited.send(1)  # error: assignment | reportAssignmentType
Loud.send_with_options(args=[1])  # error: arg-type | reportArgumentType
Loud.send_with_options(args=(1,), delay="soon")  # error: arg-type | reportArgumentType
Loud.send_with_options(args=(1,), max_retries="3")  # error: arg-type | reportArgumentType
Awaited.message_with_options(args=(1,), time_limit="1s")  # error: arg-type | reportArgumentType
Loud.send_many([1])  # error: list-item | reportArgumentType
Loud.sned(1)  # error: attr-defined | reportAttributeAccessIssue, reportUnknownMemberType
Loud("one")  # error: - | reportArgumentType
three: int = Loud(1)  # error: - | reportAssignmentType
number: int = Loud.send(1).get_result()  # error: assignment | reportAssignmentType
