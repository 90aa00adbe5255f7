"""What one process has of the file, from its first use until the broker is closed, or forks.

Puts the parts together; none of them knows the broker.
"""

from __future__ import annotations

from ...runtime import current
from ...stores.sqlite.file import File
from ...stores.sqlite.store import Store
from ...stores.sqlite.wakeup import WakeUp
from .layout import MESSAGES
from .membership import Membership
from .operations import Leave, Register


class Attachment:
    """The parts, made but not yet in use.

    Parameters:
      path(str): Absolute.
      synchronous(str): "NORMAL" or "FULL".
      lease_ms(int): The length of a worker's lease.
      dead_message_ttl_ms(int): Dead letters older than this are dropped.
    """

    def __init__(self, path: str, synchronous: str, lease_ms: int, dead_message_ttl_ms: int) -> None:
        file = File(path, synchronous, MESSAGES)
        self.wake_up = WakeUp(path)
        self.store = Store(file, self.wake_up.notify)
        self.membership = Membership(file, lease_ms, dead_message_ttl_ms)
        self._guard = current().native_lock()
        self._has_joined = False

    def join(self) -> None:
        """Make this process a worker, if it is not one yet. May switch."""
        if self.membership.value is None:
            self.store.do(Register(self.membership, self.membership.lease_ms))
        with self._guard:
            has_joined, self._has_joined = self._has_joined, True
        if not has_joined:
            self.wake_up.listen()
            self.membership.keep()

    def close(self) -> None:
        """Return what is reserved, and end threads and connections. May switch."""
        self.membership.leave()
        try:
            if self.membership.value is not None:
                self.store.do(Leave(self.membership.value))
        finally:
            self.store.close()
            self.wake_up.close()

    def forget(self) -> None:
        """Let go of everything in a forked child, without touching the parent's file or names."""
        self.store.forget()
        self.wake_up.forget()
