"""Waits while another process holds the file's write lock.

SQLite's own waiting sleeps up to 100 ms between two tries, which starves one of two busy
processes; ours sleeps a few milliseconds at most. Called in native threads only.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ...errors import StorageError
from ...runtime import current

R = TypeVar("R")

#: After this long something is wrong with whoever holds the lock.
LONGEST_WAIT_S = 30.0
_SHORTEST_PAUSE_S = 0.0005
_LONGEST_PAUSE_S = 0.005


def while_locked(path: str, inside: Any, run: Callable[[], R], *, longest_wait_s: float = LONGEST_WAIT_S) -> R:
    """Call a function again until no other process's lock is in its way; return its answer.

    Parameters:
      path(str): The file, for what is said if it takes too long.
      inside(Any): A native lock that is held during each call, and not between them.
      run(Callable): May be called many times.
      longest_wait_s(float): Seconds.

    Raises:
      StorageError: The lock was held for too long.
    """
    try:
        with inside:
            return run()
    except sqlite3.OperationalError as error:
        if not is_locked(error):
            raise
    started, pause_s = time.monotonic(), _SHORTEST_PAUSE_S
    never = current().native_lock()  # time.sleep is a greenlet's in a patched process
    never.acquire()
    while True:
        never.acquire(True, pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        try:
            with inside:
                return run()
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            if time.monotonic() - started >= longest_wait_s:
                raise StorageError(
                    f"{path} has been locked by {_holder(path)} for {longest_wait_s:.0f} s, so nothing was read "
                    "or written. End that process, or the transaction that it left open; then try again."
                ) from error


def is_locked(error: BaseException) -> bool:
    """Whether SQLite says that somebody else's lock is in the way."""
    text = str(error)
    return isinstance(error, sqlite3.OperationalError) and ("is locked" in text or "locking protocol" in text)


def _holder(path: str) -> str:
    """Who holds the write lock, as far as the kernel tells: a lock on byte 120 of the shared memory."""
    try:
        inode = os.stat(path + "-shm").st_ino
        with open("/proc/locks") as locks:
            for line in locks:
                # 1: POSIX  ADVISORY  WRITE 4321 08:01:123456 120 120
                fields = line.split()
                if fields[3] == "WRITE" and fields[5].endswith(f":{inode}") and fields[6] == "120":
                    return f"process {fields[4]}"
    except (OSError, IndexError):
        pass
    return "another process"
