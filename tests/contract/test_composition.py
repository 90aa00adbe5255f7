"""Pipelines, groups and callbacks: with each broker and the backends that go with it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter

import pytest

import greenq
from greenq import group, pipeline
from greenq.middleware import GroupCallbacks, Middleware
from greenq.results import ResultFailure, ResultMissing, Results, ResultTimeout
from tests.support.recorder import Recorder
from tests.support.waiting import PATIENCE_S, happens, until

from .backends import open_limits, open_results, place_of
from .brokers import CASES

JOIN = {"timeout": PATIENCE_S * 1000}
WAIT = {"block": True, "timeout": PATIENCE_S * 1000}

#: Which broker with which backends.
WORLDS = {
    "stub": ("stub", "stub"),
    "sqlite": ("sqlite", "sqlite"),
    "redis": ("redis", "redis"),
    "memcached": ("stub", "memcached"),
}


@pytest.fixture(params=list(WORLDS))
def world(request):
    return WORLDS[request.param]


@pytest.fixture
def case(world):
    return CASES[world[0]]


@pytest.fixture
def results(world, tmp_path):
    backend = open_results(world[1], place_of(world[1], tmp_path))
    yield backend
    backend.close()


@pytest.fixture
def limits(world, tmp_path):
    backend = open_limits(world[1], place_of(world[1], tmp_path))
    yield backend
    backend.close()


@pytest.fixture
def broker(broker, results, limits):
    broker.add_middleware(Results(backend=results, store_results=True))
    broker.add_middleware(GroupCallbacks(limits))
    greenq.set_broker(broker)
    return broker


@pytest.fixture
def runs():
    """What ran: each actor's name with its arguments."""
    return []


@pytest.fixture
def add(broker, runs):
    @greenq.actor(broker=broker)
    def add(x, y):
        runs.append(("add", x, y))
        return x + y

    return add


@pytest.fixture
def say(broker, runs):
    """An actor that returns what it is given, all of it."""

    @greenq.actor(broker=broker)
    def say(*args):
        runs.append(("say", *args))
        return list(args)

    return say


@pytest.fixture
def fail(broker, runs):
    @greenq.actor(broker=broker, max_retries=0)
    def fail(*args):
        runs.append(("fail", *args))
        raise ValueError("on purpose")

    return fail


@pytest.fixture
def flaky(broker, runs):
    """An actor that fails the first time."""
    tries = Counter()

    @greenq.actor(broker=broker, min_backoff=1, max_retries=2)
    def flaky(*args):
        runs.append(("flaky", *args))
        tries[args] += 1
        if tries[args] == 1:
            raise ValueError("the first time")
        return list(args)

    return flaky


def send_back(broker):
    """Send all dead letters back, wait for what comes of it; how many there were."""
    letters = broker.dead_letters_of("default")
    ids = [letter.id for letter in letters.each()]
    letters.send_back(ids)
    broker.join("default", **JOIN)
    return len(ids)


# -- pipelines


def test_each_step_of_a_pipeline_gets_the_result_of_the_one_before(broker, add, start):
    start()
    pipe = pipeline([add.message(1, 2), add.message(3), add.message(4)]).run()

    assert pipe.get_result(**WAIT) == 10
    assert list(pipe.get_results()) == [3, 6, 10]
    assert pipe.completed
    assert pipe.completed_count == 3


def test_the_example_of_the_reference_runs(broker, add, start):
    start()
    pipe = add.message(1, 2) | add.message(3)

    assert repr(pipe) == "pipeline([add(1, 2), add(3)])"
    assert pipe.run() is pipe
    assert pipe.get_result(**WAIT) == 6


def test_a_pipeline_that_has_not_begun_has_no_results(broker, add):
    pipe = (add.message(1, 2) | add.message(3)).run()

    assert not pipe.completed
    assert pipe.completed_count == 0
    with pytest.raises(ResultMissing):
        pipe.get_result()
    with pytest.raises(ResultMissing):
        list(pipe.get_results())
    with pytest.raises(ResultTimeout):
        pipe.get_result(block=True, timeout=1)


def test_a_pipeline_may_be_run_again(broker, add, runs, start):
    start()
    pipe = add.message(1, 2) | add.message(3)
    for _ in range(2):
        pipe.run()
        broker.join("default", **JOIN)

    assert Counter(runs) == {("add", 1, 2): 2, ("add", 3, 3): 2}


def test_none_is_a_result_that_is_passed_on(broker, say, start):
    @greenq.actor(broker=broker)
    def nothing(): ...

    start()

    assert (nothing.message() | say.message("after")).run().get_result(**WAIT) == ["after", None]


def test_a_step_that_ignores_gets_no_result(broker, add, say, start):
    start()
    pipe = add.message(1, 2) | say.message_with_options(args=("alone",), pipe_ignore=True) | say.message("after")

    assert pipe.run().get_result(**WAIT) == ["after", ["alone"]]


def test_the_result_of_an_actor_that_is_declared_so_is_not_passed_on(broker, say, start):
    @greenq.actor(broker=broker, pipe_ignore=True)
    def secret():
        return 42

    start()

    assert (secret.message() | say.message("alone")).run().get_result(**WAIT) == ["alone"]


def test_a_pipeline_of_many_steps_comes_to_its_end(broker, add, start):
    start()
    pipe = pipeline([add.message(0, 0), *(add.message(1) for _ in range(99))]).run()

    assert pipe.get_result(**WAIT) == 99


def test_steps_wait_for_their_delays(broker, say, start):
    delays, begun = Recorder("before_enqueue"), time.monotonic()
    broker.add_middleware(delays)
    start()
    pipe = pipeline([say.message(1), say.message_with_options(args=(2,), delay=200), say.message(3)])

    pipe.run(delay=100).get_result(**WAIT)

    assert time.monotonic() - begun >= 0.3
    assert [(message.args[0], delay) for message, delay in (call.args for call in delays.calls)] == [
        (1, 100),
        (2, 200),
        (3, None),
    ]


def test_the_longer_delay_of_a_pipeline_and_its_first_message_counts(broker, say):
    for own, of_pipeline in ((60_000, 50), (50, 60_000)):
        first = say.message_with_options(args=(1,), delay=own)
        pipeline([first, say.message(2)]).run(delay=of_pipeline)

    counts = broker.queue_counts("default")
    assert (counts.ready, counts.delayed) == (0, 2)


def test_a_step_that_is_retried_goes_on_with_the_pipeline_once_it_succeeds(broker, flaky, say, runs, start):
    start()
    pipe = (flaky.message(1) | say.message("after")).run()

    assert pipe.get_result(**WAIT) == ["after", [1]]
    assert [name for name, *_ in runs] == ["flaky", "flaky", "say"]


def test_whoever_waits_for_a_broken_pipeline_is_told_at_once_which_step_failed_and_why(broker, add, fail, runs, start):
    start()
    pipe = pipeline([add.message(1, 2), fail.message(), add.message(3), add.message(4)]).run()

    with pytest.raises(ResultFailure) as caught:
        pipe.get_result(**WAIT)

    assert "actor fail of an earlier step" in str(caught.value)
    assert pipe.messages[1].message_id in str(caught.value)
    assert (caught.value.orig_exc_type, caught.value.orig_exc_msg) == ("ValueError", "on purpose")
    for read in (lambda: pipe.completed, lambda: pipe.completed_count, lambda: list(pipe.get_results(**WAIT))):
        with pytest.raises(ResultFailure):
            read()
    broker.join("default", **JOIN)
    assert runs == [("add", 1, 2), ("fail", 3)]


def test_a_step_whose_actor_nobody_knows_breaks_its_pipeline(broker, add, start):
    start()
    nobody = add.message()._replace(actor_name="nobody")

    with pytest.raises(ResultFailure, match="nobody"):
        pipeline([add.message(1, 2), nobody, add.message(3)]).run().get_result(**WAIT)


def test_a_skipped_step_breaks_its_pipeline(broker, say, runs, start):
    class Skipping(Middleware):
        def before_process_message(self, broker, message):
            if message.args[0] == "skipped":
                raise greenq.middleware.SkipMessage("not today")

    broker.add_middleware(Skipping())
    start()

    with pytest.raises(ResultFailure, match="skipped"):
        (say.message("skipped") | say.message("after")).run().get_result(**WAIT)
    assert runs == []


def test_a_step_that_was_too_old_breaks_its_pipeline(broker, say, start):
    start()
    pipe = say.message_with_options(args=(1,), max_age=1, delay=20) | say.message(2)

    with pytest.raises(ResultFailure, match="age limit"):
        pipe.run().get_result(**WAIT)


def test_a_step_whose_result_cannot_be_sent_is_a_dead_letter_and_breaks_its_pipeline(broker, say, dead, start):
    @greenq.actor(broker=broker, store_results=False)
    def make():
        return object()

    start()

    with pytest.raises(ResultFailure, match="refused"):
        (make.message() | say.message(1)).run().get_result(**WAIT)
    broker.join("default", **JOIN)
    ((letter, reason),) = dead()
    assert letter.actor_name == "make"
    assert "refused" in reason


@pytest.mark.parametrize("target", [{"no": "message"}, {"group": [{}]}, {"group": 1}])
def test_a_next_step_that_is_none_makes_a_dead_letter(broker, say, dead, start, target):
    start()
    say.send_with_options(args=(1,), pipe_target=target)
    broker.join("default", **JOIN)

    assert [letter.actor_name for letter, _ in dead()] == ["say"]


def test_a_message_may_name_what_comes_next_itself(broker, say, start):
    start()
    last = say.message("last")
    say.send_with_options(args=(1,), pipe_target=last)

    assert last.get_result(**WAIT) == ["last", [1]]


def test_a_broken_pipeline_is_whole_once_its_dead_letter_is_sent_back_and_succeeds(broker, say, start):
    broken = threading.Event()
    broken.set()

    @greenq.actor(broker=broker, max_retries=0)
    def sometimes():
        if broken.is_set():
            raise ValueError("not now")
        return 1

    worker = start()
    pipe = (sometimes.message() | say.message("after")).run()
    with pytest.raises(ResultFailure):
        pipe.get_result(**WAIT)
    broker.join("default", **JOIN)
    worker.join()  # and what comes after its verdicts

    broken.clear()
    send_back(broker)

    assert pipe.get_result() == ["after", 1]


# -- groups


def test_the_results_of_a_group_come_in_the_order_of_its_members(broker, add, start):
    start()
    members = group(add.message(number, 1) for number in range(20))

    assert members.run() is members
    assert list(members.get_results(**WAIT)) == list(range(1, 21))
    assert members.completed
    assert members.completed_count == 20
    members.wait(timeout=1000)


def test_a_group_that_has_not_begun_has_no_results(broker, add):
    members = group([add.message(1, 2), add.message(3, 4)]).run()

    assert not members.completed
    assert members.completed_count == 0
    with pytest.raises(ResultMissing):
        list(members.get_results())
    with pytest.raises(ResultTimeout):
        members.wait(timeout=1)


def test_a_group_of_pipelines_and_groups_gives_nested_results(broker, add, start):
    start()
    members = group(
        [add.message(1, 2), add.message(1, 2) | add.message(3), group([add.message(5, 5), group([add.message(6, 6)])])]
    ).run()

    assert list(members.get_results(**WAIT)) == [3, 6, [10, [12]]]
    assert members.completed


def test_a_nested_group_is_counted_job_by_job(broker, add, say, start):
    members = group([add.message(1, 2), group([add.message(3, 4), say.message_with_options(queue_later=True)])])
    last = members.children[1].children[1]
    others = [members.children[0], members.children[1].children[0]]
    start()
    for message in others:
        broker.enqueue(message)
        message.get_result(**WAIT)

    assert members.completed_count == 2
    assert not members.completed
    broker.enqueue(last)
    last.get_result(**WAIT)
    assert members.completed_count == 3
    assert members.completed


def test_whoever_waits_for_a_group_is_told_at_once_of_a_member_that_failed(broker, fail, start):
    hold, held = threading.Event(), threading.Event()

    @greenq.actor(broker=broker)
    def slow():
        held.set()
        hold.wait(PATIENCE_S)

    start()
    members = group([slow.message(), fail.message(7)]).run()
    happens(held)
    try:
        with pytest.raises(ResultFailure) as caught:
            members.wait(timeout=PATIENCE_S * 1000)
    finally:
        hold.set()

    assert "member 2 of 2, fail(7), failed: actor raised ValueError: on purpose" in str(caught.value)
    assert caught.value.orig_exc_type == "ValueError"
    broker.join("default", **JOIN)


def test_the_members_of_a_group_wait_for_its_delay(broker, add):
    group([add.message(1, 2), add.message(3, 4) | add.message(5)]).run(delay=60_000)

    counts = broker.queue_counts("default")
    assert (counts.ready, counts.delayed) == (0, 2)


def test_an_asyncio_host_waits_for_groups_and_pipelines(broker, add, start):
    start()

    async def main():
        members = group([add.message(1, 2), add.message(3, 4)]).run()
        pipe = (add.message(1, 2) | add.message(3)).run()
        to_group = (add.message(1, 2) | group([add.message(1), add.message(2)])).run()
        timeout = PATIENCE_S * 1000
        return (
            await members.aget_results(timeout=timeout),
            await pipe.aget_result(timeout=timeout),
            await to_group.aget_result(timeout=timeout),
        )

    assert asyncio.run(main()) == ([3, 7], 6, [4, 5])


# -- completion callbacks


def told(runs):
    return [args[0] for name, *args in runs if name == "say"]


def test_a_completion_callback_comes_once_after_the_last_member_exactly_as_it_was_built(broker, add, say, runs, start):
    start()
    members = group(add.message(number, 1) for number in range(10))
    members.add_completion_callback(say.message("done"))
    members.add_completion_callback(say.message("done too"))
    members.run()
    broker.join("default", **JOIN)

    assert [name for name, *_ in runs] == ["add"] * 10 + ["say"] * 2
    assert sorted(runs[10:]) == [("say", "done"), ("say", "done too")]


def test_without_its_middleware_a_group_with_a_callback_says_what_to_add(broker, add):
    broker.middleware = [each for each in broker.middleware if not isinstance(each, GroupCallbacks)]
    members = group([add.message(1, 2)])
    members.add_completion_callback(add.message(3, 4))

    with pytest.raises(RuntimeError, match=r"add_middleware\(GroupCallbacks"):
        members.run()
    with pytest.raises(RuntimeError, match="GroupCallbacks"):
        (group([add.message(1, 2)]) | add.message(3)).run()
    assert broker.queue_counts("default").ready == 0


def test_a_callback_on_success_never_comes_if_a_member_fails_and_one_on_always_comes_once(
    broker, add, say, fail, flaky, runs, start
):
    start()
    members = group([add.message(1, 2), fail.message(), flaky.message(1)])
    members.add_completion_callback(say.message("success"))
    members.add_completion_callback(say.message("always"), on="always")
    members.run()
    broker.join("default", **JOIN)

    assert told(runs) == ["always"]
    assert runs[-1] == ("say", "always"), "it comes after the last member"


def test_both_kinds_of_callbacks_come_if_all_members_succeed(broker, add, say, runs, start):
    start()
    members = group([add.message(1, 2), add.message(1, 2) | add.message(3)])
    members.add_completion_callback(say.message("success"), on="success")
    members.add_completion_callback(say.message("always"), on="always")
    members.run()
    broker.join("default", **JOIN)

    assert sorted(told(runs)) == ["always", "success"]
    assert Counter(name for name, *_ in runs[:3]) == {"add": 3}


def test_a_skipped_member_ends_and_does_not_succeed(broker, add, say, runs, start):
    class Skipping(Middleware):
        def before_process_message(self, broker, message):
            if message.actor_name == "add" and message.args[0] == "skipped":
                raise greenq.middleware.SkipMessage("not today")

    broker.add_middleware(Skipping())
    start()
    members = group([add.message("skipped", 0), add.message(1, 2)])
    members.add_completion_callback(say.message("success"))
    members.add_completion_callback(say.message("always"), on="always")
    members.run()
    broker.join("default", **JOIN)

    assert told(runs) == ["always"]


def test_a_callback_on_something_else_is_refused(broker, add):
    with pytest.raises(ValueError, match="sometimes"):
        group([add.message(1, 2)]).add_completion_callback(add.message(1, 2), on="sometimes")


def test_a_group_without_members_is_complete_at_once(broker, say, runs, start):
    start()
    members = group([])
    members.add_completion_callback(say.message("done"))
    members.run()
    broker.join("default", **JOIN)

    assert told(runs) == ["done"]
    assert members.completed
    assert list(members.get_results(**WAIT)) == []


def test_a_member_that_is_delivered_twice_counts_once(broker, add, say, runs, start):
    class Twice(Middleware):
        """Has each member enqueued a second time, as a broker may deliver it again."""

        def after_enqueue(self, broker, message, delay):
            if message.actor_name == "add" and "again" not in message.options and message.args[0] in self.members:
                broker.enqueue(message.copy(options={"again": True}))

        members = (0, 1)

    broker.add_middleware(Twice())
    members = group(add.message(number, 1) for number in range(3))
    members.add_completion_callback(say.message("done"))
    members.run()
    start(threads=1)
    broker.join("default", **JOIN)

    assert Counter(runs) == {
        ("add", 0, 1): 2,
        ("add", 1, 1): 2,
        ("add", 2, 1): 1,
        ("say", "done"): 1,
    }
    assert runs.index(("say", "done")) > runs.index(("add", 2, 1))


def test_the_last_member_that_is_delivered_twice_completes_its_group_once(broker, add, say, runs, start):
    start()
    members = group([add.message(1, 2)])
    members.add_completion_callback(say.message("success"))
    members.add_completion_callback(say.message("always"), on="always")
    sent = []

    class Seeing(Middleware):
        def before_enqueue(self, broker, message, delay):
            if message.actor_name == "add":
                sent.append(message.copy())

    broker.add_middleware(Seeing())
    members.run()
    broker.join("default", **JOIN)
    closed(broker, sent[0])
    broker.enqueue(sent[0])
    broker.join("default", **JOIN)

    assert Counter(runs) == {("add", 1, 2): 2, ("say", "success"): 1, ("say", "always"): 1}


def closed(broker, member):
    """Wait until it has been noted that what follows the group was sent."""
    (counting,) = [each for each in broker.middleware if isinstance(each, GroupCallbacks)]
    frame = member.options["group_member"]
    for occasion in ("success", "end"):
        until(lambda occasion=occasion: counting._exists(f"greenq-group:{frame['id']}@{occasion}@closed"))


def test_a_group_that_is_run_again_is_counted_anew(broker, add, say, runs, start):
    start()
    members = group([add.message(1, 2), add.message(3, 4)])
    members.add_completion_callback(say.message("done"))
    for _ in range(2):
        members.run()
        broker.join("default", **JOIN)

    assert told(runs) == ["done", "done"]


def test_groups_inside_groups_have_callbacks_of_their_own(broker, add, say, runs, start):
    start()
    inner = group([add.message(1, 2), add.message(3, 4)])
    inner.add_completion_callback(say.message("inner"))
    outer = group([inner, add.message(5, 6)])
    outer.add_completion_callback(say.message("outer"))
    outer.run()
    broker.join("default", **JOIN)

    assert Counter(runs[-2:] if runs[-1][0] == "say" else runs)["say", "outer"] == 1
    assert sorted(told(runs)) == ["inner", "outer"]


def test_a_failure_in_a_group_inside_a_group_ends_both_and_completes_none(broker, add, say, fail, runs, start):
    start()
    inner = group([add.message(1, 2), fail.message()])
    inner.add_completion_callback(say.message("inner success"))
    inner.add_completion_callback(say.message("inner always"), on="always")
    outer = group([inner, add.message(5, 6)])
    outer.add_completion_callback(say.message("outer success"))
    outer.add_completion_callback(say.message("outer always"), on="always")
    outer.run()
    broker.join("default", **JOIN)

    assert sorted(told(runs)) == ["inner always", "outer always"]


def test_a_group_completes_once_its_dead_member_is_sent_back_and_succeeds(broker, add, say, runs, start):
    broken = threading.Event()
    broken.set()

    @greenq.actor(broker=broker, max_retries=0)
    def sometimes():
        if broken.is_set():
            raise ValueError("not now")

    worker = start()
    members = group([add.message(1, 2), sometimes.message()])
    members.add_completion_callback(say.message("success"))
    members.add_completion_callback(say.message("always"), on="always")
    members.run()
    broker.join("default", **JOIN)
    worker.join()  # and what comes after its verdicts
    assert told(runs) == ["always"]

    broken.clear()
    send_back(broker)

    assert sorted(told(runs)) == ["always", "success"]


class Refusing(Middleware):
    """Refuses some times to have a message stored that begins with this argument."""

    def __init__(self, argument, times):
        self.argument, self.left = argument, times

    def before_enqueue(self, broker, message, delay):
        if self.left and message.args[:1] == (self.argument,):
            self.left -= 1
            raise greenq.middleware.MiddlewareError("not now")


def test_a_group_whose_next_step_was_refused_goes_on_once_its_last_member_is_sent_back(broker, add, say, dead, start):
    broker.add_middleware(Refusing("sum", times=2))
    worker = start()
    members = group([add.message(10), add.message(20)])
    members.add_completion_callback(say.message("success"))
    pipe = (add.message(1, 2) | members | say.message("sum")).run()
    with pytest.raises(ResultFailure, match="refused"):
        pipe.get_result(**WAIT)
    broker.join("default", **JOIN)
    worker.join()  # and what comes after its verdicts
    ((letter, reason),) = dead()
    assert letter.actor_name == "add"
    assert "not now" in reason

    assert send_back(broker) == 1
    assert send_back(broker) == 1, "it is refused once more, and what was kept is still there"
    assert send_back(broker) == 0

    assert pipe.get_result(**WAIT) == ["sum", [13, 23]]


def test_a_completion_callback_that_was_refused_comes_once_the_last_member_is_sent_back(broker, add, say, runs, start):
    broker.add_middleware(Refusing("success", times=1))
    worker = start()
    members = group([add.message(1, 2), add.message(3, 4)])
    members.add_completion_callback(say.message("success"))
    members.add_completion_callback(say.message("always"), on="always")
    members.run()
    broker.join("default", **JOIN)
    worker.join()  # and what comes after its verdicts
    assert told(runs) == ["always"], "a member is dead"

    send_back(broker)

    assert sorted(told(runs)) == ["always", "success"]


def test_always_comes_though_what_follows_a_group_inside_is_refused(broker, add, say, runs, start):
    broker.add_middleware(Refusing("then", times=1))
    worker = start()
    deep = group([add.message(1, 2), add.message(3, 4)])
    inner = group([deep, add.message(5, 6)])
    outer = group([inner | say.message("then"), add.message(7, 8)])
    outer.add_completion_callback(say.message("success"))
    outer.add_completion_callback(say.message("always"), on="always")
    outer.run()
    broker.join("default", **JOIN)
    worker.join()  # and what comes after its verdicts
    assert told(runs) == ["always"]

    send_back(broker)

    assert sorted(told(runs)) == ["always", "success", "then"]


# -- groups in pipelines


def test_the_step_after_a_group_gets_the_list_of_its_results(broker, add, say, start):
    start()
    pipe = pipeline([add.message(1, 2), group([add.message(10), add.message(20)]), say.message("sum")]).run()

    assert pipe.get_result(**WAIT) == ["sum", [13, 23]]
    assert list(pipe.get_results()) == [3, [13, 23], ["sum", [13, 23]]]
    assert pipe.completed_count == 4


def test_a_message_or_a_group_may_come_before_or_after_a_group(broker, add, say, start):
    start()
    pipe = group([add.message(1, 1), add.message(2, 2)]) | say.message() | group([say.message("a"), say.message("b")])

    assert pipe.run().get_result(**WAIT) == [["a", [[2, 4]]], ["b", [[2, 4]]]]
    both = group([add.message(1, 1)]) | group([say.message("x"), say.message("y")])
    assert both.run().get_result(**WAIT) == [["x", [2]], ["y", [2]]]


def test_groups_and_pipelines_nest_in_a_pipeline(broker, add, say, start):
    start()
    inner = group([add.message(2) | add.message(3), group([add.message(4), add.message(5)]) | say.message("in")])
    pipe = add.message(0, 1) | inner | say.message("out")

    assert pipe.run().get_result(**WAIT) == ["out", [6, ["in", [5, 6]]]]


def test_the_results_of_a_group_reach_the_next_step_though_its_actors_store_none(broker, say, start):
    @greenq.actor(broker=broker, store_results=False)
    def quiet(number, *results):
        return number

    start()

    assert (group([quiet.message(1), quiet.message(2)]) | say.message()).run().get_result(**WAIT) == [[1, 2]]


def test_a_step_after_a_group_may_ignore_its_results(broker, add, say, start):
    start()
    last = say.message_with_options(args=("alone",), pipe_ignore=True)

    assert (group([add.message(1, 1), add.message(2, 2)]) | last).run().get_result(**WAIT) == ["alone"]


def test_a_member_that_fails_breaks_the_pipeline_at_once_and_ends_nothing_else(broker, add, say, fail, runs, start):
    start()
    pipe = pipeline([add.message(1, 2), group([add.message(10), fail.message()]), say.message("never")]).run()

    with pytest.raises(ResultFailure, match=r"actor fail of an earlier step .* raised ValueError: on purpose"):
        pipe.get_result(**WAIT)
    broker.join("default", **JOIN)
    assert Counter(name for name, *_ in runs) == {"add": 2, "fail": 1}


def test_a_completion_callback_of_a_group_in_a_pipeline_comes(broker, add, say, fail, runs, start):
    start()
    first, second = group([add.message(1), add.message(2)]), group([fail.message()])
    first.add_completion_callback(say.message("success"))
    second.add_completion_callback(say.message("always"), on="always")
    pipeline([add.message(0, 0), first, second, say.message("never")]).run()
    broker.join("default", **JOIN)

    assert sorted(told(runs)) == ["always", "success"]


def test_what_was_kept_of_a_groups_results_is_forgotten_when_the_next_step_is_sent(broker, results, add, say, start):
    kept = []
    store = results.store_result

    def note(message, result, ttl):
        if getattr(message, "queue_name", "") == "group":
            kept.append(message)
        store(message, result, ttl)

    results.store_result = note
    start()
    (group([add.message(1, 2), add.message(3, 4)]) | say.message()).run().get_result(**WAIT)

    assert len(kept) == 2

    def are_gone():
        for each in kept:
            try:
                results.get_result(each)
            except ResultMissing:
                continue
            return False
        return True

    until(are_gone)


def test_a_group_without_members_in_a_pipeline_is_refused(broker, add):
    with pytest.raises(ValueError, match="at least one member"):
        pipeline([add.message(1, 2), group([])])


def test_a_group_of_a_thousand_comes_to_its_next_step(broker, say, start):
    @greenq.actor(broker=broker, store_results=False)
    def count(number, *before):
        return number

    start(threads=16)
    pipe = (say.message() | group(count.message(number) for number in range(1000)) | say.message()).run()

    assert pipe.get_result(block=True, timeout=60_000) == [list(range(1000))]


# -- async actors


@pytest.fixture
def aadd(broker, runs):
    @greenq.actor(broker=broker)
    async def aadd(x, y):
        await asyncio.sleep(0)
        runs.append(("aadd", x, y))
        return x + y

    return aadd


@pytest.fixture
def afail(broker, runs):
    @greenq.actor(broker=broker, max_retries=1, min_backoff=1)
    async def afail(*args):
        await asyncio.sleep(0)
        runs.append(("afail", *args))
        raise ValueError("on purpose")

    return afail


def test_async_actors_are_steps_and_members_like_others(broker, aadd, add, say, start):
    start()
    pipe = aadd.message(1, 2) | group([aadd.message(10), add.message(20) | aadd.message(30)]) | say.message("sum")

    assert pipe.run().get_result(**WAIT) == ["sum", [13, 53]]


def test_the_callbacks_of_a_group_of_async_actors_come(broker, aadd, afail, say, runs, start):
    start()
    for name, other in (("good", aadd.message(3, 4)), ("bad", afail.message())):
        members = group([aadd.message(1, 2), other])
        members.add_completion_callback(say.message(name + " success"))
        members.add_completion_callback(say.message(name + " always"), on="always")
        members.run()
    broker.join("default", **JOIN)

    assert sorted(told(runs)) == ["bad always", "good always", "good success"]
    assert Counter(name for name, *_ in runs) == {"aadd": 3, "afail": 2, "say": 3}


def test_on_dead_of_an_async_actor_in_a_pipeline_comes_once_and_the_pipeline_is_broken(
    broker, aadd, afail, add, say, runs, start
):
    start()
    pipe = aadd.message(1, 2) | afail.message_with_options(on_dead=say) | add.message(1)

    with pytest.raises(ResultFailure, match="actor afail of an earlier step"):
        pipe.run().get_result(**WAIT)
    broker.join("default", **JOIN)

    assert runs[:-1] == [("aadd", 1, 2), ("afail", 3), ("afail", 3)]
    name, about, outcome = runs[-1]
    assert (name, about["actor_name"], about["args"]) == ("say", "afail", [3])
    assert outcome == {"reason": "ValueError: on purpose", "type": "ValueError", "message": "on purpose"}


# -- what is said of it


def test_a_group_that_the_worker_cannot_count_is_a_dead_letter_with_the_reason(broker, add, say, dead, start):
    pipe = (add.message(1, 2) | group([say.message(1)]) | say.message()).run()
    broker.middleware = [each for each in broker.middleware if not isinstance(each, GroupCallbacks)]
    start()

    with pytest.raises(ResultFailure, match="GroupCallbacks"):
        pipe.get_result(**WAIT)
    broker.join("default", **JOIN)
    ((letter, reason),) = dead()
    assert letter.actor_name == "add"
    assert "no GroupCallbacks" in reason


def test_nothing_is_logged_of_a_pipeline_that_goes_well(broker, add, say, start, caplog):
    caplog.set_level(logging.WARNING)
    start()
    (add.message(1, 2) | group([add.message(1), add.message(2)]) | say.message()).run().get_result(**WAIT)
    broker.join("default", **JOIN)

    assert caplog.records == []


# -- when something is away


def refusing(broker, monkeypatch):
    """A broker that takes each batch of verdicts at the third try, and whose answer to that is lost."""
    consume = broker.consume

    def consume_refusing(*args, **options):
        consumer = consume(*args, **options)
        complete = consumer.complete
        tries = Counter()

        def refuse(verdicts):
            batch = tuple(sorted(id(verdict) for verdict in verdicts))
            tries[batch] += 1
            if tries[batch] == 1:
                raise greenq.ConnectionClosed("refused")
            if tries[batch] == 2:
                complete(verdicts)
                raise greenq.ConnectionClosed("the answer is lost")
            return complete(verdicts)

        consumer.complete = refuse
        return consumer

    monkeypatch.setattr(broker, "consume", consume_refusing)


def test_a_broker_that_refuses_ends_no_pipeline_and_doubles_nothing(broker, add, say, runs, start, monkeypatch):
    refusing(broker, monkeypatch)
    start()
    members = group([add.message(10), add.message(20)])
    members.add_completion_callback(say.message("done"))
    pipe = (add.message(1, 2) | members | say.message("sum")).run()

    assert pipe.get_result(**WAIT) == ["sum", [13, 23]]
    broker.join("default", **JOIN)
    assert sorted(runs, key=str) == [
        ("add", 1, 2),
        ("add", 10, 3),
        ("add", 20, 3),
        ("say", "done"),
        ("say", "sum", [13, 23]),
    ]


def test_a_place_to_count_that_is_away_for_a_moment_is_waited_for(broker, limits, add, say, runs, start, monkeypatch):
    arrive, tries = limits.arrive, []

    def refuse(*args):
        tries.append(1)
        if len(tries) % 2:
            raise greenq.ConnectionClosed("away")
        return arrive(*args)

    monkeypatch.setattr(limits, "arrive", refuse)
    start()
    members = group([add.message(1, 2), add.message(3, 4)])
    members.add_completion_callback(say.message("done"))
    members.run()
    broker.join("default", **JOIN)

    assert Counter(runs) == {("add", 1, 2): 1, ("add", 3, 4): 1, ("say", "done"): 1}


def test_a_member_that_cannot_be_counted_for_long_runs_again_until_it_is(
    broker, limits, add, say, runs, start, monkeypatch, caplog
):
    monkeypatch.setattr("greenq.middleware.group_callbacks._PATIENCE_S", 0)
    arrive, tries = limits.arrive, []

    def refuse(*args):
        tries.append(1)
        if len(tries) == 1:
            raise greenq.ConnectionClosed("away")
        return arrive(*args)

    monkeypatch.setattr(limits, "arrive", refuse)
    start(threads=1)
    members = group([add.message(1, 2)])
    members.add_completion_callback(say.message("done"))
    members.run()
    broker.join("default", **JOIN)

    assert Counter(runs) == {("add", 1, 2): 2, ("say", "done"): 1}
    assert "goes back to its queue" in caplog.text


def test_a_member_whose_result_cannot_be_kept_for_long_runs_again_until_it_is(
    broker, results, add, say, runs, start, monkeypatch
):
    monkeypatch.setattr("greenq.middleware.group_callbacks._PATIENCE_S", 0)
    store, tries = results.store_result, []

    def refuse(message, *args):
        if message.queue_name == "group":
            tries.append(1)
            if len(tries) == 1:
                raise greenq.ConnectionClosed("away")
        return store(message, *args)

    monkeypatch.setattr(results, "store_result", refuse)
    start()
    pipe = (group([add.message(1, 2)]) | say.message("sum")).run()

    assert pipe.get_result(**WAIT) == ["sum", [3]]
    assert [run[:3] for run in runs] == [("add", 1, 2), ("add", 1, 2), ("say", "sum", [3])]


@pytest.mark.parametrize("broken", ["first", "member", "last"])
def test_always_comes_wherever_a_pipeline_inside_a_group_breaks(broker, say, fail, runs, start, broken):
    def step(name):
        return (fail if name == broken else say).message(name)

    start()
    members = group([step("first") | group([step("member"), say.message("beside")]) | step("last"), say.message("out")])
    members.add_completion_callback(say.message("success"))
    members.add_completion_callback(say.message("always"), on="always")
    members.run()
    broker.join("default", **JOIN)

    assert [name for name in told(runs) if name in ("success", "always")] == ["always"]
    assert runs[-1] == ("say", "always"), "it comes after everything else"
