"""Writes whole lines to where several processes write, and waits for nobody who reads them.

A file takes each write whole, however long. A pipe takes 4 KiB whole (PIPE_BUF), and of a longer
write what it has room for; then it may be another process's turn. So whoever writes to a pipe, or
to a socket as that of systemd's journal, locks it first. That is a POSIX record lock on the pipe
itself: nobody has to be handed anything, and the lock of a process that dies is gone.

    line --> the pipe, if it has room and it is our turn     nearly always: a crash loses nothing
         --> a queue --> a native thread --> the pipe        while somebody does not read

A reader that has stopped (a terminal in Ctrl-S, a log shipper that hangs) would otherwise stop the
process with its next line, and all jobs in it. What the queue has no room for is dropped, and counted.
A terminal is opened a second time for the writes that must not wait: it says that it has room when that
is room for a single character, and would keep whoever writes a line. (The flag O_NONBLOCK on the
descriptor itself would be the shell's, too.)

Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Seconds that a line waits for another process to end its own, and between two looks: with everything
#: in this thread, and in the thread that writes. Who is stopped would be waited for in vain.
_TURN_WITHIN_S, _LOCK_WITHIN_S = 0.02, 1.0
_LOCK_LOOK_EVERY_S = 0.0005

#: Lines and bytes that wait for a reader.
_MOST_LINES, _MOST_BYTES = 10_000, 4 << 20

#: Bytes of lines that the thread writes at once. It waits for the interpreter after each write, 5 ms beside a job that
#: computes, and with a line a write it would never come up with one that logs.
_MOST_AT_ONCE = 65_536

#: Seconds that an end of the process waits for a reader.
_FLUSH_WITHIN_S = 0.5
_FLUSH_LOOK_EVERY_S = 0.005


def _start_thread(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="log", daemon=True).start()


@dataclass(frozen=True)
class Native:
    """What the operating system does for a process: in one that gevent has patched the usual names do something else.

    Attributes:
      pause(Callable[[float], object]): Waits for so many seconds, with everything in the thread that calls it.
      poll(Callable[[], Any]): As select.poll.
      lock(Callable[[], Any]): Makes a lock.
      start_thread(Callable): Runs a function in a thread that does not keep the process alive.
    """

    pause: Callable[[float], object] = time.sleep
    poll: Callable[[], Any] = select.poll
    lock: Callable[[], Any] = threading.Lock
    start_thread: Callable[[Callable[[], None]], None] = _start_thread


class LogWriter:
    """Writes to a descriptor.

    Lines of several processes stay whole but for one case: who has waited for a second for
    another's line to end (its writer was stopped half-way) goes on, into the middle of it. What
    others than these writers write is not held up.

    Parameters:
      fd(int): Where to.
      native(Native): Of this process.
      tell_dropped(Callable[[int], bytes]): The line that tells of so many lines that are missing.
    """

    def __init__(self, fd: int, native: Native, tell_dropped: Callable[[int], bytes]) -> None:
        self._fd = fd
        self._native = native
        self._tell_dropped = tell_dropped
        self._lock_within_s = _LOCK_WITHIN_S
        self._is_stream, self._is_locked = _kind(fd)
        self._eager_fd = _opened_again(fd)
        self._poll: Any = None
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        # What waits, with whether the pipe is locked for it already: the rest of a line, then.
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._put = self._taken = 0  # bytes, so far; each is counted by one thread alone
        self._dropped = 0
        self._notice: deque[bytes] = deque(maxlen=1)
        self._wake: Any = None

    def write(self, data: bytes) -> None:
        """Write a line, or several. Raises nothing, and does not wait for a reader."""
        if not self._is_stream:
            _write_all(self._fd, data)
            return
        if self._pid != os.getpid():
            self._forget()  # a fork has no threads but its first
        if self._waiting:
            self._hand_over(data, holds=False)
            return
        within_s = min(_TURN_WITHIN_S, self._lock_within_s)
        holds = self._is_locked and self._take_turn(within_s)
        if self._is_locked and not holds:
            self._hand_over(data, holds=False)
            return
        rest = self._write_what_fits(data)
        if rest:
            self._hand_over(rest, holds=holds)
        elif holds:
            self._end_turn()

    def _write_what_fits(self, data: bytes) -> bytes:
        """Write as long as there is room; what is left."""
        if self._poll is None:
            self._poll = self._native.poll()
            self._poll.register(self._fd, select.POLLOUT)
        try:
            # A pipe that has room at all takes so much without waiting.
            while data and self._poll.poll(0):
                data = data[os.write(self._eager_fd, data[: select.PIPE_BUF]) :]
        except BlockingIOError:
            pass
        except OSError:
            # A reader that went away: there is nowhere left to say so, and a log line is no reason to
            # fail a job.
            return b""
        return data

    def _hand_over(self, data: bytes, *, holds: bool) -> None:
        if not holds and (len(self._waiting) >= _MOST_LINES or self._put - self._taken > _MOST_BYTES):
            self._dropped += 1
            # Now, because the thread must not call what is not its own.
            self._notice.append(self._tell_dropped(self._dropped))
            return
        for each in (data,) if holds else (self._take_notice(), data):
            if each:
                self._put += len(each)
                self._waiting.append((each, holds))
        if self._wake is None:
            self._wake = self._native.lock()
            try:
                self._native.start_thread(self._run)
            except RuntimeError:  # no more threads: the line waits for the next one
                self._wake = None
                return
        elif self._wake.locked():
            self._wake.release()

    def _take_notice(self) -> bytes:
        try:
            notice = self._notice.pop()
        except IndexError:
            return b""
        self._dropped = 0
        return notice

    # -- in the thread

    def _run(self) -> None:
        while True:
            while self._waiting:
                holds = self._waiting[0][1]
                lines = self._first_lines()
                data = b"".join(lines)
                if not holds and self._is_locked:
                    holds = self._take_turn(self._lock_within_s)
                    if not holds:
                        self._lock_within_s = 0.0  # not again a second for each line, as long as that lasts
                _write_all(self._fd, data)
                if len(self._waiting) == len(lines):
                    _write_all(self._fd, self._take_notice())
                if holds:
                    self._end_turn()
                self._taken += len(data)
                for _ in lines:
                    self._waiting.popleft()  # last: from now on lines may go their own way
            self._wake.acquire(False)
            if not self._waiting:
                self._wake.acquire()

    def _first_lines(self) -> list[bytes]:
        """The first that wait: one, and as many more as are written at once."""
        lines: list[bytes] = []
        size = 0
        for number in range(len(self._waiting)):  # not an iterator, which fails when another line is added
            line, _ = self._waiting[number]  # only the first can be the rest of one, for which there is a lock
            size += len(line)
            if lines and size > _MOST_AT_ONCE:
                break
            lines.append(line)
        return lines

    # -- turns

    def _take_turn(self, within_s: float) -> bool:
        """Lock the pipe; False if that cannot be done, or takes too long."""
        ends_at = 0.0
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # POSIX lets a system say either
                pass
            except OSError:
                self._is_locked = False  # macOS locks files only
                return False
            else:
                self._lock_within_s = _LOCK_WITHIN_S
                return True
            now = time.monotonic()
            ends_at = ends_at or now + within_s
            if now >= ends_at:
                return False
            self._native.pause(_LOCK_LOOK_EVERY_S)

    def _end_turn(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)

    # -- end

    def flush(self) -> None:
        """Wait for what waits to be written, for half a second at most."""
        ends_at = time.monotonic() + _FLUSH_WITHIN_S
        while self._waiting and self._pid == os.getpid() and time.monotonic() < ends_at:
            self._native.pause(_FLUSH_LOOK_EVERY_S)


def _write_all(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        pass  # a full disk, or nobody is there any more: there is nowhere left to say so


def _kind(fd: int) -> tuple[bool, bool]:
    """Whether it is something that somebody has to read, and whether lines need a lock to stay whole there."""
    try:
        kind = os.fstat(fd).st_mode
    except OSError:  # standard error may be closed
        return False, False
    is_shared = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)
    return is_shared or stat.S_ISCHR(kind), is_shared


def _opened_again(fd: int) -> int:
    """A terminal's descriptor that never waits; the same one if it is none, or may not be opened.

    It is kept as long as the process.
    """
    try:
        if os.isatty(fd):
            return os.open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it belongs to the user who has become this one, or there is no /dev/fd
        pass
    return fd
