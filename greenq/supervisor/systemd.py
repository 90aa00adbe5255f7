"""Tells systemd how the command is: services of ``Type=notify``, and their watchdog.

    READY=1        all workers are ready; again after a reload
    RELOADING=1    new workers are started beside the present ones
    STOPPING=1     all are stopped
    STATUS=        how many workers are ready
    WATCHDOG=1     every half of WatchdogSec, as long as the supervisor's loop turns

Without systemd nothing happens. The supervisor never waits for it.
"""

from __future__ import annotations

import os
import socket
import time


class Systemd:
    """What systemd was told, and is to be told.

    Parameters:
      address(str): Of its socket; one that begins with @ is abstract. Empty: nobody is told anything.
      watchdog_s(float | None): Seconds within which it wants to hear of the loop. None: it does not.
    """

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        self._every_s = None if watchdog_s is None or not address else watchdog_s / 2
        self._alive_at = time.monotonic()
        self._state = ""
        self._status = ""

    @classmethod
    def from_environment(cls) -> Systemd:
        """As the environment says, which is cleared of it: it is said to this process, and to no child."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        is_meant = pid in ("", str(os.getpid()))
        has_watchdog = is_meant and microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if has_watchdog else None)

    def look(self, *, is_stopping: bool, is_reloading: bool, ready: int, of: int) -> None:
        """Tell what has changed. To be called at each turn of the loop."""
        if self._socket is None:
            return
        status = f"{ready} of {of} workers are ready"
        if is_stopping:
            state, status = "STOPPING=1", "stopping"
        elif is_reloading:
            state, status = f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", "reloading"
        elif ready >= of or self._state:
            state = "READY=1"
        else:
            state = ""  # it has not started yet
        is_news = state.partition("\n")[0] != self._state
        if not is_news and status == self._status:
            return
        if self._tell("\n".join([state, f"STATUS={status}"] if is_news and state else [f"STATUS={status}"])):
            self._state, self._status = state.partition("\n")[0], status  # else it is told at the next turn

    def next_due(self) -> list[float]:
        """Monotonic seconds at which there is something to do."""
        return [] if self._every_s is None else [self._alive_at + self._every_s]

    def do_what_is_due(self) -> None:
        """Tell that the loop turns, if it is time."""
        now = time.monotonic()
        if self._every_s is not None and now >= self._alive_at + self._every_s:
            self._alive_at = now
            self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> bool:
        """Whether it was taken."""
        assert self._socket is not None
        try:
            self._socket.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)
        except OSError:
            return False  # it is gone, or does not read: no reason to wait, or to end
        return True
