"""`greenq-worker` and `python -m greenq`: runs the workers of an application.

Joins the rooms: the command line's options, the pid file, the log and the supervisor. The
process that runs this never imports gevent or the user's modules; worker processes do,
which it starts as fresh interpreters.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from .exit_codes import ExitCode

# The other rooms are imported once signals do no harm: that takes as long again as starting
# the interpreter.
if TYPE_CHECKING:
    from .cli.options import Options
    from .control_socket import ControlSocket
    from .metrics.shared import SharedFile
    from .supervisor import Launch

# gevent's patch as the first act of a process. At each of its two dozen steps gevent asks the
# library for plug-ins, and the library reads what all installed packages declare, each time
# anew: with 40 packages 70 ms, a third of a worker's start. So they are read once.
PATCH = (
    "import gevent.monkey, importlib.metadata as installed; "
    "look_up, declared = installed.entry_points, installed.entry_points(); "
    "installed.entry_points = lambda **which: declared.select(**which); "
    "gevent.monkey.patch_all(); "
    "installed.entry_points = look_up; del installed, look_up, declared; "
)

# What a worker runs. It imports what this process would, from the same places; the
# variable is taken out again so that programs started by jobs do not inherit it. The patch
# comes before anything of greenq or of the user, so that no import order matters anywhere:
# with `-m` the front door would be imported first.
_WORKER = (
    "import os, sys; sys.path[:] = os.environ.pop('GREENQ_SYS_PATH').split(os.pathsep); "
    f"{PATCH}from greenq.worker.process import main; main()"
)


# What a fork function runs in: the same without the patch.
_FORK = (
    "import os, sys; sys.path[:] = os.environ.pop('GREENQ_SYS_PATH').split(os.pathsep); "
    "from greenq.worker.fork import main; main()"
)


# The fork function that tells of changes.
_WATCH = "greenq.watcher:watch"

# The one that serves how the workers are.
_HEALTH = "greenq.health.server:serve"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run workers until they are told to stop; return the exit code.

    Parameters:
      arguments(Sequence[str]): The command line without the program's name. Default: that
        of the process.

    Raises:
      SystemExit: The command line is wrong, or asks for help or the version only.
    """
    started_s = time.monotonic()
    with _early_signals():
        return _run(arguments, started_s)


@contextmanager
def _early_signals() -> Iterator[None]:
    """Let signals do no harm before the supervisor takes them, nor after it has let go of them.

    TERM and INT end the command with 0, because nothing has begun; HUP asks for the code that
    is being started, and the others come too early.
    """
    stops = (signal.SIGTERM, signal.SIGINT)
    others = (signal.SIGHUP, signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1)

    def end(signum: int, frame: FrameType | None) -> None:
        for each in stops:  # a second one must not break into what the first cleans up
            signal.signal(each, _nothing)
        raise SystemExit(ExitCode.DONE)

    before = {each: signal.signal(each, end) for each in stops}
    before |= {each: signal.signal(each, _nothing) for each in others}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if handler is None else handler)


def _nothing(signum: int, frame: FrameType | None) -> None:
    pass


def _run(arguments: Sequence[str] | None, started_s: float) -> int:
    from .cli.options import parse_options
    from .control_socket import ControlError
    from .log_lines import configure
    from .supervisor import PidFile, PidFileError, Recycling, Supervisor, Systemd

    options = parse_options(arguments)
    with ExitStack() as held:
        try:
            if options.pid_file is not None:
                held.enter_context(PidFile(options.pid_file))
            if not options.skip_logging:
                configure(
                    level=logging.DEBUG if options.verbose else logging.INFO,
                    log_file=options.log_file,
                    log_format=options.log_format,
                )
        except PidFileError as error:
            print(f"greenq-worker: {error}", file=sys.stderr)
            return ExitCode.PID_FILE
        except OSError as error:
            print(
                f"greenq-worker: error: argument --log-file: {options.log_file!r} cannot be opened for "
                f"appending: {error.strerror}",
                file=sys.stderr,
            )
            return ExitCode.USAGE
        _warn(options)
        try:
            control = _control_socket(options, held)
        except ControlError as error:
            print(f"greenq-worker: error: {error}", file=sys.stderr)
            return ExitCode.USAGE
        systemd = Systemd.from_environment()  # before the environment is handed down
        supervisor = Supervisor(
            launch(options),
            fork_launch=launch_fork(options, control.path if control else None),
            processes=options.processes,
            stop_timeout_ms=options.worker_shutdown_timeout,
            fork_timeout_ms=options.worker_fork_timeout,
            watch_function=_WATCH if options.watch is not None else None,
            announce=_Announcer(options, started_s),
            shared_file=_shared_file(),
            recycling=Recycling(max_memory=options.max_memory, max_age_ms=options.max_age),
            control_socket=control.socket if control else None,
            health_function=_HEALTH if options.health is not None else None,
            systemd=systemd,
        )
        return supervisor.run()


def _control_socket(options: Options, held: ExitStack) -> ControlSocket | None:
    """Listen for those who ask what runs; None if nobody may, or nobody has asked for it and it cannot be.

    Raises:
      ControlError: It was asked for, and cannot be had.
    """
    from .cli.kinds import OFF
    from .control_socket import ControlError, ControlSocket
    from .logging import get_logger

    if options.control == OFF:
        return None
    try:
        return held.enter_context(ControlSocket(options.control))
    except ControlError as error:
        if options.control is not None or options.health is not None:
            raise
        get_logger("greenq", "MainProcess").warning("greenq top cannot ask this command what runs. %s", error)
        return None


def _warn(options: Options) -> None:
    from .cli.options import variables
    from .logging import get_logger
    from .settings import unknown_variables

    logger = get_logger("greenq", "MainProcess")
    for told in options.warnings:
        logger.warning("%s", told)
    for told in unknown_variables(variables()):
        logger.warning("The environment variable %s is unknown, and has no effect.", told)


def launch(options: Options) -> Launch:
    """How the workers for these options are started."""
    from .supervisor import Launch

    return Launch(
        command=(sys.executable, "-c", _WORKER, "greenq-worker", options.broker, *options.modules),
        environment={**os.environ, "GREENQ_SYS_PATH": os.pathsep.join(sys.path)},
        options={**asdict(options), "argv": sys.argv},
    )


def launch_fork(options: Options, control_path: str | None) -> Launch:
    """How a process beside the workers is started, which runs a fork function."""
    workers = launch(options)
    return replace(
        workers,
        command=(sys.executable, "-c", _FORK, "greenq-fork", options.broker),
        options={**workers.options, "control_path": control_path},
    )


def _shared_file() -> SharedFile | None:
    from .logging import get_logger
    from .metrics.shared import SharedFile
    from .settings import PROM_DB

    directory = PROM_DB.get()
    try:
        return SharedFile(directory)
    except OSError as error:
        where = "in memory" if directory is None else f"in {directory} (GREENQ_PROM_DB)"
        get_logger("greenq", "MainProcess").error(
            "Metrics cannot be kept %s: %s. Going on without.", where, error.strerror
        )
        return None


class _Announcer:
    """Logs the banner when the first worker is ready."""

    def __init__(self, options: Options, started_s: float) -> None:
        from .logging import get_logger

        self._options = options
        self._started_s = started_s
        self._logger = get_logger("greenq", "MainProcess")

    def __call__(self, facts: Mapping[str, Any], is_first: bool) -> None:
        from .cli.banner import banner, missing_actors, queues_without_actors

        if is_first:
            ready_ms = round((time.monotonic() - self._started_s) * 1000)
            for line in banner(self._options, facts, pid=os.getpid(), ready_ms=ready_ms):
                self._logger.info("%s", line)
        warning = missing_actors(facts)
        if warning is not None:
            self._logger.warning("%s", warning)
        for warning in queues_without_actors(self._options, facts):
            self._logger.warning("%s", warning)


if __name__ == "__main__":
    sys.exit(main())
