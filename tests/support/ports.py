"""Ports of loopback for servers: free now, and left alone while a server is down to be started again.

The kernel gives an outgoing connection any free port of its range, so a client, here or in a run
of tests beside this one, could get that of a server that is being restarted. These are below that
range, and drawn at random, so that runs side by side seldom draw the same one.
"""

from __future__ import annotations

import random
import socket

#: A node of a Redis cluster has a second port, so far above the first.
CLUSTER_BUS = 10_000

_PORTS = range(11_000, 21_000)


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now, all different."""
    free: set[int] = set()
    while len(free) < count:
        port = random.SystemRandom().choice(_PORTS)
        if _is_free(port) and _is_free(port + CLUSTER_BUS):
            free.add(port)
    return list(free)


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
