"""greenq-worker as a user starts it: real processes, and their log to wait for."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

from greenq.brokers.sqlite import SqliteBroker
from greenq.message import Message

from .processes import end_with_this_process
from .waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]

#: A module with a broker in a file beside it. What its actors do is seen in the log.
APP = """
import logging, os, pathlib, signal, sys, time
import greenq
from greenq.brokers.sqlite import SqliteBroker

HERE = pathlib.Path(__file__).parent
log = logging.getLogger("app")
broker = SqliteBroker(str(HERE / "queue.db"))
greenq.set_broker(broker)

@greenq.actor
def say(text):
    log.info("said %s", text)

@greenq.actor
def hold(text):
    log.info("holding %s in %d", text, os.getpid())
    while not (HERE / "go").exists():
        time.sleep(0.01)
    log.info("held %s", text)

@greenq.actor
def leave(how):
    marker = HERE / "left"
    if marker.exists():
        log.info("left by %s, and back", how)
        return
    marker.touch()
    if how == "os._exit":
        os._exit(0)
    import gevent
    gevent.spawn(sys.exit, 0).join()
    log.info("still here after %s", how)
"""


class Command:
    """One run of the command, in a process group of its own.

    Parameters:
      folder(Path): The current directory.
      arguments: Of the command, or with ``program`` of that.
    """

    def __init__(self, folder: Path, *arguments: str, program: tuple[str, ...] = ("-m", "greenq"), **env: str) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=folder,
            # Where tests run it is often set, and where workers do it is not.
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=end_with_this_process,
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def matches(self, pattern: str) -> list[Any]:
        """What was found so far, as re.findall has it."""
        return re.findall(pattern, self.log)

    def wait_for(self, pattern: str, count: int = 1) -> list[Any]:
        """Wait until the log has this pattern so many times; return what was found."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while len(self.matches(pattern)) < count:
                assert self._news.wait(deadline - time.monotonic()), f"no {pattern!r} x {count} in:\n{self.log}"
        return self.matches(pattern)

    def wait_until_ready(self, workers: int = 1) -> list[int]:
        """Wait until so many workers were ready; return the pids of all that were."""
        self.wait_for(r"Worker process is ready", workers)
        return [int(pid) for pid in self.matches(r"\[PID (\d+)\].* Worker process is ready")]

    def times_of(self, pattern: str) -> list[float]:
        """When each line with this pattern was logged, by whom logged it: seconds as of time.time()."""
        times = (line[1:24] for line in self.lines if re.search(pattern, line))
        return [datetime.strptime(each, "%Y-%m-%d %H:%M:%S,%f").timestamp() for each in times]

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def send_to_all(self, signum: int) -> None:
        """As a terminal and timeout(1) do it: to the whole process group."""
        os.killpg(self.pid, signum)

    def exit_code(self) -> int:
        """Wait for the end of the command and of all its workers."""
        code = self.process.wait(PATIENCE_S)
        self.wait_for_workers()
        return code

    def wait_for_workers(self) -> None:
        """Wait until nobody is left who could write to the log."""
        self._reader.join(PATIENCE_S)
        assert not self._reader.is_alive(), f"a worker lives on:\n{self.log}"

    def end(self) -> None:
        """Kill what is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        # As long as somebody has the other end, the reader holds the stream, and to close it would wait for both.
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()


def write_module(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(dedent(source))


def enqueue(folder: Path, actor_name: str, *args: Any) -> None:
    """Put a message into the queue of APP."""
    broker = SqliteBroker(str(folder / "queue.db"))
    try:
        broker.declare_queue("default")
        broker.enqueue(Message("default", actor_name, args, {}, {}))
    finally:
        broker.close()


def waiting(folder: Path) -> int:
    """How many messages wait in the queue of APP."""
    broker = SqliteBroker(str(folder / "queue.db"))
    try:
        broker.declare_queue("default")
        return broker.get_queue_message_counts("default")[0]
    finally:
        broker.close()
