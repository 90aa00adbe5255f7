"""What `greenq-worker` was asked for: argparse in, one frozen value out.

Standard library only.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import __version__, settings
from ..units import duration_ms

DEFAULT_CONCURRENCY = 100
DEFAULT_SHUTDOWN_TIMEOUT_MS = 600_000
DEFAULT_WAIT_FOR_BROKER_MS = 30_000

#: Of a lease: a shorter one is lost whenever C code keeps the interpreter for a moment, and for
#: a longer one the messages of a dead machine would wait.
SHORTEST_LEASE_MS, LONGEST_LEASE_MS = 1_000, 86_400_000

_DESCRIPTION = "Run the jobs of a greenq application."

_EPILOG = """\
examples:
  greenq-worker app                     module app; its global broker, all its queues
  greenq-worker app:broker tasks mail   the broker named broker in app; tasks and mail hold actors
  greenq-worker app -p 4 -c 500         4 processes with 500 greenlets each
  greenq-worker app -Q mail reports     only these queues

durations:
  500ms 30s 5m 2h; a plain number is milliseconds

signals:
  TERM, INT   stop: finish the running jobs, then exit; a second one kills
  HUP         start new workers with the present code, then stop the old ones

exit codes:
  0 done   1 killed by a second signal   2 wrong usage, or an import failed
  3 the broker could not be reached at the start, in the time of --wait-for-broker, or
    cannot be used; once a worker was ready no outage ends the command
  4 pid file   5 workers died again and again
  7 stopped, but unfinished messages were given back at the deadline
"""


@dataclass(frozen=True)
class Options:
    """The command line as a value.

    Attributes:
      broker(str): ``module`` or ``module:attribute.path``.
      modules(tuple[str, ...]): Further modules to import.
      processes(int): Worker processes.
      concurrency(int): Jobs under way at once in each of them.
      path(tuple[str, ...]): Put in front of the workers' sys.path, in this order.
      queues(tuple[str, ...] | None): The queues to consume; None for all.
      pid_file(str | None): Where the main process's pid is written.
      log_file(str | None): Where the log is appended; None for standard error.
      skip_logging(bool): Whether logging is left to the application.
      worker_shutdown_timeout(int): Milliseconds that running jobs have at a stop.
      wait_for_broker(int): Milliseconds for which a broker that is away is waited for at the start.
      lease(int | None): Milliseconds after which what a dead worker held is given to others;
        None for what the broker was made with.
      verbose(int): 0 for INFO, more for DEBUG.
    """

    broker: str
    modules: tuple[str, ...]
    processes: int
    concurrency: int
    path: tuple[str, ...]
    queues: tuple[str, ...] | None
    pid_file: str | None
    log_file: str | None
    skip_logging: bool
    worker_shutdown_timeout: int
    wait_for_broker: int
    lease: int | None
    verbose: int


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """The options that these arguments stand for.

    Parameters:
      arguments(Sequence[str]): Without the program's name. Default: those of the process.

    Raises:
      SystemExit: With code 2 after telling what is wrong, with 0 after --help or --version.
    """
    parser = _parser()
    # Intermixed, so that `app -p 2 tasks` gives the module tasks to the right argument.
    given = parser.parse_intermixed_args(arguments)
    if given.broker is None:
        parser.error(
            "BROKER is missing: name the module of your broker and actors, such as app or app:broker. "
            "It comes before --path and --queues, which take all words that follow them"
        )
    try:
        settings.check()
    except ValueError as error:
        parser.error(f"environment variable {error}")
    return Options(
        broker=given.broker,
        modules=tuple(given.modules),
        processes=given.processes,
        concurrency=given.concurrency,
        path=tuple(given.path or ["."]),
        queues=tuple(dict.fromkeys(given.queues)) if given.queues else None,
        pid_file=given.pid_file,
        log_file=given.log_file,
        skip_logging=given.skip_logging,
        worker_shutdown_timeout=given.worker_shutdown_timeout,
        wait_for_broker=given.wait_for_broker,
        lease=given.lease,
        verbose=given.verbose,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="greenq-worker",
        usage="greenq-worker [options] BROKER [MODULE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "broker",
        metavar="BROKER",
        nargs="?",
        type=_module,
        help="module, or module:attribute of the broker in it; without one, the global broker is used",
    )
    add("modules", metavar="MODULE", nargs="*", type=_module, help="further modules to import, that hold actors")
    add(
        "--processes",
        "-p",
        metavar="N",
        type=_at_least_one,
        default=_cpu_count(),
        help="worker processes (default: the number of CPUs, %(default)s here)",
    )
    add(
        "--concurrency",
        "-c",
        "--threads",
        "-t",
        metavar="N",
        type=_at_least_one,
        default=DEFAULT_CONCURRENCY,
        help="jobs under way at once in each process (default: %(default)s)",
    )
    add("--path", "-P", nargs="*", action="extend", metavar="DIR", help="directories to import from (default: .)")
    add("--queues", "-Q", nargs="*", action="extend", metavar="QUEUE", help="consume only these (default: all)")
    add("--pid-file", metavar="FILE", help="write the main process's pid to this file")
    add("--log-file", metavar="FILE", help="append the log to this file (default: standard error)")
    add("--skip-logging", action="store_true", help="do not set up logging; the application does")
    add(
        "--worker-shutdown-timeout",
        metavar="DURATION",
        type=_duration,
        default=DEFAULT_SHUTDOWN_TIMEOUT_MS,
        help="how long running jobs may take to finish at a stop (default: 10m)",
    )
    add(
        "--wait-for-broker",
        metavar="DURATION",
        type=_duration,
        default=DEFAULT_WAIT_FOR_BROKER_MS,
        help="how long to wait at the start for a broker that is away (default: 30s; 0: try once)",
    )
    add(
        "--lease",
        metavar="DURATION",
        type=_lease,
        help="give the messages of a worker whose machine died to others after this time (default: as the "
        "broker was made; 15s)",
    )
    add("--verbose", "-v", action="count", default=0, help="log at DEBUG (default: INFO)")
    add("--version", action="version", version=f"greenq {__version__}")
    return parser


def _module(text: str) -> str:
    module = text.partition(":")[0]
    if not module or "/" in module or module.endswith(".py"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the name of a module: give it as for an import, such as app or "
            "package.tasks (--path says where it is), and the broker in it as app:broker"
        )
    return text


def _at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


def _worded(convert: Callable[[str], int]) -> Callable[[str], int]:
    # argparse keeps the text of this one exception only.
    def converted(text: str) -> int:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


_duration = _worded(duration_ms)


@_worded
def _lease(text: str) -> int:
    lease_ms = duration_ms(text)
    if not SHORTEST_LEASE_MS <= lease_ms <= LONGEST_LEASE_MS:
        raise ValueError(f"{text!r} is {lease_ms} ms, and a lease is 1s to 24h; a plain number is milliseconds")
    return lease_ms


def _cpu_count() -> int:
    # The CPUs that this process may use: in a container that is fewer than there are.
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
