"""What the terminal shows: a line while the crawl goes on, a table at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from .record import Tally

_BAR_WIDTH = 24
#: Without a terminal a line is printed this often; on one it is redrawn at every call.
_LINE_EVERY_S = 2.0
#: The rate shown is that of the last seconds.
_RATE_OVER_S = 1.0


class Progress:
    """One line about a crawl that goes on.

    Parameters:
      before(Tally): The record as it was at the start: jobs of an earlier run do not count.
      out(TextIO): Where to. Default: standard error.
    """

    def __init__(self, before: Tally, out: TextIO | None = None) -> None:
        self.started = time.monotonic()
        self.best_rate = 0.0
        self._out = sys.stderr if out is None else out
        self._is_terminal = self._out.isatty()
        self._attempts_before = before.attempts
        self._samples = [(self.started, before.attempts)]
        self._last_line = self.started

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def show(self, tally: Tally) -> None:
        """Tell how far the crawl is."""
        rate = self._rate(tally.attempts)
        self.best_rate = max(self.best_rate, rate)
        line = (
            f"{_bar(tally)} {tally.finished:,} of {tally.pages:,} pages  {tally.waiting:,} queued  "
            f"{tally.fetching:,} in flight  {tally.retried:,} retried  {rate:,.0f} jobs/s"
        )
        if self._is_terminal:
            self._out.write(f"\r{line}\x1b[K")
            self._out.flush()
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            print(line, file=self._out, flush=True)

    def end(self) -> None:
        """Leave the line as it is and go on below it."""
        if self._is_terminal:
            print(file=self._out, flush=True)

    def mean_rate(self, tally: Tally) -> float:
        """Jobs a second since the start."""
        return (tally.attempts - self._attempts_before) / max(self.elapsed_s, 0.001)

    def _rate(self, attempts: int) -> float:
        now = time.monotonic()
        self._samples.append((now, attempts))
        while len(self._samples) > 2 and now - self._samples[1][0] >= _RATE_OVER_S:
            del self._samples[0]
        since, before = self._samples[0]
        return (attempts - before) / max(now - since, _RATE_OVER_S)


def _bar(tally: Tally) -> str:
    filled = _BAR_WIDTH * tally.finished // max(tally.pages, 1)
    return f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}]"


def table(rows: Mapping[str, str]) -> str:
    """Two columns, the second one as it is given."""
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())
