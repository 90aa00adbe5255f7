"""Serves the page of metrics, in a process of its own beside the workers.

A fork function, see worker/fork.py. Every worker imports this room to name the function, so what
only that process needs is in listener.py.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from ..logging import get_logger
from ..settings import PROM_HOST, PROM_PORT
from . import shared

#: Between two tries for a port that is taken: as by one who is still stopping.
_RETRY_S = 1.0


def serve() -> int:
    """Serve the metrics of all workers until the process is told to end.

    Where is told by the environment variables ``GREENQ_PROM_HOST`` (default: 127.0.0.1) and
    ``GREENQ_PROM_PORT`` (default: 9191; 0 for any that is free). A port that is taken is
    waited for.
    """
    from .listener import Listener

    logger = get_logger(__name__)
    fd = shared.file()
    host, port = PROM_HOST.get(), PROM_PORT.get()
    try:
        family, address = _address(host, port)
    except (ValueError, OSError) as error:  # ValueError: what cannot be the name of a host
        logger.error(
            "Metrics are not served: %s:%d is no address that can be listened on (%s). Correct GREENQ_PROM_HOST.",
            host,
            port,
            error,
        )
        return 0
    if fd is None:
        logger.error("Metrics are not served: the main process could not make a file for them.")
        return 0
    told = False
    while True:
        try:
            server = Listener(family, address, fd)
        except OSError as error:
            if not told:
                told = True
                logger.error(
                    "Metrics are not served: %s. The workers run all the same, and it is tried again until it works.",
                    _reason(error, host, port),
                )
            time.sleep(_RETRY_S)  # nobody tells when a port comes free
            continue
        host_part = f"[{host}]" if ":" in host else host
        logger.info("Metrics are served on http://%s:%d/metrics.", host_part, server.server_address[1])
        with server:
            server.serve_forever()
        return 0


# It is told to end only when all workers have: they are worth watching while they stop.
serve.outlasts_workers = True  # type: ignore[attr-defined]  # functions take any


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, address


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken, perhaps by another greenq-worker. Give each its own with "
            "GREENQ_PROM_PORT (0 takes any that is free)"
        )
    return f"port {port} of {host} cannot be had: {error.strerror or error}. See GREENQ_PROM_HOST and GREENQ_PROM_PORT"
