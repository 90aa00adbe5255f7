"""A real memcached for tests: on a free port of loopback. It ends with the tests, also if they are killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

from .ports import free_port
from .redis_server import end_with_the_tests
from .waiting import PATIENCE_S

HOW_TO_GET_IT = (
    "memcached is not installed, and these tests run against a real one. On Debian and Ubuntu: "
    "apt-get install memcached"
)


class MemcachedServer:
    """A server that runs."""

    def __init__(self) -> None:
        program = shutil.which("memcached")
        if program is None:
            raise RuntimeError(HOW_TO_GET_IT)
        self._program = program
        self.port = free_port()
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, for the first time or again, on the same port; it is empty."""
        # As another user it would not be told of its parent's death.
        user = ["-u", "root"] if os.getuid() == 0 else []
        self.process = subprocess.Popen(
            [self._program, *user, "-l", "127.0.0.1", "-p", str(self.port), "-U", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=end_with_the_tests,
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, f"memcached ended: {self.process.stderr.read()}"  # type: ignore[union-attr]
                assert time.monotonic() < deadline, "memcached does not answer"
                time.sleep(0.005)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signum)
        self.process.wait(PATIENCE_S)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def end(self) -> None:
        """Stop it for good."""
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)


@contextmanager
def memcached_server():
    server = MemcachedServer()
    try:
        yield server
    finally:
        server.end()


_shared: MemcachedServer | None = None


def shared_memcached() -> MemcachedServer:
    """The server that most tests share, started by the first; its keys are never cleared."""
    global _shared
    if _shared is None:
        import atexit

        _shared = MemcachedServer()
        atexit.register(_shared.end)
    return _shared
