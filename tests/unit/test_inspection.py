"""What of inspection needs no broker: what is sent back, and for how long letters are kept."""

from __future__ import annotations

import pytest

from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.inspection import DeadLetter, fresh_payload
from greenq.message import MAX_MESSAGE_BYTES, Message

DAY_MS = 24 * 3600 * 1000


def letter(payload):
    return DeadLetter("1", "default", 0, "no good", payload, len(payload or b""))


def fresh(*args, queue_name="default", **options):
    message = Message(queue_name, "work", args, {}, options)
    payload = fresh_payload(letter(message.encode()))
    return message, payload and Message.decode(payload)


def test_a_fresh_message_has_no_count_and_no_eta_and_everything_else():
    history = [{"at": 1, "attempt": 1, "error": "x", "traceback": "y"}]
    notes = {"retries": 3, "requeue_timestamp": 5, "eta": 7, "traceback": "t", "failures": history, "mine": None}

    before, after = fresh("a", queue_name="default.DQ", **notes)

    assert after == before._replace(queue_name="default", options={"traceback": "t", "failures": history, "mine": None})


def test_a_message_that_is_fresh_already_goes_back_byte_for_byte():
    assert fresh("a", mine=1)[1] is None


@pytest.mark.parametrize("payload", [None, b"", b"no message", b"{}"], ids=repr)
def test_what_is_no_message_goes_back_byte_for_byte(payload):
    assert fresh_payload(letter(payload)) is None


def test_a_foreign_message_that_would_grow_too_large_goes_back_byte_for_byte():
    # Characters of three bytes, for which greenq's own encoder takes six.
    text = "€" * (MAX_MESSAGE_BYTES // 4)
    fields = ['"queue_name":"default"', '"actor_name":"work"', f'"args":["{text}"]', '"kwargs":{}']
    payload = ("{" + ",".join([*fields, '"options":{"retries":3}']) + "}").encode()

    assert letter(payload).message is not None
    assert fresh_payload(letter(payload)) is None


def test_a_letter_that_holds_no_id_shows_the_same_one_each_time():
    payload = b'{"queue_name":"default","actor_name":"work","args":[],"kwargs":{},"options":{}}'
    shown = letter(payload)

    assert shown.message.message_id == shown.message.message_id


@pytest.fixture(params=[RedisBroker, SqliteBroker])
def make(request, tmp_path):
    """Makes brokers, which connect to nothing."""
    if request.param is SqliteBroker:
        return lambda **options: SqliteBroker(tmp_path / "queue.db", middleware=[], **options)
    return lambda **options: RedisBroker(middleware=[], **options)


def test_letters_are_kept_for_a_week_unless_it_is_said_otherwise(make, monkeypatch):
    monkeypatch.delenv("GREENQ_DEAD_MESSAGE_TTL", raising=False)
    assert make().dead_message_ttl == 7 * DAY_MS

    monkeypatch.setenv("GREENQ_DEAD_MESSAGE_TTL", "1d")
    assert make().dead_message_ttl == DAY_MS
    assert make(dead_message_ttl=5).dead_message_ttl == 5


@pytest.mark.parametrize("value", ["soon", "-1", "٣"])
def test_a_time_to_keep_letters_that_is_none_is_refused(make, monkeypatch, value):
    monkeypatch.setenv("GREENQ_DEAD_MESSAGE_TTL", value)

    with pytest.raises(ValueError, match=r"GREENQ_DEAD_MESSAGE_TTL: .* is not a duration"):
        make()


def test_a_negative_time_to_keep_letters_is_refused(make):
    with pytest.raises(ValueError, match="0 or more"):
        make(dead_message_ttl=-1)
