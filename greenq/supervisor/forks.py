"""The processes beside the workers: one for each fork function, of a middleware or of the command line.

They are started when the workers are ready, because these know the functions. One that
returns 0 has done what it was for; one that fails is started again, later each time, and never
given up: the workers do not need it. Those that outlast the workers are told to end when the
last worker has.

Decides and starts; the supervisor reaps, and keeps the time.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..log_lines import log_with_details
from ..logging import get_logger
from .child import Child, Launch
from .signals import describe_exit
from .streak import LONG_LIFE_S, Streak

#: Seconds that one has to end at a stop, even if the time for it is over.
_LEAST_S = 0.1


class Fork:
    """A fork function.

    Attributes:
      function(str): As ``module:name``.
      outlasts_workers(bool): Whether it is to run until the last worker has ended.
      child(Child | None): The process that runs it.
      was_started(bool): Whether there has been one; the next one takes its place.
      streak(Streak): The failures in a row.
      restart_at(float | None): Monotonic seconds at which it is started again.
    """

    def __init__(self, facts: Mapping[str, Any], streak: Streak) -> None:
        self.function = str(facts.get("function"))
        self.outlasts_workers = bool(facts.get("outlasts_workers"))
        self.child: Child | None = None
        self.was_started = False
        self.started_at = 0.0
        self.streak = streak
        self.restart_at: float | None = None


class Forks:
    """All of them.

    Parameters:
      launch(Launch): How such a process is started, but for the function; None if none is to be.
      restart_delays_s(Sequence[float]): Seconds to wait after each failure in a row; the last
        one is repeated.
      patience_s(float): Seconds that one may take to end once it is told to.
      on_start(Callable[[Child], None]): Called with each process that was started.
      shared_fd(int | None): Of the shared file, which each of them inherits.
    """

    def __init__(
        self,
        launch: Launch | None,
        *,
        restart_delays_s: Sequence[float],
        patience_s: float,
        on_start: Callable[[Child], None],
        shared_fd: int | None,
    ) -> None:
        self.logger: logging.Logger = get_logger("greenq", "MainProcess")
        self._launch = launch
        self._restart_delays_s = restart_delays_s
        self._patience_s = patience_s
        self._on_start = on_start
        self._shared_fd = shared_fd
        self._forks: list[Fork] = []
        self._leaving: list[Fork] = []
        self._is_stopping = False
        self._stop_by = 0.0

    # -- start

    def run(self, facts: Sequence[Mapping[str, Any]]) -> None:
        """Run these functions, and no others any more.

        One that runs already is ended first, then started with the present code.
        """
        if self._is_stopping or self._launch is None:
            return
        self._leaving += [fork for fork in self._forks if fork.child is not None]
        for fork in self._forks:
            self._end(fork)
        self._forks = [Fork(each, Streak(self._restart_delays_s)) for each in facts]
        # One reload may follow another before the first one's functions have ended.
        still_running = {fork.function for fork in self._leaving}
        for fork in self._forks:
            if fork.function not in still_running:
                self._start(fork)
            # Else its end is waited for.

    def _start(self, fork: Fork) -> None:
        fork.restart_at = None
        assert self._launch is not None
        options = {
            **self._launch.options,
            "function": fork.function,
            "outlasts_workers": fork.outlasts_workers,
            "is_successor": fork.was_started,
        }
        try:
            fork.child = Child(
                0,
                dataclasses.replace(self._launch, options=options),
                patient=False,
                name=f"Fork {fork.function}",
                shared_fd=self._shared_fd,
            )
        except OSError as error:
            self.logger.error("Fork %s could not be started: %s.", fork.function, error)
            fork.restart_at = time.monotonic() + fork.streak.could_not_start()
            return
        fork.was_started = True
        fork.started_at = time.monotonic()
        self.logger.debug("%s was started.", fork.child)
        self._on_start(fork.child)

    # -- stop

    def stop(self, *, workers_are_gone: bool) -> None:
        """Tell them to end, once; those that outlast the workers only when these are gone."""
        if not self._is_stopping:
            self._is_stopping = True
            self._stop_by = time.monotonic() + self._patience_s
        for fork in self._forks:
            fork.restart_at = None
            if workers_are_gone or not fork.outlasts_workers:
                self._end(fork)

    def _end(self, fork: Fork) -> None:
        fork.restart_at = None
        patience_s = self._patience_s
        if self._is_stopping:
            # What outlasts the workers has to share the time that they had.
            patience_s = max(_LEAST_S, self._stop_by - time.monotonic())
        if fork.child is not None:
            if fork.outlasts_workers:
                fork.child.leave(patience_s)
            else:
                fork.child.stop(patience_s)

    # -- ends

    def bury(self, child: Child, returncode: int) -> None:
        """Note that one has ended; start it again if it is still wanted."""
        for fork in self._leaving:
            if fork.child is child:
                self._leaving.remove(fork)
                self._start_successor(fork)
                return
        for fork in self._forks:
            if fork.child is child:
                fork.child = None
                self._mourn(fork, child, returncode)

    def _start_successor(self, gone: Fork) -> None:
        if self._is_stopping or any(fork.function == gone.function for fork in self._leaving):
            return
        for fork in self._forks:
            if fork.function == gone.function and fork.child is None:
                self._start(fork)

    def _mourn(self, fork: Fork, child: Child, returncode: int) -> None:
        is_to_end = child.stopping or self._is_stopping
        if child.failure is not None:
            reason, _, details = child.failure.partition("\n")
            log_with_details(self.logger, logging.ERROR, f"{child}: {reason}", details)
        elif is_to_end:
            self.logger.debug("%s %s.", child, describe_exit(returncode))
        elif returncode == 0:
            self.logger.info("%s has returned, and is not started again.", child)
        else:
            self.logger.error("%s %s.", child, describe_exit(returncode))
        if is_to_end or returncode == 0:
            return
        if time.monotonic() - fork.started_at >= LONG_LIFE_S:
            fork.streak = Streak(self._restart_delays_s)
        delay_s = fork.streak.could_not_start()
        self.logger.warning(
            "Fork %s is started again %s.", fork.function, f"in {delay_s:g} s" if delay_s else "at once"
        )
        fork.restart_at = time.monotonic() + delay_s

    # -- time

    def next_due(self) -> list[float]:
        """Monotonic seconds at which there is something to do."""
        return [fork.restart_at for fork in self._forks if fork.restart_at is not None]

    def do_what_is_due(self) -> None:
        """Start again what is to be started again by now."""
        now = time.monotonic()
        for fork in self._forks:
            if fork.restart_at is not None and fork.restart_at <= now:
                self._start(fork)
