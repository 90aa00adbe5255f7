"""What the log shows when the first worker is ready: one screen, a fact a line.

Values in, lines out.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from typing import Any

from .. import __version__
from ..names import canonical_queue_name, nearest_name
from .options import Options


def banner(options: Options, facts: Mapping[str, Any], *, pid: int, ready_ms: int) -> list[str]:
    """The lines of the banner.

    Parameters:
      options(Options): The command line.
      facts(Mapping): What the first worker reported of itself.
      pid(int): Of the main process.
      ready_ms(int): Milliseconds from the start of the command.
    """
    log = "the application's own" if options.skip_logging else options.log_file or "standard error"
    rows = {
        "broker": facts.get("broker", "?"),
        "queues": _listed(facts.get("queues", ())),
        "actors": f"{facts.get('actors', 0)} from {_listed(facts.get('modules', ()))}",
        "middleware": _listed(facts.get("middleware", ())),
        "workers": f"{_counted(options.processes, 'process', 'es')} x {_counted(options.concurrency, 'greenlet', 's')}",
        "pid": f"{pid}, in {options.pid_file}" if options.pid_file else pid,
        **({"lease": f"{facts['lease_ms'] / 1000:g} s"} if facts.get("lease_ms") else {}),
        "log": f"{log}, {'DEBUG' if options.verbose else 'INFO'}, as {options.log_format}",
        **({"settings": options.settings_file} if options.settings_file else {}),
    }
    return [
        f"greenq {__version__}, Python {platform.python_version()}, gevent {facts.get('gevent', '?')}",
        *(f"  {name:<11} {value}" for name, value in rows.items()),
        f"ready in {ready_ms} ms",
    ]


def missing_actors(facts: Mapping[str, Any]) -> str | None:
    """What to warn of if no actor was declared, or None."""
    if facts.get("actors"):
        return None
    return (
        f"No actors are declared: {_listed(facts.get('modules', ()))} was imported and declares none on this "
        "broker, so nothing can be run. Add the modules that declare actors to the command line, and check "
        "that they use the same broker."
    )


def queues_without_actors(options: Options, facts: Mapping[str, Any]) -> list[str]:
    """What to warn of if queues were named of which no actor is: a line for each."""
    if options.queues is None or not facts.get("actors"):
        return []
    known = facts.get("actor_queues", ())
    lines = []
    for queue in options.queues:
        if canonical_queue_name(queue) not in known:
            nearest = nearest_name(queue, known)
            hint = f" (did you mean {nearest}?)" if nearest else f"; there are actors of {_listed(known)}"
            lines.append(f"No actor is declared on the queue {queue!r} of --queues{hint}.")
    return lines


def _counted(number: int, what: str, plural: str) -> str:
    return f"{number} {what}{plural if number != 1 else ''}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(str(name) for name in names) or "none"
