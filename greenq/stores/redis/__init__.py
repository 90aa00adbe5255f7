"""Redis as a place to keep values: its client, scripts, and how one waits."""

try:
    import redis  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ModuleNotFoundError(
        "RedisBackend needs redis-py, which is not installed: pip install 'redis[hiredis]>=5', or greenq with its "
        "extra, as in pip install '/path/to/greenq[redis]'.",
        name="redis",
    ) from None
