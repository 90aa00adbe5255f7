"""What is declared on RabbitMQ, and which rung of the ladder a message waits on."""

from __future__ import annotations

import time

import pytest

from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.rabbitmq.losses import ALONE_S, HEADER, Chance, Trials, copy, losses
from greenq.brokers.rabbitmq.topology import RUNGS_MS, Topology, rung_for, wire_priority
from greenq.brokers.rabbitmq.wire import Delivery, Properties

DAY_MS = 24 * 3600 * 1000


def arguments(topology, name):
    return next(queue.arguments for queue in topology.of("default") if queue.name == name)


def test_queues_are_declared_as_dramatiq_declares_them():
    topology = Topology()

    to_the_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "default.XQ"}
    assert arguments(topology, "default") == to_the_dead
    assert arguments(topology, "default.DQ") == to_the_dead
    assert arguments(topology, "default.XQ") == {"x-message-ttl": 7 * DAY_MS}


def test_max_priority_is_declared_for_the_queue_and_its_delay_queue():
    topology = Topology(max_priority=10)

    assert arguments(topology, "default")["x-max-priority"] == 10
    assert arguments(topology, "default.DQ")["x-max-priority"] == 10
    assert "x-max-priority" not in arguments(topology, "default.XQ")


def test_quorum_queues_have_a_delivery_limit_that_is_never_met():
    topology = Topology("quorum")

    for queue in topology.of("default"):
        assert queue.arguments["x-queue-type"] == "quorum"
        # The server drops dead letters beyond a limit of its own, and each look counts.
        assert queue.arguments["x-delivery-limit"] == 2**31 - 1


def test_arguments_of_the_application_are_for_the_queue_itself():
    topology = Topology(queue_arguments={"x-max-length": 5})

    assert arguments(topology, "default")["x-max-length"] == 5
    assert "x-max-length" not in arguments(topology, "default.DQ")


@pytest.mark.parametrize("options", [{"max_priority": 0}, {"max_priority": 256}, {"queue_type": "stream"}], ids=str)
def test_what_rabbitmq_does_not_have_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RabbitmqBroker(**options)


def test_priorities_of_quorum_queues_are_refused():
    with pytest.raises(ValueError, match="Quorum queues have no max_priority"):
        RabbitmqBroker(queue_type="quorum", max_priority=5)


def test_a_name_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="too long"):
        RabbitmqBroker().declare_queue("x" * 250)


@pytest.mark.parametrize(("priority", "on_the_wire"), [(0, 0), (5, 0), (-5, 5), (-1000, 255)])
def test_a_priority_on_the_wire_is_a_byte_and_higher_is_earlier(priority, on_the_wire):
    assert wire_priority(priority) == on_the_wire


# -- the ladder


@pytest.mark.parametrize(
    ("wait_ms", "rung"),
    [
        (1, "default.DQ.16ms"),
        (16, "default.DQ.16ms"),
        (50, "default.DQ.64ms"),  # a little late, for one rung instead of three
        (100, "default.DQ.64ms"),
        (900, "default.DQ.1024ms"),
        (10_000, "default.DQ.4096ms"),
        (15_000, "default.DQ.4096ms"),
        (3_600_000, "default.DQ.1048576ms"),
        (1000 * 366 * DAY_MS, "default.DQ.1073741824ms"),
    ],
)
def test_a_message_waits_on_the_longest_rung_that_fits(wait_ms, rung):
    assert rung_for("default", wait_ms) == rung


@pytest.mark.parametrize("delay_ms", [1, 77, 1000, 15_000, 3_600_000, 30 * DAY_MS, 400 * DAY_MS])
def test_a_message_is_never_early_hardly_late_and_takes_few_rungs(delay_ms):
    left_ms, rungs = delay_ms, 0
    while left_ms > 0:
        left_ms -= int(rung_for("default", left_ms).removeprefix("default.DQ.").removesuffix("ms"))
        rungs += 1

    assert -left_ms <= min(200, max(16, delay_ms / 2))
    assert rungs <= 3 * len(RUNGS_MS) + delay_ms // RUNGS_MS[-1]


def test_the_rungs_of_a_queue_lead_to_its_delay_queue_and_lose_nothing_on_the_way():
    for rung in Topology().ladder("default"):
        assert rung.arguments["x-dead-letter-routing-key"] == "default.DQ"
        assert rung.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert rung.name == f"default.DQ.{rung.arguments['x-message-ttl']}ms"


# -- losses


def delivery(tag, count=0):
    return Delivery(b"default", tag, False, Properties(0, {HEADER: count} if count else {}), b"body")


def test_a_copy_carries_its_count_and_one_of_nothing_carries_none():
    assert copy(delivery(1), "default", 2).headers == {HEADER: 2}
    assert copy(delivery(1), "default", 0).headers is None


@pytest.mark.parametrize("count", ["many", None, -1, {}], ids=repr)
def test_a_count_that_is_none_counts_as_none(count):
    assert losses(Delivery(b"", 1, False, Properties(0, {HEADER: count}), b"")) == 0


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock, which stands still until it is set forward."""

    class Clock:
        now = 1000.0

        def forward(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def begun():
    return []


@pytest.fixture
def trials(begun):
    return Trials(lambda: begun.append(1), 3)


def judge(trials, *tags):
    return [trials.judge(delivery(tag), can_count=True) for tag in tags]


def test_only_one_message_at_a_time_has_its_last_chance(trials, begun):
    its_copy = delivery(4, 2)

    assert judge(trials, 1, 2, 3) == [Chance.ALONE, Chance.LATER, Chance.LATER]
    assert trials.next() == []
    trials.came(its_copy)
    assert trials.next() == []
    trials.ended(its_copy)
    assert trials.next() == [delivery(2)]
    assert trials.take_waiting() == [delivery(3)]
    assert begun == [1]


def test_a_copy_that_came_to_another_process_is_not_waited_for_long(trials, clock):
    judge(trials, 1, 2)

    clock.forward(trials.wait_s)

    assert trials.next() == [delivery(2)]
    assert trials.wait_s is None


def test_after_a_while_more_and_more_run_beside_each_other(trials, clock):
    judge(trials, *range(100))

    running = []
    for _ in range(4):
        clock.forward(trials.wait_s if running else ALONE_S)
        following = trials.next()
        assert judge(trials, *(each.tag for each in following)) == [Chance.BESIDE] * len(following)
        running.append(len(following))
    trials.ended(delivery(1))

    assert running == [2, 2, 4, 8]
    assert len(trials.next()) == 1


def test_nothing_is_looked_for_while_one_is_on_trial_until_others_may_run_beside_it(trials, clock):
    judge(trials, 1, 2)
    trials.came(delivery(3, 2))

    clock.forward(1)

    assert trials.wait_s == ALONE_S - 1


def test_the_next_series_begins_one_at_a_time_again(trials, clock, begun):
    judge(trials, 1)
    clock.forward(2 * ALONE_S)

    assert judge(trials, 2, 3) == [Chance.ALONE, Chance.LATER]
    assert begun == [1, 1]


def test_what_cannot_be_counted_is_not_tried_alone(trials, clock):
    assert trials.judge(delivery(1), can_count=False) is Chance.LATER
    clock.forward(ALONE_S)

    assert trials.next() == [delivery(1)]
    assert trials.judge(delivery(1), can_count=False) is Chance.BESIDE
