"""The processes beside the workers: the application's fork functions, and greenq's own.

Two lots, because a reload starts the application's anew and not greenq's own. The application's are
known when a worker is ready, and are started when all are, or when that takes too long. How one lot is
kept running is in forks.py; who is reaped, and when time has passed, in supervisor.py.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .child import Child, Launch
from .forks import Forks


class Beside:
    """All of them.

    Parameters:
      launch(Launch | None): How such a process is started, but for the function; None if none is to be.
      own(Sequence[Mapping]): greenq's own functions, as facts of forks.py.
      restart_delays_s(Sequence[float]): Seconds to wait after each failure in a row.
      patience_s(float): Seconds that one may take to end once it is told to.
      wait_s(float): Seconds after the first worker was ready in which the application's wait for the others.
      shared_fd(int | None): Of the shared file, which each of them inherits.
      selector(BaseSelector): Where the report pipe of each is registered, with the child as its data.

    Attributes:
      children(dict[int, Child]): Those that live, by pid.
    """

    def __init__(
        self,
        launch: Launch | None,
        *,
        own: Sequence[Mapping[str, Any]],
        restart_delays_s: Sequence[float],
        patience_s: float,
        wait_s: float,
        shared_fd: int | None,
        selector: selectors.BaseSelector,
    ) -> None:
        self.children: dict[int, Child] = {}
        self._own_functions = own
        self._selector = selector
        self._wait_s = wait_s
        self._to_start: Sequence[Mapping[str, Any]] = ()
        self._start_at: float | None = None
        self._lots = self._applications, self._own = [
            Forks(
                launch,
                restart_delays_s=restart_delays_s,
                patience_s=patience_s,
                on_start=self._register,
                shared_fd=shared_fd,
            )
            for _ in range(2)
        ]

    def _register(self, child: Child) -> None:
        self.children[child.pid] = child
        self._selector.register(child.report_fd, selectors.EVENT_READ, child)

    # -- start

    def run_own(self) -> None:
        """Run greenq's own functions."""
        if self._own_functions:
            self._own.run(self._own_functions)

    def run_soon(self, functions: Sequence[Mapping[str, Any]]) -> None:
        """Run these of the application, as the first worker knows them, when all workers are ready."""
        self._to_start = functions
        self._start_at = time.monotonic() + self._wait_s

    def run(self, functions: Sequence[Mapping[str, Any]]) -> None:
        """Run these of the application now, and no others of it any more."""
        self._start_at = None
        self._applications.run(functions)

    def all_are_ready(self) -> None:
        """Run now what is to run soon, if there is something."""
        if self._start_at is not None:
            self.run(self._to_start)

    def reopen_log(self) -> None:
        """Have all go on in a new log file where the old one was moved away: a reload need not start them anew."""
        for child in self.children.values():
            child.reopen_log()

    # -- ends

    def stop(self, *, workers_are_gone: bool) -> None:
        """Tell them to end, once; those that outlast the workers only when these are gone."""
        for lot in self._lots:
            lot.stop(workers_are_gone=workers_are_gone)

    def bury(self, child: Child, returncode: int) -> None:
        """Note that one has ended; start it again if it is still wanted."""
        del self.children[child.pid]
        for lot in self._lots:
            lot.bury(child, returncode)

    # -- time

    def next_due(self) -> list[float]:
        """Monotonic seconds at which there is something to do."""
        due = [at for lot in self._lots for at in lot.next_due()]
        return due if self._start_at is None else [*due, self._start_at]

    def do_what_is_due(self) -> None:
        """Start what is to be started by now."""
        if self._start_at is not None and self._start_at <= time.monotonic():
            self.run(self._to_start)
        for lot in self._lots:
            lot.do_what_is_due()
