"""Pipelines and groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typing_extensions import assert_type

import greenq
from greenq import group, pipeline
from greenq.brokers.stub import StubBroker

greenq.set_broker(StubBroker())


@greenq.actor
def fetch(url: str) -> bytes:
    return url.encode()


@greenq.actor
async def count(words: bytes) -> int:
    return len(words)


@greenq.actor
def total(counts: list[int]) -> str:
    return str(sum(counts))


# A pipeline is of what its last step returns.
one = fetch.message("a") | count.message_with_options()
assert_type(one, pipeline[int])
assert_type(one | total.message_with_options(), pipeline[str])
assert_type(fetch.message("a") | one, pipeline[int])
assert_type(one | one, pipeline[int])

# A group is of what its members return; it is a list for what comes after it.
counts = group([fetch.message(url) | count.message_with_options() for url in ["a", "b"]])
assert_type(counts, group[int])
assert_type(counts | total.message_with_options(), pipeline[str])
assert_type(fetch.message("a") | counts, pipeline[list[int]])
assert_type(one | counts, pipeline[list[int]])
assert_type(counts | counts, pipeline[list[int]])
assert_type(group([counts, counts]), group[list[int]])
assert_type(group(fetch.message(url) for url in ["a", "b"]), group[bytes])
mixed: group[Any] = group([fetch.message("a"), counts, one])
either: group[Any] = group([fetch.message("a"), count.message(b"")])
built: pipeline[str] = pipeline([fetch.message("a"), counts, total.message_with_options()])
counts.add_completion_callback(total.message([]), on="always")


def read() -> None:
    assert_type(one.run(delay=5).get_result(block=True, timeout=1000), int)
    assert_type(counts.run().get_results(block=True), Iterator[int])
    assert_type(list(counts.get_results()), list[int])
    assert_type(one.completed, bool)
    assert_type(counts.completed_count, int)
    for result in mixed.run().get_results(block=True):
        print(result)
    counts.wait(timeout=1000)


async def aread() -> None:
    assert_type(await one.aget_result(timeout=1000), int)
    assert_type(await counts.aget_results(), list[int])
