"""What a job costs in a native thread or in a process, beside the same in a greenlet.

    python lanes.py [--runs 5] [--only NAME] [--json FILE]

A benchmark, not a test: it prints a table and fails at no figure. No-op jobs on the embedded
broker, of a queue that was filled before: one after the other (what a job takes), and a hundred at
once (how many there are in a second). lane_jobs.py is what the workers run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
from processes import bench
from runs import Figures, Row, arguments, measure

LANES = {"greenlet": "noop", "thread": "noop_thread", "process": "noop_process"}
ONE_BY_ONE, AT_ONCE, CONCURRENCY = 5_000, 20_000, 100

ROWS = [
    *(Row(f"{lane}_us", f"a no-op job, {lane}, one after the other", "µs") for lane in LANES),
    *(Row(f"{lane}_cpu", f"worker's CPU of that, {lane}", "µs") for lane in LANES),
    *(Row(f"{lane}_rate", f"no-op jobs, {lane}, a hundred at once", "jobs/s") for lane in LANES),
    Row("start", "from send() to the start of the job, the process still to be made", "s"),
    Row("memory", "memory of an idle process of a lane", "MiB"),
]


def one_by_one() -> Figures:
    """Jobs of each lane in a worker with one slot."""
    figures: Figures = {}
    for lane, actor in LANES.items():
        measured = _stretch(actor, ONE_BY_ONE, 1)
        figures[f"{lane}_us"] = measured["seconds"] / ONE_BY_ONE * 1e6
        figures[f"{lane}_cpu"] = measured["cpu_s"] / ONE_BY_ONE * 1e6
    return figures


def at_once() -> Figures:
    """Jobs of each lane in a worker with a hundred slots, and as many threads and processes as are usual."""
    return {f"{lane}_rate": AT_ONCE / _stretch(actor, AT_ONCE, CONCURRENCY)["seconds"] for lane, actor in LANES.items()}


def _stretch(actor: str, count: int, concurrency: int) -> Figures:
    with bench(count, app="lane_jobs") as queue:
        queue.fill(actor, count)
        queue.start_worker(concurrency)
        return queue.read_stretch()


def start() -> Figures:
    """How long the first job of a lane waits for its process, and what that takes of memory."""
    with bench(app="lane_jobs") as queue:
        queue.start_idle_worker(CONCURRENCY)
        sent = time.monotonic()
        queue.fill("ping_process", 1)
        answer = queue.read()
        memory = psutil.Process(int(answer["pid"])).memory_full_info().uss
    return {"start": answer["started"] - sent, "memory": memory / 2**20}


MEASUREMENTS: dict[str, Callable[[], Figures]] = {"one_by_one": one_by_one, "at_once": at_once, "start": start}


def main() -> None:
    """Measure; print the table."""
    description = (__doc__ or "").splitlines()[0]
    measure(arguments(description, list(MEASUREMENTS)).parse_args(), MEASUREMENTS, ROWS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
