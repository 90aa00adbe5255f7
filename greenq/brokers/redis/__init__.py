"""The broker on Redis: for many machines, with delays and recovery held by the server."""

from ...extras import require

require("redis", "RedisBroker")

from .broker import RedisBroker  # noqa: E402 - it imports redis-py, which may be missing

__all__ = ["RedisBroker"]
