"""Serves a tree of files over HTTP, and counts what it was really asked.

    python -m examples.linkcheck.server --root DIR [--port 0] [--latency 50-200]

It tells its address on standard output once it listens. What it saw is JSON at
COUNTS_PATH: the report quotes these counts, so they are not the crawler's own claims.
A process of its own, one greenlet for each connection. What a page answers: see tree.py.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import defaultdict
from http import HTTPStatus
from pathlib import Path

import gevent
from gevent.fileobject import FileObject
from gevent.server import StreamServer
from gevent.socket import socket

from .tree import Page, Tree

COUNTS_PATH = "/.counts"
#: What the counts have for a fetch to which no answer was given.
HUNG = 0
_BACKLOG = 4096
_LONGEST_REQUEST = 64 * 1024


class Server:
    """Answers one request a connection, slowly, and keeps count."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._in_flight = 0
        self._most_in_flight = 0
        self._answers: dict[str, list[int]] = defaultdict(list)

    def handle(self, connection: socket, _address: object) -> None:
        """Serve one connection. Switches."""
        try:
            path = _read_path(connection)
            if path == COUNTS_PATH:
                connection.sendall(_encode(Page(200, "application/json", self._counts())))
            elif path:
                self._serve(connection, path)
        except OSError:
            pass  # the client has gone: its time limit, or its worker, ended
        finally:
            connection.close()

    def _serve(self, connection: socket, path: str) -> None:
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        try:
            self._answer(connection, path)
        finally:
            self._in_flight -= 1

    def _answer(self, connection: socket, path: str) -> None:
        temper = self._tree.temper(path)
        answers = self._answers[path]
        number = len(answers)
        # Counted now, because the client may leave before it has the answer.
        if temper.hangs:
            answers.append(HUNG)
            connection.recv(1)  # nothing comes: this ends when the client gives up
            return
        if number < temper.failures:
            page = Page(500, "text/plain", b"Try again.\n")
        else:
            page = self._tree.page(path)
        answers.append(page.status)
        gevent.sleep(temper.latency_s)
        connection.sendall(_encode(page))

    def _counts(self) -> bytes:
        return json.dumps(
            {"in_flight": self._in_flight, "most_in_flight": self._most_in_flight, "answers": self._answers}
        ).encode()


def _read_path(connection: socket) -> str:
    """The path that is asked for; empty if the client left before it had asked."""
    request = b""
    while b"\r\n\r\n" not in request:
        data = connection.recv(4096)
        if not data or len(request) > _LONGEST_REQUEST:
            return ""
        request += data
    words = request.split(b"\r\n", 1)[0].split()
    return words[1].decode("latin-1").partition("?")[0] if len(words) == 3 else ""


def _encode(page: Page) -> bytes:
    head = (
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + page.body


def latency_range(text: str) -> tuple[int, int]:
    """The two milliseconds of ``50-200``, or ``50`` for both."""
    shortest, _, longest = text.partition("-")
    try:
        return int(shortest), int(longest or shortest)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in milliseconds, or two, as in 50-200") from None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.linkcheck.server", description="Serve a tree of files.")
    parser.add_argument("--root", type=Path, required=True, help="the folder to serve")
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1; 0, the default, for any free one")
    parser.add_argument("--latency", type=latency_range, default=(50, 200), help="milliseconds a page, as in 50-200")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    options = parser.parse_args()

    server = Server(Tree(options.root, latency_ms=options.latency))
    listener = StreamServer(("127.0.0.1", options.port), server.handle, backlog=_BACKLOG)
    listener.start()
    gevent.signal_handler(signal.SIGTERM, listener.stop, 0)
    gevent.signal_handler(signal.SIGINT, listener.stop, 0)
    if options.until_eof:
        gevent.spawn(_stop_at_eof, listener)
    print(f"Serving {options.root} at http://127.0.0.1:{listener.server_port}/", flush=True)
    listener.serve_forever()


def _stop_at_eof(listener: StreamServer) -> None:
    # Whoever started this process holds the other end, so it never outlives them.
    FileObject(sys.stdin.fileno(), "rb").read()
    listener.stop(0)


if __name__ == "__main__":
    main()
