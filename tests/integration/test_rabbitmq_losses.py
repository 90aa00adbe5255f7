"""What becomes of messages that were lost with their workers: the last chance, and the death after it.

Those that are lost with a connection alone are in test_rabbitmq_outages.py. Runs in both worlds.
"""

from __future__ import annotations

import threading
import time

import pytest

import greenq
from greenq import group
from greenq.brokers.rabbitmq import RabbitmqBroker, losses
from greenq.errors import ConnectionFailed, ResultFailure
from greenq.middleware import Callbacks, GroupCallbacks, Pipelines
from greenq.rate_limits.backends import StubBackend as Limits
from greenq.results import Results
from greenq.results.backends import StubBackend
from tests.contract.fetching import acks, message, names, requeues, take, take_one
from tests.support.rabbitmq_losses import cut_off, mark_all, publish_marked
from tests.support.rabbitmq_server import shared_server
from tests.support.waiting import PATIENCE_S, happens, until


@pytest.fixture
def vhost():
    with shared_server().vhost() as vhost:
        yield vhost


@pytest.fixture
def broker(vhost):
    broker = RabbitmqBroker(url=vhost.url, middleware=[])
    broker.declare_queue("default")
    yield broker
    broker.close()


def consume(broker, prefetch=10):
    return broker.consume("default", prefetch=prefetch, timeout=PATIENCE_S * 1000)


@pytest.fixture
def start(broker):
    """Starts a worker that is stopped after the test."""
    workers = []

    def start():
        workers.append(greenq.Worker(broker, worker_threads=4, worker_timeout=100))
        workers[-1].start()

    yield start
    for each in workers:
        each.stop(PATIENCE_S * 1000)


# -- the death of a message that was lost three times


def test_whoever_waits_for_a_message_that_was_lost_three_times_is_told_of_its_death(broker, start):
    results = Results(backend=StubBackend(), store_results=True)
    for each in (Pipelines(), Callbacks(), results, GroupCallbacks(Limits())):
        broker.add_middleware(each)
    ran, told, ended = [], [], threading.Event()

    @greenq.actor(broker=broker)
    def work(number):
        ran.append(number)

    @greenq.actor(broker=broker)
    def note(message, outcome):
        told.append((message["message_id"], outcome["reason"]))

    @greenq.actor(broker=broker)
    def tell_of_the_end():
        ended.set()

    killer = work.message_with_options(args=(1,), on_dead="note")
    last = work.message_with_options(args=(2,), pipe_ignore=True)
    members = group([killer | last], broker=broker)
    members.add_completion_callback(tell_of_the_end.message(), on="always")
    members.run()
    mark_all(broker, 2)

    start()

    reason = "Its worker, or that one's connection, was lost 3 times while it had this message."
    with pytest.raises(ResultFailure, match=reason):
        killer.get_result(backend=results.backend, block=True, timeout=PATIENCE_S * 1000)
    with pytest.raises(ResultFailure, match=f"actor work of an earlier step.*{reason}"):
        members.wait(timeout=PATIENCE_S * 1000)
    happens(ended)
    until(lambda: told == [(killer.message_id, reason)])
    broker.join("default", 3, 20, timeout=PATIENCE_S * 1000)
    (dead,) = broker.dead_letters_of("default").each()
    assert (dead.message.message_id, dead.reason, dead.deliveries) == (killer.message_id, reason, 3)
    assert ran == []


@pytest.mark.parametrize(("most", "given_up"), [(5, [4]), (2, [2, 4]), (0, []), (None, [])])
def test_the_number_of_losses_after_which_a_message_is_given_up_can_be_chosen(vhost, most, given_up):
    chosen = RabbitmqBroker(url=vhost.url, middleware=[], max_deliveries=most)
    publish_marked(chosen, 0, 2, 4)

    fetched = take(chosen.consume("default", prefetch=10, timeout=PATIENCE_S * 1000), 3)

    assert sorted(names(each for each in fetched if each.failed)) == given_up
    chosen.close()


def test_a_message_that_was_given_up_and_goes_back_is_given_up_again(broker):
    publish_marked(broker, 2)
    consumer = consume(broker)

    first = take_one(consumer)
    consumer.complete(requeues([first]))
    second = take_one(consumer)
    consumer.rest()
    consumer.complete(requeues([second]))
    third = take_one(consumer)

    assert [(each.failed, each.deliveries) for each in (first, second, third)] == [(True, 3)] * 3
    consumer.close()


def test_connections_that_each_process_alone_has_lost_are_counted_and_named_in_the_reason(broker, vhost):
    broker.enqueue(message("healthy"))
    others = [RabbitmqBroker(url=vhost.url, middleware=[]) for _ in range(4)]
    counts = []

    for each in others:
        each.declare_queue("default")
        consumer = consume(each)
        held = take_one(consumer)
        counts.append(held.deliveries)
        cut_off(consumer)

    assert counts == [0, 1, 2, 3]
    assert held.failed
    assert held.reason == "Its worker, or that one's connection, was lost 3 times while it had this message."
    for each in others:
        each.close()


def test_what_stopping_workers_give_back_is_counted_once_and_does_not_add_up(broker):
    broker.enqueue(message("healthy"))
    counts = []

    for _ in range(6):
        consumer = consume(broker)
        held = take_one(consumer)
        counts.append(held.deliveries)
        consumer.rest()
        consumer.complete(requeues([held]))
        consumer.close()

    assert counts == [0, 1, 0, 1, 0, 1]


# -- the last chance before that


def about_trials(caplog):
    return [each.levelname for each in caplog.records if "run one at a time" in each.message]


def test_messages_under_suspicion_run_one_after_the_other_and_nobody_polls_for_the_end_of_one(broker, caplog):
    caplog.set_level("INFO")
    publish_marked(broker, 1, 1, 1)
    consumer = consume(broker)
    inbox = consumer._inbox

    for number in range(3):
        on_trial = take_one(consumer)
        assert on_trial.deliveries == 2
        if number < 2:
            until(lambda: inbox._looking is not None)
            assert inbox._looking_at > time.monotonic() + 1
        consumer.complete(acks([on_trial]))

    assert about_trials(caplog) == ["INFO"]
    consumer.close()


def test_a_backlog_under_suspicion_is_not_run_one_at_a_time_for_long(broker, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(losses, "ALONE_S", 0.5)
    monkeypatch.setattr(losses, "_DOUBLED_EVERY_S", 0.1)
    publish_marked(broker, *[1] * 100)
    consumer = consume(broker, prefetch=100)

    # None of them ends before all of them run.
    running = take(consumer, 100)

    assert [each.deliveries for each in running] == [2] + [1] * 99
    assert about_trials(caplog) == ["INFO"]
    consumer.complete(acks(running))
    until(lambda: consumer._subscription.in_hand == 0)
    consumer.close()


def test_messages_that_ran_beside_each_other_go_back_as_they_came(broker, monkeypatch):
    monkeypatch.setattr(losses, "ALONE_S", 0.0)
    publish_marked(broker, 1, 1, 1)
    consumer = consume(broker)
    first = take(consumer, 3)

    consumer.rest()
    consumer.complete(requeues(first))
    monkeypatch.undo()
    again = take_one(consumer)

    assert [each.deliveries for each in first] == [1, 1, 1]
    assert again.deliveries == 1
    consumer.close()


def test_messages_that_wait_for_their_last_chance_are_dropped_with_all_others(broker):
    publish_marked(broker, 1, 1)
    consumer = consume(broker)
    on_trial = take_one(consumer)
    until(lambda: consumer._inbox._looking is not None)

    broker.flush("default")
    consumer.complete(acks([on_trial]))

    until(lambda: consumer._subscription.in_hand == 0)
    assert consumer.fetch(10) == []
    consumer.close()
    assert broker.get_queue_message_counts("default") == (0, 0, 0)


# -- where a loss cannot be counted


def test_messages_of_a_lost_worker_run_though_their_queue_is_full(vhost, monkeypatch):
    monkeypatch.setattr(losses, "ALONE_S", 0.5)
    limit = {"x-max-length": 2, "x-overflow": "reject-publish"}
    broker, killed = (RabbitmqBroker(url=vhost.url, middleware=[], queue_arguments=limit) for _ in range(2))
    for each in (broker, killed):
        each.declare_queue("default")
    publish_marked(broker, 0)
    broker.enqueue(message("new"))
    theirs = consume(killed, prefetch=2)
    assert sorted(each.deliveries for each in take(theirs, 2)) == [0, 1]
    for _ in range(2):
        broker.enqueue(message("filling"))
    with pytest.raises(ConnectionFailed, match="refused"):
        broker.enqueue(message("one too many"))
    cut_off(theirs)

    # One of them has its last chance now; both run as they came, because the queue stays full.
    consumer = consume(broker, prefetch=2)
    running = take(consumer, 2)

    assert sorted((each.deliveries, *each.args) for each in running) == [(0, "new"), (1, 0)]
    consumer.complete(acks(running))
    assert names(take(consumer, 2)) == ["filling", "filling"]
    for each in (broker, killed):
        each.close()
