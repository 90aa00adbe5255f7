"""`greenq`: looks at what runs on this machine.

    greenq top       every job in flight
    greenq stack     where one of them is
    greenq health    whether the workers live, for health checks

It asks the supervisors by their control sockets, so it works when the broker is away, and needs neither
it nor the application. What is shown: top.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from .. import __version__
from ..control_socket import ControlError, ask, found
from ..health.judgement import REQUEST, SUPERVISOR_ANSWERS_WITHIN_S, Health, judge, silent
from ..units import duration_ms
from . import top

_EPILOG = """\
exit codes:
  0 done, and well   1 not found, not well, or nobody answers   2 wrong usage

Supervisors of other users are not seen: run it as the user that runs greenq-worker.
"""

#: Milliseconds for which workers may be silent, and seconds that a look may take: an answer is long with many jobs.
_WORKERS_ANSWER_WITHIN_MS, _LOOK_WITHIN_S = 1000, 35.0

#: For how long it is looked at which jobs have the CPU, while they are listed.
_SAMPLE_MS = 250


class Look(NamedTuple):
    """What the supervisors said.

    Attributes:
      jobs(list[dict]): The jobs, with the worker and the pid that each is in.
      frames(list[dict]): Of the stack that was asked for.
      problems(list[str]): Who did not say all, in sentences.
      workers(list[int]): How many workers each supervisor has asked.
    """

    jobs: list[dict[str, Any]]
    frames: list[dict[str, Any]]
    problems: list[str]
    workers: list[int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code.

    Parameters:
      arguments(Sequence[str]): The command line without the program's name. Default: that
        of the process.

    Raises:
      SystemExit: The command line is wrong, or asks for help or the version only.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # `greenq top | head`: what it would still print nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# -- the commands


def _top(options: argparse.Namespace) -> int:
    if options.once or options.json or not sys.stdout.isatty():
        look = _jobs(options)
        rows = top.arranged(look.jobs, sort=options.sort, limit=options.limit)
        if options.json:
            groups = top.grouped(look.jobs, options.group_by, limit=options.limit) if options.group_by else None
            shown = {"groups": groups} if groups is not None else {"jobs": rows}
            _print_json({"count": len(look.jobs), **shown, "problems": look.problems})
        else:
            for line in top.screen(
                look.jobs, sum(look.workers), look.problems, options.sort, options.group_by, options.limit
            ):
                print(line)
        return _code(look)

    def lines(width: int, height: int) -> list[str]:
        look = _jobs(options)
        limit = min(options.limit or height, max(1, height - 4 - len(look.problems)))
        shown = top.screen(look.jobs, sum(look.workers), look.problems, options.sort, options.group_by, limit, width)
        return [line[:width] for line in shown[:height]]

    top.refresh(lines, options.interval / 1000)
    return 0


def _stack(options: argparse.Namespace) -> int:
    look = _ask_all(
        options,
        {"request": "stack", "message_id": options.message_id, "timeout_ms": _WORKERS_ANSWER_WITHIN_MS},
    )
    if options.json:
        _print_json({"jobs": look.jobs, "frames": look.frames, "problems": look.problems})
    else:
        for line in top.stack(look.jobs, look.frames):
            print(line)
        _complain(look.problems)
    if not look.jobs and not look.problems:
        _complain([f"No job of message {top.escaped(options.message_id)} is in flight here."])
    return 0 if look.jobs else 1


def _health(options: argparse.Namespace) -> int:
    paths = _paths(options)
    if not paths:
        _complain([_NOBODY])
        return 1
    found: list[Health] = []
    for path in paths:
        try:
            *_, answer = ask(path, REQUEST, timeout_s=SUPERVISOR_ANSWERS_WITHIN_S)
            found.append(judge(answer))
        except ControlError as error:
            found.append(silent(str(error)))
    for path, health in zip(paths, found, strict=True):
        if options.json:
            _print_json({"control": path, **health.document()})
        else:
            what = "live" if health.is_live else "NOT live"
            print(f"{path}: {what}, {'ready' if health.is_ready else 'not ready'}")
            for reason in health.reasons:
                print(f"  {top.escaped(reason)}")
    return 0 if all(each.is_ready if options.ready else each.is_live for each in found) else 1


# -- asking


_NOBODY = (
    "No greenq-worker of this user runs here, or none that can be asked (it says so in its log at the start). "
    "--control names the socket of one that was given it."
)


def _jobs(options: argparse.Namespace) -> Look:
    return _ask_all(options, {"request": "jobs", "timeout_ms": _WORKERS_ANSWER_WITHIN_MS, "sample_ms": _SAMPLE_MS})


def _paths(options: argparse.Namespace) -> list[str]:
    if options.control is not None:
        return [options.control]
    paths = found()
    if options.pid is not None:
        paths = [path for path in paths if os.path.basename(path) == f"{options.pid}.sock"]
    return paths


def _ask_all(options: argparse.Namespace, request: dict[str, Any]) -> Look:
    paths = _paths(options)
    if not paths:
        return Look([], [], [_NOBODY], [])
    look = Look([], [], [], [])
    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(lambda path: _ask_one(path, request, look), paths))
    return look


def _ask_one(path: str, request: dict[str, Any], look: Look) -> None:
    """Add to the look what this supervisor says."""
    jobs: list[dict[str, Any]] = []
    try:
        for answer in ask(path, request, timeout_s=_LOOK_WITHIN_S):
            where = {"worker": answer.get("worker"), "pid": answer.get("pid"), "cpu": None}
            jobs += ({**job, **where} for job in answer.get("jobs", ()))
            look.frames.extend(answer.get("frames", ()))
            look.problems.extend(_silence(each) for each in answer.get("silent", ()))
            look.workers.append(answer.get("workers", 0))
            top.note_cpu(jobs, answer.get("cpu", ()))
    except ControlError as error:
        look.problems.append(str(error))
    look.jobs.extend(jobs)


def _silence(silent: dict[str, Any]) -> str:
    on_cpu = silent.get("on_cpu")
    why = f"message {on_cpu} has its CPU" if on_cpu else "a job computes or blocks, or it is stopped"
    who = f"Worker {silent.get('worker')} (PID {silent.get('pid')})"
    return f"{who} has not answered for {_WORKERS_ANSWER_WITHIN_MS / 1000:g} s: its hub does not turn, {why}."


def _code(look: Look) -> int:
    return 1 if look.problems and not look.jobs else 0


def _complain(problems: list[str]) -> None:
    for problem in problems:
        print(f"greenq: {problem}", file=sys.stderr)


def _print_json(document: object) -> None:
    print(json.dumps(document))


# -- the command line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="greenq",
        description="Look at what greenq-worker runs on this machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"greenq {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    one = commands.add_parser("top", help="every job in flight", description="Show every job in flight.")
    one.add_argument("--sort", choices=list(top.SORTS), default="age", help="by what (default: age)")
    one.add_argument("--group-by", choices=list(top.GROUPS), help="count jobs that are alike in this")
    one.add_argument("--limit", type=_count, help="rows to show (default: all, or what fits on the screen)")
    one.add_argument("--once", action="store_true", help="print once; so it is where standard output is no terminal")
    one.add_argument(
        "--interval", type=_duration, default=1000, metavar="DURATION", help="between two looks (default: 1s)"
    )
    one.set_defaults(run=_top)

    one = commands.add_parser("stack", help="where one job is", description="Show the stack of a job in flight.")
    one.add_argument("message_id", metavar="MESSAGE_ID")
    one.set_defaults(run=_stack)

    one = commands.add_parser(
        "health",
        help="whether the workers live",
        description="Tell whether the workers live (exit code 0) or something has to be restarted (1).",
    )
    one.add_argument("--ready", action="store_true", help="exit with 0 only if messages are fetched, too")
    one.set_defaults(run=_health)

    for each in commands.choices.values():
        each.add_argument("--json", action="store_true", help="print JSON")
        which = each.add_mutually_exclusive_group()
        which.add_argument("--pid", type=_count, help="only of this greenq-worker (default: all of this user)")
        which.add_argument("--control", metavar="PATH", help="only of the one with this control socket")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _duration(text: str) -> int:
    try:
        return max(100, duration_ms(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
