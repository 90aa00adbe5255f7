"""The shared page: what a worker process shows of itself to its supervisor, in memory.

    beats     how often its native thread has looked around
    turns     how often its hub has had a turn
    kill_at   when the process is to be killed unless this changes, in monotonic seconds; 0 for never
    on_cpu    the id of the message whose job has the CPU; empty if none has

Memory, because it is there when the worker cannot speak any more: C code that holds the
interpreter stops all threads, and a process that was killed tells nothing. The worker writes and
the supervisor reads; a number is eight aligned bytes, which are written in one step, and the id
is only read in earnest when nobody can be writing it.

The page has no name: it goes away with the last process that has it open.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os

from .nameless import nameless_fd

_SIZE = mmap.PAGESIZE
_BEATS, _TURNS, _KILL_AT = range(3)
_ON_CPU_AT = 64

#: Bytes of the longest id that is shown; a longer one is as none.
LONGEST_ID = 128


class SharedPage:
    """The page, on either side.

    Parameters:
      fd(int): A descriptor of it, which is the caller's; from ``make()``, inherited by the worker.

    Attributes:
      numbers(memoryview): ``beats``, ``turns`` and ``kill_at`` as floats, in this order; to be added to in place.
      sign(ctypes.Array): ``on_cpu``: its ``value`` is to be set to ``name_bytes(id)``, or to ``b""`` for nobody. The
        fastest way that there is to write a few bytes, because it is done at every switch.

    Raises:
      OSError: It cannot be mapped.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _SIZE)
        view = memoryview(self._map)
        self.numbers: memoryview[float] = view[: 8 * 3].cast("d")
        self.sign = (ctypes.c_char * LONGEST_ID).from_buffer(self._map, _ON_CPU_AT)

    @property
    def beats(self) -> int:
        return _whole(self.numbers[_BEATS])

    @property
    def turns(self) -> int:
        return _whole(self.numbers[_TURNS])

    @property
    def kill_at(self) -> float:
        return self.numbers[_KILL_AT]

    @kill_at.setter
    def kill_at(self, at: float) -> None:
        self.numbers[_KILL_AT] = at

    def beat(self) -> None:
        """The native thread has looked around."""
        self.numbers[_BEATS] += 1

    def turn(self) -> None:
        """The hub has had a turn."""
        self.numbers[_TURNS] += 1

    @property
    def message_on_cpu(self) -> str:
        """The id of the message whose job has the CPU; empty if none has."""
        return self.sign.value.decode("utf-8", "replace")

    def close(self) -> None:
        """Let go of the memory, which goes once nobody holds the sign either."""
        self.numbers.release()
        del self.sign
        with contextlib.suppress(BufferError):
            self._map.close()


def _whole(number: float) -> int:
    # A worker whose memory is corrupted may have written anything here, and is not to end who reads it.
    return int(number) if math.isfinite(number) else 0


def name_bytes(message_id: str) -> bytes:
    """What ``sign.value`` is to be set to while the job of this message has the CPU."""
    name = message_id.encode("utf-8", "replace")
    return name if len(name) <= LONGEST_ID else b""


def make() -> int:
    """A new page; answer a descriptor of it.

    Raises:
      OSError: There is no room for it.
    """
    fd = nameless_fd("greenq-page")
    os.ftruncate(fd, _SIZE)
    return fd
