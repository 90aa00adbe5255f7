"""When a worker that died is started again, and when that is given up.

Decides only; the supervisor starts.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Seconds to wait after the first, second, ... death in a row. The death after the last
#: of them is the one at which the supervisor gives up.
RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)

#: A worker that was ready for so many seconds was no failed start, even if there was
#: nothing to do for it.
LONG_LIFE_S = 60.0


class Streak:
    """The deaths in a row of the workers in one place, no job done in between.

    Parameters:
      delays_s(Sequence[float]): Seconds to wait after each of them.
    """

    def __init__(self, delays_s: Sequence[float] = RESTART_DELAYS_S) -> None:
        self._delays_s = delays_s
        self.deaths = 0
        self._failed_starts = 0

    def died(self, *, did_a_job: bool, ready_s: float) -> float | None:
        """Count a death; answer how many seconds to wait, or None to give up.

        Parameters:
          did_a_job(bool): Whether the worker had done any.
          ready_s(float): Seconds for which it had been ready.
        """
        self._failed_starts = 0
        if did_a_job or ready_s >= LONG_LIFE_S:
            self.deaths = 0
        self.deaths += 1
        if self.deaths > len(self._delays_s):
            return None
        return self._delays_s[self.deaths - 1]

    def could_not_start(self) -> float:
        """Answer how many seconds to wait after a start that failed, where that is never given up.

        The reason may be an outside one, or what was started may be one that the workers do not need. The longest
        delay is repeated.
        """
        self._failed_starts = min(self._failed_starts + 1, len(self._delays_s))
        return self._delays_s[self._failed_starts - 1]
