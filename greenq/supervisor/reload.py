"""A reload: newcomers beside all present workers, and the change-over when all of them are ready.

Until then the present ones work on, and where a newcomer cannot start they go on with the code they
have. Knows places and who is in them; what asks for a reload, and what else follows from it, is in
supervisor.py.
"""

from __future__ import annotations

import logging
import math
import time

from ..logging import get_logger
from .child import Child, Stuck
from .crew import Crew
from .death import Death
from .log_deaths import log_failure

#: Why workers are stopped at it.
_WHY = "as part of the reload"

#: Seconds after which those who are not ready are told of, and after which a reload is given up: an import that
#: hangs never ends, and one that loads much takes minutes.
_TELL_AFTER_S, _LONGEST_S = 60.0, 600.0


class Reload:
    """The one that is under way, if there is one.

    Parameters:
      crew(Crew): Who is replaced.

    Attributes:
      is_under_way(bool): Whether newcomers of it are being started.
    """

    def __init__(self, crew: Crew) -> None:
        self.logger: logging.Logger = get_logger("greenq", "MainProcess")
        self.is_under_way = False
        self._crew = crew
        self._tell_at = self._give_up_at = 0.0

    def begin(self, reason: str) -> None:
        """Start a newcomer beside each worker; anew, if that was being done."""
        if self.is_under_way:
            # The code may have changed again since they were started.
            self.logger.info("Starting the reload anew on %s: the new workers were not ready yet.", reason)
        else:
            self.logger.info("Reloading on %s: starting new workers beside the present ones.", reason)
        self._crew.dismiss_newcomers(_WHY)  # also of a recycling
        self.is_under_way = True
        self._tell_at, self._give_up_at = time.monotonic() + _TELL_AFTER_S, time.monotonic() + _LONGEST_S
        places = self._crew.places
        for place in places:
            # Not patient: whoever reloads wants to know how it went, and the code, or the
            # address in it, may be wrong.
            place.newcomer = self._crew.start(place, patient=False, quiet=False)
        if not all(place.newcomer for place in places):
            self.logger.error(
                "The reload was given up: the present workers go on with the code, and in the log file, that they have."
            )
            self._give_up()

    def is_complete(self) -> bool:
        """Whether all newcomers are ready, so that it can be finished."""
        return self.is_under_way and self._crew.newcomers_are_ready()

    def finish(self) -> None:
        """Have the newcomers take the places, and stop who had them."""
        self.is_under_way = False
        self.logger.info("Reloaded: all new workers are ready, the old ones are stopped.")
        crew = self._crew
        # Unless SIGTSTP came while they started.
        crew.is_quiet = any(place.newcomer is not None and place.newcomer.is_quiet for place in crew.places)
        for place in crew.places:
            old, place.child, place.newcomer = place.child, place.newcomer, None
            place.restart_at = None
            place.streak.deaths = 0
            if old is not None:
                old.stop(crew.patience_s, _WHY)
        crew.adjust()

    def newcomer_died(self, child: Child, death: Death) -> None:
        """Give it up, because one of its newcomers has died."""
        log_failure(self.logger, child, death)
        self.logger.error(
            "The reload was given up, because a new worker %s before all were ready: the present workers "
            "go on with the code, and in the log file, that they have.",
            death.cause,
        )
        self._give_up()

    def look(self) -> tuple[Child, Stuck] | None:
        """Tell of newcomers that take long; answer one that takes too long, at whose death it is given up."""
        now = time.monotonic()
        late = [each.newcomer for each in self._crew.places if each.newcomer and each.newcomer.ready_at is None]
        if not self.is_under_way or not late:
            return None
        if now >= self._give_up_at:
            return late[0], Stuck(f"it was not ready after {_LONGEST_S:g} s")
        if now >= self._tell_at:
            self._tell_at = math.inf
            self.logger.warning(
                "The reload still waits after %g s: %d of the new workers are not ready, %s among them. The present "
                "ones go on. It is given up after %g s.",
                _TELL_AFTER_S,
                len(late),
                late[0],
                _LONGEST_S,
            )
        return None

    def _give_up(self) -> None:
        self.is_under_way = False
        self._crew.dismiss_newcomers(_WHY)
        self._crew.adjust()
