"""Encoders: the two that are there, and those that applications bring."""

from __future__ import annotations

import pytest

import greenq
from greenq.consumer import without_eta
from greenq.errors import DecodeError
from greenq.message import Message

MESSAGE = Message("default", "work", (1, "é"), {"k": [None]}, {"max_retries": 3})


@pytest.mark.parametrize(
    "encoder", [greenq.JSONEncoder(), greenq.PickleEncoder()], ids=lambda each: type(each).__name__
)
def test_an_encoder_reads_what_it_wrote(encoder):
    fields = encoder.decode(encoder.encode(MESSAGE.asdict()))

    assert {**fields, "args": tuple(fields["args"])} == MESSAGE.asdict()


def test_the_json_encoder_is_the_default():
    assert isinstance(greenq.get_encoder(), greenq.JSONEncoder)


def test_the_encoder_that_was_set_is_used_for_all_messages():
    greenq.set_encoder(greenq.PickleEncoder())
    message = Message("default", "work", ({1, 2}, object), {}, {})

    assert Message.decode(message.encode()) == message


def test_a_message_of_another_encoder_is_a_decode_error():
    greenq.set_encoder(greenq.PickleEncoder())
    data = MESSAGE.encode()
    greenq.set_encoder(greenq.JSONEncoder())

    with pytest.raises(DecodeError):
        Message.decode(data)


def test_whatever_an_encoder_raises_while_decoding_is_a_decode_error():
    class Broken(greenq.Encoder):
        def encode(self, data):
            return b"anything"

        def decode(self, data):
            raise LookupError("no such codec")

    greenq.set_encoder(Broken())

    with pytest.raises(DecodeError, match="no such codec") as raised:
        Message.decode(MESSAGE.encode())
    assert isinstance(raised.value.error, LookupError)


def test_an_encoder_has_to_implement_both_directions():
    class Half(greenq.Encoder):
        def encode(self, data):
            return b""

    with pytest.raises(TypeError):
        Half()


def test_a_message_that_was_delayed_can_be_pickled():
    greenq.set_encoder(greenq.PickleEncoder())
    message = greenq.Message("default.DQ", "work", (), {}, {"eta": 5, "mine": 1})

    decoded = greenq.Message.decode(without_eta(message).encode())

    assert decoded.options == {"mine": 1}
    assert type(decoded.options) is dict, "no program needs to know a class of ours"
