"""Scripts in processes of their own, with or without gevent's patch, that talk by lines."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import greenq.__main__

from .waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be


def end_with_this_process() -> None:
    """In a new process, before its program: have it killed when this one ends, whatever ends it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


#: The patch as workers begin with it.
PATCH = greenq.__main__.PATCH + "\n"


def both_worlds(test: Any) -> Any:
    """Mark a test that starts a process in each world itself, so that in one world it is run enough."""
    return pytest.mark.starts_both_worlds(
        pytest.mark.parametrize("patched", [False, True], ids=["threads", "greenlets"])(test)
    )


class Script:
    """A running script.

    Parameters:
      text(str): Python; what it prints is read here, what it reads is written here.
      arguments: Found in ``sys.argv[1:]``.
      patched(bool): Whether gevent's patch is its first act.
      lives_s(float): When it is killed, whatever it does.
    """

    def __init__(self, text: str, *arguments: object, patched: bool = False, lives_s: float = 3 * PATIENCE_S) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", (PATCH if patched else "") + dedent(text), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.errors = ""
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        self._deadline = threading.Timer(lives_s, self.process.kill)
        self._deadline.daemon = True
        self._deadline.start()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    def line(self) -> str:
        """The next line it prints; fails if it ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._reader.join(PATIENCE_S)
            raise AssertionError(f"the script ended: {self.errors}")
        return line.rstrip("\n")

    def say(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def rest(self) -> list[str]:
        """What else it prints until it ends, which it does without complaint."""
        assert self.process.stdout is not None
        lines = self.process.stdout.read().splitlines()
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert code == 0, f"exit code {code}: {self.errors}"
        return lines

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def end(self) -> None:
        self._deadline.cancel()
        self.kill()
        self._reader.join(PATIENCE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # it had ended before it read everything
                stream.close()


@contextmanager
def running(text: str, *arguments: object, patched: bool = False, lives_s: float = 3 * PATIENCE_S):
    """A script that runs beside the block and is killed after it."""
    script = Script(text, *arguments, patched=patched, lives_s=lives_s)
    try:
        yield script
    finally:
        script.end()


def output_of(text: str, *arguments: object, patched: bool = False) -> list[str]:
    """What a script prints."""
    with running(text, *arguments, patched=patched) as script:
        return script.rest()
