"""The broker on Redis: for many machines, with delays and recovery held by the server."""

from .broker import RedisBroker

__all__ = ["RedisBroker"]
