"""Users who send a job and wait for its result, and how many of them there are: for locust.

Each job has two timings in locust's reports: *enqueued*, until its send returned, and *done*, until
its result came. A user does not stand still until then, it sends the next one when it is time: who
waits for results is a greenlet for each job. So a queue that stalls is met by as many jobs as one
that does not, and each of them is timed.

drive.py starts it. By itself, against workers and a broker that are there already:

    GREENQ_BROKER_URL=redis://... locust -f locustfile.py
"""

from __future__ import annotations

import os
import random
from typing import Any, ClassVar

import gevent
import gevent.pool
import load_scenarios
import locust.stats
from load_jobs import broker, results, sleep, work
from load_ledger import Ledger, now
from locust import LoadTestShape, User, events, task

import greenq

#: What drive.py says: the scenario, how many seconds it takes, how many users there are at most, how
#: many jobs each of them sends a second, and how many milliseconds each kind of job takes.
PREFIX = "LOADTEST_"
DEFAULTS = {
    "SCENARIO": "steady",
    "SECONDS": load_scenarios.SECONDS,
    "USERS": load_scenarios.USERS,
    "RATE": load_scenarios.RATE,
    "WORK_MS": load_scenarios.WORK_MS,
    "SLEEP_MS": load_scenarios.SLEEP_MS,
}
_said = {name: os.environ.get(PREFIX + name, str(default)) for name, default in DEFAULTS.items()}

SCENARIO = load_scenarios.SCENARIOS[_said["SCENARIO"]]
SECONDS = float(_said["SECONDS"])
USERS = int(_said["USERS"])
RATE = float(_said["RATE"])

#: How long a user waits for a result.
WAIT_MS = 3_600_000
#: In the end: how long nothing may come back until what is missing counts as lost; and how long if the
#: broker has nothing more.
PATIENCE_S, LAST_MOMENT_S = 60, 2

#: Seconds between two points of the HTML report's charts.
locust.stats.HISTORY_STATS_INTERVAL_SEC = 1

_ledger = Ledger()
_waiting = gevent.pool.Group()


class Caller(User):
    """Sends jobs that take a moment, at random times, and has each result waited for."""

    weight = 9
    actor: ClassVar[Any] = work
    milliseconds = float(_said["WORK_MS"])

    def wait_time(self) -> float:
        """Seconds until the next one: as between events that know nothing of each other."""
        return random.expovariate(RATE)

    @task
    def send(self) -> None:
        """Send a job."""
        began = now()
        try:
            message = self.actor.send(self.milliseconds)
        except greenq.GreenqError as error:
            _ledger.note("unsent", began, f"{type(error).__name__}: {error}")
            self._report("enqueued", began, error)
            return
        enqueued_ms = self._report("enqueued", began)
        _ledger.note("sent", message.message_id, began, enqueued_ms, message.actor_name)
        _waiting.spawn(self._wait_for, message, began)

    def _wait_for(self, message: greenq.Message[float], began: float) -> None:
        try:
            results.get_result(message, block=True, timeout=WAIT_MS)
        except greenq.GreenqError as error:
            _ledger.note("failed", message.message_id, now(), f"{type(error).__name__}: {error}")
            self._report("done", began, error)
            return
        _ledger.note("answered", message.message_id, now())
        self._report("done", began)

    def _report(self, what: str, began: float, error: Exception | None = None) -> float:
        took_ms = (now() - began) * 1000
        events.request.fire(
            request_type=what,
            name=self.actor.actor_name,
            response_time=took_ms,
            response_length=0,
            exception=error,
            context={},
        )
        return took_ms


class Sleeper(Caller):
    """Sends jobs that sleep for long."""

    weight = 1
    actor = sleep
    milliseconds = float(_said["SLEEP_MS"])


class Shape(LoadTestShape):
    """As many users as the scenario has now; none when its time is over."""

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        """As locust asks it, once a second."""
        share = self.get_run_time() / SECONDS
        if share >= 1:
            return None
        users = max(1, round(USERS * SCENARIO.crowd(share)))
        # All of a change at once: as many a second as there can ever be.
        return users, 2 * USERS, [Caller, Sleeper] if SCENARIO.has_sleepers else [Caller]


@events.test_start.add_listener
def note_the_start(**_: Any) -> None:
    """The first user comes."""
    _ledger.note("began", now())


@events.test_stop.add_listener
def wait_for_the_rest(**_: Any) -> None:
    """Wait, once the users have gone, until all results have come, or what is missing has to be lost."""
    left, since = len(_waiting), now()
    while not _waiting.join(timeout=0.2):
        if len(_waiting) != left:
            left, since = len(_waiting), now()
        counts = broker.queue_counts("default")
        # RabbitMQ does not tell what is reserved.
        has_nothing = (counts.ready, counts.reserved, counts.delayed) == (0, 0, 0)
        if now() - since > (LAST_MOMENT_S if has_nothing else PATIENCE_S):
            break
    _waiting.kill()
    # locust's CSV is written so often, and not in the end once more.
    gevent.sleep(locust.stats.CSV_STATS_INTERVAL_SEC)
