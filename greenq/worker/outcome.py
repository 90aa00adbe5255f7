"""How an actor's run ended: what the processor and the jobs on the asyncio loop both speak of."""

from __future__ import annotations

from typing import Any

from ..errors import SkipMessage


class Outcome:
    """How an actor's run ended."""

    __slots__ = ("exception", "result", "skipped_by")

    def __init__(
        self,
        result: Any = None,
        *,
        exception: BaseException | None = None,
        skipped_by: SkipMessage | None = None,
    ) -> None:
        self.result = result
        self.exception = exception
        self.skipped_by = skipped_by
