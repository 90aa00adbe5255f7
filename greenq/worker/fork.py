"""Runs a fork function, of a middleware or of the command line, in a process of its own, beside the workers.

The process is a fresh interpreter, as a worker's is, but gevent does not patch it: a fork
function is plain Python, and may use threads. It finds its function by name, as the supervisor
was told by the first worker that was ready.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..exit_codes import ExitCode
from ..json_lines import encode
from ..log_lines import configure, log_with_details, print_by_lines, reopen
from ..logging import get_logger
from ..metrics import shared
from .application import explain

if TYPE_CHECKING:
    from ..broker import Broker

#: Seconds that a function has to end after its supervisor has died.
_ORPHAN_S = 10.0

_logger = get_logger("greenq", "ForkProcess")


def forks_of(broker: Broker, named: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The fork functions of a broker's middleware, and some more, as the supervisor is told of them: each once.

    Parameters:
      named(Iterable[str]): Those of the command line, as ``module:function``.
    """
    found: dict[str, dict[str, Any]] = {name: {"function": name, "outlasts_workers": False} for name in named}
    for middleware in broker.middleware:
        for function in getattr(middleware, "forks", ()):  # a middleware need not be derived from ours
            name = f"{function.__module__}:{function.__qualname__}"
            if "<" in name or function.__module__ == "__main__":
                _logger.error(
                    "The fork function %s of %s is not run: another process cannot import it. Define it at the top "
                    "level of a module.",
                    name,
                    type(middleware).__name__,
                )
                continue
            found[name] = {"function": name, "outlasts_workers": bool(getattr(function, "outlasts_workers", False))}
    return list(found.values())


def main() -> None:
    """Run the function that the supervisor names. Exits the process, with the number that it returned.

    What it raised, or returned instead of a number, the supervisor is told, which logs it; then the code is 1.
    """
    start_fd, control_fd, report_fd = (int(argument) for argument in sys.argv[-3:])
    for fd in (control_fd, report_fd):
        os.set_inheritable(fd, False)
    with open(start_fd, "rb") as file:
        told = json.load(file)
    _own.report_fd, _own.options = report_fd, told["options"]
    _set_up(told)
    life = _Life(outlasts_workers=_own.options["outlasts_workers"])
    life.take_signals()
    threading.Thread(target=life.watch_supervisor, args=(control_fd,), daemon=True).start()
    try:
        function = _find(_own.options["function"])
    except Exception as error:
        _tell_failure(report_fd, explain(f"find the fork function {_own.options['function']!r}", error))
        sys.exit(ExitCode.USAGE)
    sys.exit(_run(function, report_fd))


def options() -> dict[str, Any]:
    """The command's options, for a function of greenq's own."""
    return _own.options


def report(**report: Any) -> None:
    """Tell the supervisor something, for a function of greenq's own. Nothing happens if it is gone."""
    with contextlib.suppress(OSError):
        os.write(_own.report_fd, encode(report))


class _Own:
    """What this process was told."""

    def __init__(self) -> None:
        self.report_fd = -1
        self.options: dict[str, Any] = {}


_own = _Own()


def _set_up(told: dict[str, Any]) -> None:
    options = told["options"]
    print_by_lines()
    shared.hand_over(told["shared_fd"], None, 0)
    sys.argv[:] = options["argv"]
    sys.path[:0] = [os.path.abspath(path) for path in options["path"]]
    if not options["skip_logging"]:
        level = logging.DEBUG if options["verbose"] else logging.INFO
        configure(level=level, log_file=options["log_file"], log_format=options["log_format"])


def _find(name: str) -> Callable[[], Any]:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    function: Callable[[], Any] = found
    return function


def _run(function: Callable[[], Any], report_fd: int) -> int:
    """Run the function; the code to exit with. The interpreter would print what is no number, beside the log."""
    try:
        code = function()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        _tell_failure(report_fd, explain("go on", error))
        return ExitCode.KILLED
    if code is None or isinstance(code, int):
        return code or ExitCode.DONE
    _tell_failure(report_fd, f"it ended with {code!r}")
    return ExitCode.KILLED


def _tell_failure(report_fd: int, reason: str) -> None:
    try:
        os.write(report_fd, encode({"event": "failed", "reason": reason[:30_000]}))
    except OSError:
        line, _, details = reason.partition("\n")
        log_with_details(_logger, logging.CRITICAL, line, details)


class _Life:
    """When the function is to end.

    TERM asks for it, but one that outlasts the workers ends when its supervisor closes the pipe:
    whoever stops a service may send TERM to all of its processes at once.
    """

    def __init__(self, *, outlasts_workers: bool) -> None:
        self._waits_for_pipe = outlasts_workers

    def take_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGHUP, _reopen_log)
        ignored = (signal.SIGINT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1)
        for signum in ignored:
            signal.signal(signum, _leave_it_to_the_supervisor)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _on_term(self, signum: int, frame: FrameType | None) -> None:
        if self._waits_for_pipe:
            return
        # A second one must not break into what the first cleans up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(ExitCode.DONE)

    def watch_supervisor(self, control_fd: int) -> None:
        while os.read(control_fd, 65536):
            pass  # nothing is said to a fork
        self._waits_for_pipe = False
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_ORPHAN_S)  # the deadline of the function, which ends the process before it if it can
        os._exit(ExitCode.KILLED)


def _reopen_log(signum: int, frame: FrameType | None) -> None:
    try:
        reopen()
    except OSError as error:
        _logger.error("The log file cannot be opened anew: %s. This process goes on in the old one.", error)


def _leave_it_to_the_supervisor(signum: int, frame: FrameType | None) -> None:
    pass
