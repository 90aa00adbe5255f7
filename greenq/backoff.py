"""How long to wait before another attempt. A pure function of numbers."""

from __future__ import annotations

import random
from collections.abc import Callable

#: No retry is further away than this: seven days, in milliseconds.
LONGEST_BACKOFF_MS = 7 * 24 * 3600 * 1000


def backoff_ms(
    failures: int,
    *,
    min_backoff_ms: int,
    max_backoff_ms: int,
    uniform: Callable[[float, float], float] = random.uniform,
) -> int:
    """Milliseconds to wait after one more failure: exponential, with jitter.

    The formula is the reference's: ``min x 2^min(failures, 32) x uniform(1, 2)``,
    or, where that passes the maximum, ``max x uniform(0.5, 1)``. Jitter keeps a
    thousand jobs that failed together from coming back together.

    Parameters:
      failures(int): Failures before this one, so 0 at the first.
      min_backoff_ms(int): The shortest wait.
      max_backoff_ms(int): The longest wait, itself capped at seven days.
      uniform: Source of randomness, for tests.
    """
    longest_ms = min(max_backoff_ms, LONGEST_BACKOFF_MS)
    wait_ms = min_backoff_ms * 2 ** min(failures, 32) * uniform(1, 2)
    if wait_ms > longest_ms:
        wait_ms = longest_ms * uniform(0.5, 1)
    return int(wait_ms)
