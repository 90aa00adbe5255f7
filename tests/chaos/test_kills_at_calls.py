"""Nothing is lost, and nothing done twice without need, at whichever call to its broker a process is killed.

Workers and senders are processes of their own, killed by SIGKILL before a call, within its
transaction, or after it. What a message holds that follows from another one is stored in the step
in which that one is settled, so there is no state in between. RabbitMQ knows no such steps: what
holds there is in test_rabbitmq_kills.py.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

import greenq
from tests.support.places import KINDS, Place
from tests.support.rabbitmq_server import shared_server as shared_rabbitmq
from tests.support.redis_server import shared_server as shared_redis
from tests.support.stage import Stage, nurseries
from tests.support.waiting import until

pytestmark = pytest.mark.starts_both_worlds

MOMENTS = ["before", "amid", "after"]

#: Short, where leases have to run out: the worker that waits for that must keep its own meanwhile.
LEASE_MS = 1000


@pytest.fixture(scope="module")
def nursery():
    with nurseries() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def vhosts():
    """For each kind of queue the URL of a virtual host of its own, whose queues need not be made for each test."""
    with ExitStack() as resources:
        found = {}

        def url_of(kind):
            if kind not in found:
                found[kind] = resources.enter_context(shared_rabbitmq().vhost()).url
            return found[kind]

        yield url_of


@pytest.fixture
def open_stage(nursery, vhosts, tmp_path):
    opened = []

    def open_stage(kind, *, patched=True, lease_ms=None):
        if kind == "sqlite":
            address = str(tmp_path / "queue.db")
        elif kind == "redis":
            if not opened:
                shared_redis().client().flushall()  # what the workers of an earlier test held would come back
            address = shared_redis().url
        else:
            address = vhosts(kind)
        opened.append(Stage(Place(kind, address, lease_ms), tmp_path / "ledger", nursery(patched)))
        return opened[-1]

    yield open_stage
    for each in opened:
        each.close()


@pytest.fixture
def stage(open_stage, kind, patched):
    return open_stage(kind, patched=patched)


def in_both_worlds(test):
    return pytest.mark.parametrize("patched", [True, False], ids=["greenlets", "threads"])(on_each_broker(test))


def on_greenlets(test):
    return pytest.mark.parametrize("patched", [True], ids=["greenlets"])(on_each_broker(test))


def on_each_broker(test):
    return pytest.mark.parametrize("kind", ["sqlite", "redis"])(test)


def outcomes(kind, moment, before, after):
    """What may come of a kill at this moment of a step: it was done, or not."""
    if moment == "amid" and kind == "redis":
        return [before, after]  # it was sent, and may have come too late
    return [after if moment == "after" else before]


@in_both_worlds
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_message_whose_worker_is_killed_as_it_fetches_it_runs_once(stage, moment):
    stage.send("work", "it")

    stage.kill_a_worker(f"{moment} fetch")

    stage.ends_as({("it", 0): 1})


@pytest.mark.parametrize("kind", ["redis"])
@pytest.mark.parametrize("patched", [True, False], ids=["greenlets", "threads"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_message_whose_worker_is_killed_as_its_wait_claims_it_runs_once(stage, moment):
    # While the first is run the consumer begins to wait, and sends the claim of the second behind that.
    stage.send("work", "first")
    stage.start_worker(f"{moment} claim")
    if moment != "before":
        until(lambda: stage.ledger.runs() == {("first", 0): 1})
        until(lambda: stage.broker.queue_counts("default").reserved == 0)
        stage.send("work", "second")
    stage.expect_death()
    if moment == "before":
        stage.send("work", "second")

    ran = [1, 2] if moment == "before" else [1]  # then its ack may not have been written
    stage.ends_as(*({("first", 0): times, ("second", 0): 1} for times in ran))


@in_both_worlds
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_message_whose_worker_is_killed_after_it_ran_runs_again_only_if_its_ack_was_not_written(stage, kind, moment):
    stage.send("work", "it")

    stage.kill_a_worker(f"{moment} settle")

    stage.ends_as(*outcomes(kind, moment, {("it", 0): 2}, {("it", 0): 1}))


@on_greenlets
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_retry_takes_the_place_of_its_message_in_one_step(stage, kind, moment):
    stage.send("fail_once", "it")

    stage.kill_a_worker(f"{moment} settle")

    stage.ends_as(*outcomes(kind, moment, {("it", 0): 2, ("it", 1): 1}, {("it", 0): 1, ("it", 1): 1}))
    assert len({each.message_id for each in stage.ledger.entries("started")}) == 1


@on_greenlets
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_step_of_a_pipeline_is_stored_as_the_one_before_is_settled(stage, kind, moment):
    # In a queue of its own, which the worker that dies does not consume.
    first, second = (stage.broker.get_actor(name) for name in ("work", "work_elsewhere"))
    greenq.pipeline([first.message("it"), second.message("next")], broker=stage.broker).run()

    stage.kill_a_worker(f"{moment} settle")

    stage.ends_as(*outcomes(kind, moment, {("it", 0): 2, ("next", 0): 1}, {("it", 0): 1, ("next", 0): 1}))
    assert len({each.message_id for each in stage.ledger.entries("started")}) == 2


@on_greenlets
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_callback_of_a_group_is_stored_as_its_last_member_is_settled(stage, kind, moment):
    group = greenq.group([stage.broker.get_actor("work").message("it")], broker=stage.broker)
    group.add_completion_callback(stage.broker.get_actor("work_elsewhere").message("callback"))
    group.run()

    stage.kill_a_worker(f"{moment} settle")

    stage.ends_as(*outcomes(kind, moment, {("it", 0): 2, ("callback", 0): 1}, {("it", 0): 1, ("callback", 0): 1}))


@on_greenlets
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_message_dies_in_one_step(stage, kind, moment):
    stage.send("die", "it")

    stage.kill_a_worker(f"{moment} settle")

    stage.ends_as(*outcomes(kind, moment, {("it", 0): 2, "dead": 1}, {("it", 0): 1, "dead": 1}))


@on_greenlets
@pytest.mark.parametrize("moment", MOMENTS)
def test_what_a_stopping_worker_gives_back_runs_again_whenever_it_is_killed_at_that(stage, moment):
    stage.send("hold", "interrupted")
    stage.start_worker(f"{moment} settle", slots=1)
    until(lambda: stage.ledger.runs() == {("interrupted", 0): 1})

    stage.stop_the_worker()
    stage.expect_death()

    stage.ends_as({("interrupted", 0): 2})


@on_greenlets
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_delayed_message_whose_worker_is_killed_as_it_fetches_it_runs_once_and_not_early(stage, moment):
    sent = stage.send("work", "it", delay=300)

    stage.kill_a_worker(f"{moment} fetch")

    stage.ends_as({("it", 0): 1})
    (started,) = stage.ledger.entries("started")
    assert started.message_id == sent.message_id
    assert started.at_ms >= sent.options["eta"]


#: The calls that store what is sent, and how often it runs after a kill there.
SENDS = {
    **{("sqlite", f"{moment} enqueue"): [int(moment == "after")] for moment in ("before", "after")},
    ("redis", "before enqueue"): [0],
    ("redis", "amid enqueue"): [0, 1],
    ("redis", "after enqueue"): [1],
    **{
        (kind, death): runs
        for kind in KINDS
        if kind.startswith("rabbitmq")
        for death, runs in {
            "before publish": [0],
            "after publish": [0, 1],
            "before confirm": [1],
            "after confirm": [1],
        }.items()
    },
}


@pytest.mark.parametrize(("kind", "death"), list(SENDS))
@pytest.mark.parametrize("patched", [False, True], ids=["threads", "greenlets"])
def test_a_message_whose_sender_is_killed_is_stored_once_or_not_at_all(stage, kind, death):
    stage.kill_a_sender(death, "it")

    stage.send("work", "another")
    stage.ends_as(*({("another", 0): 1, **({("it", 0): runs} if runs else {})} for runs in SENDS[kind, death]))


@on_each_broker
@pytest.mark.parametrize("moment", MOMENTS)
def test_what_a_worker_holds_that_is_killed_as_it_renews_its_lease_runs_again(open_stage, kind, moment):
    if (kind, moment) == ("sqlite", "amid"):
        moment = "after"  # one statement, which is a transaction of its own
    stage = open_stage(kind, lease_ms=LEASE_MS)
    stage.send("hold", "it")

    stage.kill_a_worker(f"{moment} renew", once_it_runs_one=True)

    stage.ends_as({("it", 0): 2})


@on_greenlets
@pytest.mark.parametrize("moment", MOMENTS)
def test_what_a_dead_worker_held_runs_again_if_the_one_who_returns_it_is_killed_at_that(stage, moment):
    stage.send("work", "it")
    stage.kill_a_worker("before settle")
    (dead,) = stage.worker_ids()

    stage.kill_a_worker(f"{moment} take back", queues=["elsewhere"], takes_back=dead)

    stage.ends_as({("it", 0): 2})


@on_each_broker
@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_a_dead_worker_held_runs_again_if_the_one_who_sees_its_lease_end_is_killed_at_that(
    open_stage, kind, moment
):
    stage = open_stage(kind, lease_ms=LEASE_MS)
    stage.send("work", "it")
    stage.kill_a_worker("before settle")

    stage.kill_a_worker(f"{moment} take back expired", slots=1)

    # After it, the one that is killed may have begun what it returned in the same moment.
    runs = [2, 3] if moment == "after" else [2]
    stage.ends_as(*({("it", 0): times} for times in runs))
