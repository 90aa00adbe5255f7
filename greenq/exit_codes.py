"""What `greenq-worker` and its worker processes answer when they end.

Standard library only: every room of the command line reads it.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the command; a worker process uses some of them too."""

    #: Everything asked for was done.
    DONE = 0
    #: The second signal, or the end of the patience with a worker that did not stop.
    KILLED = 1
    #: A wrong command line, or the user's modules could not be imported.
    USAGE = 2
    #: The broker could not be reached at the start, or cannot be used.
    UNREACHABLE = 3
    #: The pid file is in use, unreadable or unwritable.
    PID_FILE = 4
    #: Workers died again and again.
    CRASH_LOOP = 5
    #: Stopped, but messages had to be given back unfinished at the deadline.
    GIVEN_BACK = 7
