"""A Redis server for a benchmark: on a free port of loopback, in a folder of its own.

Nothing of it is written to disk, and it ends with the benchmark, also if that is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from ending import die_with_parent

HOW_TO_GET_IT = "redis-server is not installed. On Debian and Ubuntu: apt-get install redis-server"
_LIMIT_S = 30


class Server:
    """A server that runs.

    Parameters:
      port(int): Of loopback.
      pid(int): Of its process.
    """

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client: Any = redis.Redis(port=port)

    def cpu_s(self) -> float:
        """The seconds of CPU that it has used so far."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])


@contextlib.contextmanager
def redis_server() -> Iterator[Server]:
    """An empty server, which has ended afterwards."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit(HOW_TO_GET_IT)
    with tempfile.TemporaryDirectory(prefix="greenq-redis-") as folder:
        port = _free_port()
        settings = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "no"}
        arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        with open(Path(folder) / "log", "wb") as log:
            process = subprocess.Popen(
                [program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        server = Server(port, process.pid)
        try:
            _wait_until_it_answers(server, process, Path(folder) / "log")
            yield server
        finally:
            server.client.close()
            process.kill()
            process.wait(_LIMIT_S)


@contextlib.contextmanager
def cores_apart(server: Server) -> Iterator[None]:
    """Keep the server on the first core and what is started within on the others.

    Left alone, the system puts the two ends of a round trip on one core or on two, for as
    long as they live: 50 us or 100 us, which has nothing to do with what is measured. Does
    nothing where there is one core, or no way to choose.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield
        return
    os.sched_setaffinity(server.pid, cores[:1])
    os.sched_setaffinity(0, cores[1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _wait_until_it_answers(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + _LIMIT_S
    while True:
        try:
            server.client.ping()
            return
        except redis.exceptions.RedisError:
            if process.poll() is not None or time.monotonic() > ends:
                text = log.read_text(errors="replace")
                raise SystemExit(f"redis-server does not answer. Its log ends with:\n{text[-4000:]}") from None
            time.sleep(0.01)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
