"""The parts of the shared file in which workers count: one for each process, given back at its end.

Knows the file, not what is counted in it: see metrics/shared.py.
"""

from __future__ import annotations

import logging

from ..logging import get_logger
from ..metrics.shared import SharedFile


class Areas:
    """Hands out the areas.

    Parameters:
      file(SharedFile | None): Which has them. None: nobody is counted.

    Attributes:
      fd(int | None): Of the file, to be inherited by those who count in it.
    """

    def __init__(self, file: SharedFile | None) -> None:
        self.logger: logging.Logger = get_logger("greenq", "MainProcess")
        self.fd = None if file is None else file.fd
        self._file = file
        self._told_uncounted = False

    def take(self) -> int | None:
        """The number of a free one; None if there is none."""
        # A worker that is not counted is better than none: a limit on the size of files, say.
        if self._file is None:
            return None
        try:
            return self._file.take()
        except OSError as error:
            if not self._told_uncounted:
                self._told_uncounted = True
                self.logger.error(
                    "Workers are started whose metrics are not counted: no room for them could be had (%s).", error
                )
            return None

    def give_back(self, area: int | None) -> None:
        """The process that had it has ended."""
        if self._file is not None and area is not None:
            self._file.give_back(area)
