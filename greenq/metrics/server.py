"""Serves the page of metrics, in a process of its own beside the workers.

A fork function, see worker/fork.py. It only reads the shared file: a scraper that is slow, or
never reads its answer, keeps a thread here and nobody else.
"""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..logging import get_logger
from . import shared
from .text import CONTENT_TYPE, page

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9191

#: Seconds that a client may take for its request, and to read each part of the answer.
_CLIENT_TIMEOUT_S = 10
#: Between two tries for a port that is taken: as by one who is still stopping.
_RETRY_S = 1.0


def serve() -> int:
    """Serve the metrics of all workers until the process is told to end.

    Where is told by the environment variables ``GREENQ_PROM_HOST`` (default: 127.0.0.1) and
    ``GREENQ_PROM_PORT`` (default: 9191; 0 for any that is free). A port that is taken is
    waited for.
    """
    logger = get_logger(__name__)
    fd = shared.file()
    host, given = shared.setting("GREENQ_PROM_HOST") or DEFAULT_HOST, shared.setting("GREENQ_PROM_PORT")
    try:
        port = DEFAULT_PORT if given is None else int(given)
        family, address = _address(host, port)
    except (ValueError, OverflowError, OSError) as error:
        logger.error(
            "Metrics are not served: %s:%s is no address that can be listened on (%s). Correct GREENQ_PROM_HOST and "
            "GREENQ_PROM_PORT.",
            host,
            given or DEFAULT_PORT,
            error,
        )
        return 0
    if fd is None:
        logger.error("Metrics are not served: the main process could not make a file for them.")
        return 0
    told = False
    while True:
        try:
            server = _Server(family, address, fd)
        except OSError as error:
            if not told:
                told = True
                logger.error(
                    "Metrics are not served: %s. The workers run all the same, and it is tried again until it works.",
                    _reason(error, host, port),
                )
            time.sleep(_RETRY_S)
            continue
        host_part = f"[{host}]" if ":" in host else host
        logger.info("Metrics are served on http://%s:%d/metrics.", host_part, server.server_address[1])
        with server:
            server.serve_forever()
        return 0


# It is told to end only when all workers have: they are worth watching while they stop.
serve.outlasts_workers = True  # type: ignore[attr-defined]


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    if not 0 <= port <= 65535:
        raise ValueError("ports are 0 to 65535")
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, address


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken, perhaps by another greenq-worker. Give each its own with "
            "GREENQ_PROM_PORT (0 takes any that is free)"
        )
    return f"port {port} of {host} cannot be had: {error.strerror or error}. See GREENQ_PROM_HOST and GREENQ_PROM_PORT"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: Any, fd: int) -> None:
        self.address_family = family
        self.fd = fd
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks its own name up, and that may take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        get_logger(__name__).debug("A client went away, or sent no request.", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_TIMEOUT_S
    server_version = "greenq"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the page, whatever the path."""
        body = page(shared.read(self.server.fd), now_s=time.monotonic()).encode() + users_own()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape is no event."""


_told_of_users_own = False


def users_own() -> bytes:
    """The metrics that the application has made with prometheus_client, in its multiprocess mode."""
    global _told_of_users_own
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return b""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return bytes(generate_latest(registry))
    except Exception:  # of a library, and of files that others write
        if not _told_of_users_own:
            _told_of_users_own = True
            get_logger(__name__).error(
                "The application's own metrics in %s cannot be read, so that they are left out.",
                os.environ["PROMETHEUS_MULTIPROC_DIR"],
                exc_info=True,
            )
        return b""
