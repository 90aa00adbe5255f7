"""How a worker process ends: at once, and by a native thread of its own where nobody else would see to it.

A hub that a job keeps busy hears neither that the time to stop is over nor that the supervisor has died.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn

from ..exit_codes import ExitCode
from ..runtime import Runtime

#: Seconds after the time that jobs have at a stop in which the process ends, whatever happens. The supervisor
#: kills it a little later.
_LAST_RESORT_S = 0.65

#: Seconds between two looks whether the supervisor lives.
_LOOK_FOR_PARENT_S = 1.0


def exit_now(exit_code: int) -> NoReturn:
    """End the process; what was logged and printed is written before."""
    # Not sys.exit: a job that ignores its interrupt, or a native thread stuck in a call,
    # would keep the interpreter alive, and what they hold has been given back already.
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(exit_code)


def exit_in_time(runtime: Runtime, timeout_ms: int) -> None:
    """Have the process end a little after its jobs' time to stop, which begins now, if it does not by itself.

    Parameters:
      runtime(Runtime): The world.
      timeout_ms(int): Milliseconds that the jobs have.
    """
    runtime.start_native_thread(lambda: _exit_after(runtime, timeout_ms), name="last resort")


def exit_without(supervisor_pid: int, runtime: Runtime, timeout_ms: int) -> None:
    """The same from when the supervisor has died: nobody would ever kill this process.

    Parameters:
      supervisor_pid(int): The supervisor, this process's parent.
      runtime(Runtime): The world.
      timeout_ms(int): Milliseconds that the jobs have.
    """

    def look() -> None:
        wait = stand_still(runtime)
        while os.getppid() == supervisor_pid:
            wait(_LOOK_FOR_PARENT_S)
        _exit_after(runtime, timeout_ms)

    runtime.start_native_thread(look, name="orphanage")


def _exit_after(runtime: Runtime, timeout_ms: int) -> None:
    # Without logging, whose locks belong to greenlets.
    stand_still(runtime)(timeout_ms / 1000 + _LAST_RESORT_S)
    poll = runtime.native_poll()
    poll.register(2, select.POLLOUT)
    if poll.poll(0):  # else nobody reads, and to write would be to wait
        os.write(2, b"greenq: the worker process %d did not stop in time and exits.\n" % os.getpid())
    os._exit(ExitCode.KILLED)


def stand_still(runtime: Runtime) -> Callable[[float], object]:
    """What waits for so many seconds, with everything in this thread."""
    lock = runtime.native_lock()
    lock.acquire()
    return lambda seconds: lock.acquire(True, seconds)
