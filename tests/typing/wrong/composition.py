"""What type checkers complain about in pipelines and groups."""

from __future__ import annotations

import greenq
from greenq import group, pipeline


@greenq.actor
def fetch(url: str) -> bytes:
    return url.encode()


@greenq.actor
def count(words: bytes) -> int:
    return len(words)


one = fetch.message("a") | count.message_with_options()
counts = group([one, one])

fetch.message("a") | 5  # error: operator | reportOperatorIssue, reportUnusedExpression
fetch.message("a") | count  # error: operator | reportOperatorIssue, reportUnusedExpression
fetch | count  # error: operator | reportOperatorIssue, reportUnusedExpression
one | "count"  # error: operator | reportOperatorIssue, reportUnusedExpression
counts | [1]  # error: operator | reportOperatorIssue, reportUnusedExpression
group(["text"])  # error: arg-type | reportArgumentType, reportCallIssue
group([fetch])  # error: arg-type | reportArgumentType, reportCallIssue
group(one)  # error: call-overload | reportArgumentType, reportCallIssue
pipeline([fetch])  # error: list-item | reportArgumentType
pipeline(["text"])  # error: list-item | reportArgumentType
pipeline(one)  # error: arg-type | reportArgumentType
group([one], broker="redis")  # error: call-overload | reportArgumentType, reportCallIssue
two: pipeline[bytes] = fetch.message("a") | count.message_with_options()  # error: operator | reportAssignmentType
three: group[bytes] = counts  # error: assignment | reportAssignmentType
counts.add_completion_callback(count)  # error: arg-type | reportArgumentType
counts.add_completion_callback(count.message(b""), on="failure")  # error: arg-type | reportArgumentType
one.run(delay="soon")  # error: arg-type | reportArgumentType
four: str = one.run().get_result()  # error: assignment | reportAssignmentType
five: list[str] = list(counts.run().get_results())  # error: arg-type | reportAssignmentType
counts.get_result()  # error: attr-defined | reportAttributeAccessIssue, reportUnknownMemberType
one.get_result(timeout="1s")  # error: arg-type | reportArgumentType


async def read_awaited() -> str:
    return await one.aget_result()  # error: return-value | reportReturnType


async def read_all_awaited() -> list[str]:
    return await counts.aget_results()  # error: return-value | reportReturnType
