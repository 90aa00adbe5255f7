"""Results in a file of SQLite."""

from __future__ import annotations

import os
from typing import Literal

from ...encoder import Encoder
from ...stores.sqlite.values import SqliteValues
from ..backend import ResultBackend


class SqliteBackend(ResultBackend):
    """A result backend in a file, for the processes of one machine; there is nothing to install.

    Waiting costs no polling: processes that wait are woken by a datagram.

    Parameters:
      path(str): The file, on a local disk; made if it does not exist. A rate limiter backend may
        have the same one; a broker has its own. Default: greenq-store.db in the current directory.
      namespace(str): What the keys begin with. Default: "greenq-results".
      encoder(Encoder): Turns results into bytes. Default: the one that messages use.
      synchronous(str): "NORMAL" or "FULL", as of SqliteBroker. Default: "NORMAL".
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "greenq-store.db",
        *,
        namespace: str = "greenq-results",
        encoder: Encoder | None = None,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
    ) -> None:
        self._file = SqliteValues(path, synchronous)
        super().__init__(namespace=namespace, encoder=encoder, values=self._file)

    @property
    def path(self) -> str:
        """The file, with its absolute path."""
        return self._file.path
