"""Messages to bytes and back.

Knows nothing of what a message is: a dict goes in, bytes come out. The limits on
size and nesting belong to every encoder and are checked in message.py.
"""

from __future__ import annotations

import abc
import json
import pickle
from typing import Any

MessageData = dict[str, Any]


class Encoder(abc.ABC):
    """Base class of message encoders.

    They run in any thread or greenlet and must not wait for anything.
    """

    @abc.abstractmethod
    def encode(self, data: MessageData) -> bytes:
        """Turn a message's fields, or a result, into bytes.

        Parameters:
          data(dict): Plain values, in fields named as those of Message.

        Raises:
          TypeError: A value is of a kind that it cannot write.
        """

    @abc.abstractmethod
    def decode(self, data: bytes) -> MessageData:
        """Turn bytes into a message's fields, or a result.

        Parameters:
          data(bytes): As ``encode`` made them, or somebody else.

        Raises:
          Exception: They cannot be read; what it raises ends up in a DecodeError.
        """


class JSONEncoder(Encoder):
    """Encodes messages as JSON in UTF-8 without spaces. The default."""

    # Kept, because json.dumps with separators builds a new encoder at each call.
    _encode = staticmethod(json.JSONEncoder(separators=(",", ":")).encode)
    _decode = staticmethod(json.JSONDecoder().decode)
    # Not declared for type checkers, but there since Python 3.0.
    _scan = staticmethod(json.scanner.make_scanner(json.JSONDecoder()))  # type: ignore[attr-defined]

    def encode(self, data: MessageData) -> bytes:
        return self._encode(data).encode("utf-8")

    def decode(self, data: bytes) -> MessageData:
        text = str(data, "utf-8")
        # Without the two searches for white space around it that decode() makes; what has
        # some, or is no JSON, goes the long way.
        try:
            fields, end = self._scan(text, 0)
        except StopIteration:
            end = -1
        if end != len(text):
            fields = self._decode(text)
        result: MessageData = fields
        return result


class PickleEncoder(Encoder):
    """Pickles messages.

    Warning: whoever can write to the broker can run code in the workers. Use it only
    where nobody else can reach the broker.
    """

    def encode(self, data: MessageData) -> bytes:
        return pickle.dumps(data)

    def decode(self, data: bytes) -> MessageData:
        fields: MessageData = pickle.loads(data)
        return fields
