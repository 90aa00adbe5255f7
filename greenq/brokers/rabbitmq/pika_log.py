"""Keeps back pika's log lines about greenq's own connections, and leaves those about all others alone.

pika tells of each broken connection in several lines with tracebacks, and again at the next try.
What matters of it is in the errors that are raised, and told once by who meets them. But an
application may use pika, too, and those lines are its own: so the logger ``pika`` is not made
silent, but what is logged where greenq has called pika.

Who wants greenq's lines as well sets the level of the logger ``pika`` to DEBUG.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

_NAME = "pika"

#: Of pika's that looks up an address, in a thread or greenlet of its own: it does not know for whom.
#: What it fails with is in the error of whoever asked.
_LOOKS_UP = "_resolve"


class _KeptBack(threading.local):
    """In the block, in this thread or greenlet. gevent's hub is one."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


kept_back = _KeptBack()


def _are_wanted() -> bool:
    """Whether somebody wants greenq's lines as well."""
    return logging.NOTSET < logging.getLogger(_NAME).level <= logging.DEBUG


def _is_enabled(is_enabled: Callable[[int], bool], level: int) -> bool:
    # Asked before a record is made: one that is made in gevent's hub makes a thread of it, which
    # everybody sees in threading.enumerate().
    return is_enabled(level) and (not kept_back.depth or _are_wanted())


def _passes(record: logging.LogRecord) -> bool:
    return record.funcName != _LOOKS_UP or _are_wanted()


def watch() -> None:
    """See to the loggers of all of pika's modules that are imported by now. A second time it does nothing."""
    # What a logger refuses, those below it do not.
    for name in list(logging.root.manager.loggerDict):
        if name == _NAME or name.startswith(_NAME + "."):
            logger = logging.getLogger(name)
            logger.addFilter(_passes)
            if "isEnabledFor" not in vars(logger):
                logger.isEnabledFor = partial(_is_enabled, logger.isEnabledFor)  # type: ignore[method-assign] # a filter comes too late
