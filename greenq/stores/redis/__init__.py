"""Redis as a place to keep values: its client, scripts, and how one waits."""

from ...extras import require

require("redis", "RedisBackend")
