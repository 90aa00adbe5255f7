"""Serves the page of metrics, in a process of its own beside the workers.

A fork function, see worker/fork.py. Every worker imports this room to name the function, so what
only that process needs is in whole_page.py and http_listener.py.
"""

from __future__ import annotations

from ..logging import get_logger
from ..settings import PROM_HOST, PROM_PORT
from . import shared


def serve() -> int:
    """Serve the metrics of all workers until the process is told to end.

    Where is told by the environment variables ``GREENQ_PROM_HOST`` (default: 127.0.0.1) and
    ``GREENQ_PROM_PORT`` (default: 9191; 0 for any that is free). A port that is taken is
    waited for.
    """
    from .. import http_listener
    from .whole_page import whole_page

    logger = get_logger(__name__)
    fd = shared.file()
    if fd is None:
        logger.error("Metrics are not served: the main process could not make a file for them.")
        return 0
    told = http_listener.Told("Metrics are", "/metrics", "GREENQ_PROM_HOST", "GREENQ_PROM_PORT")
    return http_listener.serve(PROM_HOST.get(), PROM_PORT.get(), lambda path: whole_page(fd), told, logger)


# It is told to end only when all workers have: they are worth watching while they stop.
serve.outlasts_workers = True  # type: ignore[attr-defined]  # functions take any
