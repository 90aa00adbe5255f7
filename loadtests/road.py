"""How fast the road of a job is, beside a bare loop on the same machine in the same run.

    python road.py [--runs 5] [--only NAME] [--json FILE]

A benchmark, not a test: it prints a table and fails at no figure. Workers are started by the
real command, in a process group of their own that ends with the benchmark; jobs.py is what
they run and bare_loop.py the yardstick. Everything lives in a temporary directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from processes import HERE, ROOT, bench, json_of
from runs import Figures, Row, arguments, measure

NOOPS = 100_000
NAPS, NAP_S, NAPPERS = 20_000, 0.1, 1_000
OVERSTAYERS = 1_000
SENDS, SENDS_OF_MANY, PINGS = 3_000, 15_000, 500

ROWS = [
    Row("noop", "no-op jobs", "jobs/s"),
    Row("noop_bare", "the bare loop", "jobs/s"),
    Row("noop_ratio", "no-op jobs, of the bare loop", "%", "60 or more"),
    Row("noop_cpu", "worker's CPU a no-op job", "µs"),
    Row("noop_cpu_bare", "the bare loop's CPU a job", "µs"),
    Row("nap_ratio", "20,000 jobs of 100 ms at 1000, of the ideal", "%", "95 or more"),
    Row("nap_bare", "greenlets that sleep, with no queue, of the ideal", "%"),
    Row("nap_cpu", "worker's CPU a job of 100 ms", "µs"),
    Row("parked_10k", "memory a parked job, 10,000 parked", "KiB", "14 or less"),
    Row("parked_100k", "memory a parked job, 100,000 parked", "KiB"),
    Row("parked_100k_mib", "the worker with 100,000 parked", "MiB"),
    Row("parked_bare", "a parked greenlet of the bare loop", "KiB"),
    Row("late_p50", "1,000 jobs at their time limits at once: how late, p50", "ms"),
    Row("late_p99", "1,000 jobs at their time limits at once: how late, p99", "ms", "50 or less"),
    Row("import", "import greenq in a producer", "ms", "under 60"),
    Row("start", "from the command to the first job's start", "s", "under 1"),
    Row("send_one", "send() from one thread", "a second"),
    Row("send_threads", "send() from 50 threads", "a second"),
    Row("send_greenlets", "send() from 50 greenlets", "a second"),
    Row("send_bare", "single inserts of the bare loop", "a second"),
    Row("latency_p50", "from send() to the start of the job, idle worker, p50", "ms"),
    Row("latency_p99", "from send() to the start of the job, idle worker, p99", "ms"),
]


def bare_loop(what: str) -> Figures:
    """Run the yardstick."""
    return json_of([str(HERE / "bare_loop.py"), "--measure", what])


# -- what is measured


def noop() -> Figures:
    """No-op jobs of a queue that was filled before, between two runs of the bare loop."""
    before = bare_loop("jobs")
    with bench(NOOPS) as queue:
        queue.fill("noop", NOOPS)
        queue.start_worker(1000)
        measured = queue.read_stretch()
    after = bare_loop("jobs")
    bare = (before["jobs_per_s"] + after["jobs_per_s"]) / 2
    per_s = NOOPS / measured["seconds"]
    return {
        "noop": per_s,
        "noop_bare": bare,
        "noop_ratio": per_s / bare * 100,
        "noop_cpu": measured["cpu_s"] / NOOPS * 1e6,
        "noop_cpu_bare": (before["cpu_us_per_job"] + after["cpu_us_per_job"]) / 2,
    }


def nap() -> Figures:
    """Jobs that wait for 100 ms, a thousand at once."""
    with bench(NAPS) as queue:
        queue.fill("nap", NAPS)
        queue.start_worker(NAPPERS)
        measured = queue.read_stretch()
    bare = bare_loop("naps")
    ideal_s = NAPS / NAPPERS * NAP_S
    return {
        "nap_ratio": ideal_s / measured["seconds"] * 100,
        "nap_bare": bare["percent_of_ideal"],
        "nap_cpu": measured["cpu_s"] / NAPS * 1e6,
    }


def parked() -> Figures:
    """What jobs that wait take of the worker's memory."""
    few_kib, _ = _parked(10_000)
    many_kib, whole_mib = _parked(100_000)
    bare = bare_loop("parked")
    return {
        "parked_10k": few_kib,
        "parked_100k": many_kib,
        "parked_100k_mib": whole_mib,
        "parked_bare": bare["parked_kib"],
    }


def _parked(count: int) -> tuple[float, float]:
    with bench(count) as queue:
        worker = queue.start_idle_worker(count)
        before = worker.memory_info().rss
        queue.fill("park", count)
        queue.read()
        whole = worker.memory_info().rss
    return (whole - before) / count / 1024, whole / 2**20


def limits() -> Figures:
    """How late jobs are interrupted that reach their time limits together."""
    with bench(OVERSTAYERS) as queue:
        queue.fill("overstay", OVERSTAYERS)
        queue.start_worker(OVERSTAYERS)
        late = queue.read()
    return {"late_p50": late["p50_ms"], "late_p99": late["p99_ms"]}


def front_door() -> Figures:
    """What importing greenq costs a process that only sends. The quickest of some, as the rest is noise."""
    program = (
        "import json, time; t = time.perf_counter(); import greenq; print(json.dumps({'s': time.perf_counter() - t}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return {"import": min(json_of(["-c", program], environment)["s"] for _ in range(7)) * 1000}


def start() -> Figures:
    """From the start of the command to that of the first job, which waits already."""
    with bench() as queue:
        queue.fill("ping", 1)
        started = queue.start_worker(1000)
        answer = queue.read()
    return {"start": answer["started"] - started}


def send() -> Figures:
    """How fast producers can send, and how soon an idle worker starts what was sent."""
    figures: Figures = {"send_bare": bare_loop("inserts")["inserts_per_s"]}
    for way, count in (("one", SENDS), ("threads", SENDS_OF_MANY), ("greenlets", SENDS_OF_MANY)):
        with bench() as queue:
            figures[f"send_{way}"] = queue.send(way, count)["per_s"]
    with bench() as queue:
        queue.start_idle_worker(1000)
        latency = queue.send("latency", PINGS)
    figures["latency_p50"], figures["latency_p99"] = latency["p50_ms"], latency["p99_ms"]
    return figures


MEASUREMENTS: dict[str, Callable[[], Figures]] = {
    "noop": noop,
    "nap": nap,
    "parked": parked,
    "limits": limits,
    "import": front_door,
    "start": start,
    "send": send,
}


def main() -> None:
    """Measure; print the table."""
    description = (__doc__ or "").splitlines()[0]
    measure(arguments(description, list(MEASUREMENTS)).parse_args(), MEASUREMENTS, ROWS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
