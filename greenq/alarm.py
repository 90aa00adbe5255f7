"""The alarm: interrupts a job that never waits, which no timer of the hub can reach.

    armed for the nearest limit + GRACE_S --SIGALRM--> on the stack of whoever has the CPU:
        the overdue job's own code -> TimeLimitExceeded is raised there
        anybody else's             -> nothing

The operating system's timer, because Python runs a signal's handler between two lines of whatever
runs, and C code that computes for long (regular expressions, large numbers) looks for signals on its
way: a native thread would not even be given the interpreter by it. One shot: a job that ends
in time costs no system call, and where jobs end in time the hub's own timer puts the alarm off before
it ever rings. C code that waits is woken by it (EINTR), so it rings only when somebody is overdue.

A job may use SIGALRM for itself. As long as it has a handler of its own the alarm leaves the timer
alone, and the watch (worker/watch.py) sends SPARE_SIGNAL to the main thread instead, which reaches all
but what holds the interpreter. The same goes for a job that gets the CPU when the alarm has rung.
"""

from __future__ import annotations

import atexit
import os
import signal
from time import monotonic
from types import FrameType
from typing import Any

from .cpu import cpu
from .errors import TimeLimitExceeded

#: What the hub has before the alarm does its work: it is gentler, and takes many at once.
GRACE_S = 0.1
#: Where an interrupt would do harm it is tried again after this.
_AGAIN_S = 0.002

#: None where the system has no such signals.
SPARE_SIGNAL: int | None = signal.SIGRTMIN + 1 if hasattr(signal, "SIGRTMIN") else None

#: Whose lines are never struck: between two of them a lock may be held that nobody would release. A
#: job is on its way out of them sooner or later.
_SPARED = frozenset(
    {
        *("greenq", "gevent", "greenlet", "asyncio", "concurrent"),
        *("logging", "threading", "queue", "contextlib", "importlib"),
    }
)


class Alarm:
    """This process's timer. One at a time; only in the main thread, where signals are handled."""

    def __init__(self) -> None:
        self._is_on = False

    def start(self) -> bool:
        """Take the signals, but SIGALRM only from nobody; False if this is not the main thread."""
        try:
            if SPARE_SIGNAL is not None:
                signal.signal(SPARE_SIGNAL, _strike)
            if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
                signal.signal(signal.SIGALRM, _strike)
        except ValueError:
            return False
        self._is_on = True
        return True

    def stop(self) -> None:
        """Put the timer off, and give the signals back."""
        if not self._is_on:
            return
        self._is_on = False
        if self.is_ours:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if SPARE_SIGNAL is not None and signal.getsignal(SPARE_SIGNAL) is _strike:
            signal.signal(SPARE_SIGNAL, signal.SIG_IGN)  # one may be under way

    @property
    def is_ours(self) -> bool:
        """Whether nobody else has taken SIGALRM."""
        return signal.getsignal(signal.SIGALRM) is _strike

    def arm(self, at: float) -> None:
        """Ring a grace after this, in monotonic seconds, and not at any other time; infinity for never."""
        if not self._is_on or not self.is_ours:
            return
        if at == float("inf"):
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        else:
            _ring_in(at + GRACE_S - monotonic())

    def knock(self) -> None:
        """Signal the main thread in another way; by a native thread that sees somebody who is overdue."""
        if self._is_on and SPARE_SIGNAL is not None:
            signal.pthread_kill(cpu.thread, SPARE_SIGNAL)


def _ring_in(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, max(seconds, _AGAIN_S))


def _strike(signum: int, frame: FrameType | None) -> None:
    """Called by Python on the stack of whichever greenlet has the CPU, the hub's among them. Does not wait."""
    job = cpu.job
    if job is None or job.ends_at is None or not job.is_inside or cpu.task is not cpu.here():
        return
    if job.interrupted_by is TimeLimitExceeded:
        return  # once: what it does since then is its clean-up
    left_s = job.ends_at + GRACE_S - monotonic()
    if left_s > 0:
        # The nearest limit was another's, who waits, or has ended: from now on this one's.
        if signum == signal.SIGALRM:
            _ring_in(left_s)
        return
    if _is_spared(frame):
        if signum == signal.SIGALRM:
            _ring_in(_AGAIN_S)
        return
    job.struck()
    job.interrupted_by = TimeLimitExceeded
    raise TimeLimitExceeded


def _is_spared(frame: Any) -> bool:
    return frame is None or str(frame.f_globals.get("__name__", "")).partition(".")[0] in _SPARED


#: This process's.
alarm = Alarm()
# A child that was forked has no timer, and is not to have one. Nor is an interpreter that ends: with its
# handlers gone the signal would kill it.
os.register_at_fork(after_in_child=alarm.stop)
atexit.register(alarm.stop)
