"""What the machine has. Standard library only."""

from __future__ import annotations

import os

#: In a container with a limit of CPU time: microseconds of it, or "max", in so many microseconds.
CPU_LIMIT = "/sys/fs/cgroup/cpu.max"


def cpu_count() -> int:
    """The CPUs that this process may use: in a container that is fewer than there are.

    A limit of CPU time (`docker run --cpus`, Kubernetes' ``limits.cpu``) counts as so many CPUs, rounded up.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        count = os.cpu_count() or 1
    try:
        with open(CPU_LIMIT) as file:
            allowed, period = (int(number) for number in file.read().split())
    except (OSError, ValueError):  # no such file, or "max" in it
        return count
    return max(1, min(count, -(-allowed // period)))
