"""The processor: every message comes to a verdict, whatever its actor or a hook does."""

from __future__ import annotations

import pytest

import greenq


class Unreadable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_a_failure_whose_text_cannot_be_read_is_dead_lettered_like_any_other(broker, start):
    @greenq.actor(broker=broker, max_retries=0)
    def work():
        raise Unreadable

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert "Unreadable" in broker.dead_letters[0].reason


def test_throws_may_be_a_list(broker, start):
    runs = []

    @greenq.actor(broker=broker, throws=[ValueError, KeyError])
    def work():
        runs.append(1)
        raise KeyError("expected")

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert runs == [1]
    assert len(broker.dead_letters) == 1


def test_a_follow_up_for_a_queue_that_does_not_exist_makes_the_message_a_dead_letter(broker, start):
    runs = []

    class Following(greenq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            message.follow_up(greenq.Message("nowhere", "work", (), {}, {}))

    broker.add_middleware(Following())

    @greenq.actor(broker=broker)
    def work():
        runs.append(1)

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert runs == [1]
    assert "nowhere" in broker.dead_letters[0].reason


def test_a_hook_that_ends_its_slot_makes_the_message_a_dead_letter_and_costs_no_slot(broker, start):
    exits = []

    class Exiting(greenq.Middleware):
        def before_process_message(self, broker, message):
            if not exits:
                exits.append(1)
                raise SystemExit

    broker.add_middleware(Exiting())
    runs = []

    @greenq.actor(broker=broker)
    def work(number):
        runs.append(number)

    work.send(1)
    work.send(2)
    start(concurrency=1)
    broker.join("default", timeout=10_000)

    assert runs == [2]
    assert "SystemExit" in broker.dead_letters[0].reason


class Following(greenq.Middleware):
    """Has messages follow in one of the hooks."""

    def __init__(self, hook, *follow_ups, required=True):
        self.follow_ups, self.required = follow_ups, required
        setattr(self, hook, self._follow)

    def _follow(self, broker, message, **outcome):
        if message.actor_name == "work":
            for each in self.follow_ups:
                message.follow_up(each, required=self.required)


def nowhere():
    return greenq.Message("nowhere", "work", (), {}, {})


def test_what_a_hook_of_the_verdict_wants_to_follow_follows(broker, start):
    runs = []

    @greenq.actor(broker=broker)
    def follow(number):
        runs.append(number)

    @greenq.actor(broker=broker, throws=ValueError)
    def work(fails):
        if fails:
            raise ValueError

    broker.add_middleware(Following("before_ack", follow.message("acked")))
    broker.add_middleware(Following("before_nack", follow.message("nacked")))
    work.send(False)
    work.send(True)
    start()
    broker.join("default", timeout=10_000)

    assert sorted(runs) == ["acked", "nacked"]


@pytest.mark.parametrize("error", [AttributeError, OSError, RuntimeError])
def test_a_job_whose_next_step_no_encoder_can_write_is_a_dead_letter_and_runs_once(broker, start, error):
    class Encoder(greenq.JSONEncoder):
        def encode(self, data):
            if data["actor_name"] == "follow":
                raise error("cannot be written")
            return super().encode(data)

    runs = []

    @greenq.actor(broker=broker)
    def follow(what): ...

    @greenq.actor(broker=broker)
    def work():
        runs.append(1)
        return lambda: None

    before = greenq.get_encoder()
    greenq.set_encoder(Encoder())
    try:
        greenq.pipeline([work.message(), follow.message()], broker=broker).run()
        start()
        broker.join("default", timeout=10_000)
    finally:
        greenq.set_encoder(before)

    assert runs == [1]
    assert "cannot be written" in broker.dead_letters[0].reason


def test_if_one_thing_that_follows_is_refused_nothing_follows(broker, start):
    runs = []

    @greenq.actor(broker=broker)
    def follow():
        runs.append(1)

    @greenq.actor(broker=broker)
    def work(): ...

    broker.add_middleware(Following("after_process_message", follow.message(), nowhere(), follow.message()))
    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert runs == []
    assert "nowhere" in broker.dead_letters[0].reason


def test_what_is_refused_in_a_hook_of_the_ack_makes_the_message_a_dead_letter(broker, start):
    runs = []

    @greenq.actor(broker=broker)
    def follow():
        runs.append(1)

    @greenq.actor(broker=broker)
    def work(): ...

    broker.add_middleware(Following("after_process_message", follow.message()))
    broker.add_middleware(Following("before_ack", nowhere()))
    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert runs == []
    assert [letter.actor_name for letter in broker.dead_letters] == ["work"]
    assert "nowhere" in broker.dead_letters[0].reason


def test_a_retry_is_not_lost_and_not_doubled_by_what_is_refused_beside_it(broker, start):
    runs = []

    @greenq.actor(broker=broker, min_backoff=1, max_retries=1)
    def work():
        runs.append(1)
        raise ValueError("on purpose")

    broker.add_middleware(Following("after_process_message", nowhere(), required=False))
    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert runs == [1, 1]
    assert [letter.reason for letter in broker.dead_letters] == ["ValueError: on purpose"]


def test_a_message_that_a_hook_gives_back_runs_again(broker, start):
    runs = []

    class Once(greenq.Middleware):
        def before_ack(self, broker, message):
            if len(runs) == 1:
                message.give_back()

    broker.add_middleware(Once())

    @greenq.actor(broker=broker)
    def work():
        runs.append(1)

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert runs == [1, 1]


def test_what_tells_of_a_large_message_leaves_out_its_traceback(broker, start):
    told = []

    @greenq.actor(broker=broker)
    def note(about):
        told.append(about)

    @greenq.actor(broker=broker, throws=ValueError)
    def work():
        raise ValueError

    room = greenq.message.MAX_MESSAGE_BYTES - 3000
    about = {"args": ["x" * room], "options": {"traceback": "y" * 5000, "other": 1}}
    broker.add_middleware(Following("before_nack", note.message(about), required=False))
    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert [each["options"] for each in told] == [{"other": 1}]
    assert "traceback" in about["options"], "the message that it tells of is another one's"


def test_nothing_is_left_out_of_what_follows_a_success(broker, start):
    @greenq.actor(broker=broker)
    def work(*args): ...

    about = {"options": {"traceback": "y" * greenq.message.MAX_MESSAGE_BYTES}}
    broker.add_middleware(Following("after_process_message", work.message(about)))
    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert "MessageTooLarge" in broker.dead_letters[0].reason
