"""A real Redis server for tests: on a free port of loopback, in a folder of its own.

It ends with the tests, also if they are killed. KEYS is renamed away, so that nothing can
come to depend on it. Others of its kind are in redis_tls.py, redis_cluster.py and
redis_sentinel.py. GREENQ_REDIS_SERVER=/path/to/valkey-server takes another program for all.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import redis
import redis.backoff
import redis.retry

from .ports import free_port
from .processes import end_with_this_process
from .waiting import PATIENCE_S

HOW_TO_GET_IT = (
    "redis-server is not installed, and these tests run against a real one. On Debian and Ubuntu: "
    "apt-get install redis-server"
)


def program() -> str:
    """The path of the server."""
    path = os.environ.get("GREENQ_REDIS_SERVER") or shutil.which("redis-server")
    if path is None:
        raise RuntimeError(HOW_TO_GET_IT)
    return path


class RedisServer:
    """A server that runs.

    Parameters:
      settings: Of the server; an underscore stands for a dash. Those with no value are left out.
    """

    def __init__(self, **settings: Any) -> None:
        self._program = program()
        self._settings = {"appendonly": "no", **settings}
        self.folder = Path(tempfile.mkdtemp(prefix="greenq-redis-"))
        self.port = free_port()
        self._clients: list[Any] = []
        self._admin: Any = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def admin(self) -> Any:
        """One client for looking again and again."""
        if self._admin is None:
            self._admin = self.client()
        return self._admin

    def client(self, **parameters: Any) -> Any:
        """A client that is closed with the server."""
        client = self._connect(**parameters)
        self._clients.append(client)
        return client

    def _connect(self, **parameters: Any) -> Any:
        return redis.Redis(port=self.port, **parameters)

    def start(self, *, waits: bool = True) -> None:
        """Start it, for the first time or again, on the same port with the same files.

        Parameters:
          waits(bool): Whether to return only when it answers.
        """
        self.process = subprocess.Popen(
            [self._program, *self._arguments()],
            stdout=(self.folder / "log").open("ab"),
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_the_tests,
        )
        if waits:
            self.wait_until_ready()

    def _arguments(self) -> list[str]:
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", **self._settings}
        given = ((name, value) for name, value in settings.items() if value is not None)
        arguments = [part for name, value in given for part in ("--" + name.replace("_", "-"), str(value))]
        return [*arguments, "--rename-command", "KEYS", ""]

    def wait_until_ready(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + PATIENCE_S
        # Of one try: redis-py's ten would take seconds to see that the server ended.
        with self._connect(retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0)) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
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


def end_with_the_tests() -> None:
    """In a new process: have it killed when this one ends, and not before."""
    end_with_this_process()
    os.setpgid(0, 0)  # an interrupt from the keyboard is for the tests


@contextmanager
def redis_server(**settings: Any):
    server = RedisServer(**settings)
    try:
        yield server
    finally:
        server.end()


_shared: dict[Any, Any] = {}

Kind = TypeVar("Kind")


def shared(make: Callable[[], Kind]) -> Kind:
    """What this makes, made once in a run of the tests and ended with it."""
    if make not in _shared:
        made: Any = make()
        _shared[make] = made
        atexit.register(made.end)
    return _shared[make]


def shared_server() -> RedisServer:
    """The server that most tests share, started by the first; empty it before use."""
    return shared(RedisServer)
