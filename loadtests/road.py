"""How fast the road of a job is, beside a bare loop on the same machine in the same run.

    python road.py [--runs 5] [--only NAME] [--json FILE]

A benchmark, not a test: it prints a table and fails at no figure. Workers are started by the
real command, in a process group of their own that ends with the benchmark; jobs.py is what
they run and bare_loop.py the yardstick. Everything lives in a temporary directory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # a checkout is enough, greenq need not be installed

import psutil  # noqa: E402

from greenq import Message  # noqa: E402
from greenq.brokers.sqlite import SqliteBroker  # noqa: E402

#: Nothing that is waited for takes longer, on a machine however slow.
LIMIT_S = 300
NOOPS = 100_000
NAPS, NAP_S, NAPPERS = 20_000, 0.1, 1_000
OVERSTAYERS = 1_000
SENDS, SENDS_OF_MANY, PINGS = 3_000, 15_000, 500
_FILL = 1_000

Figures = dict[str, float]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    title: str
    unit: str
    goal: str


ROWS = [
    Row("noop", "no-op jobs", "jobs/s", ""),
    Row("noop_bare", "the bare loop", "jobs/s", ""),
    Row("noop_ratio", "no-op jobs, of the bare loop", "%", "60 or more"),
    Row("noop_cpu", "worker's CPU a no-op job", "µs", ""),
    Row("noop_cpu_bare", "the bare loop's CPU a job", "µs", ""),
    Row("nap_ratio", "20,000 jobs of 100 ms at 1000, of the ideal", "%", "95 or more"),
    Row("nap_bare", "greenlets that sleep, with no queue, of the ideal", "%", ""),
    Row("nap_cpu", "worker's CPU a job of 100 ms", "µs", ""),
    Row("parked_10k", "memory a parked job, 10,000 parked", "KiB", "14 or less"),
    Row("parked_100k", "memory a parked job, 100,000 parked", "KiB", ""),
    Row("parked_100k_mib", "the worker with 100,000 parked", "MiB", ""),
    Row("parked_bare", "a parked greenlet of the bare loop", "KiB", ""),
    Row("late_p50", "1,000 jobs at their time limits at once: how late, p50", "ms", ""),
    Row("late_p99", "1,000 jobs at their time limits at once: how late, p99", "ms", "50 or less"),
    Row("import", "import greenq in a producer", "ms", "under 60"),
    Row("start", "from the command to the first job's start", "s", "under 1"),
    Row("send_one", "send() from one thread", "a second", ""),
    Row("send_threads", "send() from 50 threads", "a second", ""),
    Row("send_greenlets", "send() from 50 greenlets", "a second", ""),
    Row("send_bare", "single inserts of the bare loop", "a second", ""),
    Row("latency_p50", "from send() to the start of the job, idle worker, p50", "ms", ""),
    Row("latency_p99", "from send() to the start of the job, idle worker, p99", "ms", ""),
]


# -- processes


class Bench:
    """A queue in a directory of its own, and what is started on it."""

    def __init__(self, folder: Path, count: int = 0) -> None:
        self._folder = folder
        self._pipe_path = folder / "pipe"
        os.mkfifo(self._pipe_path)
        # Open for both ways, so that neither end ever waits for the other to open it.
        self._pipe = os.open(self._pipe_path, os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""
        self._processes: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")]),
            "GREENQ_LOADTEST_PATH": str(folder / "queue.db"),
            "GREENQ_LOADTEST_PIPE": str(self._pipe_path),
            "GREENQ_LOADTEST_COUNT": str(count),
        }

    def fill(self, actor_name: str, count: int) -> None:
        """Store messages for this actor."""
        broker = SqliteBroker(str(self._folder / "queue.db"))
        broker.declare_queue("default")
        for start in range(0, count, _FILL):
            numbers = range(start, min(start + _FILL, count))
            messages: list[Message[Any]] = [Message("default", actor_name, (number,), {}, {}) for number in numbers]
            broker.write([broker.prepare(message) for message in messages])
        broker.close()

    def start_worker(self, concurrency: int) -> float:
        """Start greenq-worker; when that was."""
        command = ["-m", "greenq", "--processes", "1", "--concurrency", str(concurrency), "jobs:broker"]
        started = time.monotonic()
        with open(self._folder / "log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=HERE,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return started

    def read(self) -> dict[str, Any]:
        """What the worker says next."""
        ends = time.monotonic() + LIMIT_S
        while b"\n" not in self._unread:
            if select.select([self._pipe], [], [], 0.5)[0]:
                self._unread += os.read(self._pipe, 65536)
            elif time.monotonic() > ends or any(process.poll() is not None for process in self._processes):
                log = (self._folder / "log").read_text(errors="replace")
                raise SystemExit(
                    f"The worker ended, or said nothing for {LIMIT_S} s. Its log ends with:\n{log[-4000:]}"
                )
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def send(self, way: str, count: int) -> Figures:
        """Have a producer send messages in one of the ways of jobs.py; what it measured."""
        return _json_of([str(HERE / "jobs.py"), way, str(count)], self._environment)

    def close(self) -> None:
        """End everything that was started."""
        for process in self._processes:
            _kill(process)
        os.close(self._pipe)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # A graceful stop would wait for parked jobs. The command's own children first, because
    # they may be in groups of their own, and would be adopted by others once it is gone.
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LIMIT_S)


def _json_of(command: list[str], environment: dict[str, str] | None = None) -> Figures:
    """What a Python program prints: one line of JSON. It ends with the benchmark."""
    process = subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        _kill(process)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}.")
    figures: Figures = json.loads(output)
    return figures


@contextlib.contextmanager
def bench(count: int = 0) -> Iterator[Bench]:
    """A fresh queue; what was started on it has ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="greenq-road-") as folder:
        opened = Bench(Path(folder), count)
        try:
            yield opened
        finally:
            opened.close()


def bare_loop(what: str) -> Figures:
    """Run the yardstick."""
    return _json_of([str(HERE / "bare_loop.py"), "--measure", what])


# -- what is measured


def noop() -> Figures:
    """No-op jobs of a queue that was filled before, between two runs of the bare loop."""
    before = bare_loop("jobs")
    with bench(NOOPS) as queue:
        queue.fill("noop", NOOPS)
        queue.start_worker(1000)
        measured = queue.read()
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
        measured = queue.read()
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
        queue.fill("ping", 1)
        queue.start_worker(count)
        worker = psutil.Process(int(queue.read()["pid"]))
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
    return {"import": min(_json_of(["-c", program], environment)["s"] for _ in range(7)) * 1000}


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
        queue.fill("ping", 1)
        queue.start_worker(1000)
        queue.read()
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


# -- the table


def machine() -> str:
    """The machine in words."""
    memory_gib = psutil.virtual_memory().total / 2**30
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB of memory, {sys.platform}, Python {python}"


def table(runs: list[Figures]) -> str:
    """All figures as a Markdown table: median and spread over the runs."""
    lines = ["| | median | lowest to highest | goal |", "|---|---|---|---|"]
    for row in ROWS:
        values = [run[row.name] for run in runs if row.name in run]
        if values:
            shown = [_shown(value) for value in (statistics.median(values), min(values), max(values))]
            lines.append(f"| {row.title} | {shown[0]} {row.unit} | {shown[1]} to {shown[2]} | {row.goal} |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main() -> None:
    """Measure everything in turn, several times; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="how often to measure everything; default: %(default)s")
    parser.add_argument("--only", choices=MEASUREMENTS, help="measure nothing but this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all runs there too")
    args = parser.parse_args()
    # Ended by TERM as by ctrl-C: what was started ends too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = [args.only] if args.only else list(MEASUREMENTS)
    runs: list[Figures] = []
    for number in range(1, args.runs + 1):
        figures: Figures = {}
        for name in names:
            print(f"run {number} of {args.runs}: {name}", file=sys.stderr, flush=True)
            figures |= MEASUREMENTS[name]()
        runs.append(figures)
        if args.json:
            args.json.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")
    print(f"{machine()}; {args.runs} runs\n\n{table(runs)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
