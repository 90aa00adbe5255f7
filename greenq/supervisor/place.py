"""A place for a worker: who has it, who is to take it, and how its workers have died so far.

Decides nothing, starts nothing: see crew.py.
"""

from __future__ import annotations

import time

from .child import Child
from .streak import Streak


class Place:
    """One of the workers that there should be.

    Attributes:
      number(int): From 1.
      child(Child | None): Who has the place.
      newcomer(Child | None): Who is to take it, during a reload.
      streak(Streak): The deaths in a row here.
      restart_at(float | None): Monotonic seconds at which the next worker is started.
    """

    def __init__(self, number: int, streak: Streak) -> None:
        self.number = number
        self.child: Child | None = None
        self.newcomer: Child | None = None
        self.streak = streak
        self.restart_at: float | None = None

    def leave(self, child: Child) -> None:
        """One that has the place, or is to take it, has died."""
        if child is self.child:
            self.child = None
        if child is self.newcomer:
            self.newcomer = None

    def fill_in(self, delay_s: float) -> None:
        """Have the next worker started in so many seconds."""
        self.restart_at = time.monotonic() + delay_s
