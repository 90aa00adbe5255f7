"""The environment variables of greenq: the one place that reads them.

Here is the list of those that are no option of the command line. Options have variables too,
which are named after them: see cli/options.py. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .names import nearest_name
from .units import duration_ms

T = TypeVar("T")

PREFIX = "GREENQ_"

#: What Kubernetes gives to every process about a service of the name greenq, or greenq-something.
_OF_KUBERNETES = re.compile(r"_SERVICE_HOST$|_PORT(_|$)")


def variable(name: str) -> tuple[str, str] | None:
    """A variable's name as it is spelled in the environment, and its value; None if it is not set.

    Parameters:
      name(str): In capitals. The same in lower case counts where it is not set in capitals. An
        empty one is not set.
    """
    for spelling in (name, name.lower()):
        value = os.environ.get(spelling)
        if value:
            return spelling, value
    return None


def check() -> None:
    """Look at all settings, so that a wrong one is told at a start and not later.

    Raises:
      ValueError: One of them is wrong; names the variable.
    """
    for setting in SETTINGS:
        setting.get()


def unknown_variables(known: Iterable[str]) -> list[str]:
    """Of each variable that has greenq's prefix and that nobody reads: its name, and the nearest right one.

    Parameters:
      known(Iterable[str]): Those that are read beside the settings here.
    """
    # Without the prefix, which would make any two of them look alike.
    names = {name.removeprefix(PREFIX) for name in (*known, *(setting.name for setting in SETTINGS))}
    found = []
    for spelling in sorted(os.environ):
        name = spelling.upper().removeprefix(PREFIX)
        if not spelling.startswith((PREFIX, PREFIX.lower())) or name in names or not os.environ[spelling]:
            continue
        nearest = nearest_name(name, names, at_least=0.75)
        if nearest is not None:
            found.append(f"{spelling} (did you mean {PREFIX}{nearest}?)")
        elif not _is_of_kubernetes(name):
            found.append(spelling)
    return found


def _is_of_kubernetes(name: str) -> bool:
    return _OF_KUBERNETES.search(f"_{name}") is not None


@dataclass(frozen=True)
class Setting(Generic[T]):
    """A variable that is no option of the command line.

    Attributes:
      name(str): The variable.
      default: What counts if it is not set.
      default_told(str): The same for the documentation.
      read(Callable): Makes the value of the text, or raises a ValueError.
      meaning(str): For the documentation.
    """

    name: str
    default: T
    default_told: str
    read: Callable[[str], T]
    meaning: str

    def get(self) -> T:
        """What it says now.

        Raises:
          ValueError: It is set to something else; names the variable.
        """
        found = variable(self.name)
        if found is None:
            return self.default
        spelling, text = found
        try:
            return self.read(text)
        except ValueError as error:
            raise ValueError(f"{spelling}: {error}") from None


def _at_least_1ms(text: str) -> int:
    value_ms = duration_ms(text)
    if value_ms < 1:
        raise ValueError(f"{text!r} is too short: 1ms is the least")
    return value_ms


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r:.80} is not a whole number")
    return int(text)


def _yes_or_no(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither of 1 and 0, true and false, yes and no, on and off")


def _port(text: str) -> int:
    port = _count(text)
    if port > 65535:
        raise ValueError(f"{text!r} is no port: ports are 0 to 65535")
    return port


BLOCK_ERROR = Setting(
    "GREENQ_BLOCK_ERROR",
    False,
    "`0`",
    _yes_or_no,
    "Whether a job fails that keeps the CPU for longer than `--block-warn` (100 ms) without waiting, where jobs run in "
    "greenlets: for test suites.",
)
BROKER_URL = Setting(
    "GREENQ_BROKER_URL",
    "",
    "the best that is installed",
    str,
    "The broker of actors where none was set: `amqp://`, `redis://`, `unix://`, `sqlite:///`, `memory://`.",
)
DEAD_MESSAGE_TTL = Setting(
    "GREENQ_DEAD_MESSAGE_TTL",
    604_800_000,
    "`7d`",
    duration_ms,
    "For how long dead letters are kept, where the broker's `dead_message_ttl` does not say.",
)
GROUP_CALLBACK_BARRIER_TTL = Setting(
    "GREENQ_GROUP_CALLBACK_BARRIER_TTL",
    86_400_000,
    "`1d`",
    _at_least_1ms,
    "For how long a group is remembered after the latest of its members, where the `barrier_ttl` of `GroupCallbacks` "
    "does not say.",
)
PROM_DB: Setting[str | None] = Setting(
    "GREENQ_PROM_DB",
    None,
    "in memory",
    str,
    "A directory for the file in which workers count, where a system has no files in memory.",
)
PROM_HOST = Setting("GREENQ_PROM_HOST", "127.0.0.1", "`127.0.0.1`", str, "The address on which metrics are served.")
PROM_PORT = Setting(
    "GREENQ_PROM_PORT", 9191, "`9191`", _port, "The port on which metrics are served; `0` for any that is free."
)
QUEUE_PREFETCH = Setting(
    "GREENQ_QUEUE_PREFETCH",
    0,
    "`0`",
    _count,
    "The most messages of one queue that a worker process holds; `0` for as many as it can run at once. "
    "RabbitMQ and the stub broker keep to it, the others hand out what is about to be run anyway.",
)
DELAY_QUEUE_PREFETCH = Setting(
    "GREENQ_DELAY_QUEUE_PREFETCH",
    0,
    "`0`",
    _count,
    "The most delayed messages of one queue that a worker process holds, on brokers that leave that to it (greenq's "
    "own do not); `0` for a thousand for each job at once.",
)
RESTART_DELAY = Setting(
    "GREENQ_RESTART_DELAY",
    1000,
    "`1s`",
    _at_least_1ms,
    "The longest pause between two tries to reach a broker that is away, or to use one that fails.",
)
WORKER_TIMEOUT = Setting(
    "GREENQ_WORKER_TIMEOUT",
    1000,
    "`1s`",
    _at_least_1ms,
    "For how long an idle worker waits for messages before it looks around; it is woken by messages and by a stop.",
)

SETTINGS: tuple[Setting[str] | Setting[int] | Setting[bool] | Setting[str | None], ...] = (
    BLOCK_ERROR,
    BROKER_URL,
    DEAD_MESSAGE_TTL,
    DELAY_QUEUE_PREFETCH,
    GROUP_CALLBACK_BARRIER_TTL,
    PROM_DB,
    PROM_HOST,
    PROM_PORT,
    QUEUE_PREFETCH,
    RESTART_DELAY,
    WORKER_TIMEOUT,
)
