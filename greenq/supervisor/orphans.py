"""What dead workers held, on its way to a living one that takes it back.

All of it is opaque here: a worker id, and what is known of its death.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from .child import Child, Orphan
from .death import Death

#: Seconds until those who did not listen are told again, and others are told as well of what is not done yet.
_AGAIN_S = 1.0


class Orphans:
    """Those of which somebody is to be told, the oldest first.

    One is told. If it has not done it in a second, because a job keeps its hub busy, or it is still
    starting, another is told as well: whoever comes second finds nothing left to take back.
    """

    def __init__(self) -> None:
        #: By the worker id, as what follows.
        self._untold: dict[str, Orphan] = {}
        #: When somebody was told last, in monotonic seconds.
        self._told_at: dict[str, float] = {}

    def leave(self, child: Child, death: Death, *, held_something: bool) -> None:
        """A worker has died: what it held, if it did, and what it was to take back itself."""
        self._untold |= child.errands
        if child.worker_id is not None and held_something:
            self._untold[child.worker_id] = Orphan(child.worker_id, death.charge, death.cause)

    def pass_on(self, workers: Iterable[Child]) -> None:
        """Tell those of the workers that live, as long as one listens."""
        children = list(workers)
        self._look_for_undone(children)
        living = [child for child in children if child.ready_at is not None and not child.killed and not child.stuck]
        # One that is stopping may still be able to: better than to wait for the lease.
        living.sort(key=lambda child: child.stopping)
        for orphan in list(self._untold.values()):
            if self._tell(orphan, living):
                del self._untold[orphan.worker_id]

    def _look_for_undone(self, children: Iterable[Child]) -> None:
        now = time.monotonic()
        for child in children:
            for worker_id, orphan in child.errands.items():
                if now - self._told_at.setdefault(worker_id, now) >= _AGAIN_S:
                    self._untold.setdefault(worker_id, orphan)

    def _tell(self, orphan: Orphan, living: Iterable[Child]) -> bool:
        for child in living:
            if orphan.worker_id not in child.errands and child.take_back(orphan):
                self._told_at[orphan.worker_id] = time.monotonic()
                return True
        return False

    def done(self, worker_id: str, workers: Iterable[Child]) -> None:
        """One of these has taken back what this one held; the others that were told have nothing left to do."""
        for child in workers:
            child.errands.pop(worker_id, None)
        self._untold.pop(worker_id, None)
        self._told_at.pop(worker_id, None)

    def take(self) -> list[Orphan]:
        """All that nobody was told of, for a worker that is about to be started."""
        taken = list(self._untold.values())
        self._told_at.update(dict.fromkeys(self._untold, time.monotonic()))
        self._untold.clear()
        return taken

    def put_back(self, orphans: Iterable[Orphan]) -> None:
        """They could not be told either."""
        self._untold = {orphan.worker_id: orphan for orphan in orphans} | self._untold

    def next_due(self) -> list[float]:
        """Monotonic seconds at which it is to be tried again."""
        return [time.monotonic() + _AGAIN_S] if self._untold else []

    def __str__(self) -> str:
        return ", ".join(self._untold)

    def __bool__(self) -> bool:
        return bool(self._untold)
