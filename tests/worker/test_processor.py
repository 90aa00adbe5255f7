"""The processor: every message comes to a verdict, whatever its actor or a hook does."""

from __future__ import annotations

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
