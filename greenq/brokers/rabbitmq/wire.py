"""pika's connections, with frames read and written by the bundle.

pika takes each frame apart by itself, slicing its buffer every time, makes three objects of it
and asks its registry for callbacks: 15 us for a message that is consumed and acknowledged. Of
the frames of which there are many (deliveries, confirms, publishes, acks) this room reads and
writes the bytes itself; all others are pika's business as ever, and so are the handshake,
heartbeats, sockets and TLS.

    frame     type (1 byte), channel (2), length (4), payload, 0xCE
    message   one frame of method, one of header (length of the body, properties), then the body's
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pika
import pika.exceptions
from pika.adapters.select_connection import SelectConnection
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.frame import decode_frame

_FRAME = struct.Struct(">BHI")
_METHOD_ID = struct.Struct(">I")
_TAG_AND_FLAG = struct.Struct(">QB")
_HEADER = struct.Struct(">HHQ")
_ACK = struct.Struct(">BHIIQBB")
_NACK = struct.Struct(">BHIIQBB")

_METHOD_FRAME, _HEADER_FRAME, _BODY_FRAME = 1, 2, 3
_END = 0xCE
_END_BYTE = b"\xce"
_FRAME_OVERHEAD = 8

_BASIC = 60
_PUBLISH = _BASIC << 16 | 40
_DELIVER = _BASIC << 16 | 60
_ACK_METHOD = _BASIC << 16 | 80
_NACK_METHOD = _BASIC << 16 | 120

#: Raised for what the other side sent.
_NOT_AMQP = (
    pika.exceptions.ProtocolSyntaxError,
    pika.exceptions.InvalidFrameError,
    pika.exceptions.ProtocolVersionMismatch,
)

#: What a socket says whose buffer takes nothing for now.
_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)

#: How much is read at once. pika reads 4 KiB, which is ten messages.
_READ_BYTES = 256 * 1024


class Taker(Protocol):
    """Who takes frames of one channel as bytes."""

    def take(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Take the payload between start and end; False if it is pika's."""
        ...

    def end_of_read(self) -> None:
        """All frames of one read were given out."""
        ...


if TYPE_CHECKING:

    class _PikaConnection:
        """What is used here, and in pulse.py, of the pika connections that these classes are mixed into."""

        params: Any
        bytes_sent: int
        _transport: Any

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def _proto_connection_made(self, transport: Any) -> None: ...
        def _on_data_available(self, data_in: bytes) -> None: ...
        def _process_frame(self, frame_value: Any) -> None: ...
        def _output_marshaled_frames(self, marshaled_frames: list[bytes]) -> None: ...

else:
    _PikaConnection = object


class BulkReading(_PikaConnection):
    """Gives frames of channels that have a taker to it, all others to pika.

    Parameters:
      on_failure: Called with an error that nobody expected, from where frames are given out.
    """

    def __init__(self, *args: Any, on_failure: Callable[[BaseException], None], **kwargs: Any) -> None:
        self._on_failure = on_failure
        #: By channel number.
        self.takers: dict[int, Taker] = {}
        #: When something was read last, on the monotonic clock.
        self.read_at = time.monotonic()
        self.bytes_received = 0
        self._frame_buffer = b""
        super().__init__(*args, **kwargs)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _READ_BYTES
        transport._MAX_CONSUME_BYTES = _READ_BYTES
        super()._proto_connection_made(transport)

    def _on_data_available(self, data_in: bytes) -> None:
        self.read_at = time.monotonic()
        try:
            self._give_out(data_in)
        except Exception as error:
            if not isinstance(error, _NOT_AMQP):
                self._on_failure(error)
            raise  # pika gives up the connection

    @property
    def may_be_given_up(self) -> bool:
        """Whether nothing was read for so long that the server may have given up, unnoticed yet.

        It sends a heartbeat twice in the time of one; so whoever should have read them stood still.
        """
        heartbeat = self.params.heartbeat
        return bool(heartbeat) and time.monotonic() - self.read_at > heartbeat

    def _give_out(self, data_in: bytes) -> None:
        if not self.takers:
            super()._on_data_available(data_in)
            return
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        self._frame_buffer = b""
        self.bytes_received += len(data_in)
        touched: set[Taker] = set()
        position, length = 0, len(data)
        takers = self.takers
        while length - position >= _FRAME_OVERHEAD:
            kind, channel, size = _FRAME.unpack_from(data, position)
            end = position + size + _FRAME_OVERHEAD
            if end > length:
                break
            taker = takers.get(channel)
            if taker is not None and taker.take(kind, data, position + 7, end - 1):
                if data[end - 1] != _END:
                    raise pika.exceptions.InvalidFrameError("A frame does not end as frames do")
                touched.add(taker)
            else:
                # Whoever waits for pika's news must know of everything that came before.
                for each in touched:
                    each.end_of_read()
                touched.clear()
                _, frame = decode_frame(data[position:end])
                self._process_frame(frame)
            position = end
        self._frame_buffer = data[position:]
        for each in touched:
            each.end_of_read()

    def write_frames(self, data: bytes) -> bool:
        """Send these frames, at once if nothing is in front of them; False if the socket is broken.

        Then nothing of them was sent, nor will be, and pika finds out next. pika would wait for the
        socket to be writable, which it nearly always is, with a watcher made for that.
        """
        transport = self._transport
        if transport is None or transport._state != transport._STATE_ACTIVE:
            return False
        sent = 0
        is_broken = False
        if type(transport) is _AsyncPlaintextTransport and not transport._tx_buffers:
            try:
                sent = transport._sock.send(data)
            except OSError as error:
                is_broken = error.errno not in _FULL
            self.bytes_sent += sent
        if sent < len(data):
            self._output_marshaled_frames([data[sent:]])
        return not is_broken


class ThreadConnection(BulkReading, SelectConnection):  # type: ignore[misc] # pika has no types
    """For a native thread with pika's own loop."""


def write(connection: Any, data: bytes) -> bool:
    """Send these frames; False if none was, nor will be. In the thread of the connection's loop."""
    sent: bool = connection.write_frames(data)
    return sent


# -- properties


class Properties(NamedTuple):
    """What matters of a message's properties."""

    priority: int
    headers: dict[str, Any]


_NO_PROPERTIES = Properties(0, {})
_seen: dict[bytes, Properties] = {}


def read_properties(data: bytes) -> Properties:
    """The properties in these bytes: flags and values, as in a header frame."""
    known = _seen.get(data)
    if known is not None:
        return known
    decoded = pika.BasicProperties()
    try:
        decoded.decode(data)
    except Exception:  # a foreign producer's, of a kind that pika cannot read; the message itself may be good
        return _NO_PROPERTIES
    made = Properties(decoded.priority or 0, decoded.headers or {})
    if not made.headers and len(_seen) < 1000:
        _seen[data] = made  # nearly all messages have the same few
    return made


_PERSISTENT = 2
_packed: dict[int, bytes] = {}


def pack_properties(priority: int, headers: dict[str, Any] | None = None) -> bytes:
    """The properties of a persistent message, as in a header frame."""
    if headers:
        return _encoded(priority, headers)
    packed = _packed.get(priority)
    if packed is None:
        packed = _packed[priority] = _encoded(priority, None)
    return packed


def _encoded(priority: int, headers: dict[str, Any] | None) -> bytes:
    properties = pika.BasicProperties(delivery_mode=_PERSISTENT, priority=priority or None, headers=headers)
    return b"".join(properties.encode())


# -- frames that are sent


def publish_method(channel: int, routing_key: str) -> bytes:
    """The first frame of a message to the default exchange, to be returned if there is no such queue."""
    key = routing_key.encode()
    payload = b"".join((struct.pack(">IHBB", _PUBLISH, 0, 0, len(key)), key, b"\x01"))
    return _FRAME.pack(_METHOD_FRAME, channel, len(payload)) + payload + _END_BYTE


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """The other frames of a message.

    Parameters:
      frame_max(int): The longest frame that the server takes, in bytes.
    """
    header = _HEADER.pack(_BASIC, 0, len(body)) + properties
    parts = [_FRAME.pack(_HEADER_FRAME, channel, len(header)), header, _END_BYTE]
    most = frame_max - _FRAME_OVERHEAD
    if len(body) <= most:
        if body:
            parts += (_FRAME.pack(_BODY_FRAME, channel, len(body)), body, _END_BYTE)
    else:
        for start in range(0, len(body), most):
            part = body[start : start + most]
            parts += (_FRAME.pack(_BODY_FRAME, channel, len(part)), part, _END_BYTE)
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Remove a message; with ``multiple`` all that came before it on the channel, too."""
    return _ACK.pack(_METHOD_FRAME, channel, 13, _ACK_METHOD, tag, multiple, _END)


def requeue(channel: int, tag: int) -> bytes:
    """Return a message to its queue."""
    return _NACK.pack(_METHOD_FRAME, channel, 13, _NACK_METHOD, tag, 2, _END)


# -- frames that come


class Delivery(NamedTuple):
    """A message that came."""

    consumer_tag: bytes
    tag: int
    is_redelivered: bool
    properties: Properties
    body: bytes


class DeliveryTaker:
    """Puts messages together.

    Parameters:
      on_deliveries: Called with all that came in one read.
    """

    def __init__(self, on_deliveries: Any) -> None:
        self._on_deliveries = on_deliveries
        self._came: list[Delivery] = []
        self._method: tuple[bytes, int, bool] | None = None
        self._properties = _NO_PROPERTIES
        self._missing = 0
        self._parts: list[bytes] = []

    def take(self, kind: int, data: bytes, start: int, end: int) -> bool:
        if kind == _METHOD_FRAME:
            if _METHOD_ID.unpack_from(data, start)[0] != _DELIVER:
                return False
            after = start + 5 + data[start + 4]
            tag, redelivered = _TAG_AND_FLAG.unpack_from(data, after)
            self._method = (data[start + 5 : after], tag, redelivered != 0)
            return True
        if self._method is None:
            return False
        if kind == _HEADER_FRAME:
            self._missing = _HEADER.unpack_from(data, start)[2]
            self._properties = read_properties(data[start + 12 : end])
            if self._missing:
                return True
        else:
            part = data[start:end]
            self._missing -= len(part)
            if self._missing or self._parts:
                self._parts.append(part)
                if self._missing:
                    return True
                part = b"".join(self._parts)
                self._parts = []
            self._came.append(Delivery(*self._method, self._properties, part))
            self._method = None
            return True
        self._came.append(Delivery(*self._method, self._properties, b""))
        self._method = None
        return True

    def end_of_read(self) -> None:
        if self._came:
            came, self._came = self._came, []
            self._on_deliveries(came)


class ConfirmTaker:
    """Reads the server's answers to what was published.

    Parameters:
      on_confirms: Called with all that came in one read: (tag, whether for all before it, whether
        it was refused).
    """

    def __init__(self, on_confirms: Any) -> None:
        self._on_confirms = on_confirms
        self._came: list[tuple[int, bool, bool]] = []

    def take(self, kind: int, data: bytes, start: int, end: int) -> bool:
        if kind != _METHOD_FRAME:
            return False
        method = _METHOD_ID.unpack_from(data, start)[0]
        if method not in (_ACK_METHOD, _NACK_METHOD):
            return False
        tag, flags = _TAG_AND_FLAG.unpack_from(data, start + 4)
        self._came.append((tag, bool(flags & 1), method == _NACK_METHOD))
        return True

    def end_of_read(self) -> None:
        if self._came:
            came, self._came = self._came, []
            self._on_confirms(came)
