"""Queue names: which are allowed, and the names that belong to a queue.

default       the queue; its canonical name
default.DQ    its delay queue: messages that are not due yet
default.XQ    its dead-letter queue
"""

from __future__ import annotations

import re

_QUEUE_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9._-]*")
_SUFFIXES = (".DQ", ".XQ")


def check_queue_name(queue_name: str) -> str:
    """Return the name if it may be a queue's.

    Raises:
      ValueError: It may not.
    """
    if not isinstance(queue_name, str) or not _QUEUE_NAME.fullmatch(queue_name):
        raise ValueError(
            f"{queue_name!r} cannot be the name of a queue: it has to start with a letter or an "
            "underscore, followed by letters, digits, dots, underscores or dashes."
        )
    return queue_name


def canonical_queue_name(queue_name: str) -> str:
    """The queue that a delay queue or dead-letter queue belongs to; others as they are."""
    return queue_name[:-3] if queue_name.endswith(_SUFFIXES) else queue_name


def delay_queue_name(queue_name: str) -> str:
    """The name of a queue's delay queue."""
    return queue_name if queue_name.endswith(".DQ") else canonical_queue_name(queue_name) + ".DQ"


def dead_letter_queue_name(queue_name: str) -> str:
    """The name of a queue's dead-letter queue."""
    return canonical_queue_name(queue_name) + ".XQ"
