"""Results on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...encoder import Encoder
from ...stores.redis.values import RedisValues
from ..backend import ResultBackend

if TYPE_CHECKING:
    import redis


class RedisBackend(ResultBackend):
    """A result backend for Redis: results are strings, under "<namespace>:<message id>".

    Waiting costs no polling: a process that waits, for however many results, has one connection
    on which it is told.

    Parameters:
      namespace(str): What the keys begin with. Default: "greenq-results".
      encoder(Encoder): Turns results into bytes. Default: the one that messages use.
      client(Redis): A client of redis-py; then all other parameters are ignored. Default: one
        that repeats nothing and has time-outs of 5 seconds.
      url(str): The address, as redis-py has it; then it comes before the parameters.
      **parameters: For redis.Redis.

    Attributes:
      client: The client.
    """

    def __init__(
        self,
        *,
        namespace: str = "greenq-results",
        encoder: Encoder | None = None,
        client: redis.Redis | redis.RedisCluster | None = None,
        url: str | None = None,
        **parameters: Any,
    ) -> None:
        values = RedisValues(client, url, parameters)
        super().__init__(namespace=namespace, encoder=encoder, values=values)
        self.client = values.client
