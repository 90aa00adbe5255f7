"""What a task is: a message for an actor, and its form on the wire.

Does not know brokers. The wire format is a contract with other languages: a JSON
object of exactly the seven fields below, see docs/wire-format.md.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from .clock import now_ms
from .encoder import Encoder, JSONEncoder
from .errors import DecodeError, MessageTooLarge

if TYPE_CHECKING:
    from .composition import group, pipeline
    from .results import ResultBackend

R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

#: The largest message, in encoded bytes. Brokers move whole messages, often: larger
#: data belongs in a store of its own, with its key in the message.
MAX_MESSAGE_BYTES = 1024 * 1024
#: The deepest nesting of lists and dicts, the message's own object included. Far below
#: where decoders run out of stack.
MAX_MESSAGE_DEPTH = 64

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_global_encoder: Encoder = JSONEncoder()


def get_encoder() -> Encoder:
    """The encoder that all messages use, and results that were given none. Default: a JSONEncoder."""
    return _global_encoder


def set_encoder(encoder: Encoder) -> None:
    """Use this encoder for all messages from now on.

    Parameters:
      encoder(Encoder): Producers and workers must use the same one.
    """
    global _global_encoder
    _global_encoder = encoder


#: The digit that says which variant of UUIDs an id is of, by the random digit in its place.
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def generate_unique_id() -> str:
    """A new message id: a random UUID (version 4, RFC 9562) as text."""
    # In a third of the time that str(uuid.uuid4()) takes; every send makes one.
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


@dataclasses.dataclass(frozen=True, order=True, init=False)
class Message(Generic[R_co]):
    """A task: which actor to call, on which queue, with what.

    Parameters:
      queue_name(str): The queue.
      actor_name(str): The actor.
      args(tuple): Positional arguments.
      kwargs(dict): Keyword arguments.
      options(dict): Options for the broker and the middleware, plain and mutable.
      message_id(str): Stays the same over all attempts. Default: a new UUID.
      message_timestamp(int): Unix time in milliseconds at which the message was built. Default: now.

    A message does not change, but for its options. ``first | second`` is a pipeline. Messages are
    equal if all their fields are, and may be sorted, not hashed.
    """

    queue_name: str
    actor_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    message_id: str
    message_timestamp: int

    # The names of the time when messages were named tuples, still in use.
    _fields: ClassVar[tuple[str, ...]] = (
        "queue_name",
        "actor_name",
        "args",
        "kwargs",
        "options",
        "message_id",
        "message_timestamp",
    )
    _field_defaults: ClassVar[dict[str, Any]] = {}

    __hash__ = None  # type: ignore[assignment] # options is mutable

    def __init__(
        self,
        queue_name: str,
        actor_name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
        message_id: str | None = None,
        message_timestamp: int | None = None,
    ) -> None:
        # The __init__ that dataclasses make for a frozen class sets each field by a call of its
        # own, a tenth of the time of a send.
        fields = self.__dict__
        fields["queue_name"] = queue_name
        fields["actor_name"] = actor_name
        fields["args"] = tuple(args)  # the same object, if it is one already
        fields["kwargs"] = kwargs
        fields["options"] = options
        fields["message_id"] = generate_unique_id() if message_id is None else message_id
        fields["message_timestamp"] = now_ms() if message_timestamp is None else message_timestamp

    def __str__(self) -> str:
        arguments = [repr(arg) for arg in self.args]
        arguments += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.actor_name}({', '.join(arguments)})"

    @overload
    def __or__(self, other: Message[S]) -> pipeline[S]: ...
    @overload
    def __or__(self, other: pipeline[S]) -> pipeline[S]: ...
    @overload
    def __or__(self, other: group[S]) -> pipeline[list[S]]: ...
    def __or__(self, other: Any) -> Any:
        """A pipeline of this message and then the other, with the result of this one."""
        from .composition import pipeline

        return pipeline([self, other])

    @property
    def message_datetime(self) -> datetime:
        """message_timestamp as an aware UTC datetime, exact to the millisecond."""
        # Integer arithmetic: a float of seconds would be off by microseconds.
        return _EPOCH + timedelta(milliseconds=self.message_timestamp)

    def asdict(self) -> dict[str, Any]:
        """The fields as a dict. Shallow: options is the same object."""
        return {name: getattr(self, name) for name in self._fields}

    _asdict = asdict

    def copy(self, **attributes: Any) -> Message[R_co]:
        """A copy with these attributes replaced; options are merged into the old ones.

        Parameters:
          **attributes: Fields of the message.

        Raises:
          TypeError: There is no such field.
        """
        options = attributes.get("options")
        fields = {**self.__dict__, **attributes, "options": {**self.options, **(options or {})}}
        return type(self)(**fields)

    def _replace(self, **attributes: Any) -> Message[R_co]:
        return dataclasses.replace(self, **attributes)

    # -- its result

    def get_result(
        self, *, backend: ResultBackend | None = None, block: bool = False, timeout: float | None = None
    ) -> R_co:
        """What the actor returned. May switch.

        Parameters:
          backend(ResultBackend): Where to look. Default: that of the global broker; give it if
            there are several brokers.
          block(bool): Whether to wait for the result. Default: False.
          timeout(int): Milliseconds to wait, any number of them. Default: 10 seconds.

        Raises:
          RuntimeError: The global broker has no result backend.
          ResultMissing: There is no result, and block is False.
          ResultTimeout: None came in time.
          ResultFailure: The actor failed for good.
        """
        result: R_co = _results(backend).get_result(self, block=block, timeout=timeout)
        return result

    async def aget_result(self, *, backend: ResultBackend | None = None, timeout: float | None = None) -> R_co:
        """``get_result(block=True)`` for code that runs on an asyncio loop, which nothing blocks meanwhile.

        Raises like it.
        """
        result: R_co = await _results(backend).aget_result(self, timeout=timeout)
        return result

    def forget_result(self, *, backend: ResultBackend | None = None) -> None:
        """Remove the result before its time is over. Nothing happens if there is none. May switch.

        Parameters:
          backend(ResultBackend): Where it is. Default: that of the global broker.

        Raises:
          RuntimeError: The global broker has no result backend.
          ConnectionError: The backend is away.
        """
        _results(backend).forget_result(self)

    # -- on the wire

    def encode(self) -> bytes:
        """The message as bytes, as the global encoder has it.

        Raises:
          TypeError: An argument is of a kind that the encoder cannot write.
          MessageTooLarge: Larger than MAX_MESSAGE_BYTES, or nested too deeply.
        """
        try:
            data = _global_encoder.encode(self.__dict__)
        except RecursionError as error:
            raise MessageTooLarge(self._too_deep()) from error
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"A message for actor {self.actor_name!r} cannot be encoded by "
                f"{type(_global_encoder).__name__}: {error}. Send plain values (numbers, strings, "
                "lists, dicts), or choose another encoder with set_encoder()."
            ) from error
        if len(data) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"A message for actor {self.actor_name!r} is {len(data):,} bytes long; at most "
                f"{MAX_MESSAGE_BYTES:,} are allowed. Store the data elsewhere and send its key."
            )
        if data.count(b"[") + data.count(b"{") > MAX_MESSAGE_DEPTH and _is_too_deep(data):
            raise MessageTooLarge(self._too_deep())
        return data

    def _too_deep(self) -> str:
        return (
            f"A message for actor {self.actor_name!r} nests lists and dicts more than "
            f"{MAX_MESSAGE_DEPTH} levels deep. Flatten the data, or store it elsewhere and send its key."
        )

    @classmethod
    def decode(cls, data: bytes) -> Message[Any]:
        """The message in these bytes.

        A missing message_id or message_timestamp is generated.

        Parameters:
          data(bytes): As the global encoder wrote them.

        Raises:
          DecodeError: They are no message; says why.
        """
        return cls._decode(data)

    @classmethod
    def _decode(cls, data: bytes, message_id: str | None = None) -> Message[Any]:
        """The same with the id for a message that has none."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise DecodeError(
                f"The message is {len(data):,} bytes long; at most {MAX_MESSAGE_BYTES:,} are allowed.", data, None
            )
        if data.count(b"[") + data.count(b"{") > MAX_MESSAGE_DEPTH and _is_too_deep(data):
            raise DecodeError(f"The message is nested more than {MAX_MESSAGE_DEPTH} levels deep.", data, None)
        try:
            fields = _global_encoder.decode(data)
        except Exception as error:  # whatever an encoder of the application raises
            raise DecodeError(f"The message cannot be decoded: {error}.", data, error) from error
        return cls._from_fields(fields, data, message_id)

    @classmethod
    def _from_fields(cls, fields: Any, data: bytes, message_id: str | None = None) -> Message[Any]:
        try:
            args = fields["args"]
            if (
                type(args) in (list, tuple)
                and type(fields["kwargs"]) is dict
                and isinstance(fields["options"], dict)
                and type(fields["queue_name"]) is str
                and type(fields["actor_name"]) is str
                and type(fields.setdefault("message_id", None)) in (str, type(None))
                and type(fields.setdefault("message_timestamp", None)) in (int, type(None))
                and len(fields) == 7
            ):
                fields["args"] = tuple(args)
                if fields["message_id"] is None:
                    fields["message_id"] = message_id or generate_unique_id()
                if fields["message_timestamp"] is None:
                    fields["message_timestamp"] = now_ms()
                # A worker decodes every message, and this takes half the time of __init__.
                message = cls.__new__(cls)
                message.__dict__.update(fields)
                return message
        except (KeyError, TypeError, AttributeError):
            pass
        raise DecodeError(_what_is_wrong(fields), data, None)


def _results(backend: ResultBackend | None) -> ResultBackend:
    if backend is not None:
        return backend
    from .broker import get_broker

    return get_broker().get_results_backend()


_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    "queue_name": (str,),
    "actor_name": (str,),
    "args": (list, tuple),
    "kwargs": (dict,),
    "options": (dict,),
    "message_id": (str, type(None)),
    "message_timestamp": (int, type(None)),
}


def _what_is_wrong(fields: Any) -> str:
    """Say in which way decoded data is not a message."""
    if not isinstance(fields, dict):
        return f"The message is not an object but {type(fields).__name__}."
    missing = _FIELD_TYPES.keys() - fields.keys() - {"message_id", "message_timestamp"}
    if missing:
        return f"The message lacks {', '.join(sorted(missing))}."
    extra = fields.keys() - _FIELD_TYPES.keys()
    if extra:
        return f"The message has unknown fields: {', '.join(sorted(map(str, extra)))[:200]}."
    for name, types in _FIELD_TYPES.items():
        value = fields.get(name)
        if type(value) not in types and not (name == "options" and isinstance(value, dict)):
            expected = " or ".join(kind.__name__ for kind in types if kind is not type(None))
            return f"The message's {name} is {type(fields[name]).__name__} instead of {expected}."
    return "The message has an unexpected shape."


_BRACKETS_OUTSIDE_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')


def _is_too_deep(data: bytes) -> bool:
    """Whether JSON is nested more deeply than MAX_MESSAGE_DEPTH; False for what is no JSON."""
    # Who asks has counted the brackets, which is quick and answers for nearly every message.
    if data.lstrip(b" \t\r\n")[:1] not in b"[{":
        return False
    depth = 0
    for match in _BRACKETS_OUTSIDE_STRINGS.finditer(data):
        token = match[0]
        if token in b"[{":
            depth += 1
            if depth > MAX_MESSAGE_DEPTH:
                return True
        elif token in b"]}":
            depth -= 1
    return False
