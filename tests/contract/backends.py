"""The backends that the contract suites of rate limits and results run against, by name.

A test gets its backend by name and place, and so can a process that it starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import greenq.rate_limits.backends
import greenq.results.backends
from tests.support.memcached_server import shared_memcached
from tests.support.redis_server import shared_server

NAMES = ["stub", "sqlite", "redis", "memcached"]
#: Those that other processes can use.
SHARED = ["sqlite", "redis", "memcached"]


def place_of(name: str, folder: Path) -> str:
    """Where the backend of this name is for one test: a path, a URL or an address."""
    if name == "redis":
        return shared_server().url
    if name == "memcached":
        return shared_memcached().address
    return str(folder / "store.db")


def open_limits(name: str, place: str) -> Any:
    """A rate limiter backend."""
    return _open(greenq.rate_limits.backends, name, place)


def open_results(name: str, place: str, **options: Any) -> Any:
    """A result backend."""
    return _open(greenq.results.backends, name, place, **options)


def _open(backends: Any, name: str, place: str, **options: Any) -> Any:
    if name == "redis":
        return backends.RedisBackend(url=place, **options)
    if name == "memcached":
        return backends.MemcachedBackend(servers=[place], **options)
    if name == "sqlite":
        return backends.SqliteBackend(place, **options)
    return backends.StubBackend(**options)


#: For scripts in processes of their own: the name and the place are their arguments.
OPEN_LIMITS = """
import sys, time
from tests.contract.backends import open_limits
from greenq.rate_limits import *
backend = open_limits(sys.argv[1], sys.argv[2])
key = sys.argv[3]
"""

OPEN_RESULTS = """
import sys, time, threading
from tests.contract.backends import open_results
import greenq.stores.redis.values, greenq.stores.sqlite.values
backend = open_results(sys.argv[1], sys.argv[2])
"""
