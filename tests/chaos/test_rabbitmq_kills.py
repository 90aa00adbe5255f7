"""Nothing is lost on RabbitMQ at whichever call to it a worker is killed.

The server knows no step that settles a message and stores what follows from it: what follows is
stored and confirmed first. So in between both are there, and what was to be done runs twice;
never is neither there.
"""

from __future__ import annotations

import pika
import pytest

import greenq
from greenq.clock import now_ms
from tests.support.places import QUEUES, Place
from tests.support.rabbitmq_server import shared_server
from tests.support.stage import Stage, nurseries
from tests.support.waiting import until

PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture(scope="module")
def places():
    """For each kind of queue the URL of a virtual host of its own, whose queues need not be made for each test."""
    with shared_server().vhost() as classic, shared_server().vhost() as quorum:
        yield {"classic": classic.url, "quorum": quorum.url}


@pytest.fixture(scope="module")
def nursery():
    with nurseries() as nursery:
        yield nursery


@pytest.fixture
def stage(places, nursery, kind, patched, tmp_path):
    stage = Stage(Place(f"rabbitmq-{kind}", places[kind]), tmp_path / "ledger", nursery(patched))
    yield stage
    stage.close()


#: What can be left of a message from which something follows: it alone, both, or what follows.
LEFT = {
    "before publish": ["it"],
    "after publish": ["it", "both"],
    "before confirm": ["both"],
    "after confirm": ["both"],
    "before ack": ["both"],
    "after ack": ["both", "what follows"],
}


#: How often a message runs from which nothing follows.
RUNS = {"before fetch": [1], "after fetch": [1], "before ack": [2], "after ack": [1, 2]}


def at_each_call(test):
    kinds = pytest.mark.parametrize(("kind", "patched"), [("classic", True), ("quorum", True)])
    return pytest.mark.starts_both_worlds(kinds(pytest.mark.parametrize("death", list(LEFT))(test)))


@pytest.mark.starts_both_worlds
@pytest.mark.parametrize(("kind", "patched"), [("classic", True), ("quorum", True), ("classic", False)])
@pytest.mark.parametrize("death", list(RUNS))
def test_a_message_whose_worker_is_killed_runs_again_only_if_it_ran_and_its_ack_did_not_arrive(stage, death):
    stage.send("work", "it")

    stage.kill_a_worker(death)

    stage.ends_as(*({("it", 0): times} for times in RUNS[death]))


@at_each_call
def test_a_retry_is_stored_before_its_message_is_acknowledged(stage, death):
    stage.send("fail_once", "it")

    stage.kill_a_worker(death)

    outcomes = {
        "it": {("it", 0): 2, ("it", 1): 1},
        "both": {("it", 0): 2, ("it", 1): 2},
        "what follows": {("it", 0): 1, ("it", 1): 1},
    }
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))
    assert len({each.message_id for each in stage.ledger.entries("started")}) == 1


@at_each_call
def test_the_next_step_is_stored_before_its_message_is_acknowledged(stage, death):
    # In a queue of its own, which the worker that dies does not consume.
    first, second = (stage.broker.get_actor(name) for name in ("work", "work_elsewhere"))
    greenq.pipeline([first.message("it"), second.message("next")], broker=stage.broker).run()

    stage.kill_a_worker(death)

    outcomes = {
        "it": {("it", 0): 2, ("next", 0): 1},
        "both": {("it", 0): 2, ("next", 0): 2},
        "what follows": {("it", 0): 1, ("next", 0): 1},
    }
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))
    assert len({each.message_id for each in stage.ledger.entries("started")}) == 2


@at_each_call
def test_a_delayed_message_is_stored_on_the_next_rung_before_it_is_acknowledged(stage, death):
    # As if it came from a rung, to a worker that is there: it has to look at it before it is due.
    channel = stage.broker.channel
    stage.start_worker(death)
    until(lambda: channel.queue_declare("default.DQ", passive=True).method.consumer_count == 1)
    delayed = stage.broker.get_actor("work").message_with_options(args=("it",), eta=now_ms() + 700)
    channel.basic_publish("", "default.DQ", delayed.encode(), PERSISTENT)

    stage.expect_death()

    outcomes = {"it": {("it", 0): 1}, "both": {("it", 0): 2}, "what follows": {("it", 0): 1}}
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))
    for each in stage.ledger.entries("started"):
        assert each.message_id == delayed.message_id
        assert each.at_ms >= delayed.options["eta"]


@at_each_call
def test_a_dead_letter_is_stored_before_its_message_is_acknowledged(stage, death):
    stage.send("die", "it")

    stage.kill_a_worker(death)

    outcomes = {
        "it": {("it", 0): 2, "dead": 1},
        "both": {("it", 0): 2, "dead": 2},
        "what follows": {("it", 0): 1, "dead": 1},
    }
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))


@at_each_call
def test_a_message_is_stored_with_its_count_of_losses_before_the_one_without_is_acknowledged(stage, death):
    stage.send("work", "it")
    stage.kill_a_worker("before ack")

    stage.kill_a_worker(death)

    outcomes = {"it": {("it", 0): 2}, "both": {("it", 0): 3}, "what follows": {("it", 0): 2}}
    stage.ends_as(*(outcomes[left] for left in LEFT[death]))


@pytest.mark.starts_both_worlds
@pytest.mark.parametrize(("kind", "patched"), [("classic", True), ("quorum", True), ("classic", False)])
@pytest.mark.parametrize("death", ["before return", "after return"])
def test_what_a_stopping_worker_gives_back_runs_again_only_if_it_was_interrupted(stage, death):
    stage.send("hold", "interrupted")
    stage.start_worker(death, slots=1, queues=QUEUES)
    until(lambda: stage.ledger.runs() == {("interrupted", 0): 1})
    stage.send("work_elsewhere", "sent ahead")
    until(lambda: stage.broker.get_queue_message_counts("elsewhere") == (0, 0, 0))

    stage.stop_the_worker()
    stage.expect_death()

    stage.ends_as({("interrupted", 0): 2, ("sent ahead", 0): 1})
