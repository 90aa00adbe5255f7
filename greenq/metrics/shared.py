"""The shared file: an area of it for each worker, in which it counts with plain additions.

    area      a header and 2047 records
    header    whether its gauges count (1 or 0), how many records it has, and in which layout: three
              32-bit numbers
    record    2 KiB: the length of its key (16 bits), the key, and in the second half 128 values

Memory, not messages: to count costs a worker an addition, a scrape costs it nothing, and what
it has counted is there whatever kills it. The next worker that is given the area goes on from
there, so that no counter ever goes backwards. Only if it has other metrics, as after a reload with
another version of greenq, does it begin anew, and nobody reads one layout as the other. Each area
has one writer; a value is eight aligned bytes, which are written in one step. Only the supervisor
changes the file's length.

The file has no name: it goes away with the last process that has it open.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ..nameless import nameless_fd
from .catalogue import METRICS, Labels, fresh, gauges

RECORD = 2048
_VALUES_AT = RECORD // 2
#: Sparse: what is not used takes no memory.
AREA = 4 * 1024 * 1024
MOST_RECORDS = AREA // RECORD - 1
MOST_AREAS = 1024

_HEADER = struct.Struct("=III")
#: What the metrics are, and where their values stand, as a number.
LAYOUT = zlib.crc32(repr((RECORD, METRICS)).encode())
_KEY_LENGTH = struct.Struct("=H")
_VALUES = struct.Struct(f"={(RECORD - _VALUES_AT) // 8}d")

#: The value of all labels of what has no record of its own.
OTHERS = "(others)"


class SharedFile:
    """The supervisor's side: the file, and who has which area.

    Parameters:
      directory(str): Where to make the file. Default: in memory, where the system can.

    Raises:
      OSError: It cannot be made.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.fd = nameless_fd("greenq-metrics", directory)
        self._taken: set[int] = set()
        self._length = 0

    def take(self) -> int | None:
        """The number of an area that nobody has; None if there is none."""
        number = next((each for each in range(MOST_AREAS) if each not in self._taken), None)
        if number is not None:
            if number >= self._length:
                os.ftruncate(self.fd, (number + 1) * AREA)
                self._length = number + 1
            self._taken.add(number)
        return number

    def give_back(self, number: int) -> None:
        """Note that the area's worker has died: its gauges count no more."""
        self._taken.discard(number)
        # Written, not mapped: the supervisor must survive a disk that is full.
        with contextlib.suppress(OSError):
            os.pwrite(self.fd, b"\0\0\0\0", number * AREA)


class Area:
    """A worker's side: its area.

    Parameters:
      fd(int): Of the shared file.
      number(int): Of the area.

    Raises:
      OSError: There is no room left for it.
    """

    def __init__(self, fd: int, number: int) -> None:
        self._fd = fd
        self._at = number * AREA
        os.pwrite(fd, b"\0\0\0\0", self._at)
        self._map = mmap.mmap(fd, AREA, offset=self._at)
        self._records: dict[tuple[str, ...], memoryview[float]] = {}
        self._lock = threading.Lock()
        _, count, layout = _HEADER.unpack_from(self._map)
        for index in range(count if layout == LAYOUT else 0):
            labels, key = _read_key(self._map, (index + 1) * RECORD)
            values = self._records[key] = self._values(index)
            for offset, value in gauges(labels):
                values[offset] = value
        self._note(len(self._records))

    def record(self, labels: Labels, *label_values: str) -> memoryview[float]:
        """The values of the record with these labels, to be read and written as a list of floats.

        Parameters:
          labels(Labels): Of what it is.
          label_values(str): One for each of them. What is too much, or too long, is one record
            for all.

        Raises:
          OSError: There is no room left for it.
        """
        key = (labels.name, *label_values)
        values = self._records.get(key)
        if values is not None:
            return values
        with self._lock:
            name = _name(key)
            if len(name) > _VALUES_AT - _KEY_LENGTH.size or len(self._records) >= MOST_RECORDS - len(Labels):
                key = (labels.name, *(OTHERS for _ in label_values))
                name = _name(key)
            values = self._records.get(key)
            if values is None:
                values = self._records[key] = self._add(name, fresh(labels))
            return values

    def _add(self, name: bytes, values: list[float]) -> memoryview[float]:
        index = len(self._records)
        content = bytearray(RECORD)
        _KEY_LENGTH.pack_into(content, 0, len(name))
        content[_KEY_LENGTH.size : _KEY_LENGTH.size + len(name)] = name
        struct.pack_into(f"={len(values)}d", content, _VALUES_AT, *values)
        # Written, so that a full disk is an error here and not the end of the process later.
        os.pwrite(self._fd, content, self._at + (index + 1) * RECORD)
        self._note(index + 1)
        return self._values(index)

    def _note(self, count: int) -> None:
        # Last, so that nobody reads a record that is not complete.
        _HEADER.pack_into(self._map, 0, 1, count, LAYOUT)

    def _values(self, index: int) -> memoryview[float]:
        start = (index + 1) * RECORD + _VALUES_AT
        return memoryview(self._map)[start : start + RECORD - _VALUES_AT].cast("d")

    # -- what one of all workers does for all

    def elect(self) -> bool:
        """Whether this process is the one that looks for all: the first to ask, until its end.

        Does not wait.
        """
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
        except OSError:
            return False
        return True

    def resign(self) -> None:
        """Leave it to another one."""
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1)


class Record(NamedTuple):
    """A record as it was read.

    Attributes:
      labels(Labels): Of what it is.
      label_values(tuple[str, ...]): One for each of them.
      is_alive(bool): Whether its gauges count.
      values(tuple[float, ...]): All of them.
    """

    labels: Labels
    label_values: tuple[str, ...]
    is_alive: bool
    values: tuple[float, ...]


def read(fd: int) -> Iterator[Record]:
    """All records of all areas that have this program's metrics."""
    for start in range(0, os.fstat(fd).st_size, AREA):
        is_alive, count, layout = _HEADER.unpack(os.pread(fd, _HEADER.size, start))
        content = os.pread(fd, count * RECORD, start + RECORD) if count and layout == LAYOUT else b""
        for index in range(len(content) // RECORD):
            labels, key = _read_key(content, index * RECORD)
            values = _VALUES.unpack_from(content, index * RECORD + _VALUES_AT)
            yield Record(labels, key[1:], bool(is_alive), values)


def _read_key(content: bytes | mmap.mmap, start: int) -> tuple[Labels, tuple[str, ...]]:
    (length,) = _KEY_LENGTH.unpack_from(content, start)
    key = tuple(json.loads(content[start + _KEY_LENGTH.size : start + _KEY_LENGTH.size + length]))
    return Labels[key[0]], key


def _name(key: tuple[str, ...]) -> bytes:
    return json.dumps(key, ensure_ascii=False).encode("utf-8", "replace")


# -- what a process is told


_fd: int | None = None
_area_number: int | None = None
_worker_number = 0


def hand_over(fd: int | None, area_number: int | None, worker_number: int) -> None:
    """Tell this process of its shared file, of its area if it has one, and which worker it is."""
    global _fd, _area_number, _worker_number
    _fd, _area_number, _worker_number = fd, area_number, worker_number
    if fd is not None:
        # Programs that jobs start must not keep it.
        os.set_inheritable(fd, False)


def open_area() -> Area | None:
    """The area of this process, for one who writes; None if it has none, or somebody has it already.

    Raises:
      OSError: There is no room left for it.
    """
    global _area_number
    number, _area_number = _area_number, None
    return None if _fd is None or number is None else Area(_fd, number)


def worker_number() -> int:
    """Which worker this process is, from 1."""
    return _worker_number


def file() -> int | None:
    """The file's descriptor; None if this process was not told of one."""
    return _fd
