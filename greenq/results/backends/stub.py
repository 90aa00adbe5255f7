"""Results in memory, for tests: of one process."""

from __future__ import annotations

from ...encoder import Encoder
from ...stores.stub import StubValues
from ..backend import ResultBackend

_shared = StubValues()


class StubBackend(ResultBackend):
    """An in-memory result backend. For use in unit tests. All of a process share their results.

    Parameters:
      namespace(str): What the keys of the results begin with. Default: "greenq-results".
      encoder(Encoder): Turns results into bytes. Default: the one that messages use.
    """

    def __init__(self, *, namespace: str = "greenq-results", encoder: Encoder | None = None) -> None:
        super().__init__(namespace=namespace, encoder=encoder, values=_shared)
