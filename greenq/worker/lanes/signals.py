"""The signals that interrupt a job in its process. Both sides import it."""

from __future__ import annotations

import signal

from ...errors import Shutdown, TimeLimitExceeded

# Of those that nobody else uses; where a system has none, of those that programs may use for themselves.
_first = getattr(signal, "SIGRTMIN", None)
_numbers = (signal.SIGUSR1, signal.SIGUSR2) if _first is None else (_first + 7, _first + 8)

SIGNALS: dict[type[BaseException], int] = {TimeLimitExceeded: int(_numbers[0]), Shutdown: int(_numbers[1])}
