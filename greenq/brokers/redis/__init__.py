"""The broker on Redis: for many machines, with delays and recovery held by the server."""

try:
    import redis  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ModuleNotFoundError(
        "RedisBroker needs redis-py, which is not installed: pip install 'redis[hiredis]>=5', or greenq with its "
        "extra, as in pip install '/path/to/greenq[redis]'.",
        name="redis",
    ) from None

from .broker import RedisBroker

__all__ = ["RedisBroker"]
