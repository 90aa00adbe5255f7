"""A worker runs what is in the queues."""

from __future__ import annotations

import threading
import time

import pytest

import greenq
from tests.support.recorder import Recorder
from tests.support.waiting import happens

from .fetching import message, names, take

JOIN = {"timeout": 20_000}


def dead_reasons(dead, queue_name="default"):
    return [reason for _, reason in dead(queue_name)]


def test_an_actor_runs_with_the_arguments_it_was_sent(broker, start):
    ran = []

    @greenq.actor(broker=broker)
    def work(*args, **kwargs):
        ran.append((args, kwargs))

    work.send(1, "two", three=[3])
    start()
    broker.join("default", **JOIN)

    assert ran == [((1, "two"), {"three": [3]})]


def test_every_message_runs_once(broker, start):
    ran = []

    @greenq.actor(broker=broker)
    def work(number):
        ran.append(number)

    start()
    for number in range(300):
        work.send(number)
    broker.join("default", **JOIN)

    assert sorted(ran) == list(range(300))


def test_a_queue_that_is_declared_after_the_start_is_consumed(broker, start):
    ran = threading.Event()
    start()

    @greenq.actor(broker=broker, queue_name="late")
    def work():
        ran.set()

    work.send()

    happens(ran)


def test_a_delayed_message_runs_when_it_is_due(broker, start):
    ran = []

    @greenq.actor(broker=broker)
    def work(due):
        ran.append(time.time() * 1000 - due)

    start()
    work.send_with_options(args=(time.time() * 1000 + 100,), delay=100)
    broker.join("default", **JOIN)

    assert len(ran) == 1
    assert ran[0] >= -1  # both clocks are rounded to a millisecond


def test_an_actor_that_is_sent_by_an_actor_runs(broker, start):
    ran = []

    @greenq.actor(broker=broker)
    def second(value):
        ran.append(value)

    @greenq.actor(broker=broker)
    def first(value):
        second.send(value + 1)

    first.send(1)
    start()
    broker.join("default", **JOIN)

    assert ran == [2]


def test_a_message_for_an_unknown_actor_is_a_dead_letter_and_the_next_one_runs(broker, start, dead):
    ran = threading.Event()

    @greenq.actor(broker=broker)
    def work():
        ran.set()

    broker.enqueue(message(1, actor_name="nobody"))
    work.send()
    start(threads=1)
    broker.join("default", **JOIN)

    assert ran.is_set()
    (letter, reason), *others = dead()
    assert letter.actor_name == "nobody"
    assert "nobody" in reason
    assert others == []


def test_bytes_that_are_no_message_become_a_dead_letter_and_the_next_one_runs(broker, start, dead, put):
    ran = threading.Event()

    @greenq.actor(broker=broker)
    def work():
        ran.set()

    put(b"no message")
    work.send()
    start(threads=1)
    broker.join("default", **JOIN)

    assert ran.is_set()
    assert [payload for payload, _ in dead()] == [b"no message"]


def test_options_of_a_wrong_type_make_a_dead_letter_that_says_which(broker, start, dead):
    ran = []

    @greenq.actor(broker=broker)
    def work():
        ran.append(1)

    for name, value in {"max_retries": "many", "time_limit": [], "retries": None, "max_age": "old"}.items():
        work.send_with_options(**{name: value})
    start(threads=1)
    broker.join("default", **JOIN)

    assert ran == []
    assert len(dead()) == 4
    for name, reason in zip(("max_retries", "time_limit", "retries", "max_age"), dead_reasons(dead), strict=True):
        assert name in reason


def test_a_broker_priority_of_a_wrong_type_makes_a_dead_letter(broker, start, dead, put):
    @greenq.actor(broker=broker)
    def work():
        pass

    put(message(broker_priority="high").encode())
    start()
    broker.join("default", **JOIN)

    assert "broker_priority" in dead_reasons(dead)[0]


def test_a_message_that_is_too_old_is_a_dead_letter(broker, start, dead):
    ran = []

    @greenq.actor(broker=broker)
    def work(name):
        ran.append(name)

    work.send_with_options(args=("old",), max_age=1, delay=20)
    work.send_with_options(args=("young",), max_age=60_000)
    start()
    broker.join("default", **JOIN)

    assert ran == ["young"]
    assert names(letter for letter, _ in dead()) == ["old"]
    assert dead_reasons(dead) == ["Message age limit exceeded"]


def test_an_actor_is_interrupted_at_its_time_limit(broker, start, dead):
    recorder = Recorder("after_process_message")
    broker.add_middleware(recorder)
    cleaned_up = threading.Event()

    @greenq.actor(broker=broker, time_limit=50, max_retries=0)
    def work():
        try:
            while True:
                time.sleep(0.001)
        except greenq.TimeLimitExceeded:
            cleaned_up.set()
            raise

    work.send()
    start()
    broker.join("default", **JOIN)

    assert cleaned_up.is_set()
    assert isinstance(recorder.calls[0].kwargs["exception"], greenq.TimeLimitExceeded)
    assert len(dead()) == 1


def test_an_actor_that_swallows_its_time_limit_has_succeeded(broker, start, dead):
    @greenq.actor(broker=broker, time_limit=50, max_retries=0)
    def work():
        try:
            while True:
                time.sleep(0.001)
        except greenq.TimeLimitExceeded:
            pass

    work.send()
    start()
    broker.join("default", **JOIN)

    assert dead() == []


@pytest.mark.orders("all")
def test_messages_with_a_higher_priority_run_first_in_a_worker_of_one_slot(broker, start):
    ran = []

    @greenq.actor(broker=broker, priority=100)
    def low(number):
        ran.append(("low", number))

    @greenq.actor(broker=broker, priority=0)
    def high(number):
        ran.append(("high", number))

    for number in range(3):
        low.send(number)
        high.send(number)
    start(threads=1)
    broker.join("default", **JOIN)

    assert ran == [("high", 0), ("high", 1), ("high", 2), ("low", 0), ("low", 1), ("low", 2)]


@pytest.mark.orders("raised")
def test_urgent_messages_are_started_before_a_backlog_that_was_there_first(broker, start):
    slots, urgent = 8, 10
    started, sent_after = [], []

    @greenq.actor(broker=broker)
    def low(number):
        started.append(("low", number))
        if number == 100:
            high.send_many([(number,) for number in range(urgent)])
            sent_after.append(len(started))

    @greenq.actor(broker=broker, priority=-1)
    def high(number):
        started.append(("high", number))

    low.send_many([(number,) for number in range(10_000)])
    start(threads=slots)
    broker.join("default", **JOIN)

    last = max(position for position, (name, _) in enumerate(started) if name == "high")
    assert last < sent_after[0] + slots + urgent
    assert len(started) == 10_000 + urgent


def test_a_paused_worker_starts_nothing_until_it_is_resumed(broker, start, consume):
    ran = threading.Event()

    @greenq.actor(broker=broker)
    def work():
        ran.set()

    worker = start()
    worker.pause()
    work.send()
    consumer = consume()
    untouched = take(consumer)
    consumer.requeue(untouched)
    ran_while_paused = ran.is_set()
    worker.resume()

    happens(ran)
    assert not ran_while_paused


def test_a_pause_returns_when_running_actors_have_ended(broker, consume):
    running, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    @greenq.actor(broker=broker)
    def work():
        running.set()
        happens(may_end)
        ended.set()

    worker = greenq.Worker(broker, worker_timeout=20_000, worker_threads=1)
    worker.start()
    work.send()
    happens(running)
    may_end.set()
    worker.pause()

    assert ended.is_set()
    worker.stop(5000)


def test_worker_join_waits_for_what_was_fetched(broker, start):
    running, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    @greenq.actor(broker=broker)
    def work():
        running.set()
        happens(may_end)
        ended.set()

    work.send()
    worker = start()
    happens(running)
    may_end.set()
    worker.join()

    assert ended.is_set()


def test_a_message_that_is_interrupted_by_a_stop_goes_back_uncharged(broker, start, consume, dead):
    running = threading.Event()

    @greenq.actor(broker=broker, notify_shutdown=True, max_retries=0)
    def work():
        running.set()
        while True:
            time.sleep(0.001)

    sent = work.send()
    worker = start()
    happens(running)
    worker.stop(10_000)

    (returned,) = take(consume())
    assert returned.message_id == sent.message_id
    assert "retries" not in returned.options
    assert dead() == []


def test_messages_that_were_not_started_stay_when_a_worker_stops(case, broker, start, consume):
    running, may_end = threading.Event(), threading.Event()

    @greenq.actor(broker=broker)
    def work(number):
        running.set()
        happens(may_end)

    for number in range(5):
        work.send(number)
    worker = start(threads=1)
    happens(running)
    may_end.set()
    worker.stop(10_000)

    consumer = consume(timeout=100)
    left = []
    while consumer.wait():
        left += consumer.fetch(10)
    done = worker.jobs_done
    assert done >= 1
    if not case.keeps_places:
        left.sort(key=lambda each: each.args)
    assert names(left) == list(range(done, 5))


def test_a_stopped_worker_can_be_stopped_again(broker, start):
    worker = start()

    worker.stop(5000)
    worker.stop(5000)
