"""Where results are kept. Each backend is loaded, with its client, when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .memcached import MemcachedBackend
    from .redis import RedisBackend
    from .sqlite import SqliteBackend
    from .stub import StubBackend

__all__ = ["MemcachedBackend", "RedisBackend", "SqliteBackend", "StubBackend"]


def _load(name: str) -> Any:
    if name == "RedisBackend":
        from .redis import RedisBackend

        return RedisBackend
    if name == "MemcachedBackend":
        from .memcached import MemcachedBackend

        return MemcachedBackend
    if name == "SqliteBackend":
        from .sqlite import SqliteBackend

        return SqliteBackend
    if name == "StubBackend":
        from .stub import StubBackend

        return StubBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:  # they are told the names, and are to see what is none of them
    __getattr__ = _load
