"""Serves a page by HTTP, in a process that does nothing else.

A client that is slow, or never reads its answer, keeps a thread here and nobody else. What is answered is
for the caller to say: see metrics/server.py and health/server.py. Standard library only.
"""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from .logging import get_logger

#: Seconds that a client may take for its request, and to read each part of the answer.
_CLIENT_TIMEOUT_S = 10

#: Between two tries for a port that is taken: as by one who is still stopping.
_RETRY_S = 1.0


class Answer(NamedTuple):
    """What a client is answered."""

    code: int
    content_type: str
    body: bytes


class Told(NamedTuple):
    """How the log speaks of what is served.

    Attributes:
      what(str): As "Metrics are".
      paths(str): As "/metrics".
      host_from, port_from(str): What to correct.
    """

    what: str
    paths: str
    host_from: str
    port_from: str


class Listener(ThreadingHTTPServer):
    """Listens, and answers each client in a thread of its own.

    Parameters:
      family(AddressFamily): Of the address.
      address(tuple): Where to listen.
      answer(Callable[[str], Answer]): Called with the path of each request.

    Raises:
      OSError: The address cannot be had.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: Any, answer: Callable[[str], Answer]) -> None:
        self.address_family = family
        self.answer = answer
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
        """Answer with the page."""
        code, content_type, body = self.server.answer(self.path.partition("?")[0])
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a request is no event."""


def serve(host: str, port: int, answer: Callable[[str], Answer], told: Told, logger: logging.Logger) -> int:
    """Serve until the process is told to end; 0 at once if nobody can listen on this host.

    A port that is taken is waited for. Port 0 is any that is free, which the log tells.
    """
    try:
        family, address = _address(host, port)
    except (ValueError, OSError) as error:  # ValueError: what cannot be the name of a host
        logger.error(
            "%s not served: %s:%d is no address that can be listened on (%s). Correct %s.",
            told.what,
            host,
            port,
            error,
            told.host_from,
        )
        return 0
    is_told = False
    while True:
        try:
            server = Listener(family, address, answer)
        except OSError as error:
            if not is_told:
                is_told = True
                logger.error(
                    "%s not served: %s. The workers run all the same, and it is tried again until it works.",
                    told.what,
                    _reason(error, host, port, told),
                )
            time.sleep(_RETRY_S)  # nobody tells when a port comes free
            continue
        host_part = f"[{host}]" if ":" in host else host
        logger.info("%s served on http://%s:%d%s.", told.what, host_part, server.server_address[1], told.paths)
        with server:
            server.serve_forever()
        return 0


def _address(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, address


def _reason(error: OSError, host: str, port: int, told: Told) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken, perhaps by another greenq-worker. Give each its own with "
            f"{told.port_from} (0 takes any that is free)"
        )
    where = " and ".join(dict.fromkeys((told.host_from, told.port_from)))
    return f"port {port} of {host} cannot be had: {error.strerror or error}. See {where}"
