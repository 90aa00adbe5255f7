"""The form that compositions have inside messages, without a worker."""

from __future__ import annotations

import pytest

import greenq
from greenq import group, pipeline
from greenq.brokers.stub import StubBroker
from greenq.composition.chain import followers, head_of, launch, messages_in, steps_after, steps_of
from greenq.consumer import MessageProxy
from greenq.middleware import GroupCallbacks
from greenq.rate_limits.backends import StubBackend


def message(name, *args, **options):
    return greenq.Message("default", name, args, {}, options)


def names(steps):
    return [step["actor_name"] for step in messages_in(steps)]


def test_each_message_of_a_pipeline_has_the_next_one_nested_in_it():
    first, second, third = pipeline([message("a"), message("b"), message("c")]).messages

    assert first.options == {"pipe_target": second.asdict()}
    assert second.options == {"pipe_target": third.asdict()}
    assert third.options == {}


def test_the_messages_of_a_pipeline_are_copies():
    a, b = message("a"), message("b")

    pipeline([a, b])

    assert a.options == {}


def test_pipelines_inside_a_pipeline_become_steps_of_it():
    inner = pipeline([message("b"), message("c")])
    pipe = pipeline([message("a"), inner, message("d")])

    assert len(pipe) == 4
    assert [each.actor_name for each in pipe.messages] == ["a", "b", "c", "d"]
    assert repr(message("a") | inner) == "pipeline([a(), b(), c()])"
    assert repr(inner | message("a")) == "pipeline([b(), c(), a()])"


def test_a_message_that_was_part_of_another_pipeline_forgets_it():
    first, _ = pipeline([message("a"), message("b")]).messages

    assert pipeline([message("x"), first]).messages[-1].options == {}


def test_a_group_keeps_its_children_and_says_what_they_are():
    members = group([message("a"), message("b") | message("c"), group([message("d")])])

    assert len(members) == 3
    assert repr(members) == "group([a(), pipeline([b(), c()]), group([d()])])"


@pytest.mark.parametrize("make", [group, pipeline])
def test_what_cannot_be_composed_is_refused(make):
    with pytest.raises(TypeError, match="messages"):
        make([message("a"), "b"])


def test_a_pipeline_without_steps_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        pipeline([])


def test_composing_needs_no_broker():
    assert greenq.broker._global_broker is None

    group([message("a") | message("b")]) | message("c")

    assert greenq.broker._global_broker is None


@pytest.mark.parametrize("count", [1, 2, 8, 9, 10, 200])
def test_a_chain_of_any_length_is_read_as_it_was_written_and_fits_into_a_message(count):
    steps = [message(f"step{number}").asdict() for number in range(count)]

    ((first, _),) = launch(steps)

    assert [first.actor_name, *names(steps_after(first.options))] == [step["actor_name"] for step in steps]
    assert names(steps_after(greenq.Message.decode(first.encode()).options)) == names(steps[1:])
    assert names(steps_of(head_of(steps))) == names(steps)


def test_a_chain_that_another_program_nested_deeply_goes_on():
    head = message("last").asdict()
    for number in range(20):
        head = message(f"step{number}", pipe_target=head).asdict()

    ((first, _),) = launch(steps_of(head))

    assert len(names(steps_after(first.options))) == 20
    assert first.encode()


def test_those_who_come_after_a_message_are_all_later_steps_of_all_pipelines_around_it():
    inner = group([message("b") | message("c"), message("x")]) | message("d")
    pipe = message("a") | group([inner, message("y")]) | message("e")
    ((first, _),) = launch(pipe.steps())
    assert sorted(names(followers_of(first))) == ["b", "c", "d", "e", "x", "y"]

    launched = {each.actor_name: each for each, _ in launch(steps_after(first.options))}

    assert sorted(launched) == ["b", "x", "y"]
    assert names(followers_of(launched["b"])) == ["c", "d", "e"]
    assert names(followers_of(launched["x"])) == ["d", "e"]
    assert names(followers_of(launched["y"])) == ["e"]


def followers_of(message):
    return list(followers(message.options))


def test_a_group_that_nothing_comes_of_is_not_counted():
    launched = launch([group([message("a"), group([message("b")])]).step()])

    assert [each.options for each, _ in launched] == [{}, {}]


def test_the_larger_delay_counts_and_0_is_none():
    def delay_of(own, given):
        ((_, delay),) = launch([message("a", **({} if own is None else {"delay": own})).asdict()], delay=given)
        return delay

    assert [delay_of(None, 5), delay_of(5, None), delay_of(3, 5), delay_of(5, 3)] == [5, 5, 5, 5]
    assert [delay_of(None, None), delay_of(0, None), delay_of(None, 0)] == [None, None, None]


# -- GroupCallbacks


def test_the_barrier_ttl_is_a_day_or_what_is_given_or_in_the_environment(monkeypatch):
    assert GroupCallbacks(StubBackend()).barrier_ttl == 86_400_000
    monkeypatch.setenv("GREENQ_GROUP_CALLBACK_BARRIER_TTL", "5000")
    assert GroupCallbacks(StubBackend()).barrier_ttl == 5000
    assert GroupCallbacks(StubBackend(), barrier_ttl=7000).barrier_ttl == 7000


def test_a_group_is_remembered_for_the_barrier_ttl():
    ttls = []

    class Noting(StubBackend):
        def arrive(self, key, member, parties, ttl):
            ttls.append(ttl)
            return super().arrive(key, member, parties, ttl)

    counting = GroupCallbacks(Noting(), barrier_ttl=1234)
    members = group([message("a"), message("b")])
    members.add_completion_callback(message("c"))
    (member, _), _ = launch([members.step()])
    proxy = MessageProxy(member)
    proxy._has_succeeded = True

    counting.before_ack(StubBroker(), proxy)

    assert ttls == [1234]


def test_a_retry_and_a_step_that_has_a_next_one_count_nothing():
    class Counting(StubBackend):
        def arrive(self, key, member, parties, ttl):
            raise AssertionError("counted")

    members = group([message("a") | message("b")])
    members.add_completion_callback(message("c"))
    ((member, _),) = launch([members.step()])
    step, retry = MessageProxy(member), MessageProxy(member._replace(options={"group_member": {"no": "frame"}}))
    step._has_succeeded = True
    retry.release(5)

    for proxy in (step, retry):
        GroupCallbacks(Counting()).before_ack(StubBroker(), proxy)

    assert not step.failed
    assert not retry.failed


def test_a_frame_of_another_program_that_makes_no_sense_fails_the_message():
    proxy = MessageProxy(message("a", group_member={"no": "frame"}))
    proxy._has_succeeded = True

    GroupCallbacks(StubBackend()).before_ack(StubBroker(), proxy)

    assert proxy.failed
    assert "group" in proxy.reason
