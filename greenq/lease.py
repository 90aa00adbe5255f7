"""Keeps a worker id's lease alive, and takes back what dead workers hold.

Runs in a native thread, so that a job that keeps the hub busy does not cost its
process the lease. It uses the broker only through the two calls it is given, which
must use a connection of their own, and it never logs: a log handler may wait in greenlets.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .clock import now_ms
from .runtime import current

#: So that a lease that ran out is seen soon after, however long leases are.
_LONGEST_INTERVAL_S = 4.0


class LeaseKeeper:
    """Renews a lease three times in its length, or every 4 seconds, and takes back as often.

    It takes back from others only after the lease has been held without a break for one
    full length: the first to return from a long outage, or a suspended laptop's first
    process to wake, would otherwise rob its living neighbours, who had no chance to renew.

    Parameters:
      lease_ms(int): The length of a lease.
      renew: Renews; called at once, then each time. May raise.
      take_back_expired: Takes back what workers with a lapsed lease hold. May raise.
      end: Lets go of what the other two use; called in their thread, as the last thing.
    """

    def __init__(
        self,
        lease_ms: int,
        renew: Callable[[], None],
        take_back_expired: Callable[[], None],
        end: Callable[[], None] | None = None,
    ) -> None:
        self._lease_s = lease_ms / 1000
        self._interval_s = min(lease_ms / 3000, _LONGEST_INTERVAL_S)
        self._renew = renew
        self._take_back_expired = take_back_expired
        self._end = end
        runtime = current()
        # Held while the keeper is to go on: releasing it ends a wait at once.
        self._running = runtime.native_lock()
        self._running.acquire()
        runtime.start_native_thread(self._run, name="greenq-lease")

    def stop(self) -> None:
        """Stop renewing. Safe to call twice; does not wait."""
        if self._running.locked():
            self._running.release()

    def _run(self) -> None:
        try:
            self._keep()
        finally:
            if self._end is not None:
                self._end()

    def _keep(self) -> None:
        held_since: float | None = None
        renewed_at, renewed_at_ms = time.monotonic(), now_ms()
        while True:
            try:
                self._renew()
            except Exception:
                held_since = None  # nothing to say here: whoever uses the broker reports it
            else:
                now = time.monotonic()
                # Leases are stored by the wall clock, which goes on while the machine sleeps
                # (the monotonic one does not) and may be set: then the others had no chance.
                passed_s = max(now - renewed_at, (now_ms() - renewed_at_ms) / 1000)
                if held_since is None or passed_s >= self._lease_s / 2:
                    held_since = now
                renewed_at, renewed_at_ms = now, now_ms()
                if now - held_since >= self._lease_s:
                    try:
                        self._take_back_expired()
                    except Exception:
                        held_since = None
            if self._running.acquire(True, self._interval_s):
                return
