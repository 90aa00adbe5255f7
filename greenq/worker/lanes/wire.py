"""What a worker and a process of its lane say to each other: pickles over a pair of sockets that only they have.

    worker    Setup, then Job after Job
    process   Ready or Failed; for each job Began, then Returned or Raised

Pickles, because arguments, results and exceptions are any objects, and nothing here comes from a
broker or from another machine. Standard library only; both sides import it.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import text_of

_SIZE = struct.Struct("!Q")


@dataclass
class Setup:
    """How a process begins. ``logging`` has the arguments of ``log_lines.configure``; None to leave it alone."""

    number: int
    worker_pid: int
    is_bound: bool
    argv: list[str]
    spec: str | None
    modules: tuple[str, ...]
    logging: Mapping[str, Any] | None


@dataclass
class Job:
    """A job. ``function`` says where its actor is, if that is not a matter of the broker's.

    ``ends_at`` is when its time limit passes, in monotonic seconds, which all processes of a machine share.
    """

    message: Any
    function: tuple[str, str] | None
    time_limit_ms: float | None
    ends_at: float | None
    deliveries: int
    marks: Mapping[str, Any] | None


@dataclass
class Ready:
    """The process has imported everything."""


@dataclass
class Failed:
    """The process could not start; it ends."""

    reason: str


@dataclass
class Began:
    """The job is about to run: until here it may be given to another process."""


@dataclass
class Returned:
    """What the actor returned."""

    result: Any


@dataclass
class Raised:
    """What the actor raised: pickled, if it survives that; and what a stand-in is made of.

    ``nearest`` is the nearest of its classes that another process can import, pickled.
    """

    pickled: bytes | None
    nearest: bytes
    name: str
    module: str
    text: str
    traceback: str


class Ended(Exception):
    """The other side is gone."""


class Wire:
    """One side.

    Parameters:
      end(socket): Of the pair.
    """

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def send(self, said: object) -> None:
        """Say something. May switch.

        Raises:
          Ended: There is nobody to hear it.
          Exception: It cannot be pickled; nothing was said.
        """
        data = pickle.dumps(said, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self.end.sendall(_SIZE.pack(len(data)) + data)
        except OSError as error:
            raise Ended from error

    def receive(self) -> Any:
        """The next thing that the other side says. Switches until there is one.

        Raises:
          Ended: There will be none.
          Exception: It cannot be unpickled here.
        """
        (size,) = _SIZE.unpack(self._exactly(_SIZE.size))
        return pickle.loads(self._exactly(size))

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            try:
                count = self.end.recv_into(view[filled:])
            except OSError as error:
                raise Ended from error
            if not count:
                raise Ended
            filled += count
        return data

    def close(self) -> None:
        self.end.close()


# -- exceptions


class InLane(Exception):
    """The cause of an exception that was raised in another process: its traceback there, as text."""

    def __init__(self, traceback: str) -> None:
        super().__init__(traceback)

    def __str__(self) -> str:
        return f"in the process of the job:\n\n{self.args[0]}"


def pack(error: BaseException, traceback: str) -> Raised:
    """An exception, ready to be sent."""
    kind = type(error)
    return Raised(_pickled(error), _nearest(kind), kind.__qualname__, kind.__module__, text_of(error), traceback)


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = pickle.dumps(error, protocol=pickle.HIGHEST_PROTOCOL)
        # Many pickle well, and cannot be made again: their __init__ takes other arguments than they keep.
        return data if type(pickle.loads(data)) is type(error) else None
    except Exception:
        return None


def _nearest(kind: type[BaseException]) -> bytes:
    return next(data for each in kind.__mro__ if (data := _class_pickled(each)) is not None)


def _class_pickled(kind: type) -> bytes | None:
    try:
        data = pickle.dumps(kind)
        return data if pickle.loads(data) is kind and issubclass(kind, BaseException) else None
    except Exception:  # it is not found under its name
        return None


def unpack(raised: Raised) -> BaseException:
    """The exception itself, or one of a class of the same name, with the same text and nearest class."""
    error = _unpickled(raised)
    if error is None:
        error = _stand_in(raised)
    error.__cause__ = InLane(raised.traceback)
    return error


def _unpickled(raised: Raised) -> BaseException | None:
    if raised.pickled is None:
        return None
    try:
        error = pickle.loads(raised.pickled)
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None


def _stand_in(raised: Raised) -> BaseException:
    try:
        base = pickle.loads(raised.nearest)
    except Exception:  # this process cannot import it after all
        base = Exception
    names = {"__module__": raised.module, "__qualname__": raised.name, "__str__": lambda self: raised.text}
    kind: Any = type(raised.name.rpartition(".")[2], (base,), names)
    # Without its __init__, which nobody knows the arguments of.
    error: BaseException = kind.__new__(kind, raised.text)
    error.args = (raised.text,)
    return error
