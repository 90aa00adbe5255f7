"""Finds the broker and the actors that the user named, and explains why they cannot be found.

Knows nothing of the process that asks: see process.py.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from ..broker import Broker, get_broker
from ..exit_codes import ExitCode
from ..log_lines import without_password

#: Our own part of a traceback.
_OUR_FILES = (__file__, *(os.path.join(os.path.dirname(__file__), name) for name in ("process.py", "fork.py")))


class CannotStart(Exception):
    """The process cannot start; the text says why.

    Parameters:
      exit_code(ExitCode): To leave with.
      reason(str): One line; further lines are details, such as a traceback.
    """

    def __init__(self, exit_code: ExitCode, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.reason = reason


def find_broker(spec: str) -> Broker:
    """The broker that ``module`` or ``module:attribute.path`` names.

    Parameters:
      spec(str): Without an attribute, or with one that is a function, the global broker is
        meant; a function is called before.

    Raises:
      CannotStart: There is no such attribute, or it is no broker.
      Exception: Whatever importing the module raises.
    """
    module_name, _, path = spec.partition(":")
    found: Any = importlib.import_module(module_name)
    if not path:
        return get_broker()
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CannotStart(
                ExitCode.USAGE, f"{spec!r} cannot be found: the module {module_name!r} has no {path!r}."
            ) from None
    if isinstance(found, Broker):
        return found
    if callable(found):
        found()
        return get_broker()
    raise CannotStart(
        ExitCode.USAGE,
        f"{spec!r} is a {type(found).__name__}, not a broker. Name a Broker, or a function that sets one with "
        "set_broker().",
    )


def not_shared(broker: Broker) -> str:
    """Why a broker whose messages live in one process cannot be used by a worker process."""
    return (
        f"the broker is a {type(broker).__name__}, which keeps its messages in the memory of one process: this "
        "worker would have an empty queue of its own. Use a broker that processes share, such as SqliteBroker, or "
        "run a Worker inside the process that enqueues."
    )


def explain(what: str, error: BaseException) -> str:
    """What went wrong in the user's code: a line, its traceback, and where imports were looked for."""
    # Our own frames and the import system's say nothing of where the user's code failed.
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if not _is_ours(frame.filename)])
    lines = [f"it could not {what}: {_one_line(error)}", "".join(told.format()).rstrip()]
    if isinstance(error, ImportError):
        lines += ["It was looked for in:", *_indented(sys.path)]
    return "\n".join(lines)


def sentence(error: BaseException) -> str:
    """What an error of the broker says, as one sentence or more, without a password."""
    text = without_password(" ".join(str(error).split()) or type(error).__name__)
    return text if text.endswith(".") else text + "."


def _is_ours(filename: str) -> bool:
    return filename in _OUR_FILES or filename.startswith("<frozen importlib") or filename == importlib.__file__


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line or '(the current directory)'}" for line in dict.fromkeys(lines)]
