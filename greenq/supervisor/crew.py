"""The workers that there are, and the places that there should be.

Starts them and stops them. When a place is to be filled anew after a death is decided in
supervisor.py, when by another although nothing is wrong, in reload.py and recycling.py.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Sequence

from ..logging import get_logger
from .areas import Areas
from .child import Child, Launch
from .orphans import Orphans
from .place import Place
from .streak import Streak


class Crew:
    """All workers of a supervisor.

    Parameters:
      launch(Launch): How they are started.
      size(int): How many there should be.
      patience_s(float): Seconds that one may take to exit once it is told to stop.
      restart_delays_s(Sequence[float]): Seconds to wait after each death in a row in one place.
      areas(Areas): In which they count.
      orphans(Orphans): What a worker takes back when it starts.
      selector(BaseSelector): Where the report pipe of each is registered, with the child as its data.

    Attributes:
      places(list[Place]): The places, by their number.
      children(dict[int, Child]): All workers that live, also those that have no place any more, by pid.
      size(int): How many places there should be.
      is_quiet(bool): Whether those who are started are to take no messages.
      was_ready(bool): Whether one ever was.
      patience_s(float): See above.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        size: int,
        patience_s: float,
        restart_delays_s: Sequence[float],
        areas: Areas,
        orphans: Orphans,
        selector: selectors.BaseSelector,
    ) -> None:
        self.logger: logging.Logger = get_logger("greenq", "MainProcess")
        self.places: list[Place] = []
        self.children: dict[int, Child] = {}
        self.size = size
        self.is_quiet = False
        self.was_ready = False
        self.patience_s = patience_s
        self._launch = launch
        self._restart_delays_s = restart_delays_s
        self._areas = areas
        self._orphans = orphans
        self._selector = selector

    # -- places

    def adjust(self) -> None:
        """Have as many places as there should be; who has one too many is stopped."""
        while len(self.places) < self.size:
            self.places.append(Place(len(self.places) + 1, Streak(self._restart_delays_s)))
            self.fill(self.places[-1])
        while len(self.places) > self.size:
            place = self.places.pop()
            for child in (place.child, place.newcomer):
                if child is not None:
                    child.stop(self.patience_s, "because one worker fewer is wanted")

    def place_of(self, child: Child) -> Place | None:
        """Which this one has, or is to take; None if it has none any more."""
        return next((each for each in self.places if child in (each.child, each.newcomer)), None)

    def ready(self) -> int:
        """How many of the places are had by one that is ready."""
        return sum(place.child is not None and place.child.ready_at is not None for place in self.places)

    def newcomers_are_ready(self) -> bool:
        """Whether each place has a newcomer that is."""
        return all(place.newcomer and place.newcomer.ready_at for place in self.places)

    def dismiss_newcomers(self, why: str) -> None:
        """Stop who was to take a place."""
        # Stopped, not killed: one that is ready may have begun jobs.
        for place in self.places:
            if place.newcomer is not None:
                place.newcomer.stop(self.patience_s, why)
                place.newcomer = None

    # -- starting

    def fill(self, place: Place) -> None:
        """Start a worker in a place where none is; if that fails, later."""
        place.restart_at = None
        # Who replaces a worker of a service that ran waits as its neighbours do.
        place.child = self.start(place, patient=self.was_ready, quiet=self.is_quiet)
        if place.child is None:
            place.fill_in(place.streak.could_not_start())

    def start(self, place: Place, *, patient: bool, quiet: bool) -> Child | None:
        """A new worker for this place, which is not in it yet; None if it cannot be started, which is logged."""
        area = self._areas.take()
        self._orphans.pass_on(self.children.values())
        orphans = self._orphans.take()
        try:
            child = Child(
                place.number,
                self._launch,
                patient=patient,
                shared_fd=self._areas.fd,
                area=area,
                is_watched=True,
                orphans=orphans,
                is_quiet=quiet,
            )
        except OSError as error:
            self._orphans.put_back(orphans)
            self._areas.give_back(area)
            self.logger.error("Worker %d could not be started: %s.", place.number, error)
            return None
        self.logger.debug("%s was started.", child)
        self.children[child.pid] = child
        self._selector.register(child.report_fd, selectors.EVENT_READ, child)
        return child

    # -- time

    def next_due(self) -> list[float]:
        """Monotonic seconds at which a place is to be filled again."""
        return [place.restart_at for place in self.places if place.restart_at is not None]

    def do_what_is_due(self) -> None:
        """Fill the places that are to be filled by now."""
        now = time.monotonic()
        for place in self.places:
            if place.restart_at is not None and place.restart_at <= now:
                self.fill(place)
