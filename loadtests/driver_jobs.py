"""What the worker runs whose drivers are tried: an actor for each trial, and one for its remedy.

A worker imports it as ``driver_jobs:broker``, and so do the processes of its lane. Each job tells
when it began to wait and when it had waited; ``report`` tells how long the hub stood still.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import time
from collections.abc import Iterator
from typing import Any

import gevent
from driver_trials import TRIALS, Trial
from telling import tell

import greenq

__all__ = ["broker"]

#: The trials for which the worker is, by the names of their actors.
WANTED_VARIABLE = "DRIVERS_TRIALS"
_TICK_S = 0.005

broker = greenq.get_broker()


class Ticking(greenq.Middleware):
    """Looks how long the hub lets nobody have a turn."""

    longest_s = 0.0

    def after_worker_boot(self, broker: greenq.Broker, worker: greenq.Worker) -> None:
        gevent.spawn(self._tick)

    def _tick(self) -> None:
        while True:
            due = time.monotonic() + _TICK_S
            gevent.sleep(_TICK_S)
            self.longest_s = max(self.longest_s, time.monotonic() - due)


ticking = Ticking()
broker.add_middleware(ticking)


@greenq.actor(max_retries=0)
def ping(number: int) -> None:
    """Tell that there is a worker."""
    tell(pid=os.getpid())


@greenq.actor(max_retries=0)
def report(number: int) -> None:
    """Tell for how long the hub has stood still since the last report, at most."""
    gevent.sleep(2 * _TICK_S)  # whatever stood still before has been seen now
    tell(stood_s=ticking.longest_s)
    ticking.longest_s = 0.0


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Tell when a job began and ended, or why it failed."""
    began = time.monotonic()
    try:
        yield
    except BaseException as error:
        tell(error=f"{type(error).__name__}: {error}"[:400])
        raise
    tell(began=began, ended=time.monotonic())


def declare(trial: Trial) -> None:
    """Declare the actors of a trial."""
    options: dict[str, Any] = {"max_retries": 0, "time_limit": 60_000}
    if inspect.iscoroutinefunction(trial.call):

        async def wait_in_it(number: int) -> None:
            with telling():
                await trial.call(trial.wait_s)

        greenq.actor(actor_name=trial.actor, **options)(wait_in_it)
        return

    def wait(number: int) -> None:
        with telling():
            trial.call(trial.wait_s)

    greenq.actor(actor_name=trial.actor, **options)(wait)
    if trial.lane:
        options["lane"] = trial.lane
        greenq.actor(actor_name=f"{trial.actor}_{trial.lane}", **options)(wait)


for name in os.environ[WANTED_VARIABLE].split(","):
    wanted = TRIALS[name]
    if wanted.prepare is not None:
        wanted.prepare()
    declare(wanted)
