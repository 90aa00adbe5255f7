"""What the log says of a worker that died, though nobody had told it to."""

from __future__ import annotations

import logging

from ..log_lines import log_with_details
from .child import Child
from .death import Death


def log_failure(logger: logging.Logger, child: Child, death: Death) -> None:
    """One line, and its last words, or why it could not start."""
    if child.failure is None:
        level = logging.ERROR if death.was_stuck else logging.CRITICAL
        log_with_details(logger, level, f"{child} {death}.", death.words)
        return
    reason, _, details = child.failure.partition("\n")
    log_with_details(logger, logging.CRITICAL, f"{child} could not start: {reason}", details)
