"""Connects a worker process to its broker at the start, waiting for one that is not there yet.

Knows the broker's errors and the clock, not the process that starts: see process.py. Later
outages are told in outage.py, and waited for by whoever meets them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..backoff import backoff_ms
from ..broker import Broker
from ..errors import BrokerUnusable, ConnectionError
from ..runtime import Runtime

#: The pause between two tries grows to this: a broker that comes up is used within half a
#: second, and a hundred workers that wait for it cost it nothing.
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 50, 400


def connect(
    broker: Broker, *, wait_ms: int | None, runtime: Runtime, tell_waiting: Callable[[ConnectionError], None]
) -> None:
    """Return once the broker is connected.

    Parameters:
      broker(Broker): The broker.
      wait_ms(int | None): Milliseconds in which it is tried again; 0 for one try, None for as
        many as it takes. The last try may take longer, by the time-out of the broker's client.
      runtime(Runtime): The world.
      tell_waiting(Callable): Called with the first failure, if it is followed by another try.

    Raises:
      BrokerUnusable: Trying again would not help, so it was not tried again.
      ConnectionError: The broker was away for all of the time.

    Switches.
    """
    ends_at = math.inf if wait_ms is None else time.monotonic() + wait_ms / 1000
    failures = 0
    while True:
        try:
            broker.connect()
        except BrokerUnusable:
            raise
        except ConnectionError as error:
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                raise
            if failures == 0:
                tell_waiting(error)
        else:
            return
        runtime.sleep(min(left_s, pause_s(failures)))  # a backoff: a server that is away tells nobody of its return
        failures += 1


def pause_s(failures: int) -> float:
    """Seconds to wait after so many failures, and one more, to reach the broker."""
    return backoff_ms(failures, min_backoff_ms=_FIRST_PAUSE_MS, max_backoff_ms=_LONGEST_PAUSE_MS) / 1000
