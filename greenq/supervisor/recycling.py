"""When a worker is worn out: another takes its place then, though nothing is wrong with it.

One at a time: a fresh one is started beside it, and when that is ready it is stopped; the next one's
turn comes when it has ended. It never goes in circles: a worker that is near its limit of memory when
it has just started will soon be so again, and is left alone for a minute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from ..logging import get_logger
from .child import Child
from .crew import Crew
from .death import Death
from .log_deaths import log_failure
from .place import Place

_MIB = 1024 * 1024

#: Seconds from when a worker is ready until it can be worn out by its memory.
_SHORTEST_LIFE_S = 2.0

#: Seconds after which one is recycled again at the earliest that has no room to begin with, or
#: that could not be replaced.
_SELDOM_S = 60.0

#: The part of the limit that a worker may have when it is ready. Imports at its first jobs take the rest.
_ROOM_TO_BEGIN_WITH = 0.9


class Recycling:
    """Which worker is to be replaced next.

    Parameters:
      max_memory(int | None): Bytes of memory after which a worker is worn out. Default: none are.
      max_age_ms(int | None): Milliseconds after which it is. Default: none are.

    How many jobs a worker did it tells itself.
    """

    def __init__(self, *, max_memory: int | None = None, max_age_ms: int | None = None) -> None:
        self.logger: logging.Logger = get_logger("greenq", "MainProcess")
        self._max_memory = max_memory
        self._max_age_s = None if max_age_ms is None else max_age_ms / 1000
        self._not_before: dict[int, float] = {}
        self._has_warned = False
        #: Who was recycled last.
        self._recycled: Child | None = None

    def greet(self, child: Child) -> None:
        """Look at a worker that has become ready."""
        limit = self._max_memory
        if limit is None or child.memory is None or child.memory < limit * _ROOM_TO_BEGIN_WITH:
            return
        self.postpone(child)
        if not self._has_warned:
            self._has_warned = True
            self.logger.warning(
                "A worker needs %d MiB as soon as it is ready, and --max-memory is %d MiB. It would be recycled again "
                "and again; so that is done once a minute at most. Give --max-memory more room.",
                child.memory // _MIB,
                limit // _MIB,
            )

    def postpone(self, child: Child) -> None:
        """Leave this one, and those that follow it in its place, alone for a while."""
        self._not_before[child.number] = time.monotonic() + _SELDOM_S

    # -- one at a time

    def begin(self, crew: Crew) -> None:
        """Start a fresh worker beside one that is worn out, if there is one and it has its turn."""
        if any(place.newcomer for place in crew.places):
            return
        if self._recycled is not None and self._recycled.returncode is None:
            return  # it still has jobs, and memory
        worn = self.next(place.child for place in crew.places if place.child is not None)
        if worn is None:
            return
        child, reason = worn
        place = crew.place_of(child)
        assert place is not None
        self.logger.info("%s is recycled, because %s: a fresh worker is started beside it.", child, reason)
        place.newcomer = crew.start(place, patient=True, quiet=crew.is_quiet)
        if place.newcomer is None:
            self.postpone(child)

    def finish(self, crew: Crew, place: Place) -> None:
        """The fresh one is ready: it takes the place, and who had it is stopped."""
        old, place.child, place.newcomer = place.child, place.newcomer, None
        if old is not None:
            old.stop(crew.patience_s, "recycled")
            self._recycled = old

    def newcomer_died(self, child: Child, death: Death) -> None:
        """The fresh one has died before it was ready: let the present one go on."""
        log_failure(self.logger, child, death)
        self.postpone(child)
        self.logger.error(
            "Worker %d is not recycled now, because the fresh one %s: the present one goes on, and another try is made "
            "in a minute.",
            child.number,
            death.cause,
        )

    # -- decisions

    def next(self, workers: Iterable[Child]) -> tuple[Child, str] | None:
        """One that is worn out, and the reason; None if none is."""
        for child in workers:
            if child.ready_at is None or child.stopping or child.killed or child.stuck is not None:
                continue
            reason = self._reason(child)
            if reason is not None and time.monotonic() >= self._not_before.get(child.number, 0.0):
                return child, reason
        return None

    def _reason(self, child: Child) -> str | None:
        if child.worn is not None:
            return child.worn
        if self._max_age_s is not None and child.ready_for_s() >= self._max_age_s:
            return f"it has run for {self._max_age_s:g} s (--max-age)"
        if self._max_memory is None or child.memory is None or child.ready_for_s() < _SHORTEST_LIFE_S:
            return None
        if child.memory < self._max_memory:
            return None
        return f"it has {child.memory // _MIB} MiB, and --max-memory is {self._max_memory // _MIB} MiB"
