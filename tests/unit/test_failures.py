"""The history of a message's failures: what is noted, its bounds, and how it is read again."""

from __future__ import annotations

import json

import pytest

from greenq.broker import MessageProxy
from greenq.clock import now_ms
from greenq.consumer import Undecodable
from greenq.encoder import PickleEncoder
from greenq.failures import (
    MOST_FAILURES,
    MOST_HISTORY_BYTES,
    MOST_TRACEBACK_CHARACTERS,
    Failure,
    dead_payload,
    drop_notes,
    keep_failure,
    note_failure,
    read_failures,
)
from greenq.message import MAX_MESSAGE_BYTES, Message, get_encoder, set_encoder


def proxy(*args, **options):
    return MessageProxy(Message("default", "work", args, {}, options))


def raised(error):
    """An exception with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


def fail(message, times=1, error=None, traceback_text=None):
    """Let a message fail and be tried again."""
    for number in range(times):
        message._failure = None
        note_failure(message, error or raised(RuntimeError(f"number {number}")), traceback_text)
        keep_failure(message)
        message._message.options["retries"] = message._message.options.get("retries", 0) + 1


def failures(message):
    return read_failures(message._message.options)


def test_a_failure_says_when_which_attempt_what_and_where():
    message = proxy(retries=2)
    before = now_ms()

    fail(message, error=raised(ValueError("no good")))

    (failure,) = failures(message)
    assert before <= failure.at_ms <= now_ms()
    assert failure.attempt == 3
    assert failure.error == "ValueError: no good"
    assert "in raised" in failure.traceback
    assert failure.traceback.endswith("ValueError: no good\n")


def test_one_attempt_is_noted_once():
    message = proxy()

    note_failure(message, RuntimeError("the cause"))
    note_failure(message, RuntimeError("what came of it"))
    keep_failure(message)

    assert [failure.error for failure in failures(message)] == ["RuntimeError: the cause"]


def test_the_first_failure_and_the_latest_ones_are_kept():
    message = proxy()

    fail(message, times=50)

    kept = [failure.attempt for failure in failures(message)]
    assert kept == [1, *range(51 - (MOST_FAILURES - 1), 51)]


def test_a_traceback_like_the_one_before_is_stored_once():
    message = proxy()

    fail(message, times=30, traceback_text="the same " * 100)
    fail(message, times=1, traceback_text="another")
    fail(message, times=3, traceback_text="the same " * 100)

    entries = message._message.options["failures"]
    assert ["traceback" in entry for entry in entries].count(True) == 3
    texts = [failure.traceback for failure in failures(message)]
    assert texts == [*["the same " * 100] * 6, "another", *["the same " * 100] * 3]


def test_a_failure_keeps_its_traceback_when_the_one_it_was_like_is_dropped():
    message = proxy()
    fail(message, traceback_text="of the first")

    fail(message, times=MOST_FAILURES + 5, traceback_text="of all others")

    assert [failure.traceback for failure in failures(message)] == ["of the first", *["of all others"] * 9]


def test_a_long_traceback_is_cut_in_its_middle():
    message = proxy()

    fail(message, traceback_text="top" + "x" * 1_000_000 + "end")

    (failure,) = failures(message)
    assert len(failure.traceback) < MOST_TRACEBACK_CHARACTERS + 100
    assert failure.traceback.startswith("top")
    assert failure.traceback.endswith("end")
    assert "996006 characters left out" in failure.traceback


@pytest.mark.parametrize("character", ["x", "\n", "é", "\U0001f40d", "\ud800", "\0"], ids=ascii)
def test_a_history_is_bounded_in_bytes_whatever_it_holds(character):
    message = proxy()

    for number in range(30):
        fail(message, error=RuntimeError(character * 600), traceback_text=f"{number}" + character * 5000)

    history = message._message.options["failures"]
    assert len(json.dumps(history, separators=(",", ":"))) <= MOST_HISTORY_BYTES
    assert failures(message)[-1].attempt == 30


def test_a_history_that_somebody_else_filled_is_bounded_too():
    message = proxy(failures=["x" * 100_000, 7, None, {"error": "y" * 100_000}])

    fail(message)

    assert len(json.dumps(message._message.options["failures"])) <= MOST_HISTORY_BYTES
    assert failures(message)[-1].error == "RuntimeError: number 0"


@pytest.mark.parametrize("value", ["mine", 5, {"a": 1}, True], ids=repr)
def test_an_option_of_that_name_that_is_no_history_is_left_alone(value):
    message = proxy(failures=value)

    fail(message)

    assert message._message.options["failures"] == value


@pytest.mark.parametrize(
    "history", [[1, None, "x"], [{}], [{"at": "soon", "attempt": None, "error": 5, "traceback": []}], [[[]]]], ids=repr
)
def test_reading_passes_over_what_is_no_entry(history):
    found = read_failures({"failures": history})

    assert all(type(each) is Failure and type(each.at_ms) is int and type(each.error) is str for each in found)
    assert len(found) == sum(isinstance(entry, dict) for entry in history)


def test_a_message_with_only_the_latest_traceback_has_one_failure():
    options = {"retries": 4, "requeue_timestamp": 1234, "traceback": "Traceback ...\nKeyError: 'x'\n"}

    assert read_failures(options) == [Failure(1234, 4, "KeyError: 'x'", options["traceback"])]


def test_a_dead_letter_holds_the_last_failure_and_the_message_stays_as_it_was():
    message = proxy("a")
    fail(message, times=2)
    note_failure(message, RuntimeError("the last"))
    before = message._message.copy()

    payload = dead_payload(message)

    assert [each.error for each in read_failures(Message.decode(payload).options)][-1] == "RuntimeError: the last"
    assert message._message == before


def test_bytes_that_are_no_message_stay_as_they_are_stored():
    assert dead_payload(Undecodable("default", b"\xff", ValueError("no message"))) is None


def test_notes_never_push_a_message_over_its_limit():
    size = MAX_MESSAGE_BYTES - 400
    message = proxy("x" * size, traceback="y" * 1000)
    note_failure(message, RuntimeError("the last"), "z" * 3000)

    payload = dead_payload(message)

    assert payload is not None
    assert Message.decode(payload).args == ("x" * size,)


def test_of_what_is_too_large_the_history_goes_first_then_the_traceback():
    options = {"failures": [], "traceback": "text", "retries": 3}

    assert drop_notes(options)
    assert options == {"traceback": "text", "retries": 3}
    assert drop_notes(options)
    assert options == {"retries": 3}
    assert not drop_notes(options)


def test_a_history_that_only_a_pickle_can_hold_costs_no_message():
    circle: list = []
    circle.append(circle)
    message = proxy(failures=[{(1, 2): "x"}, circle])
    encoder = get_encoder()
    set_encoder(PickleEncoder())
    try:
        note_failure(message, RuntimeError("no"))
        payload = dead_payload(message)

        assert payload is not None
        assert read_failures(Message.decode(payload).options)[-1].error == "RuntimeError: no"
    finally:
        set_encoder(encoder)


def test_an_exception_whose_text_cannot_be_read_is_noted():
    class Broken(Exception):
        def __str__(self):
            raise ValueError("no text")

    message = proxy()

    fail(message, error=raised(Broken()))

    assert "its text cannot be read" in failures(message)[0].error
