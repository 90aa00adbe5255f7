"""Results on memcached."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...encoder import Encoder
from ...stores.memcached import ClientPool, MemcachedValues, Pool, Server
from ..backend import ResultBackend


class MemcachedBackend(ResultBackend):
    """A result backend for memcached. The client is pymemcache, which is Python all through.

    So only the greenlet that asks waits; pylibmc, which is C, would stop the whole process.

    Whoever waits looks again and again, every 0.1 seconds at first and every 2 seconds later. The
    server may drop results when its memory is full, and takes none that is larger than 1 MB.

    Parameters:
      namespace(str): What the keys begin with. Default: "greenq-results".
      encoder(Encoder): Turns results into bytes. Default: the one that messages use.
      pool: What gives clients by ``with pool.reserve() as client``; then all parameters of
        connections are ignored. Default: one of our own.
      pool_size(int): The most connections to each server. Default: 8.
      servers(list): "host", "host:port", "/path/of/a/socket" or (host, port). Default: this machine.
      **parameters: For pymemcache's clients; ``binary`` is accepted and has no meaning.

    Attributes:
      pool: The pool.
    """

    def __init__(
        self,
        *,
        namespace: str = "greenq-results",
        encoder: Encoder | None = None,
        pool: Pool | None = None,
        pool_size: int = 8,
        servers: Server | Iterable[Server] | None = None,
        **parameters: Any,
    ) -> None:
        self.pool: Any = ClientPool(servers, pool_size, parameters) if pool is None else pool
        super().__init__(namespace=namespace, encoder=encoder, values=MemcachedValues(self.pool))
