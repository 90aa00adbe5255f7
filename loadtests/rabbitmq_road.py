"""How fast the RabbitMQ broker is, beside bare pika on the same machine in the same run.

    python rabbitmq_road.py [--runs 5] [--only NAME] [--json FILE] [--quick] [--peers PYTHON]

A benchmark, not a test: it prints a table and fails at no figure. Each measurement has a node
of its own on free ports of loopback; workers are started by the real command. All of it ends
with the benchmark. jobs.py is what the workers run, bare_pika_loop.py and bare_pika_sender.py
are the yardsticks, peers/ holds the queues that greenq is compared with.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from processes import Bench, bench
from rabbitmq_server import Server, rabbitmq_server
from runs import Figures, Row, arguments, measure

NAP_S = 0.1
HOUR_MS = 3_600_000
#: How often two are measured in turns; the median of their ratios counts.
TURNS = 3
CROWD, MANY = 2000, 100
#: As many greenlets as each ran quickest with, of 16, 100 and 1,000.
DRAMATIQ_THREADS = 1000
CELERY_CONCURRENCY = 1000


class Sizes(NamedTuple):
    """How much of everything."""

    noops: int = 100_000
    of_dramatiq: int = 20_000
    of_celery: int = 10_000
    naps: int = 20_000
    sends_of_crowd: int = 50_000
    sends_of_many: int = 20_000
    sends: int = 2_000
    pings: int = 500
    delayed: int = 100_000


#: To try the benchmark itself; its figures mean little.
QUICK = Sizes(
    noops=20_000,
    of_dramatiq=5_000,
    of_celery=3_000,
    naps=5_000,
    sends_of_crowd=10_000,
    sends_of_many=4_000,
    sends=500,
    pings=100,
    delayed=10_000,
)

ROWS = [
    Row("noop", "no-op jobs", "jobs/s"),
    Row("noop_bare", "the bare loop", "jobs/s"),
    Row("noop_ratio", "no-op jobs, of the bare loop", "%", "75 or more"),
    Row("noop_cpu", "worker's CPU a no-op job", "µs"),
    Row("noop_cpu_bare", "the bare loop's CPU a job", "µs"),
    Row("noop_server_cpu", "RabbitMQ's CPU a no-op job", "µs"),
    Row("noop_server_cpu_bare", "RabbitMQ's CPU a job of the bare loop", "µs"),
    Row("dramatiq", "Dramatiq under gevent, the same jobs", "jobs/s"),
    Row("dramatiq_cpu", "Dramatiq's CPU a job", "µs"),
    Row("dramatiq_ratio", "no-op jobs, times Dramatiq", "x", "1.5 or more"),
    Row("celery", "Celery under gevent, the same jobs", "jobs/s"),
    Row("celery_cpu", "Celery's CPU a job", "µs"),
    Row("celery_ratio", "no-op jobs, times Celery", "x", "4 or more"),
    Row("crowd", "confirmed send() from 2,000 greenlets", "a second"),
    Row("crowd_bare", "pipelined confirms of the bare loop", "a second"),
    Row("crowd_ratio", "send() from 2,000 greenlets, of the pipelined", "%", "80 or more"),
    Row("crowd_cpu", "CPU of a send() from 2,000 greenlets", "µs"),
    Row("crowd_cpu_bare", "CPU of a pipelined publish", "µs"),
    Row("many", "confirmed send() from 100 greenlets", "a second"),
    Row("many_bare", "100 greenlets of bare pika that wait for theirs", "a second"),
    Row("many_ratio", "send() from 100 greenlets, of the waiting", "%", "80 or more"),
    Row("many_cpu", "CPU of a send() from 100 greenlets", "µs"),
    Row("many_cpu_bare", "CPU of a publish that is waited for", "µs"),
    Row("one", "confirmed send() from one thread", "a second"),
    Row("one_bare", "confirmed publishes of bare pika, one by one", "a second"),
    Row("one_ratio", "send() from one thread, of bare pika", "%", "80 or more"),
    Row("one_cpu", "CPU of a send() from one thread", "µs"),
    Row("one_cpu_bare", "CPU of a publish of bare pika", "µs"),
    Row("nap_ideal", "20,000 jobs of 100 ms at 1000, of the ideal", "%", "95 or more"),
    Row("nap_ideal_bare", "the bare loop's with 2,000 at hand, of the ideal", "%"),
    Row("nap_ideal_as_many", "the bare loop's with 1,000 at hand, as greenq, of the ideal", "%"),
    Row("nap_cpu", "worker's CPU a job of 100 ms", "µs"),
    Row("latency_p50", "from send() to the start of the job, idle worker, p50", "ms", "0.8 or less"),
    Row("latency_p99", "from send() to the start of the job, idle worker, p99", "ms", "2 or less"),
    Row("latency_send", "until send() returns, confirmed, p50", "ms"),
    Row("latency_p50_bare", "to a waiting bare loop, p50", "ms"),
    Row("latency_p99_bare", "to a waiting bare loop, p99", "ms"),
    Row("delayed_mib", "the worker's growth by 100,000 messages delayed by an hour", "MB", "under 5"),
]


class Peers:
    """The queues that greenq is compared with, where they are installed.

    Parameters:
      python(str): The interpreter that has them.
    """

    def __init__(self, python: str) -> None:
        self._python = python

    def have(self, module: str) -> bool:
        """Whether this one can be measured; says so if not."""
        # Its client, and its own way to be run by gevent.
        check = subprocess.run([self._python, "-c", f"import gevent, {module}"], capture_output=True)
        if check.returncode:
            print(f"  without {module.title()}: README.md says how to install it", file=sys.stderr)
        return not check.returncode

    def rate(self, program: str, count: int, command: Sequence[str]) -> tuple[float, float]:
        """Jobs a second of a peer, and its CPU a job in microseconds."""
        with queue_on_rabbitmq(count) as (queue, _):
            queue.run(program, str(count), python=self._python)
            queue.start(list(command))
            measured = queue.read_stretch()
        return count / measured["seconds"], measured["cpu_s"] / count * 1e6

    def dramatiq(self, count: int) -> tuple[float, float]:
        """Dramatiq's command for gevent, with one process."""
        command = Path(self._python).with_name("dramatiq-gevent")
        threads = ["--processes", "1", "--threads", str(DRAMATIQ_THREADS)]
        return self.rate(
            "peers/dramatiq_rabbitmq.py", count, [str(command), *threads, "peers.dramatiq_rabbitmq:broker"]
        )

    def celery(self, count: int) -> tuple[float, float]:
        """Celery's worker with its pool of gevent and what it can do without left out."""
        pool = ["--pool", "gevent", "--concurrency", str(CELERY_CONCURRENCY)]
        without = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
        command = [self._python, "-m", "celery", "--app", "peers.celery_rabbitmq", "worker", *pool, *without]
        return self.rate("peers/celery_rabbitmq.py", count, command)


@contextlib.contextmanager
def queue_on_rabbitmq(count: int = 0) -> Iterator[tuple[Bench, Server]]:
    """An empty queue on a node of its own."""
    with rabbitmq_server() as server, bench(count, url=server.url) as queue:
        yield queue, server


def bare_loop(actor_name: str, jobs: int, *options: str) -> Figures:
    """Run the bare loop on a node of its own."""
    with queue_on_rabbitmq() as (queue, server):
        where = ["--port", str(server.port), "--server-pid", str(server.pid)]
        return queue.run("bare_pika_loop.py", actor_name, *where, "--jobs", str(jobs), *options)


def _mean(name: str, *figures: Figures) -> float:
    return statistics.mean(each[name] for each in figures)


# -- what is measured


def noop(sizes: Sizes, peers: Peers) -> Figures:
    """No-op jobs of a queue that was filled before, between two runs of the bare loop."""
    count = sizes.noops
    before = bare_loop("noop", count)
    with queue_on_rabbitmq(count) as (queue, server):
        queue.fill("noop", count)
        queue.start_worker(1000)
        measured = queue.read_stretch(server.cpu_s)
    after = bare_loop("noop", count)
    per_s, bare = count / measured["seconds"], _mean("jobs_per_s", before, after)
    figures = {
        "noop": per_s,
        "noop_bare": bare,
        "noop_ratio": per_s / bare * 100,
        "noop_cpu": measured["cpu_s"] / count * 1e6,
        "noop_cpu_bare": _mean("cpu_us_per_job", before, after),
        "noop_server_cpu": measured["probed"] / count * 1e6,
        "noop_server_cpu_bare": _mean("server_cpu_us_per_job", before, after),
    }
    if peers.have("dramatiq"):
        rate, cpu = peers.dramatiq(sizes.of_dramatiq)
        figures |= {"dramatiq": rate, "dramatiq_cpu": cpu, "dramatiq_ratio": per_s / rate}
    if peers.have("celery"):
        rate, cpu = peers.celery(sizes.of_celery)
        figures |= {"celery": rate, "celery_cpu": cpu, "celery_ratio": per_s / rate}
    return figures


def crowd(sizes: Sizes, _: Peers) -> Figures:
    """Confirmed sends from two thousand greenlets, beside one that waits for nothing but the window."""
    count = sizes.sends_of_crowd
    return _in_turns(
        "crowd", ["greenlets", str(count), str(CROWD)], ["bare_pika_loop.py", "pipelined", "--jobs", str(count)]
    )


def many(sizes: Sizes, _: Peers) -> Figures:
    """Confirmed sends from a hundred greenlets, each of which waits for its own."""
    count = str(sizes.sends_of_many)
    bare = ["bare_pika_loop.py", "waiting", "--jobs", count, "--senders", str(MANY)]
    return _in_turns("many", ["greenlets", count, str(MANY)], bare)


def one(sizes: Sizes, _: Peers) -> Figures:
    """Confirmed sends one after the other, in a process that nothing has patched."""
    count = str(sizes.sends)
    return _in_turns("one", ["one", count], ["bare_pika_sender.py", "single", count])


def _in_turns(name: str, ours: list[str], bare: list[str]) -> Figures:
    """A producer of greenq and a bare one after the other, three times, on one node; the medians."""
    turns: list[Figures] = []
    with queue_on_rabbitmq() as (queue, server):
        for _turn in range(TURNS):
            mine = queue.run("jobs.py", *ours)
            queue.broker.flush("default")
            yardstick = queue.run(*bare, "--port", str(server.port))
            turns.append(
                {
                    name: mine["per_s"],
                    f"{name}_bare": yardstick["per_s"],
                    f"{name}_ratio": mine["per_s"] / yardstick["per_s"] * 100,
                    f"{name}_cpu": mine["cpu_us"],
                    f"{name}_cpu_bare": yardstick["cpu_us"],
                }
            )
    return {figure: statistics.median(turn[figure] for turn in turns) for figure in turns[0]}


def naps(sizes: Sizes, _: Peers) -> Figures:
    """Jobs that wait for 100 ms, a thousand at once."""
    count, ideal_per_s = sizes.naps, 1000 / NAP_S
    with queue_on_rabbitmq(count) as (queue, _server):
        queue.fill("nap", count)
        queue.start_worker(1000)
        measured = queue.read_stretch()
    ample = bare_loop("nap", count, "--concurrency", "1000")
    as_many = bare_loop("nap", count, "--concurrency", "1000", "--prefetch", "1000")
    return {
        "nap_ideal": count / measured["seconds"] / ideal_per_s * 100,
        "nap_ideal_bare": ample["jobs_per_s"] / ideal_per_s * 100,
        "nap_ideal_as_many": as_many["jobs_per_s"] / ideal_per_s * 100,
        "nap_cpu": measured["cpu_s"] / count * 1e6,
    }


def latency(sizes: Sizes, _: Peers) -> Figures:
    """How soon an idle worker starts what was sent, confirmed."""
    with queue_on_rabbitmq() as (queue, server):
        port = ["--port", str(server.port)]
        queue.start([sys.executable, "bare_pika_loop.py", "ping", *port])
        queue.read()
        bare = queue.run("bare_pika_sender.py", "latency", str(sizes.pings), *port)
    with queue_on_rabbitmq() as (queue, _server):
        queue.start_idle_worker(1000)
        measured = queue.send("latency", sizes.pings)
    return {
        "latency_p50": measured["p50_ms"],
        "latency_p99": measured["p99_ms"],
        "latency_send": measured["send_p50_ms"],
        "latency_p50_bare": bare["p50_ms"],
        "latency_p99_bare": bare["p99_ms"],
    }


def delays(sizes: Sizes, _: Peers) -> Figures:
    """What delayed messages take of a worker."""
    with queue_on_rabbitmq() as (queue, _server):
        worker = queue.start_idle_worker(1000)
        before = worker.memory_info().rss
        queue.fill("noop", sizes.delayed, delay=HOUR_MS)
        counts = queue.broker.queue_counts("default")
        growth = worker.memory_info().rss - before
    if (counts.ready, counts.delayed) != (0, sizes.delayed):
        # A figure of messages that are not there would mean nothing.
        raise SystemExit(f"{sizes.delayed} messages were to be delayed, but there are {counts}.")
    return {"delayed_mib": growth / 1e6}


MEASUREMENTS: dict[str, Callable[[Sizes, Peers], Figures]] = {
    "noop": noop,
    "crowd": crowd,
    "many": many,
    "one": one,
    "naps": naps,
    "latency": latency,
    "delays": delays,
}


def main() -> None:
    """Measure; print the table."""
    parser = arguments((__doc__ or "").splitlines()[0], list(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="much less of everything, to try the benchmark itself")
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        default=sys.executable,
        help="the interpreter that has the peers; default: this one",
    )
    args = parser.parse_args()
    sizes, peers = QUICK if args.quick else Sizes(), Peers(args.peers)

    def with_all(measurement: Callable[[Sizes, Peers], Figures]) -> Callable[[], Figures]:
        return lambda: measurement(sizes, peers)

    measure(args, {name: with_all(measurement) for name, measurement in MEASUREMENTS.items()}, ROWS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
