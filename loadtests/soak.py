"""Runs half a million jobs of all kinds, and looks whether anything is left of them.

    python soak.py [--jobs 500000] [--broker sqlite|redis|rabbitmq] [--round 50000]

Most jobs just work; of twenty one fails at first, one for good, one at its time limit, and one is a
coroutine. After each round, when all has come to an end, it prints what the worker holds and what the
broker does. The first round counts as warming up. Ends with 1 if a job was lost or something has grown.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from processes import LIMIT_S, Bench, bench
from rabbitmq_server import rabbitmq_server
from redis_server import redis_server
from runs import machine

from greenq import Message

CONCURRENCY = 1000
#: Of so many jobs in a row one each is of these actors, the others of ``work``; see soak_jobs.py.
KINDS = 20
ACTORS = {1: "go_wrong", 2: "overstay", 3: "wait"}
#: How many times the first round's a figure may be in the end, beside its SLACK.
GROWTH = 1.1
#: Between two looks for the end of a round.
_PAUSE_S = 0.1
#: How long after its job's end a dead letter may come.
_LATEST_LETTER_S = 10

#: What is looked at, with what may come and go by itself: a spare connection, say.
SLACK = {"rss": 8 * 2**20, "descriptors": 4, "threads": 2, "greenlets": 50}


def fill(queue: Bench, first: int, count: int) -> None:
    """Store jobs of all kinds."""
    for start in range(first, first + count, 1000):
        messages: list[Message[Any]] = []
        for number in range(start, min(start + 1000, first + count)):
            messages.append(Message("default", ACTORS.get(number % KINDS, "work"), (number,), {}, {}))
        queue.broker.enqueue_many(messages)


def dead_of(count: int) -> int:
    """How many of so many jobs fail for good."""
    return count // KINDS * 2


def look(queue: Bench) -> dict[str, float]:
    """What the worker holds now."""
    queue.fill("look", 1)
    held = queue.read()
    ends = time.monotonic() + LIMIT_S
    while queue.broker.queue_counts("default").reserved and time.monotonic() < ends:
        time.sleep(_PAUSE_S / 10)  # its own ack is on the way
    return held


def wait_until_done(queue: Bench, total: int) -> dict[str, float]:
    """Wait until so many jobs have come to an end; what the worker holds when it has nothing to do."""
    # As the jobs themselves count: RabbitMQ does not tell what is on its way.
    ends = time.monotonic() + LIMIT_S
    while True:
        held = look(queue)
        if held["done"] + held["failed"] >= total:
            return held
        if time.monotonic() > ends:
            raise SystemExit(
                f"After {LIMIT_S} s {total - held['done'] - held['failed']:,.0f} jobs have not come to an end."
            )
        time.sleep(_PAUSE_S)


def bury(queue: Bench, expected: int) -> int:
    """Delete the dead letters, of which there should be so many; how many there were."""
    ends = time.monotonic() + _LATEST_LETTER_S
    deleted = 0
    while True:
        deleted += queue.broker.dead_letters_of("default").delete_all()
        if deleted >= expected or time.monotonic() > ends:
            return deleted
        time.sleep(_PAUSE_S)


# -- what the brokers hold


def rows_of(url: str) -> int:
    """Rows in all tables of the embedded broker's file."""
    with contextlib.closing(sqlite3.connect(unquote(urlsplit(url).path)[1:])) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names)


@contextlib.contextmanager
def server(name: str) -> Iterator[tuple[str | None, Callable[[Bench], int]]]:
    """A broker; its URL, and what counts what it keeps."""
    if name == "redis":
        with redis_server() as redis:
            yield redis.url, lambda _: int(redis.client.dbsize())
    elif name == "rabbitmq":
        with rabbitmq_server() as rabbitmq:
            yield rabbitmq.url, lambda queue: sum(each or 0 for each in queue.broker.queue_counts("default"))
    else:
        yield None, lambda queue: rows_of(queue.url)


def soak(name: str, jobs: int, per_round: int) -> int:
    """Run them; how many complaints there were."""
    complaints: list[str] = []
    with server(name) as (url, kept_by), bench(url=url, app="soak_jobs") as queue:
        queue.start_worker(CONCURRENCY)
        started, kept = look(queue), kept_by(queue)
        print(f"{machine()}; {name}, {jobs:,} jobs, {per_round:,} a round\n")
        print("| jobs | jobs/s | memory | descriptors | threads | greenlets | kept by the broker |")
        print("|---|---|---|---|---|---|---|")
        print(shown(0, 0, started, kept), flush=True)
        baseline = baseline_kept = None
        for first in range(0, jobs, per_round):
            total = first + per_round
            began = time.monotonic()
            fill(queue, first, per_round)
            wait_until_done(queue, total)
            seconds = time.monotonic() - began
            letters = bury(queue, dead_of(per_round))
            held, kept = look(queue), kept_by(queue)
            print(shown(total, per_round / seconds, held, kept), flush=True)
            if letters != dead_of(per_round):
                complaints.append(f"{letters:,} dead letters, and not {dead_of(per_round):,}")
            if (held["done"], held["failed"]) != (total - dead_of(total), dead_of(total)):
                complaints.append(
                    f"{held['done']:,.0f} jobs are done and {held['failed']:,.0f} have failed, of {total:,}"
                )
            if baseline is None:
                baseline, baseline_kept = held, kept
        assert baseline is not None
        assert baseline_kept is not None
        for figure, slack in SLACK.items():
            if held[figure] > baseline[figure] * GROWTH + slack:
                complaints.append(f"{figure} grew from {baseline[figure]:,} to {held[figure]:,}")
        if kept > baseline_kept:
            complaints.append(f"the broker keeps {kept} things instead of {baseline_kept}")
    print("\n" + ("\n".join(complaints) or "No job was lost, and nothing has grown."))
    return len(complaints)


def shown(jobs: int, per_s: float, held: dict[str, float], kept: int) -> str:
    """One line of the table."""
    figures = " | ".join(f"{held[name]:,.0f}" for name in ("descriptors", "threads", "greenlets"))
    return f"| {jobs:,} | {per_s:,.0f} | {held['rss'] / 2**20:.1f} MiB | {figures} | {kept:,} |"


def main() -> None:
    """Soak; exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=500_000, help="how many; default: %(default)s")
    parser.add_argument("--round", type=int, default=50_000, help="how many at a time; default: %(default)s")
    parser.add_argument("--broker", choices=["sqlite", "redis", "rabbitmq"], default="sqlite")
    args = parser.parse_args()
    # After the first round there has to be another, or nothing could have grown.
    if args.round % KINDS or args.jobs % args.round or args.jobs < 2 * args.round:
        parser.error(f"--round must be a multiple of {KINDS}, and --jobs two or more rounds")
    # Ended by TERM as by ctrl-C: what was started ends too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(bool(soak(args.broker, args.jobs, args.round)))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
