"""Messages: values, and their form on the wire."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

import greenq
from greenq.clock import now_ms
from greenq.errors import DecodeError, MessageTooLarge
from greenq.message import MAX_MESSAGE_BYTES, MAX_MESSAGE_DEPTH, Message

FIELDS = ["queue_name", "actor_name", "args", "kwargs", "options", "message_id", "message_timestamp"]


def make(*args, **options):
    return Message("default", "work", args, {}, options, message_id="an id", message_timestamp=1_700_000_000_123)


def wire(**changes):
    fields = {"queue_name": "q", "actor_name": "a", "args": [], "kwargs": {}, "options": {}}
    fields |= {"message_id": "i", "message_timestamp": 1}
    fields |= changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


# -- the wire


def test_the_wire_format_is_a_json_object_of_seven_fields_without_spaces():
    message = Message("q", "a", (1, "é"), {"k": None}, {"o": True}, message_id="i", message_timestamp=5)

    assert message.encode() == (
        b'{"queue_name":"q","actor_name":"a","args":[1,"\\u00e9"],"kwargs":{"k":null},'
        b'"options":{"o":true},"message_id":"i","message_timestamp":5}'
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)


@given(
    args=st.lists(json_values, max_size=3),
    kwargs=st.dictionaries(st.text(), json_values, max_size=3),
    options=st.dictionaries(st.text(), json_values, max_size=3),
)
def test_a_message_survives_the_wire(args, kwargs, options):
    message = Message("default", "work", tuple(args), kwargs, options)

    assert Message.decode(message.encode()) == message


@given(st.binary(max_size=200))
def test_bytes_are_a_message_or_raise_decode_error(data):
    with suppress(DecodeError):
        assert isinstance(Message.decode(data), Message)


@given(json_values)
def test_json_is_a_message_or_raises_decode_error(value):
    with pytest.raises(DecodeError):
        Message.decode(json.dumps(value).encode())


def test_a_missing_id_and_timestamp_are_generated():
    before = now_ms()

    message = Message.decode(wire(message_id=..., message_timestamp=...))

    assert len(message.message_id) == 36
    assert before <= message.message_timestamp <= now_ms()


def test_args_become_a_tuple_again():
    assert Message.decode(wire(args=[1, [2]])).args == (1, [2])


@pytest.mark.parametrize("name", FIELDS[:5])
def test_a_missing_field_is_named(name):
    with pytest.raises(DecodeError, match=f"lacks {name}"):
        Message.decode(wire(**{name: ...}))


def test_an_extra_field_is_named():
    with pytest.raises(DecodeError, match="unknown fields: priority"):
        Message.decode(wire(priority=1))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [1.5, True], ids=repr)
def test_a_field_of_a_wrong_type_is_named(name, value):
    with pytest.raises(DecodeError, match=f"The message's {name} is"):
        Message.decode(wire(**{name: value}))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'"text"', b"{", b"\xff\xfe", b"{}"], ids=repr)
def test_what_is_no_message_is_refused_with_its_data(data):
    with pytest.raises(DecodeError) as raised:
        Message.decode(data)

    assert raised.value.data == data
    assert raised.value.message


def test_a_decode_error_carries_its_cause():
    with pytest.raises(DecodeError) as raised:
        Message.decode(b"\xff")

    assert isinstance(raised.value.error, UnicodeDecodeError)
    assert raised.value.__cause__ is raised.value.error


def test_a_message_that_is_too_large_is_neither_written_nor_read():
    with pytest.raises(MessageTooLarge, match="1,048,576"):
        make("x" * MAX_MESSAGE_BYTES).encode()
    with pytest.raises(DecodeError, match="1,048,576"):
        Message.decode(b" " * (MAX_MESSAGE_BYTES + 1))


def test_a_message_that_is_nested_too_deeply_is_neither_written_nor_read():
    value = []
    for _ in range(MAX_MESSAGE_DEPTH):
        value = [value]

    with pytest.raises(MessageTooLarge, match="nests"):
        make(value).encode()
    with pytest.raises(DecodeError, match="nested"):
        Message.decode(wire(args=value))


@pytest.mark.parametrize("depth", [2_000, 200_000])
def test_a_message_that_would_exhaust_the_stack_is_refused_in_time(depth):
    value = []
    for _ in range(depth):
        value = [value]
    with pytest.raises(MessageTooLarge):
        make(value).encode()
    while value:
        value = value.pop()  # freeing it all at once is deep as well

    with pytest.raises(DecodeError):
        Message.decode(b"[" * depth + b"]" * depth)


def test_brackets_in_texts_are_no_nesting():
    message = make("[" * 1000, '"[\\"{' * 1000)

    assert Message.decode(message.encode()) == message


def test_many_lists_side_by_side_are_no_nesting():
    message = make([[] for _ in range(1000)])

    assert Message.decode(message.encode()) == message


def test_an_argument_that_cannot_be_encoded_names_actor_and_encoder():
    with pytest.raises(TypeError, match=r"'work'.*JSONEncoder"):
        make(object()).encode()


# -- the value


def test_messages_are_equal_if_all_fields_are():
    assert make(1, a=1) == make(1, a=1)
    assert make(1, a=1) != make(1, a=2)
    assert make(1) != make(2)


def test_messages_cannot_be_hashed_nor_changed():
    with pytest.raises(TypeError):
        hash(make())
    with pytest.raises(AttributeError):
        make().queue_name = "other"


def test_messages_can_be_sorted():
    assert sorted([make(2), make(1)]) == [make(1), make(2)]


def test_messages_can_be_pickled():
    assert pickle.loads(pickle.dumps(make(1, a=2))) == make(1, a=2)


def test_a_message_reads_as_the_call_it_is():
    assert str(Message("q", "add", (1, "two"), {"x": 3}, {})) == "add(1, 'two', x=3)"


def test_options_are_mutable():
    message = make()

    message.options["retries"] = 1

    assert message.asdict()["options"] is message.options


def test_a_copy_merges_options_and_replaces_the_rest():
    original = make(1, a=1, b=1)

    copy = original.copy(queue_name="other", options={"b": 2, "c": 3})

    assert copy.queue_name == "other"
    assert copy.options == {"a": 1, "b": 2, "c": 3}
    assert copy.message_id == original.message_id
    assert original.options == {"a": 1, "b": 1}


def test_a_copy_does_not_share_its_options():
    original = make(a=1)

    original.copy().options["a"] = 2

    assert original.options == {"a": 1}


def test_a_copy_refuses_attributes_that_do_not_exist():
    with pytest.raises(TypeError):
        make().copy(colour="green")


def test_two_messages_have_different_ids_and_the_time_they_were_built():
    before = now_ms()
    first, second = (Message("q", "a", (), {}, {}) for _ in range(2))

    assert first.message_id != second.message_id
    assert before <= first.message_timestamp <= now_ms()


def test_message_datetime_is_aware_and_exact_to_the_millisecond():
    moment = make().message_datetime

    assert moment == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=timezone.utc)
    assert moment.utcoffset() == timedelta(0)


def test_asdict_has_the_fields_in_the_order_of_the_wire():
    assert list(make().asdict()) == FIELDS


def test_the_names_of_named_tuples_still_work():
    message = make(1, a=1)

    assert message._asdict() == message.asdict()
    assert list(message._fields) == FIELDS
    assert message._field_defaults == {}
    assert message._replace(queue_name="other", options={}).options == {}


def test_args_that_are_a_list_become_a_tuple():
    assert Message("q", "a", [1, 2], {}, {}).args == (1, 2)


def test_messages_can_be_subclassed():
    class Mine(greenq.Message):
        pass

    assert isinstance(Mine("q", "a", (), {}, {}).copy(), Mine)
    assert isinstance(Mine.decode(wire()), Mine)


@pytest.mark.parametrize(
    "wrong", [{"message_id": 0}, {"message_id": False}, {"message_id": []}, {"message_timestamp": ""}]
)
def test_a_false_value_of_a_wrong_type_is_no_message(wrong):
    with pytest.raises(DecodeError):
        Message.decode(wire(**wrong))


def test_white_space_before_a_message_does_not_hide_its_depth():
    data = wire(args=[[]]).replace(b"[[]]", b"[" * 70 + b"]" * 70)

    with pytest.raises(DecodeError, match="levels deep"):
        Message.decode(b" \n" + data)
