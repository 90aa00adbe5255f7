"""Answers scrapers with the page of metrics.

It only reads the shared file: a scraper that is slow, or never reads its answer, keeps a thread
here and nobody else. Where it listens is for server.py to say.
"""

from __future__ import annotations

import os
import socket
import socketserver
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..logging import get_logger
from . import shared
from .text import CONTENT_TYPE, page

#: Seconds that a client may take for its request, and to read each part of the answer.
_CLIENT_TIMEOUT_S = 10


class Listener(ThreadingHTTPServer):
    """Listens, and answers each client in a thread of its own.

    Parameters:
      family(AddressFamily): Of the address.
      address(tuple): Where to listen.
      fd(int): Of the shared file.

    Raises:
      OSError: The address cannot be had.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: Any, fd: int) -> None:
        self.address_family = family
        self.fd = fd
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks its own name up, and that may take long.
        socketserver.TCPServer.server_bind(self)
        # typeshed has text or bytes for a name; of an internet address it is text.
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]  # see there

    def handle_error(self, request: Any, client_address: Any) -> None:
        get_logger(__name__).debug("A client went away, or sent no request.", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: Listener
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
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has no types here
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
