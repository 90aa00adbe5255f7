"""Finds and reads the table [tool.greenq] of a project's pyproject.toml.

Knows no option: see options.py.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

#: The name of the file, and what a file that has the table contains; and one that certainly does.
FILE_NAME = "pyproject.toml"
_MARK = b"greenq"
_HEADER = re.compile(rb"tool\s*\.\s*[\"']?greenq")


class Table(NamedTuple):
    """What a file says.

    Attributes:
      path(str): The file.
      keys(dict[str, Any]): The table.
    """

    path: str
    keys: dict[str, Any]


class NotOurs(ValueError):
    """A file that cannot be read, and may have nothing to do with greenq."""


def find_table(directory: str, warn: Callable[[str], None]) -> Table | None:
    """The nearest one from a directory upwards; None if there is none.

    A file without the table is passed over, as that of one package in a repository of several.

    Parameters:
      directory(str): Where to begin.
      warn(Callable[[str], None]): Called with what is wrong with a file that is passed over: one further
        up that may be anybody's.

    Raises:
      ValueError: A file that seems to have it cannot be read; names the file.
    """
    for folder in _upwards(os.path.abspath(directory)):
        path = os.path.join(folder, FILE_NAME)
        if os.path.isfile(path):
            try:
                keys = _read(path)
            except NotOurs as error:
                if folder == os.path.abspath(directory):
                    raise
                warn(f"{error}. It was passed over.")
                continue
            if keys is not None:
                return Table(path, keys)
    return None


def _upwards(folder: str) -> Iterator[str]:
    yield folder
    while (parent := os.path.dirname(folder)) != folder:
        folder = parent
        yield folder


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise NotOurs(f"{path} cannot be read: {error.strerror}") from None
    if _MARK not in content:
        return None  # nor is a parser imported for it, or an error found in what is none of ours
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        tool = tomllib.loads(content.decode()).get("tool", {})
    except ValueError as error:  # no UTF-8, or no TOML
        kind = ValueError if _HEADER.search(content) else NotOurs
        raise kind(f"{path} cannot be read: {error}") from None
    keys = tool.get("greenq") if isinstance(tool, dict) else None
    if keys is None or isinstance(keys, dict):
        return keys
    raise ValueError(f"{path}: tool.greenq is not a table: write [tool.greenq], and the options below it")
