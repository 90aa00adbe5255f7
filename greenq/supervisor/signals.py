"""Signals as something to read: a file descriptor for the supervisor's loop.

A handler that runs in the middle of the loop could find it half-way through anything.
Here handlers do nothing; the interpreter writes each signal's number to a pipe, in the
order of arrival, and the loop reads them when it is ready.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What the supervisor acts on. Others keep what they did before.
HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
)


class SignalPipe:
    """While it is entered, the signals of HANDLED are read from ``fd``.

    After it they do nothing: the process is about to end, and its exit code is to tell how.
    """

    def __init__(self) -> None:
        self.fd = -1
        self._write_fd = -1
        self._wakeup_before = -1

    def __enter__(self) -> SignalPipe:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for signum in HANDLED:
            signal.signal(signum, _leave_it_to_the_pipe)
        # Whoever started the command may have blocked them.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        return self

    def __exit__(self, *exc_info: object) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.fd)
        os.close(self._write_fd)

    def read(self) -> list[int]:
        """The signals that have come since the last call, in order."""
        try:
            return list(os.read(self.fd, 4096))
        except BlockingIOError:
            return []


@contextmanager
def blocked() -> Iterator[None]:
    """Hold signals back meanwhile. A process started now starts with them held back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def describe_exit(returncode: int) -> str:
    """How a process ended, for a log line. A negative code is a signal's number."""
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def _leave_it_to_the_pipe(signum: int, frame: FrameType | None) -> None:
    pass
