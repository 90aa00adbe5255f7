"""How fast the road of an async job is, beside plain asyncio on the same machine in the same run.

    python async_road.py [--runs 5] [--only NAME] [--json FILE]

A benchmark, not a test: it prints a table and fails at no figure. Like road.py, on the embedded
broker; async_jobs.py is what its workers run and bare_asyncio.py the yardstick.
"""

from __future__ import annotations

from collections.abc import Callable

from processes import HERE, bench, json_of
from runs import Figures, Row, arguments, measure

NOOPS = 100_000
NAPS, NAP_S, NAPPERS = 20_000, 0.1, 1_000
PARKED = 10_000
OVERSTAYERS = 1_000

ROWS = [
    Row("noop", "no-op coroutines", "jobs/s"),
    Row("noop_bare", "plain asyncio, without a queue", "jobs/s"),
    Row("noop_cpu", "worker's CPU a no-op coroutine", "µs"),
    Row("noop_cpu_bare", "plain asyncio's", "µs"),
    Row("nap_ratio", "20,000 coroutines of 100 ms at 1000, of the ideal", "%"),
    Row("nap_bare", "plain asyncio, of the ideal", "%"),
    Row("nap_cpu", "worker's CPU a coroutine of 100 ms", "µs"),
    Row("nap_cpu_bare", "plain asyncio's", "µs"),
    Row("parked", "memory a parked coroutine's job, 10,000 parked", "KiB"),
    Row("parked_bare", "a parked task of plain asyncio", "KiB"),
    Row("late_p50", "1,000 coroutines at their time limits at once: how late, p50", "ms"),
    Row("late_p99", "1,000 coroutines at their time limits at once: how late, p99", "ms", "50 or less"),
]


def plain(what: str) -> Figures:
    """Run the yardstick."""
    return json_of([str(HERE / "bare_asyncio.py"), "--measure", what])


def noop() -> Figures:
    """Coroutines that return at once, of a queue that was filled before."""
    with bench(NOOPS, app="async_jobs") as queue:
        queue.fill("async_noop", NOOPS)
        queue.start_worker(1000)
        measured = queue.read_stretch()
    bare = plain("jobs")
    return {
        "noop": NOOPS / measured["seconds"],
        "noop_bare": bare["jobs_per_s"],
        "noop_cpu": measured["cpu_s"] / NOOPS * 1e6,
        "noop_cpu_bare": bare["cpu_us_per_job"],
    }


def nap() -> Figures:
    """Coroutines that wait for 100 ms, a thousand at once."""
    with bench(NAPS, app="async_jobs") as queue:
        queue.fill("async_nap", NAPS)
        queue.start_worker(NAPPERS)
        measured = queue.read_stretch()
    bare = plain("naps")
    return {
        "nap_ratio": NAPS / NAPPERS * NAP_S / measured["seconds"] * 100,
        "nap_bare": bare["percent_of_ideal"],
        "nap_cpu": measured["cpu_s"] / NAPS * 1e6,
        "nap_cpu_bare": bare["cpu_us_per_job"],
    }


def parked() -> Figures:
    """What coroutines that wait take of the worker's memory."""
    with bench(PARKED, app="async_jobs") as queue:
        worker = queue.start_idle_worker(PARKED)
        before = worker.memory_info().rss
        queue.fill("async_park", PARKED)
        queue.read()
        taken = worker.memory_info().rss - before
    return {"parked": taken / PARKED / 1024, "parked_bare": plain("parked")["parked_kib"]}


def limits() -> Figures:
    """How late coroutines are cancelled that reach their time limits together."""
    with bench(OVERSTAYERS, app="async_jobs") as queue:
        queue.fill("async_overstay", OVERSTAYERS)
        queue.start_worker(OVERSTAYERS)
        late = queue.read()
    return {"late_p50": late["p50_ms"], "late_p99": late["p99_ms"]}


MEASUREMENTS: dict[str, Callable[[], Figures]] = {"noop": noop, "nap": nap, "parked": parked, "limits": limits}


def main() -> None:
    """Measure; print the table."""
    description = (__doc__ or "").splitlines()[0]
    measure(arguments(description, list(MEASUREMENTS)).parse_args(), MEASUREMENTS, ROWS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
