"""A limit on the memory of some processes together, beyond which the kernel's OOM killer takes one of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .waiting import until

_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_limit(mebibytes: int) -> Iterator[Path]:
    """A group of processes with this limit. Who writes its pid to the file that is answered joins it.

    Skips the test where such a group cannot be made: it takes root, and a kernel with control groups.
    """
    folder, limit = _new_group()
    try:
        (folder / limit).write_text(str(mebibytes * 2**20))
        yield folder / "cgroup.procs"
    finally:
        # The processes are killed by who has started them.
        until(lambda: not (folder / "cgroup.procs").read_text())
        folder.rmdir()


def _new_group() -> tuple[Path, str]:
    name = f"greenq-tests-{os.getpid()}"
    kinds = {_ROOT / "memory": "memory.limit_in_bytes", _ROOT: "memory.max"}  # version 1, and version 2
    for parent, limit in kinds.items():
        folder = parent / name
        with contextlib.suppress(OSError):
            folder.mkdir()
            if (folder / limit).exists():
                return folder, limit
            folder.rmdir()
    pytest.skip("no control group with a memory limit can be made here: that takes root, and a writable /sys/fs/cgroup")
