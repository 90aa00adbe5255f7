"""What the machine has. Standard library only."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """The CPUs that this process may use: in a container that is fewer than there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
