"""Keeps worker processes running: starts, watches, replaces and stops them.

The one process that must survive everything, so it does little: one thread, the
standard library, a loop over signals and pipes. It runs none of the user's code and
knows nothing of what its workers work on; what a worker reports is opaque text to it.
The loop is in supervisor.py, the command that starts it in __main__.py.
"""

from __future__ import annotations

from .child import Launch
from .pidfile import PidFile, PidFileError
from .recycling import Recycling
from .supervisor import Supervisor
from .systemd import Systemd

__all__ = ["Launch", "PidFile", "PidFileError", "Recycling", "Supervisor", "Systemd"]
