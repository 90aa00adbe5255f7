"""Servers that keep their clients waiting: on free ports of loopback, ended with the benchmark.

PostgreSQL, MariaDB and Redis are the real ones, in folders of their own. The others are threads
of the benchmark's process that speak as much of a protocol as it takes to wait in it: HTTP, gRPC,
MongoDB's and DNS.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import pwd
import re
import shutil
import socket
import socketserver
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ending import die_with_parent

_LIMIT_S = 60


def free_port() -> int:
    """A port of loopback that is free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# -- stand-ins


class _Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(float(self.path.split("?")[0].rpartition("/")[2]))
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class _ManyAtOnce(http.server.ThreadingHTTPServer):
    request_queue_size = 1024


@contextlib.contextmanager
def http_server() -> Iterator[str]:
    """Answers to /wait/0.2 after 0.2 s."""
    with _ManyAtOnce(("127.0.0.1", 0), _Pages) as server, _serving(server):
        yield f"127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()


@contextlib.contextmanager
def grpc_server() -> Iterator[str]:
    """Has a method /trial/wait, which takes as long as its argument says."""
    from concurrent.futures import ThreadPoolExecutor

    # Whether gRPC's own threads come over a fork is nothing to a process that is about to become another program.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    import grpc

    def wait(request: bytes, context: Any) -> bytes:
        time.sleep(float(request))
        return b"done"

    server = grpc.server(ThreadPoolExecutor(64))
    methods = {"wait": grpc.unary_unary_rpc_method_handler(wait)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("trial", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


class _Documents(socketserver.StreamRequestHandler):
    """As much of MongoDB's protocol as it takes: its greeting, and a command {"wait": 0.2}."""

    _OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013

    def handle(self) -> None:
        while header := self.rfile.read(16):
            length, number, _, kind = struct.unpack("<iiii", header)
            body = self.rfile.read(length - 16)
            answer = self._answer(body)
            if kind == self._OP_QUERY:
                told = struct.pack("<iqii", 0, 0, 0, 1) + answer
                kind = self._OP_REPLY
            else:
                told = struct.pack("<iB", 0, 0) + answer
            self.wfile.write(struct.pack("<iiii", 16 + len(told), 1, number, kind) + told)

    def _answer(self, body: bytes) -> bytes:
        import bson

        # Its name and its first field: a double, when it is the command that waits.
        found = re.search(rb"\x01wait\x00(.{8})", body, re.DOTALL)
        if found:
            time.sleep(struct.unpack("<d", found[1])[0])
            return bytes(bson.encode({"ok": 1.0}))
        greeting = {"ok": 1.0, "isWritablePrimary": True, "ismaster": True, "readOnly": False}
        sizes = {"maxBsonObjectSize": 2**24, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000}
        return bytes(bson.encode({**greeting, **sizes, "minWireVersion": 0, "maxWireVersion": 21}))


class _Connections(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 1024


@contextlib.contextmanager
def mongo_server() -> Iterator[str]:
    """Greets as MongoDB does, and has a command {"wait": 0.2}."""
    with _Connections(("127.0.0.1", 0), _Documents) as server, _serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


class _Names(socketserver.BaseRequestHandler):
    """Answers for each name under wait-200.test that it is 127.0.0.1, after 200 ms."""

    def handle(self) -> None:
        question, listener = self.request
        wait = re.search(rb"wait-(\d+)", question)
        time.sleep(int(wait[1]) / 1000 if wait else 0)
        end = question.index(b"\0", 12) + 5
        header = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
        address = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\x04" + socket.inet_aton("127.0.0.1")
        listener.sendto(header + question[12:end] + address, self.client_address)


class _Questions(socketserver.ThreadingUDPServer):
    daemon_threads = True


@contextlib.contextmanager
def dns_server() -> Iterator[str]:
    """A name server. On port 53, as resolvers ask no other, of an address of loopback that nobody else uses."""
    try:
        server = _Questions(("127.53.53.53", 53), _Names)
    except OSError as error:
        raise Missing(f"a name server needs port 53 of 127.53.53.53, which cannot be had here: {error}") from None
    with server, _serving(server):
        yield "127.53.53.53:53"


# -- the real ones


class Missing(Exception):
    """A server cannot be had here; why, and what to do."""


@contextlib.contextmanager
def postgresql_server() -> Iterator[str]:
    """PostgreSQL, whose user "trial" needs no password."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        raise Missing("PostgreSQL is not installed. On Debian and Ubuntu: apt-get install postgresql")
    programs = found[-1].parent
    with _folder() as folder:
        data, port = folder / "data", free_port()
        _run([programs / "initdb", "-D", data, "-U", "trial", "--auth=trust", "--encoding=UTF8", "--no-sync"], folder)
        settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with _running([programs / "postgres", "-D", data, *options], folder, port):
            # It listens before it lets anybody in.
            _until((folder / "log").read_text, "ready to accept connections")
            yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def mariadb_server() -> Iterator[str]:
    """MariaDB, which lets everybody in."""
    program = shutil.which("mariadbd", path="/usr/sbin:/usr/bin")
    if program is None:
        raise Missing("MariaDB is not installed. On Debian and Ubuntu: apt-get install mariadb-server-core")
    with _folder() as folder:
        data, port = folder / "data", free_port()
        _run(["mkdir", data], folder)
        options = [f"--datadir={data}", f"--port={port}", f"--socket={folder}/socket", "--bind-address=127.0.0.1"]
        open_to_all = ["--skip-grant-tables", "--skip-networking=0"]
        with _running([program, "--no-defaults", *options, *open_to_all], folder, port):
            yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Redis."""
    from redis_server import HOW_TO_GET_IT, redis_server

    if shutil.which("redis-server") is None:
        raise Missing(HOW_TO_GET_IT)
    with redis_server() as server:
        yield f"127.0.0.1:{server.port}"


@contextlib.contextmanager
def folder_of_files() -> Iterator[str]:
    """A folder."""
    with tempfile.TemporaryDirectory(prefix="greenq-files-") as folder:
        yield folder


SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
    "http": http_server,
    "grpc": grpc_server,
    "mongo": mongo_server,
    "dns": dns_server,
    "postgresql": postgresql_server,
    "mariadb": mariadb_server,
    "redis": redis,
    "folder": folder_of_files,
}


def _account() -> str | None:
    # PostgreSQL refuses to run as root, and MariaDB does not like it.
    if os.getuid() != 0:
        return None
    return next(name for name in ("postgres", "nobody") if name in {each.pw_name for each in pwd.getpwall()})


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="greenq-server-") as name:
        account = _account()
        if account is not None:
            shutil.chown(name, account)
        yield Path(name)


def _start(command: list[Any], folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": str(folder)},
            user=_account(),
            preexec_fn=die_with_parent,
        )


def _run(command: list[Any], folder: Path) -> None:
    if _start(command, folder).wait(_LIMIT_S):
        raise SystemExit(f"{command[0]} failed:\n{(folder / 'log').read_text()[-4000:]}")


@contextlib.contextmanager
def _running(command: list[Any], folder: Path, port: int) -> Iterator[None]:
    process = _start(command, folder)
    try:
        ends = time.monotonic() + _LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > ends:
                    text = (folder / "log").read_text(errors="replace")
                    raise SystemExit(f"{command[0]} does not answer. Its log ends with:\n{text[-4000:]}") from None
                time.sleep(0.02)  # between two tries: a server that starts tells nobody
        yield
    finally:
        # PostgreSQL's other processes end when they see that the first is gone.
        process.kill()
        process.wait(_LIMIT_S)


def _until(read: Callable[[], str], text: str) -> None:
    ends = time.monotonic() + _LIMIT_S
    while text not in read():
        if time.monotonic() > ends:
            raise SystemExit(f"Nobody said {text!r} in {_LIMIT_S} s:\n{read()[-4000:]}")
        time.sleep(0.02)  # between two looks at a log
