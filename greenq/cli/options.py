"""What `greenq-worker` was asked for: the one table of its options, and what they say as a frozen value.

    command line  ->  environment  ->  [tool.greenq] of pyproject.toml  ->  default

The first of them that says something about an option counts. An option ``--log-file`` is the
variable ``GREENQ_LOG_FILE`` and the key ``log-file``. Standard library only.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

from .. import __version__, settings
from ..extras import require
from ..log_lines import without_password
from ..machine import cpu_count
from ..names import nearest_name
from . import kinds
from .kinds import Kind
from .pyproject import Table, find_table

_DESCRIPTION = """\
Run the jobs of a greenq application.

Each option can also be given by the environment variable in brackets, or, under its own name, in the
table [tool.greenq] of the nearest pyproject.toml. The command line comes first, then the environment,
then the file."""

_EPILOG = """\
examples:
  greenq-worker app                     module app; its global broker, all its queues
  greenq-worker app:broker tasks mail   the broker named broker in app; tasks and mail hold actors
  greenq-worker app -p 4 -c 500         4 processes with 500 greenlets each
  greenq-worker app -Q mail reports     only these queues

durations:
  500ms 30s 5m 2h; a plain number is milliseconds

sizes:
  512M 2G; a plain number is bytes

signals:
  TERM, INT   stop: finish the running jobs, then exit; a second one kills
  HUP         start new workers with the present code, then stop the old ones
  TSTP        be quiet: finish the running jobs and take no others; TERM and HUP work as ever
  TTIN, TTOU  one worker more, one fewer
  USR1        log every job in flight with its stack

exit codes:
  0 done   1 killed by a second signal   2 wrong usage, or an import failed
  3 the broker could not be reached at the start, in the time of --wait-for-broker, or
    cannot be used; once a worker was ready no outage ends the command
  4 pid file   5 workers died again and again
  7 stopped, but unfinished messages were given back at the deadline
"""


@dataclass(frozen=True)
class Option:
    """One option, wherever it is given.

    Attributes:
      flags(tuple[str, ...]): How the command line names it; empty for one that stands without a name.
      kind(Kind): What its value looks like.
      default: What counts if nobody says anything, or a function that tells.
      default_told(str): The same in words; empty if there is none.
      meaning(str): What it does.
      name(str): Of the attribute of Options.
    """

    flags: tuple[str, ...]
    kind: Kind
    default: Any
    default_told: str
    meaning: str
    name: str = ""

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return settings.PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        """Its key in a file."""
        return self.name.replace("_", "-")

    @property
    def help(self) -> str:
        """What the help says of it."""
        default = f" (default: {self.default_told})" if self.default_told else ""
        return f"{self.meaning}{default} [{self.variable}]".replace("%", "%%")


def _option(*flags: str, kind: Kind, meaning: str, default: Any = None, told: str = "") -> Any:
    if default is None and kind is kinds.FLAG:
        default = False
    return field(metadata={"option": Option(flags, kind, default, told, meaning)})


@dataclass(frozen=True)
class Options:
    """What was asked for, and the table of what can be.

    Attributes are named after their options; times are milliseconds, None is for none.
    """

    broker: str = _option(
        kind=kinds.MODULE,
        meaning="module, or module:attribute of the broker in it; without one, the global broker is used",
    )
    modules: tuple[str, ...] = _option(
        kind=kinds.MODULE.listed("many"),
        meaning="further modules to import, that hold actors",
        default=(),
    )
    processes: int = _option(
        "--processes",
        "-p",
        kind=kinds.COUNT,
        meaning="worker processes",
        default=cpu_count,
        told="the number of CPUs",
    )
    concurrency: int = _option(
        "--concurrency",
        "-c",
        "--threads",
        "-t",
        kind=kinds.COUNT,
        meaning="jobs under way at once in each process",
        default=100,
        told="100",
    )
    lane_threads: int = _option(
        "--lane-threads",
        kind=kinds.COUNT,
        meaning='native threads in each process, for actors with lane="thread"',
        default=8,
        told="8",
    )
    lane_processes: int = _option(
        "--lane-processes",
        kind=kinds.COUNT,
        meaning='processes beside each process, for actors with lane="process"',
        default=cpu_count,
        told="the number of CPUs",
    )
    path: tuple[str, ...] = _option(
        "--path",
        "-P",
        kind=kinds.DIRECTORY.listed("many", separator=os.pathsep),
        meaning="directories to import from",
        default=(".",),
        told=".",
    )
    queues: tuple[str, ...] | None = _option(
        "--queues",
        "-Q",
        kind=Kind("QUEUE", str).listed("many"),
        meaning="consume only these",
        told="all",
    )
    pid_file: str | None = _option("--pid-file", kind=kinds.FILE, meaning="write the main process's pid to this file")
    log_file: str | None = _option(
        "--log-file", kind=kinds.FILE, meaning="append the log to this file", told="standard error"
    )
    log_format: str = _option(
        "--log-format",
        kind=kinds.LOG_FORMAT,
        meaning="text, or json: one object a line, marked with the job that it is of",
        default="text",
        told="text",
    )
    skip_logging: bool = _option(
        "--skip-logging", kind=kinds.FLAG, meaning="do not set up logging; the application does"
    )
    use_spawn: bool = _option(
        "--use-spawn",
        kind=kinds.FLAG,
        meaning="of no effect: worker processes are always fresh interpreters, which this asks for elsewhere",
    )
    fork_function: tuple[str, ...] = _option(
        "--fork-function",
        "-f",
        kind=kinds.FUNCTION.listed("repeated"),
        meaning="run this function in a process of its own beside the workers; repeatable",
        default=(),
    )
    worker_fork_timeout: int = _option(
        "--worker-fork-timeout",
        kind=kinds.FORK_TIMEOUT,
        meaning="how long such processes wait for all workers to be ready, from when the first one is",
        default=30_000,
        told="30s",
    )
    worker_shutdown_timeout: int = _option(
        "--worker-shutdown-timeout",
        kind=kinds.DURATION,
        meaning="how long running jobs may take to finish at a stop",
        default=600_000,
        told="10m",
    )
    wait_for_broker: int = _option(
        "--wait-for-broker",
        kind=kinds.DURATION,
        meaning="how long to wait at the start for a broker that is away; 0 for one try",
        default=30_000,
        told="30s",
    )
    lease: int | None = _option(
        "--lease",
        kind=kinds.LEASE,
        meaning="give the messages of a worker whose machine died to others after this time",
        told="as the broker was made; 15s",
    )
    max_jobs: int | None = _option(
        "--max-jobs",
        kind=kinds.COUNT,
        meaning="replace a worker process when it has done so many jobs, or a few more",
    )
    max_memory: int | None = _option(
        "--max-memory",
        kind=kinds.MEMORY,
        meaning="replace a worker process when it has so much memory",
    )
    max_age: int | None = _option(
        "--max-age",
        kind=kinds.AGE,
        meaning="replace a worker process when it is so old",
    )
    hard_limit: int = _option(
        "--hard-limit",
        kind=kinds.DURATION,
        meaning="kill the process of a job that goes on for this long after its time limit; at least 500ms",
        default=30_000,
        told="30s",
    )
    block_warn: int = _option(
        "--block-warn",
        kind=kinds.DURATION,
        meaning="tell which job keeps all others of its process waiting for longer than this; 0 for none",
        default=100,
        told="100ms",
    )
    control: str | None = _option(
        "--control",
        kind=kinds.SOCKET,
        meaning="answer `greenq top` and its like on this Unix socket; `off` for not at all",
        told="one that they find",
    )
    health: str | None = _option(
        "--health",
        kind=kinds.ADDRESS,
        meaning="serve /health and /ready there by HTTP, on 127.0.0.1 if no host is said",
    )
    watch: str | None = _option(
        "--watch",
        kind=kinds.EXISTING_DIRECTORY,
        meaning="reload the workers when a Python file below this directory changes (needs the extra watch)",
    )
    watch_use_polling: bool = _option(
        "--watch-use-polling",
        kind=kinds.FLAG,
        meaning="look at the files twice a second instead of being told; needs no extra, and works on network drives",
    )
    watch_include: tuple[str, ...] = _option(
        "--watch-include",
        "-i",
        kind=kinds.PATTERN.listed("repeated"),
        meaning="reload for files of this pattern too, such as '*.yaml'; repeatable",
        default=(),
    )
    watch_exclude: tuple[str, ...] = _option(
        "--watch-exclude",
        "-x",
        kind=kinds.PATTERN.listed("repeated"),
        meaning="do not reload for files of this pattern, nor for those in such directories; repeatable",
        default=(),
    )
    verbose: bool = _option("--verbose", "-v", kind=kinds.FLAG, meaning="log at DEBUG", told="INFO")

    #: The file that was read; None if there is none.
    settings_file: str | None = None
    #: What is to be warned of, in sentences.
    warnings: tuple[str, ...] = ()


#: All options, in the order of the help.
OPTIONS: tuple[Option, ...] = tuple(
    Option(**{**vars(each.metadata["option"]), "name": each.name})
    for each in fields(Options)
    if "option" in each.metadata
)


def variables() -> set[str]:
    """The names of the options' environment variables."""
    return {option.variable for option in OPTIONS}


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """The options that the command line, the environment and the project's file stand for.

    Parameters:
      arguments(Sequence[str]): Without the program's name. Default: those of the process.

    Raises:
      SystemExit: With code 2 after telling what is wrong and where, with 0 after --help or --version.
    """
    parser = _parser()
    # Intermixed, so that `app -p 2 tasks` gives the module tasks to the right argument.
    given = vars(parser.parse_intermixed_args(arguments))
    try:
        settings.check()
    except ValueError as error:
        parser.error(f"environment variable {error}")
    warnings: list[str] = []
    table = _file(parser, warnings.append)
    values = {option.name: _value(option, given[option.name], table, parser.error) for option in OPTIONS}
    if values["broker"] is None:
        parser.error(
            "BROKER is missing: name the module of your broker and actors, such as app or app:broker. "
            "It comes before --path and --queues, which take all words that follow them"
        )
    if values["health"] is not None and values["control"] == kinds.OFF:
        parser.error("--health asks the supervisor by its control socket, so it cannot be had with --control off")
    if values["watch"] is not None and not values["watch_use_polling"]:
        try:
            require("watchfiles", "--watch")
        except ModuleNotFoundError as error:
            parser.error(f"{error} Or take --watch-use-polling, which needs nothing.")
    warnings += _doubts(values, parser.error)
    return Options(**values, settings_file=table.path if table else None, warnings=tuple(warnings))


def _doubts(values: Mapping[str, Any], fail: Callable[[str], NoReturn]) -> Iterator[str]:
    """What to warn of in options that do not go well together; those that cannot work end the command."""
    jobs, concurrency, limit = values["max_jobs"], values["concurrency"], values["max_memory"]
    if jobs is not None and jobs < concurrency:
        yield (
            f"--max-jobs {jobs} is less than --concurrency {concurrency}: a worker begins up to {concurrency} jobs at "
            "once, so it does more than it is to do, and is replaced again and again."
        )
    if limit is None:
        return
    there_is = machine_memory()
    if there_is is not None and limit >= there_is:
        fail(
            f"--max-memory is {limit >> 20} MiB, and this machine, or its container, has {there_is >> 20} MiB: the "
            "kernel would kill a worker before it is replaced. Give --max-memory less"
        )
    if there_is is not None and limit * values["processes"] >= there_is:
        yield (
            f"--processes {values['processes']} of up to --max-memory {limit >> 20} MiB each are more than the "
            f"{there_is >> 20} MiB of this machine, or its container: the kernel may kill some of them first."
        )


def machine_memory() -> int | None:
    """The bytes of memory that there are here for all processes; None if that is not known."""
    limits = []
    try:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        with open("/sys/fs/cgroup/memory.max") as file:
            limits.append(int(file.read()))
    except (OSError, ValueError):
        pass  # no such file, or "max" in it
    return min(limits, default=None)


def _value(option: Option, given: Any, table: Table | None, fail: Callable[[str], NoReturn]) -> Any:
    """What the first source says that says something: an empty list says nothing."""
    for value in _said(option, given, table, fail):
        if not option.kind.is_list:
            return value
        if value:
            return tuple(dict.fromkeys(value))
    return option.default() if callable(option.default) else option.default


def _said(option: Option, given: Any, table: Table | None, fail: Callable[[str], NoReturn]) -> Iterator[Any]:
    if given is not None:
        yield given
    found = settings.variable(option.variable)
    if found is not None:
        spelling, text = found
        try:
            yield option.kind.from_variable(text)
        except ValueError as error:
            fail(f"environment variable {spelling}: {error}")
    if table is not None and option.key in table.keys:
        try:
            yield option.kind.from_file(table.keys[option.key], os.path.dirname(table.path))
        except ValueError as error:
            fail(f"{table.path}: {option.key} in [tool.greenq]: {error}")


def _file(parser: argparse.ArgumentParser, warn: Callable[[str], None]) -> Table | None:
    """The project's table, its keys spelled as options are."""
    try:
        table = find_table(os.getcwd(), warn)
    except ValueError as error:
        parser.error(str(error))
    if table is None:
        return None
    keys: dict[str, Any] = {}
    for spelling, value in table.keys.items():
        key = spelling.replace("_", "-")
        problem = _problem_with(key)
        if key in keys:
            problem = "is there twice, once with dashes and once with underscores"
        if problem is not None:
            parser.error(f"{table.path}: {spelling} in [tool.greenq] {problem}")
        keys[key] = value
    return Table(table.path, keys)


def _problem_with(key: str) -> str | None:
    """What is wrong with a key of a file, or None."""
    known = {option.key: option.key for option in OPTIONS}
    if key in known:
        return None
    variable = settings.PREFIX + key.replace("-", "_").upper()
    if any(variable == setting.name for setting in settings.SETTINGS):
        return f"can be set in the environment only, as {variable}, because other programs than this one read it"
    known |= {flag.removeprefix("--"): option.key for option in OPTIONS for flag in option.flags if flag[1] == "-"}
    nearest = nearest_name(key, known)
    return "is no option" + (f" (did you mean {known[nearest]}?)" if nearest else "")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # What was given is repeated, and may be the URL of a broker in the wrong place.
        super().error(without_password(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="greenq-worker",
        usage="greenq-worker [options] BROKER [MODULE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option in OPTIONS:
        _add(parser, option)
    parser.add_argument("--version", action="version", version=f"greenq {__version__}")
    return parser


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    kind, how = option.kind, dict[str, Any](help=option.help, default=None)
    if kind.takes == "none":
        how.update(action=argparse.BooleanOptionalAction)
    else:
        how.update(type=_worded(kind.read), metavar=kind.metavar)
    if not option.flags:
        how["metavar"] = option.name.removesuffix("s").upper()
        parser.add_argument(option.name, nargs="*" if kind.is_list else "?", **how)
        return
    if kind.is_list:
        how.update({"nargs": "*", "action": "extend"} if kind.takes == "many" else {"action": "append"})
    parser.add_argument(*option.flags, dest=option.name, **how)


def _worded(read: Callable[[str], Any]) -> Callable[[str], Any]:
    # argparse keeps the text of this one exception only.
    def converted(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted
