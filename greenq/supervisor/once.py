"""What every worker finds when it starts, and the log is to say once for all of them."""

from __future__ import annotations

import logging

from .child import Child


class Once:
    """Says such things.

    Parameters:
      logger(Logger): Where.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self._told_waiting = False
        self._told: set[str] = set()

    def waiting(self, child: Child, reason: str) -> None:
        """One waits for what it cannot start without; so do all that start now."""
        if not self._told_waiting:
            self._told_waiting = True
            self.logger.warning("%s waits: %s", child, reason)

    def someone_is_ready(self) -> None:
        """Who waits after this waits for something new."""
        self._told_waiting = False

    def remark(self, level: int, text: str) -> None:
        """What one found; those that replace it will find the same."""
        if text not in self._told:
            self._told.add(text)
            self.logger.log(level, "%s", text)
