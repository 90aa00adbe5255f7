"""What dead workers held, on its way to a living one that takes it back.

All of it is opaque here: a worker id, and what is known of its death.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from .child import Child, Orphan
from .death import Death

#: Seconds until those who did not listen are told again.
_AGAIN_S = 1.0


@dataclass
class Orphans:
    """Those that nobody was told of yet, the oldest first."""

    _untold: list[Orphan]

    def __init__(self) -> None:
        self._untold = []

    def leave(self, child: Child, death: Death, *, held_something: bool) -> None:
        """A worker has died: what it held, if it did, and what it was to take back itself."""
        self._untold += child.errands.values()
        if child.worker_id is not None and held_something:
            self._untold.append(Orphan(child.worker_id, death.charge, death.cause))

    def pass_on(self, workers: Iterable[Child]) -> None:
        """Tell those of the workers that live, as long as one listens."""
        living = [child for child in workers if child.ready_at is not None and not child.killed and not child.stuck]
        # One that is stopping may still be able to: better than to wait for the lease.
        living.sort(key=lambda child: child.stopping)
        while self._untold and any(child.take_back(self._untold[0]) for child in living):
            self._untold.pop(0)

    def take(self) -> list[Orphan]:
        """All that nobody was told of, for a worker that is about to be started."""
        taken, self._untold = self._untold, []
        return taken

    def put_back(self, orphans: Iterable[Orphan]) -> None:
        """They could not be told either."""
        self._untold[:0] = orphans

    def next_due(self) -> list[float]:
        """Monotonic seconds at which it is to be tried again."""
        return [time.monotonic() + _AGAIN_S] if self._untold else []

    def __str__(self) -> str:
        return ", ".join(orphan.worker_id for orphan in self._untold)

    def __bool__(self) -> bool:
        return bool(self._untold)
