"""Dead letters are kept, looked at, sent back and deleted; each letter in one place at any time."""

from __future__ import annotations

import contextlib
import random
import threading
import time

import pytest

import greenq
from greenq.broker import Broker
from greenq.clock import now_ms
from greenq.failures import MOST_FAILURES
from greenq.inspection import PAGE_BYTES, QueueCounts
from greenq.message import MAX_MESSAGE_BYTES
from greenq.verdict import Action, Verdict
from tests.support.waiting import beside, until

from .fetching import acks, message, nacks, names, take, take_one

# Of the server, and of nothing that is different in each world.
pytestmark = pytest.mark.shared_out

JOIN = {"timeout": 20_000}
#: What people, scripts and attackers may give as an id or a cursor.
# fmt: off
GARBAGE = [
    "", "0", "-1", "1", "9" * 30, "9" * 5000, "abc", "%", "%zz", "%00", "\0", "é", "\ud800", "'; DROP TABLE x", "٣",
    "1:", ":", "nan:x", "inf:x", "1e999:x", "1.5.5:x", "*", "x" * 100_000, "1 OR 1=1", "None", "[]",
]
# fmt: on
NO_MESSAGES = [
    *(b"", b"\0", b"\xff\xfe", b"null", b"[]", b"{", b"\x80\x04N.", b'{"queue_name":1}', b"=", b"+"),
    bytes(range(256)),
]


@pytest.fixture
def letters(broker):
    return broker.dead_letters_of("default")


@pytest.fixture
def bury(broker, consumer):
    """Makes dead letters, in this order."""

    def bury(*arguments, reason="no good", **options):
        broker.enqueue_many([message(each, **options) for each in arguments])
        taken = take(consumer, len(arguments))
        consumer.complete(nacks(sorted(taken, key=lambda each: arguments.index(each.args[0])), reason))

    return bury


@pytest.fixture
def expect_counts(case, broker):
    """Compares what the broker counts; what is on its way to a consumer here is waited for."""

    def expect(*expected):
        if case.pushes:
            with contextlib.suppress(AssertionError):
                until(lambda: case.counts(broker) == expected)
        assert case.counts(broker) == expected

    return expect


def shown(page):
    return names(letter.message for letter in page)


# -- looking


def test_a_letter_tells_when_where_and_why_it_died_and_holds_the_message(broker, consumer, letters):
    sent = broker.enqueue(message("a", some_option=7))
    before = now_ms()

    consumer.complete(nacks([take_one(consumer)], "no good"))

    (letter,) = letters.page().letters
    assert letter.queue_name == "default"
    assert before - 1 <= letter.died_at_ms <= now_ms() + 1
    assert letter.reason == "no good"
    assert letter.message == sent
    assert letter.size == len(letter.payload)
    assert letter.failures == []
    assert letters.get(letter.id) == letter


def test_the_counts_tell_ready_reserved_delayed_and_dead_apart(case, broker, consumer, bury, letters, expect_counts):
    bury("dead", "dead too")
    broker.enqueue_many([message(number) for number in range(4)])
    take(consumer, 1)
    broker.enqueue(message("later"), delay=600_000)

    if case.pushes:
        expect_counts(4, 0, 1, 2)
    else:
        assert broker.queue_counts("default") == QueueCounts(ready=3, reserved=1, delayed=1, dead=2)
    assert letters.count() == 2


def test_the_dead_letters_of_a_queue_are_not_those_of_another(broker, bury, letters):
    bury("a")
    broker.declare_queue("other")
    others = broker.dead_letters_of("other")
    (letter,) = letters.page().letters

    assert others.count() == 0
    assert others.page().letters == []
    assert others.get(letter.id) is None
    assert others.send_back(letter.id) == others.delete(letter.id) == 0
    assert others.send_back_all() == others.delete_all() == 0
    assert letters.count() == 1


@pytest.mark.parametrize("name", ["default.DQ", "default.XQ"])
def test_the_other_names_of_a_queue_lead_to_the_same_letters(broker, bury, name):
    bury("a")

    assert broker.dead_letters_of(name).count() == 1


@pytest.mark.parametrize("oldest_first", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 1000])
def test_pages_follow_each_other_in_order(bury, letters, limit, oldest_first):
    bury(*range(4))
    bury(*range(4, 7))

    seen, after, pages = [], None, 0
    while pages == 0 or after is not None:
        page, after = letters.page(after, limit, oldest_first=oldest_first)
        assert len(page) <= limit
        seen += shown(page)
        pages += 1

    assert seen == sorted(range(7), reverse=not oldest_first)
    assert pages == -(-7 // limit)


@pytest.mark.parametrize("oldest_first", [True, False])
def test_a_page_goes_on_at_its_place_though_letters_went_and_came(bury, letters, oldest_first):
    bury(*range(6))
    page, after = letters.page(limit=3, oldest_first=oldest_first)

    letters.delete(letter.id for letter in page)
    bury("new")

    seen = shown(letters.page(after, oldest_first=oldest_first).letters)
    assert seen == ([3, 4, 5, "new"] if oldest_first else [2, 1, 0])


def test_all_letters_can_be_gone_through(bury, letters):
    bury(*range(5))

    assert shown(letters.each()) == [4, 3, 2, 1, 0]
    assert shown(letters.each(oldest_first=True)) == [0, 1, 2, 3, 4]


def test_a_page_of_large_letters_ends_early_and_misses_none(bury, letters):
    count = PAGE_BYTES // MAX_MESSAGE_BYTES + 4
    bury(*(f"{number:02}" + "x" * (MAX_MESSAGE_BYTES - 1000) for number in range(count)))

    page, after = letters.page(oldest_first=True)

    assert 1 <= len(page) < count
    rest = letters.page(after, oldest_first=True).letters
    assert [letter.message.args[0][:2] for letter in [*page, *rest]] == [f"{number:02}" for number in range(count)]
    assert letters.send_back_all() == count


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_bounds_is_refused(letters, limit):
    with pytest.raises(ValueError, match="from 1 to 1000"):
        letters.page(limit=limit)
    with pytest.raises(ValueError, match="from 1 to 1000"):
        letters.send_back_all(batch_size=limit)
    with pytest.raises(ValueError, match="from 1 to 1000"):
        letters.delete_all(batch_size=limit)


def test_a_queue_without_dead_letters_has_an_empty_page(letters):
    assert letters.page() == ([], None)
    assert list(letters.each()) == []
    assert letters.count() == 0
    assert letters.send_back_all() == letters.delete_all() == 0


# -- the tracebacks of every attempt


def test_a_letter_has_the_traceback_of_every_attempt(broker, start, letters):
    attempts = []

    @greenq.actor(broker=broker, max_retries=2, min_backoff=1, max_backoff=5)
    def work():
        attempts.append(1)
        raise RuntimeError(f"number {len(attempts)}")

    before = now_ms()
    work.send()
    start()
    broker.join("default", **JOIN)

    (letter,) = letters.page().letters
    assert letter.reason == "RuntimeError: number 3"
    assert [(each.attempt, each.error) for each in letter.failures] == [
        (number, f"RuntimeError: number {number}") for number in (1, 2, 3)
    ]
    assert all("in work" in each.traceback and each.error in each.traceback for each in letter.failures)
    times = [each.at_ms for each in letter.failures]
    assert times == sorted(times)
    assert before <= times[0]


def test_of_many_attempts_the_first_and_the_latest_are_kept(broker, start, letters):
    @greenq.actor(broker=broker, max_retries=MOST_FAILURES + 5, min_backoff=0, max_backoff=1)
    def work():
        raise RuntimeError("no")

    work.send()
    start()
    broker.join("default", **JOIN)

    (letter,) = letters.page().letters
    latest = MOST_FAILURES + 6
    assert [each.attempt for each in letter.failures] == [1, *range(latest - MOST_FAILURES + 2, latest + 1)]
    assert all("in work" in each.traceback for each in letter.failures)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"throws": RuntimeError}, "RuntimeError: no"),
        ({"max_retries": 0}, "RuntimeError: no"),
        ({"max_age": 1}, "SkipMessage: Message age limit exceeded"),
    ],
    ids=["throws", "no retries", "too old"],
)
def test_a_failure_that_is_not_tried_again_leaves_its_own(broker, start, letters, options, error):
    @greenq.actor(broker=broker, **options)
    def work():
        raise RuntimeError("no")

    old = work.message()._replace(message_timestamp=now_ms() - 10_000)
    broker.enqueue(old)
    start()
    broker.join("default", **JOIN)

    (letter,) = letters.page().letters
    assert [(each.attempt, each.error) for each in letter.failures] == [(1, error)]


def test_an_attempt_that_took_too_long_leaves_where_it_was(broker, start, letters):
    @greenq.actor(broker=broker, max_retries=0, time_limit=50)
    def work():
        for _ in range(2000):
            time.sleep(0.01)

    work.send()
    start()
    broker.join("default", **JOIN)

    (letter,) = letters.page().letters
    (failure,) = letter.failures
    assert failure.error.startswith("TimeLimitExceeded")
    assert "time.sleep" in failure.traceback


def test_the_history_goes_on_after_a_letter_was_sent_back(broker, start, letters):
    @greenq.actor(broker=broker, max_retries=1, min_backoff=1, max_backoff=2)
    def work():
        raise RuntimeError("no")

    work.send()
    start()
    broker.join("default", **JOIN)
    assert letters.send_back_all() == 1
    broker.join("default", **JOIN)

    (letter,) = letters.page().letters
    assert [each.attempt for each in letter.failures] == [1, 2, 1, 2]


# -- sending back


def test_what_is_sent_back_is_the_same_message_with_a_fresh_count(broker, start, letters, expect_counts):
    is_fixed = threading.Event()
    ran = []

    @greenq.actor(broker=broker, max_retries=1, min_backoff=1, max_backoff=2)
    def work(argument):
        if not is_fixed.is_set():
            raise RuntimeError("not yet")
        ran.append(greenq.middleware.CurrentMessage.get_current_message())

    broker.add_middleware(greenq.middleware.CurrentMessage())
    sent = work.send("a")
    start()
    broker.join("default", **JOIN)
    (letter,) = letters.page().letters

    is_fixed.set()
    assert letters.send_back(letter.id) == 1
    broker.join("default", **JOIN)

    (run,) = ran
    assert (run.message_id, run.args, run.message_timestamp) == (sent.message_id, ("a",), sent.message_timestamp)
    assert run.options.keys().isdisjoint({"retries", "requeue_timestamp", "eta"})
    assert len(run.options["failures"]) == 2
    expect_counts(0, 0, 0, 0)


def test_what_was_delayed_is_sent_back_without_its_eta(broker, bury, consumer, letters):
    sent = message("a")
    broker.enqueue(sent, delay=1)
    consumer.complete(nacks([take_one(consumer)]))

    letters.send_back_all()

    again = take_one(consumer)
    assert again.message_id == sent.message_id
    assert again.queue_name == "default"
    assert "eta" not in again.options


#: By what the broker tells apart: who comes behind whom.
BY_PRIORITY = {
    "all": [["high", "high, again", "usual", "again", "low", "low, again"]],
    "raised": [["high", "high, again", "usual", "low", "low, again", "again"]],
    "none": [["high", "high, again"], ["usual", "low", "low, again", "again"]],
}


def test_what_is_sent_back_keeps_its_priority_and_goes_behind_its_equals(case, broker, bury, consumer, letters):
    bury("low, again", broker_priority=-5)
    bury("high, again", broker_priority=5)
    bury("again")
    broker.enqueue_many([message("usual"), message("high", broker_priority=5), message("low", broker_priority=-5)])

    assert letters.send_back_all() == 3

    taken = names(take(consumer, 6))
    assert len(set(taken)) == 6
    for equals in BY_PRIORITY[case.orders]:
        assert [each for each in taken if each in equals] == equals


def test_a_waiting_worker_is_woken_by_what_is_sent_back(bury, consumer, letters):
    bury("a")
    assert consumer.fetch(10) == []

    sent = []
    with beside(lambda: sent.append(letters.send_back_all())):
        assert names(take(consumer)) == ["a"]

    assert sent == [1]


@pytest.mark.parametrize("payload", NO_MESSAGES, ids=repr)
def test_bytes_that_are_no_message_are_seen_sent_back_as_they_are_and_deleted(consumer, put, letters, payload):
    put(payload)
    consumer.complete(nacks([take_one(consumer)], "unreadable"))
    (letter,) = letters.page().letters
    assert (letter.payload, letter.size, letter.message, letter.failures) == (payload, len(payload), None, [])
    assert letter.reason

    assert letters.send_back(letter.id) == 1
    again = take_one(consumer)
    assert again.payload == payload
    consumer.complete(nacks([again], "unreadable"))
    (letter,) = letters.page().letters
    assert letters.delete(letter.id) == 1
    assert letters.count() == 0


def test_bytes_too_long_to_be_a_message_are_told_of_by_their_size(consumer, put, letters, expect_counts):
    payload = b"x" * (MAX_MESSAGE_BYTES + 1)
    put(payload)
    consumer.complete(nacks([take_one(consumer)]))

    (letter,) = letters.page().letters
    assert (letter.payload, letter.size, letter.message) == (None, len(payload), None)
    assert letters.send_back(letter.id) == 1
    expect_counts(1, 0, 0, 0)


def test_one_of_several_is_sent_back_and_the_others_stay(consumer, bury, letters):
    bury("a", "b", "c")
    middle = letters.page().letters[1]

    assert letters.send_back(middle.id) == 1

    assert shown(letters.each()) == ["c", "a"]
    assert names(take(consumer)) == ["b"]
    assert consumer.fetch(10) == []


def test_a_letter_is_sent_back_once_however_often_it_is_asked_for(bury, letters, expect_counts):
    bury("a", "b")
    ids = [letter.id for letter in letters.each()]

    assert letters.send_back([*ids, *ids]) == 2
    assert letters.send_back(ids) == 0
    assert letters.delete(ids) == 0

    expect_counts(2, 0, 0, 0)


def test_of_two_operators_who_press_the_button_at_once_one_wins(broker, bury, letters, expect_counts):
    bury(*range(200))
    ids = [letter.id for letter in letters.each()]
    sent = []

    def other():
        return broker.dead_letters_of("default")

    with (
        beside(lambda: sent.append(other().send_back(ids))),
        beside(lambda: sent.append(other().send_back_all(batch_size=7))),
    ):
        sent.append(letters.send_back_all(batch_size=10))

    assert sum(sent) == 200
    expect_counts(200, 0, 0, 0)


@pytest.mark.parametrize("options", [{}, {"retries": 3}], ids=["as stored", "with a fresh count"])
@pytest.mark.parametrize("act", ["send_back", "delete"])
def test_a_letter_that_went_after_it_was_read_is_not_sent_back(
    case, broker, bury, letters, monkeypatch, act, options, expect_counts
):
    bury("a", "b", **options)
    ids = [letter.id for letter in letters.each()]
    other, find = broker.dead_letters_of("default"), letters._find

    def find_too_early(wanted):
        found = find(wanted)
        getattr(other, act)(ids[0])
        return found

    monkeypatch.setattr(letters, "_find", find_too_early)

    if case.reads_by_holding:
        # It is read and sent back in one: there is no moment in between.
        assert letters.send_back(ids) == 2
        expect_counts(2, 0, 0, 0)
    else:
        assert letters.send_back(ids) == 1
        expect_counts(2 if act == "send_back" else 1, 0, 0, 0)


def test_a_letter_that_dies_again_has_another_id(consumer, bury, letters):
    bury("a")
    (first,) = letters.page().letters
    letters.send_back(first.id)

    consumer.complete(nacks([take_one(consumer)]))

    (second,) = letters.page().letters
    assert second.id != first.id
    assert letters.delete(first.id) == letters.send_back(first.id) == 0
    assert letters.get(first.id) is None
    assert letters.count() == 1


def test_a_late_verdict_on_a_message_that_was_sent_back_meets_nothing(broker, consumer, letters, expect_counts):
    broker.enqueue(message("a"))
    verdict = nacks([take_one(consumer)])[0]
    consumer.complete([verdict])
    letters.send_back_all()
    again = take_one(consumer)

    consumer.complete([verdict])

    assert letters.count() == 0
    consumer.complete(acks([again]))
    expect_counts(0, 0, 0, 0)


# -- deleting


def test_what_is_deleted_is_gone(consumer, bury, letters, expect_counts):
    bury("a", "b", "c")
    first, middle, last = letters.page(oldest_first=True).letters

    assert letters.delete([first.id, last.id]) == 2
    assert letters.delete([first.id, last.id]) == 0

    assert list(letters.each()) == [middle]
    assert consumer.fetch(10) == []
    expect_counts(0, 0, 0, 1)


def test_flushing_a_queue_drops_its_letters(broker, bury, letters):
    bury("a", "b")

    broker.flush("default")

    assert letters.count() == 0
    assert letters.page() == ([], None)


# -- in bulk


def test_all_are_sent_back_in_bounded_batches_oldest_first(consumer, bury, letters):
    bury(*range(25))
    steps = []

    assert letters.send_back_all(batch_size=10, on_batch=steps.append) == 25

    assert steps == [10, 20, 25]
    assert letters.count() == 0
    assert names(take(consumer, 25)) == list(range(25))


def test_all_are_deleted_in_bounded_batches(bury, letters, expect_counts):
    bury(*range(25))
    steps = []

    assert letters.delete_all(batch_size=10, on_batch=steps.append) == 25

    assert steps == [10, 20, 25]
    expect_counts(0, 0, 0, 0)


def test_those_that_meet_a_condition_are_sent_back_or_deleted(consumer, bury, letters):
    bury(*range(10))

    assert letters.send_back_all(where=lambda letter: letter.message.args[0] % 2 == 0, batch_size=3) == 5
    assert letters.delete_all(where=lambda letter: letter.message.args[0] < 5, batch_size=3) == 2

    assert shown(letters.each(oldest_first=True)) == [5, 7, 9]
    assert names(take(consumer, 5)) == [0, 2, 4, 6, 8]


def test_what_fails_again_is_not_sent_back_by_the_same_call(consumer, bury, letters):
    bury(*range(10))
    died = []

    def fail_again(total):
        if total > len(died):
            again = take(consumer, total - len(died))
            died.extend(again)
            consumer.complete(nacks(again))

    assert letters.send_back_all(batch_size=1, on_batch=fail_again) == 10

    assert len(died) == 10
    assert letters.count() == 10


def test_what_dies_meanwhile_is_not_deleted_by_the_same_call(bury, letters):
    bury(*range(10))

    assert letters.delete_all(batch_size=5, on_batch=lambda total: bury(f"new {total}")) == 10

    assert shown(letters.each(oldest_first=True)) == ["new 5", "new 10"]


@pytest.mark.parametrize("call", ["send_back_all", "delete_all"])
def test_a_bulk_call_that_is_cut_short_has_done_whole_batches_and_can_go_on(bury, letters, call, expect_counts):
    bury(*range(20))

    def cut(total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        getattr(letters, call)(batch_size=8, on_batch=cut)
    expect_counts(8 if call == "send_back_all" else 0, 0, 0, 12)

    assert getattr(letters, call)(batch_size=8) == 12


def test_thousands_of_letters_are_sent_back_and_deleted_without_missing_one(broker, consume, letters, expect_counts):
    count = 4_000
    consumer = consume(prefetch=count)
    broker.enqueue_many([message(number) for number in range(count)])
    taken = take(consumer, count)
    for start in range(0, count, 1000):
        consumer.complete(nacks(taken[start : start + 1000]))
    steps = []

    expect_counts(0, 0, 0, count)
    assert letters.send_back_all(where=lambda letter: letter.message.args[0] % 2 == 0, batch_size=100) == count // 2
    expect_counts(count // 2, 0, 0, count // 2)
    assert letters.delete_all(batch_size=200, on_batch=steps.append) == count // 2
    assert steps == list(range(200, count // 2 + 1, 200))
    assert sorted(names(take(consumer, count // 2))) == list(range(0, count, 2))


# -- what people and attackers send


@pytest.mark.parametrize("id", GARBAGE, ids=lambda id: repr(id)[:20])
def test_an_id_that_was_never_one_finds_nothing(letters, id, expect_counts):
    assert letters.get(id) is None
    assert letters.send_back([id, id]) == 0
    assert letters.delete(id) == 0
    expect_counts(0, 0, 0, 0)


@pytest.mark.parametrize("after", GARBAGE, ids=lambda after: repr(after)[:20])
def test_a_cursor_that_was_never_one_is_refused_or_shows_letters(bury, letters, after):
    bury("a")

    try:
        page, problem = letters.page(after), None
    except ValueError as error:
        page, problem = None, str(error)

    assert page is None or shown(page.letters) in ([], ["a"])
    assert problem is None or "Give the after of the page before" in problem


def test_garbage_among_dead_letters_disturbs_no_call(broker, consumer, put, letters, expect_counts):
    chance = random.Random(20_240)
    payloads = [*NO_MESSAGES, *(chance.randbytes(chance.randrange(200)) for _ in range(100))]
    for payload in payloads:
        put(payload)
    for number in range(10):
        broker.enqueue(message(number, failures=[None, 7, {"at": "x"}], retries="many", traceback=5))
    taken = take(consumer, len(payloads) + 10)
    reasons = ["", "\0", "two\nlines", "é\ud800", "x" * 10_000, None]
    consumer.complete([Verdict(Action.NACK, each, reason=chance.choice(reasons)) for each in taken])

    seen = list(letters.each(oldest_first=True))

    assert [letter.payload for letter in seen[: len(payloads)]] == payloads
    assert all(letter.failures == [] for letter in seen[: len(payloads)])
    assert [letters.get(letter.id) for letter in seen] == seen
    assert letters.send_back([letter.id for letter in seen[:50]]) == 50
    assert letters.send_back_all(batch_size=7) == len(seen) - 50
    taken = take(consumer, len(seen))
    assert sorted(names(each for each in taken if each.args)) == list(range(10))
    consumer.complete(nacks(taken))
    assert letters.delete_all(batch_size=7) == len(seen)
    expect_counts(0, 0, 0, 0)


# -- brokers of somebody else's


def test_a_broker_that_cannot_show_its_letters_says_so():
    with pytest.raises(NotImplementedError, match="Broker does not show its dead letters"):
        Broker([]).dead_letters_of("default")
    with pytest.raises(NotImplementedError, match="Broker does not count messages"):
        Broker([]).queue_counts("default")
