"""Packages that greenq needs only for some of its parts: what to install where one is missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple


class _Extra(NamedTuple):
    called: str
    requirement: str
    name: str


#: By what is imported, as setup.cfg has them.
_EXTRAS = {
    "pika": _Extra("pika", "pika>=1.3.2", "rabbitmq"),
    "redis": _Extra("redis-py", "redis[hiredis]>=5", "redis"),
    "watchfiles": _Extra("watchfiles", "watchfiles>=0.21", "watch"),
    "pymemcache": _Extra("pymemcache", "pymemcache>=4", "memcached"),
}


def require(package: str, user: str) -> None:
    """Return if a package is installed. It is not imported.

    Parameters:
      package(str): As it is imported.
      user(str): What needs it, as users know it.

    Raises:
      ModuleNotFoundError: It is not installed; says how to get it.
    """
    if find_spec(package) is None:
        raise ModuleNotFoundError(what_to_install(package, user), name=package)


def what_to_install(package: str, user: str, *, problem: str = "is not installed") -> str:
    """A sentence on a package that cannot be used. The parameters are those of require()."""
    extra = _EXTRAS[package]
    return (
        f"{user} needs {extra.called}, which {problem}: pip install '{extra.requirement}', or greenq with "
        f"its extra, as in pip install '/path/to/greenq[{extra.name}]'."
    )
