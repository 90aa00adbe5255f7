"""A composition with everything in it runs on every broker."""

from __future__ import annotations

import greenq
from greenq import group
from greenq.middleware import GroupCallbacks
from greenq.rate_limits.backends import StubBackend as Limits
from greenq.results import Results
from greenq.results.backends import StubBackend
from tests.support.waiting import PATIENCE_S, until


def test_a_pipeline_with_a_group_a_retry_and_callbacks_comes_to_its_end(broker, start):
    broker.add_middleware(Results(backend=StubBackend(), store_results=True))
    broker.add_middleware(GroupCallbacks(Limits()))
    told, tries = [], []

    @greenq.actor(broker=broker)
    def note(*args):
        told.append(args)

    @greenq.actor(broker=broker, min_backoff=10)
    def add(x, y):
        tries.append(x)
        if tries.count(20) == 1 and x == 20:
            raise ValueError("the first time")
        return x + y

    start()
    members = group([add.message(10), add.message(20)])
    members.add_completion_callback(note.message("group"), on="always")
    first = add.message_with_options(args=(1, 2), on_success=note)
    pipe = greenq.pipeline(
        [first, members, add.message_with_options(args=([0],), delay=20)],
        broker=broker,
    ).run()

    assert pipe.get_result(block=True, timeout=PATIENCE_S * 1000) == [0, 13, 23]
    until(lambda: len(told) == 2)
    ((message, result),) = [each for each in told if len(each) == 2]
    assert (message["actor_name"], result) == ("add", 3)
    assert ("group",) in told
