"""Files without a name, for what a process has in common with those that it starts.

They are inherited as descriptors, and go away with the last process that has them open.
"""

from __future__ import annotations

import os


def nameless_fd(name: str, directory: str | None = None) -> int:
    """A descriptor of a new one, which is the caller's.

    Parameters:
      name(str): For those who list open files.
      directory(str): Where to make it. Default: in memory, where the system can.

    Raises:
      OSError: It cannot be made.
    """
    if directory is None and hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    import tempfile  # which most starts do without

    with tempfile.TemporaryFile(dir=directory) as file:
        return os.dup(file.fileno())
