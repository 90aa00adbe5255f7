"""Starts what is measured: workers and producers on a queue, and ends them with the benchmark.

They run in process groups of their own, in a temporary directory, and tell what they see
through a named pipe; see telling.py for their end of it.
"""
# ruff: noqa: E402 - the checkout has to be on the path first

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: What the benchmark beside other queues runs.
APPS = HERE / "benchmarks" / "apps"
sys.path.insert(0, str(ROOT))  # a checkout is enough, greenq need not be installed

import psutil
from ending import die_with_parent
from runs import Figures
from telling import COUNT_VARIABLE, PIPE_VARIABLE

from greenq import Broker, Message
from greenq.default_broker import broker_from_url

#: Nothing that is waited for takes longer, on a machine however slow.
LIMIT_S = 300
_FILL = 1_000


class Silent(SystemExit):
    """A worker ended, or said nothing for too long."""


class Bench:
    """A queue, and what is started on it.

    Parameters:
      folder(Path): Empty, and gone afterwards.
      url(str): Of the broker. Default: the embedded one, in this folder.
      count(int): How many jobs the workers tell of at once.
      queues(int): How many queues the workers consume. Default: just one.
      app(str): The module that workers import.
      environment(dict[str, str]): Further variables of all that is started.
    """

    def __init__(
        self,
        folder: Path,
        url: str | None = None,
        *,
        count: int = 0,
        queues: int = 1,
        app: str = "jobs",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._app = app
        self.url = url or f"sqlite:///{quote(str(folder / 'queue.db'))}"
        pipe_path = folder / "pipe"
        os.mkfifo(pipe_path)
        # Open for both ways, so that neither end ever waits for the other to open it.
        self._pipe = os.open(pipe_path, os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""
        self._processes: list[subprocess.Popen[bytes]] = []
        self._broker: Broker | None = None
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE), str(APPS), os.environ.get("PYTHONPATH", "")]),
            "GREENQ_BROKER_URL": self.url,
            "LOADTEST_QUEUES": str(queues),
            PIPE_VARIABLE: str(pipe_path),
            COUNT_VARIABLE: str(count),
            **(environment or {}),
        }

    @property
    def broker(self) -> Broker:
        """A broker of the benchmark's own on the same queue."""
        if self._broker is None:
            self._broker = broker_from_url(self.url)
            self._broker.declare_queue("default")
        return self._broker

    def fill(self, actor_name: str, count: int, *, delay: int | None = None, eta: int | None = None) -> None:
        """Store messages for this actor, in batches.

        Parameters:
          actor_name(str): The actor. Its argument is a number, or the eta if there is one.
          count(int): How many.
          delay(int): Milliseconds from now before which they must not run.
          eta(int): The time at which all are due, in Unix milliseconds.
        """
        options = {} if eta is None else {"eta": eta}
        for start in range(0, count, _FILL):
            messages: list[Message[Any]] = [
                Message("default", actor_name, (number if eta is None else eta,), {}, dict(options))
                for number in range(start, min(start + _FILL, count))
            ]
            self.broker.enqueue_many(messages, delay=delay)

    def start(self, command: Sequence[str]) -> float:
        """Start a program of the benchmark's directory; when that was."""
        started = time.monotonic()
        with open(self._folder / "log", "ab") as log:
            process = subprocess.Popen(
                command,
                cwd=HERE,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._processes.append(process)
        return started

    def start_worker(self, concurrency: int, processes: int = 1) -> float:
        """Start greenq-worker; when that was."""
        options = ["--processes", str(processes), "--concurrency", str(concurrency)]
        return self.start([sys.executable, "-m", "greenq", *options, f"{self._app}:broker"])

    def start_idle_worker(self, concurrency: int) -> psutil.Process:
        """Start greenq-worker and have it run one job; its worker process."""
        self.fill("ping", 1)
        self.start_worker(concurrency)
        return psutil.Process(int(self.read()["pid"]))

    def read(self, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """What a worker says next.

        Raises:
          Silent: It ended, or said nothing for so long.
        """
        ends = time.monotonic() + limit_s
        while b"\n" not in self._unread:
            if select.select([self._pipe], [], [], 0.5)[0]:
                self._unread += os.read(self._pipe, 65536)
            elif time.monotonic() > ends or any(process.poll() is not None for process in self._processes):
                raise Silent(
                    f"The worker ended, or said nothing for {limit_s} s. Its log ends with:\n{self.log()[-4000:]}"
                )
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def log(self) -> str:
        """What all that was started has logged."""
        return (self._folder / "log").read_text(errors="replace")

    def read_stretch(self, probe: Callable[[], float] = lambda: 0.0) -> dict[str, Any]:
        """Wait for a stretch of jobs to begin and to end; what the worker says of it.

        Parameters:
          probe(Callable): Called at both ends; how much more it answers at the second is
            added as ``probed``.
        """
        began = self.read()["began"]
        before = probe()
        answer = self.read()
        return {**answer, "began": began, "probed": probe() - before}

    def send(self, way: str, count: int, *args: str) -> Figures:
        """Have a producer send messages in one of the ways of jobs.py; what it measured."""
        return self.run("jobs.py", way, str(count), *args)

    def run(self, program: str, *args: str, python: str = sys.executable) -> Figures:
        """Run a program of the benchmark's directory on this queue; what it measured."""
        return json_of([str(HERE / program), *args], self.environment, python)

    def close(self) -> None:
        """End everything that was started."""
        for process in self._processes:
            _kill(process)
        if self._broker is not None:
            self._broker.close()
        os.close(self._pipe)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # A graceful stop would wait for parked jobs. The command's own children first, because
    # they may be in groups of their own, and would be adopted by others once it is gone.
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LIMIT_S)


def json_of(command: list[str], environment: dict[str, str] | None = None, python: str = sys.executable) -> Figures:
    """What a Python program prints: one line of JSON. It ends with the benchmark."""
    process = subprocess.Popen(
        [python, *command],
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        _kill(process)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
    figures: Figures = json.loads(output)
    return figures


@contextlib.contextmanager
def bench(
    count: int = 0,
    *,
    url: str | None = None,
    queues: int = 1,
    app: str = "jobs",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Bench]:
    """A fresh queue, where the URL names none; what was started on it has ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="greenq-bench-") as folder:
        opened = Bench(Path(folder), url, count=count, queues=queues, app=app, environment=environment)
        try:
            yield opened
        finally:
            opened.close()
