"""A real Redis server for tests: on a free port of loopback, in a folder of its own.

It ends with the tests, also if they are killed. KEYS is renamed away, so that nothing can
come to depend on it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from .waiting import PATIENCE_S

HOW_TO_GET_IT = (
    "redis-server is not installed, and these tests run against a real one. On Debian and Ubuntu: "
    "apt-get install redis-server"
)

_PR_SET_PDEATHSIG = 1


class RedisServer:
    """A server that runs.

    Parameters:
      settings: Of the server; an underscore stands for a dash.
    """

    def __init__(self, **settings: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError(HOW_TO_GET_IT)
        self._program = program
        self._settings = {"appendonly": "no", **settings}
        self.folder = Path(tempfile.mkdtemp(prefix="greenq-redis-"))
        self.port = free_port()
        self._clients: list[Any] = []
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, **parameters: Any) -> Any:
        """A client that is closed with the server."""
        client = redis.Redis(port=self.port, **parameters)
        self._clients.append(client)
        return client

    def start(self) -> None:
        """Start it, for the first time or again, on the same port with the same files."""
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", **self._settings}
        arguments = [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]
        self.process = subprocess.Popen(
            [self._program, *arguments, "--rename-command", "KEYS", ""],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
        )
        deadline = time.monotonic() + PATIENCE_S
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.ConnectionError:
                    log = (self.folder / "log").read_text()
                    assert self.process.poll() is None, f"redis-server ended:\n{log}"
                    assert time.monotonic() < deadline, f"redis-server does not answer:\n{log}"
                    time.sleep(0.005)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Stop it; what it writes to disk is left for the next start."""
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signum)
        self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Stop it for good."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        shutil.rmtree(self.folder, ignore_errors=True)


#: A node of a cluster has a second port, 10,000 above the first.
_HIGHEST_PORT = 55_535


def free_port() -> int:
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        if port <= _HIGHEST_PORT:
            return port


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setpgid(0, 0)  # an interrupt from the keyboard is for the tests


@contextmanager
def redis_server(**settings: str):
    server = RedisServer(**settings)
    try:
        yield server
    finally:
        server.end()


_shared: RedisServer | None = None


def shared_server() -> RedisServer:
    """The server that most tests share, started by the first; empty it before use."""
    global _shared
    if _shared is None:
        import atexit

        _shared = RedisServer()
        atexit.register(_shared.end)
    return _shared
