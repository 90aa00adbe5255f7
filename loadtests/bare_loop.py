"""The bare loop: what this machine can do on SQLite with no task queue around it.

    python bare_loop.py [--measure jobs|naps|parked|inserts]

The yardstick that road.py lays beside greenq. It does what no queue can leave out and
nothing else: one native thread owns the database and, in one transaction, removes the jobs
that are done and claims up to 500 more; each is decoded from JSON and run as a no-op in a
greenlet, with one timer armed and five hooks called before and after. No retries, no leases,
no order of priority, no care for errors. The other three measure greenlets that wait and single
inserts in the same spirit. Prints one line of JSON.
"""
# ruff: noqa: E402 - gevent has to come before whatever waits

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import json
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import psutil
from gevent.event import Event
from gevent.threadpool import ThreadPool

BATCH = 500
HOOKS = 5
TIME_LIMIT_S = 600
JOBS = 100_000
NAPS, NAP_S, NAPPERS = 20_000, 0.1, 1_000
PARKED = 10_000
INSERTS = 2_000

SCHEMA = """
CREATE TABLE jobs (id INTEGER PRIMARY KEY, queue TEXT, state INTEGER, due INTEGER, body BLOB) STRICT;
CREATE INDEX ready ON jobs (queue, due, id) WHERE state = 0;
"""
INSERT = "INSERT INTO jobs (queue, state, due, body) VALUES ('default', 0, ?, ?)"
CLAIM = """
UPDATE jobs SET state = 1 WHERE id IN (
    SELECT id FROM jobs WHERE queue = 'default' AND state = 0 AND due <= ? ORDER BY due, id LIMIT ?)
RETURNING id, body
"""
REMOVE = "DELETE FROM jobs WHERE id IN (SELECT value FROM json_each(?))"

Row = tuple[int, bytes]


class Store:
    """The table of jobs."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)

    def fill(self, bodies: list[bytes]) -> None:
        """Insert these, all in one transaction."""
        due = _now_ms()
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(INSERT, [(due, body) for body in bodies])
        self._db.execute("COMMIT")

    def turn(self, done: list[int]) -> list[Row]:
        """Remove the jobs that are done and claim the next, in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        if done:
            self._db.execute(REMOVE, (json.dumps(done),))
        claimed: list[Row] = self._db.execute(CLAIM, (_now_ms(), BATCH)).fetchall()
        self._db.execute("COMMIT")
        return claimed

    def close(self) -> None:
        """Close the database."""
        self._db.close()


class Loop:
    """Claims, runs and removes jobs until there are none."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._timer: Callable[[float], Any] = gevent.get_hub().loop.timer
        self._actors: dict[str, Callable[..., None]] = {"noop": _noop}
        self._before = [_hook] * HOOKS
        self._after = [_hook] * HOOKS
        self._done: list[int] = []

    def run(self) -> None:
        """Go on until the last job has been removed."""
        owner = ThreadPool(1)
        under_way = 0
        while True:
            done, self._done = self._done, []
            claimed = owner.apply(self._store.turn, (done,))
            under_way += len(claimed) - len(done)
            if not under_way:
                return
            for number, body in claimed:
                gevent.spawn(self._run_one, number, body)

    def _run_one(self, number: int, body: bytes) -> None:
        message = json.loads(body)
        for hook in self._before:
            hook(message)
        timer = self._timer(TIME_LIMIT_S)
        timer.start(int)
        try:
            self._actors[message["actor_name"]](*message["args"], **message["kwargs"])
        finally:
            timer.close()
        for hook in self._after:
            hook(message)
        self._done.append(number)


def _hook(message: dict[str, Any]) -> None:
    message["options"].get("nothing")


def _noop(number: int) -> None:
    pass


def _now_ms() -> int:
    return int(time.time() * 1000)


def _body(number: int) -> bytes:
    message = {
        "queue_name": "default",
        "actor_name": "noop",
        "args": [number],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.uuid4()),
        "message_timestamp": _now_ms(),
    }
    return json.dumps(message, separators=(",", ":")).encode()


def measure_jobs() -> dict[str, float]:
    """How fast the loop runs jobs that wait already."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "jobs.db")
        store.fill([_body(number) for number in range(JOBS)])
        loop = Loop(store)
        started, cpu_started = time.monotonic(), time.process_time()
        loop.run()
        seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_started
        store.close()
    return {"jobs_per_s": round(JOBS / seconds), "cpu_us_per_job": round(cpu_s / JOBS * 1e6, 1)}


def measure_naps() -> dict[str, float]:
    """How near to the ideal a thousand greenlets come that decode and sleep, with no queue at all."""
    body, left = _body(0), NAPS

    def nap() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            json.loads(body)
            time.sleep(NAP_S)

    started = time.monotonic()
    gevent.joinall([gevent.spawn(nap) for _ in range(NAPPERS)])
    ideal_s = NAPS / NAPPERS * NAP_S
    return {"percent_of_ideal": round(ideal_s / (time.monotonic() - started) * 100, 1)}


def measure_parked() -> dict[str, float]:
    """What a greenlet that sleeps, with its decoded job in hand, takes of memory."""
    parked = 0
    all_parked = Event()

    def park(body: bytes) -> None:
        nonlocal parked
        message = json.loads(body)
        parked += 1
        if parked == PARKED:
            all_parked.set()
        time.sleep(TIME_LIMIT_S)
        message.clear()

    process = psutil.Process()
    before = process.memory_info().rss
    greenlets = [gevent.spawn(park, _body(number)) for number in range(PARKED)]
    all_parked.wait()
    taken = process.memory_info().rss - before
    gevent.killall(greenlets)
    return {"parked_kib": round(taken / PARKED / 1024, 1)}


def measure_inserts() -> dict[str, float]:
    """How many jobs a second can be stored one by one, in a transaction each."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "inserts.db")
        started = time.monotonic()
        for number in range(INSERTS):
            store.fill([_body(number)])
        seconds = time.monotonic() - started
        store.close()
    return {"inserts_per_s": round(INSERTS / seconds)}


MEASUREMENTS = {"jobs": measure_jobs, "naps": measure_naps, "parked": measure_parked, "inserts": measure_inserts}


def main() -> None:
    """Measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", choices=MEASUREMENTS, default="jobs", help="default: %(default)s")
    args = parser.parse_args()
    print(json.dumps(MEASUREMENTS[args.measure]()))


if __name__ == "__main__":
    main()
