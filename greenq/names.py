"""Names: which a queue may have, those that belong to a queue, and the nearest right one of anything.

default       the queue; its canonical name
default.DQ    its delay queue: messages that are not due yet
default.XQ    its dead-letter queue
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

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


def nearest_name(name: str, known: Iterable[str], *, at_least: float = 0.6) -> str | None:
    """The one of the known names that is nearest to a name; None if none is near.

    Parameters:
      at_least(float): How near, from 0 for anything to 1 for the same.
    """
    nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=at_least)
    return nearest[0] if nearest else None
