"""What the value of an option looks like: as a word of the command line, in a variable, in a file.

Text or TOML in, values out. Knows no option: see options.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..units import duration_ms, host_and_port, size_bytes

#: Of a lease: a shorter one is lost whenever C code keeps the interpreter for a moment, and for
#: a longer one the messages of a dead machine would wait.
SHORTEST_LEASE_MS, LONGEST_LEASE_MS = 1_000, 86_400_000

#: The same as in the API reference.
SHORTEST_FORK_TIMEOUT_MS, LONGEST_FORK_TIMEOUT_MS = 10, 1_800_000

#: Of a limit on a worker's age: a shorter life is over before it has begun.
SHORTEST_AGE_MS = 1_000

#: Of a limit on its memory: a worker without any code of the user has about 35 MiB.
LEAST_MEMORY = 48 * 1024 * 1024

#: Instead of a path, for none.
OFF = "off"

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
      metavar(str): What stands for a value in the help; empty for one that has none there.
      read(Callable): Makes a value of one word, or raises a ValueError.
      in_file(str): What it is in a file, in words.
      file_types(tuple[type, ...]): The same as types.
      takes(str): How the command line gives it: "one" word, "none" (then there is a --no- of it too),
        "many" words or one a time, and "repeated" for one a time. The latter two make tuples.
      separator(str): Between the words of a variable that makes a tuple.
      is_path(bool): Whether it is a path, which in a file is relative to that file.
      words(tuple[str, ...]): What is no path all the same.
    """

    metavar: str
    read: Callable[[str], Any]
    in_file: str = "a string"
    file_types: tuple[type, ...] = (str,)
    takes: str = "one"
    separator: str = ","
    is_path: bool = False
    words: tuple[str, ...] = ()

    @property
    def is_list(self) -> bool:
        return self.takes in ("many", "repeated")

    def listed(self, takes: str, *, separator: str = ",") -> Kind:
        """The kind of tuples of these."""
        return replace(self, takes=takes, separator=separator)

    def from_variable(self, text: str) -> Any:
        """The value that an environment variable says.

        Raises:
          ValueError: It says none of this kind.
        """
        if not self.is_list:
            return self.read(text)
        words = [word.strip() for word in text.split(self.separator)]
        return tuple(self.read(word) for word in words if word)

    def from_file(self, value: Any, directory: str) -> Any:
        """The value that a file says.

        Parameters:
          directory(str): Of the file.

        Raises:
          ValueError: It says none of this kind.
        """
        if not self.is_list:
            return self._one_from_file(value, directory)
        if type(value) is not list:
            raise ValueError(f'{value!r} is not a list: write it as ["{self.metavar}", ...]')
        return tuple(self._one_from_file(each, directory) for each in value)

    def _one_from_file(self, value: Any, directory: str) -> Any:
        # The type itself: in Python true is a number.
        if type(value) not in self.file_types:
            raise ValueError(f"{value!r} is not {self.in_file}")
        is_path = self.is_path and value not in self.words
        return self.read(os.path.join(directory, value) if is_path else str(value))


def _module(text: str) -> str:
    if "://" in text:  # not repeated, because it may hold a password
        raise ValueError(
            "this is the URL of a broker, and the name of a module is wanted, such as app or app:broker: "
            "the URL belongs into GREENQ_BROKER_URL, or into the module"
        )
    module = text.partition(":")[0]
    if not module or "/" in module or module.endswith(".py"):
        raise ValueError(
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
        raise ValueError(f"{text!r} is not a whole number of 1 or more")
    return number


def _lease(text: str) -> int:
    lease_ms = duration_ms(text)
    if not SHORTEST_LEASE_MS <= lease_ms <= LONGEST_LEASE_MS:
        raise ValueError(f"{text!r} is {lease_ms} ms, and a lease is 1s to 24h; a plain number is milliseconds")
    return lease_ms


def _fork_timeout(text: str) -> int:
    timeout_ms = duration_ms(text)
    if not SHORTEST_FORK_TIMEOUT_MS <= timeout_ms <= LONGEST_FORK_TIMEOUT_MS:
        raise ValueError(f"{text!r} is {timeout_ms} ms, and this is 10ms to 30m; a plain number is milliseconds")
    return timeout_ms


def _age(text: str) -> int:
    age_ms = duration_ms(text)
    if age_ms < SHORTEST_AGE_MS:
        raise ValueError(f"{text!r} is {age_ms} ms, and this is 1s or more; a plain number is milliseconds")
    return age_ms


def _memory(text: str) -> int:
    memory = size_bytes(text)
    if memory < LEAST_MEMORY:
        raise ValueError(
            f"{text!r} is {memory} bytes, less than a worker needs before it has imported anything of yours: "
            "give 48M or more"
        )
    return memory


def _function(text: str) -> str:
    module, _, name = text.partition(":")
    if not module or not name or "/" in module:
        raise ValueError(f"{text!r} is not the name of a function: give it as module:function, such as app:watch_disk")
    return text


def _existing_directory(text: str) -> str:
    if not os.path.isdir(text):
        raise ValueError(f"{text!r} is no directory")
    return text


def _log_format(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError(f"{text!r} is neither text nor json")
    return text


def _address(text: str) -> str:
    host_and_port(text)
    return text


def _yes_or_no(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError(f"{text!r} is neither of 1 and 0, true and false, yes and no, on and off")


FLAG = Kind("", _yes_or_no, "true or false", (bool,), takes="none")
MODULE = Kind("MODULE", _module)
COUNT = Kind("N", _at_least_one, "a whole number", (int,))
DURATION = Kind("DURATION", duration_ms, "a duration, such as 500 or '30s'", (int, str))
LEASE = replace(DURATION, read=_lease)
FORK_TIMEOUT = replace(DURATION, read=_fork_timeout)
AGE = replace(DURATION, read=_age)
MEMORY = Kind("SIZE", _memory, "a size, such as '512M'", (int, str))
FUNCTION = Kind("MODULE:FUNCTION", _function)
PATTERN = Kind("PATTERN", str)
LOG_FORMAT = Kind("FORMAT", _log_format)
FILE = Kind("FILE", str, is_path=True)
SOCKET = replace(FILE, metavar="PATH", words=(OFF,))
ADDRESS = Kind("[HOST:]PORT", _address, "an address, such as 8080 or '0.0.0.0:8080'", (int, str))
DIRECTORY = replace(FILE, metavar="DIR")
EXISTING_DIRECTORY = replace(DIRECTORY, read=_existing_directory)
