"""How fast the Redis broker is, beside a bare loop on the same machine in the same run.

    python redis_road.py [--runs 5] [--only NAME] [--json FILE] [--quick]

A benchmark, not a test: it prints a table and fails at no figure. Each measurement has a
redis-server of its own on a free port of loopback; workers are started by the real command.
All of it ends with the benchmark. jobs.py is what the workers run, bare_redis_loop.py and
bare_redis_sender.py are the yardsticks, benchmarks/apps/ has what runs on Dramatiq.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from processes import Bench, bench
from redis_server import Server, cores_apart, redis_server
from runs import Figures, Row, arguments, measure, percentile

from greenq.brokers.redis import RedisBroker
from greenq.verdict import Action, Verdict

NAP_S = 0.1
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
#: Time for a batch of messages to be stored before the instant at which they are due.
AHEAD_MS = 5_000
#: How long an idle worker is watched. The server ends its waits each half minute, so twice that.
WATCHED_S, CPU_WATCHED_S = 60, 10
#: Between two looks at an idle worker's memory and CPU: it has just begun.
SETTLE_S = 2
IDLE_QUEUES = 10
#: How many jobs a worker process counts before it tells so, where there are two.
MARK = 1_000
COUNTS = 200
#: How often two are measured in turns, or a rate is taken of which the median counts.
TURNS = 3


class Sizes(NamedTuple):
    """How much of everything."""

    noops: int = 100_000
    of_peer: int = 30_000
    of_two: int = 200_000
    naps: int = 20_000
    many_naps: int = 100_000
    sends: int = 10_000
    sends_of_many: int = 20_000
    batched: int = 100_000
    pings: int = 500
    long_idle_pings: int = 5
    delayed: int = 1_000_000
    due: int = 10_000
    later: int = 100_000
    dead: int = 1_000_000
    short_fills: int = 40
    longest: int = 1_000_000


#: To try the benchmark itself; its figures mean little.
QUICK = Sizes(
    noops=20_000,
    of_peer=5_000,
    of_two=40_000,
    naps=5_000,
    many_naps=20_000,
    sends=2_000,
    sends_of_many=5_000,
    batched=20_000,
    pings=100,
    long_idle_pings=1,
    delayed=50_000,
    later=10_000,
    dead=50_000,
    short_fills=10,
    longest=200_000,
)

ROWS = [
    Row("noop", "no-op jobs", "jobs/s"),
    Row("noop_bare", "the bare loop", "jobs/s"),
    Row("noop_ratio", "no-op jobs, of the bare loop", "%", "80 or more"),
    Row("noop_cpu", "worker's CPU a no-op job", "µs"),
    Row("noop_cpu_bare", "the bare loop's CPU a job", "µs"),
    Row("noop_redis_cpu", "Redis' CPU a no-op job", "µs"),
    Row("noop_redis_cpu_bare", "Redis' CPU a job of the bare loop", "µs"),
    Row("noop_redis_cpu_ratio", "Redis' CPU, times that of the bare loop", "x", "1.5 or less"),
    Row("peer", "Dramatiq under gevent, the same jobs", "jobs/s"),
    Row("peer_cpu", "Dramatiq's CPU a job", "µs"),
    Row("peer_redis_cpu", "Redis' CPU a job of Dramatiq", "µs"),
    Row("peer_ratio", "no-op jobs, times Dramatiq", "x", "4.5 or more"),
    Row("one", "no-op jobs, one process, longer", "jobs/s"),
    Row("two", "no-op jobs, two processes", "jobs/s"),
    Row("two_ratio", "two processes, times one", "x", "1.6 or more"),
    Row("send_one", "send() from one thread", "a second"),
    Row("send_bare", "single writes of the bare sender", "a second"),
    Row("send_ratio", "send() from one thread, of the bare sender", "%", "85 or more"),
    Row("send_cpu", "CPU of a send() from one thread", "µs"),
    Row("send_cpu_bare", "CPU of a single write of the bare sender", "µs"),
    Row("send_threads", "send() from 50 threads", "a second"),
    Row("send_greenlets", "send() from 50 greenlets", "a second"),
    Row("many", "send_many(), a thousand at a time", "a second"),
    Row("many_bare", "batches of the bare sender", "a second"),
    Row("many_ratio", "send_many(), of the bare sender", "%", "55 or more"),
    Row("nap_ideal", "20,000 jobs of 100 ms at 1000, of the ideal", "%", "96 or more"),
    Row("nap_ideal_bare", "the bare loop's, of the ideal", "%"),
    Row("nap_cpu", "worker's CPU a job of 100 ms", "µs"),
    Row("naps", "100,000 jobs of 100 ms at 5000", "jobs/s"),
    Row("naps_bare", "the bare loop's", "jobs/s"),
    Row("naps_ratio", "100,000 jobs of 100 ms at 5000, of the bare loop", "%", "85 or more"),
    Row("latency_p50", "from send() to the start of the job, idle worker, p50", "ms", "0.4 or less"),
    Row("latency_p99", "from send() to the start of the job, idle worker, p99", "ms", "1.5 or less"),
    Row("latency_send", "of which send() itself, p50", "ms"),
    Row("latency_p50_bare", "to a waiting bare loop, p50", "ms"),
    Row("latency_p99_bare", "to a waiting bare loop, p99", "ms"),
    Row("idle_latency_p50", "after 10 s of idleness, p50", "ms"),
    Row("idle_latency_max", "after 10 s of idleness, the longest", "ms"),
    Row("idle_latency_p50_bare", "to a bare loop after 10 s of idleness, p50", "ms"),
    Row("delayed_mib", "the worker's growth by 1,000,000 messages delayed by a day", "MiB", "under 5"),
    Row("delayed_cpu", "the worker's CPU beside them", "%", "under 2"),
    Row("due_p50", "10,000 due at one instant: how late, p50", "ms"),
    Row("due_p99", "10,000 due at one instant: how late, p99", "ms", "1000 or less"),
    Row("due_max", "1,000 due, 100,000 others an hour later: how late at most", "ms", "100 or less"),
    Row("counts", "get_queue_message_counts() with 1,000,000 dead letters, p50", "ms", "under 10"),
    Row("counts_max", "get_queue_message_counts(), the longest of 200", "ms", "under 10"),
    Row("counts_bare", "the lengths by a pipeline of redis-py, p50", "ms"),
    Row("short", "no-op jobs, 1,000 waiting", "jobs/s"),
    Row("long", "no-op jobs, 100,000 waiting", "jobs/s"),
    Row("longest", "no-op jobs, 1,000,000 waiting", "jobs/s"),
    Row("lengths_ratio", "the slowest of these, of the quickest", "%", "90 or more"),
    Row("idle_commands", "commands of an idle worker with 10 queues", "a second", "1 or less"),
    Row("idle_cpu", "CPU of an idle worker with 10 queues", "%"),
]


@contextlib.contextmanager
def queue_on_redis(count: int = 0, *, queues: int = 1) -> Iterator[tuple[Bench, Server]]:
    """An empty queue on a server of its own."""
    with redis_server() as server, bench(count, url=server.url, queues=queues) as queue:
        yield queue, server


def bare_loop(actor_name: str, jobs: int, concurrency: int | None = None) -> Figures:
    """Run the bare loop on a server of its own."""
    limit = [] if concurrency is None else ["--concurrency", str(concurrency)]
    with queue_on_redis() as (queue, server):
        return queue.run("bare_redis_loop.py", actor_name, "--port", str(server.port), "--jobs", str(jobs), *limit)


def bare_sender(way: str, count: int) -> Figures:
    """Run the bare sender on a server of its own."""
    with queue_on_redis() as (queue, server), cores_apart(server):
        return queue.run("bare_redis_sender.py", way, str(count), "--port", str(server.port))


def _mean(name: str, *figures: Figures) -> float:
    return statistics.mean(each[name] for each in figures)


# -- what is measured


def noop(sizes: Sizes) -> Figures:
    """No-op jobs of a queue that was filled before, between two runs of the bare loop."""
    count = sizes.noops
    before = bare_loop("noop", count)
    with queue_on_redis(count) as (queue, server):
        queue.fill("noop", count)
        queue.start_worker(1000)
        measured = queue.read_stretch(server.cpu_s)
    after = bare_loop("noop", count)
    per_s, bare = count / measured["seconds"], _mean("jobs_per_s", before, after)
    redis_cpu, redis_cpu_bare = measured["probed"] / count * 1e6, _mean("redis_cpu_us_per_job", before, after)
    figures = {
        "noop": per_s,
        "noop_bare": bare,
        "noop_ratio": per_s / bare * 100,
        "noop_cpu": measured["cpu_s"] / count * 1e6,
        "noop_cpu_bare": _mean("cpu_us_per_job", before, after),
        "noop_redis_cpu": redis_cpu,
        "noop_redis_cpu_bare": redis_cpu_bare,
        "noop_redis_cpu_ratio": redis_cpu / redis_cpu_bare,
    }
    peer = _peer(sizes.of_peer)
    if peer:
        figures |= {**peer, "peer_ratio": per_s / peer["peer"]}
    return figures


def _peer(count: int) -> Figures:
    """The same jobs on Dramatiq, if it is installed."""
    command = Path(sys.executable).with_name("dramatiq-gevent")
    if importlib.util.find_spec("dramatiq") is None or not command.exists():
        print("  without Dramatiq: to compare with it, pip install '.[loadtests]'", file=sys.stderr)
        return {}
    with queue_on_redis(count) as (queue, server):
        queue.run("benchmarks/apps/app_dramatiq.py", "fill", "noop", str(count))
        queue.start([str(command), "--processes", "1", "--threads", "1000", "app_dramatiq:broker"])
        measured = queue.read_stretch(server.cpu_s)
    return {
        "peer": count / measured["seconds"],
        "peer_cpu": measured["cpu_s"] / count * 1e6,
        "peer_redis_cpu": measured["probed"] / count * 1e6,
    }


def pair(sizes: Sizes) -> Figures:
    """The same jobs with one worker process and with two."""
    one, two = _rate_of(sizes.of_two, 1), _rate_of(sizes.of_two, 2)
    return {"one": one, "two": two, "two_ratio": two / one}


def _rate_of(count: int, processes: int) -> float:
    """Jobs a second while all the processes are at work: from when the last of them has told of
    its first thousand until the first of them has told of its last.
    """
    marks: dict[int, list[float]] = {}
    told = 0
    with queue_on_redis(MARK) as (queue, _):
        queue.fill("noop", count)
        queue.start_worker(1000, processes)
        # Each process has fewer than a thousand jobs left of which it does not tell.
        while told < count - (processes - 1) * MARK:
            answer = queue.read()
            if "ended" in answer:
                marks.setdefault(int(answer["pid"]), []).append(answer["ended"])
                told += MARK
    begins = max(times[0] for times in marks.values())
    ends = min(times[-1] for times in marks.values())
    within = sum(begins < time <= ends for times in marks.values() for time in times)
    return within * MARK / (ends - begins)


def send(sizes: Sizes) -> Figures:
    """How fast producers can send."""
    one, one_bare = _in_turns(lambda: _send("one", sizes.sends), lambda: bare_sender("single", sizes.sends))
    many, many_bare = _in_turns(lambda: _send("batches", sizes.batched), lambda: bare_sender("batches", sizes.batched))
    return {
        "send_one": one["per_s"],
        "send_bare": one_bare["per_s"],
        "send_ratio": one["per_s"] / one_bare["per_s"] * 100,
        "send_cpu": one["cpu_us"],
        "send_cpu_bare": one_bare["cpu_us"],
        "send_threads": _send("threads", sizes.sends_of_many)["per_s"],
        "send_greenlets": _send("greenlets", sizes.sends_of_many)["per_s"],
        "many": many["per_s"],
        "many_bare": many_bare["per_s"],
        "many_ratio": many["per_s"] / many_bare["per_s"] * 100,
    }


def _send(way: str, count: int) -> Figures:
    with queue_on_redis() as (queue, server), cores_apart(server):
        return queue.send(way, count)


def _in_turns(measured: Callable[[], Figures], yardstick: Callable[[], Figures]) -> tuple[Figures, Figures]:
    """The medians of both, measured one after the other, three times."""
    turns = [(measured(), yardstick()) for _ in range(TURNS)]
    return _medians([turn[0] for turn in turns]), _medians([turn[1] for turn in turns])


def _medians(runs: list[Figures]) -> Figures:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def naps(sizes: Sizes) -> Figures:
    """Jobs that wait for 100 ms, a thousand at once, and five thousand."""
    few, many = _naps(sizes.naps, 1000), _naps(sizes.many_naps, 5000)
    few_bare, many_bare = bare_loop("nap", sizes.naps, 1000), bare_loop("nap", sizes.many_naps, 5000)
    ideal_per_s = 1000 / NAP_S
    return {
        "nap_ideal": few["jobs_per_s"] / ideal_per_s * 100,
        "nap_ideal_bare": few_bare["jobs_per_s"] / ideal_per_s * 100,
        "nap_cpu": few["cpu_us_per_job"],
        "naps": many["jobs_per_s"],
        "naps_bare": many_bare["jobs_per_s"],
        "naps_ratio": many["jobs_per_s"] / many_bare["jobs_per_s"] * 100,
    }


def _naps(count: int, concurrency: int) -> Figures:
    with queue_on_redis(count) as (queue, _):
        queue.fill("nap", count)
        queue.start_worker(concurrency)
        measured = queue.read_stretch()
    return {"jobs_per_s": count / measured["seconds"], "cpu_us_per_job": measured["cpu_s"] / count * 1e6}


def latency(sizes: Sizes) -> Figures:
    """How soon an idle worker starts what was sent, at once and after it was idle for long."""
    with queue_on_redis() as (queue, server):
        port = ["--port", str(server.port)]
        queue.start([sys.executable, "bare_redis_loop.py", "ping", *port])
        queue.read()
        bare = queue.run("bare_redis_sender.py", "latency", str(sizes.pings), *port)
        idle_bare = queue.run("bare_redis_sender.py", "idle", str(sizes.long_idle_pings), *port)
    with queue_on_redis() as (queue, _):
        queue.start_idle_worker(1000)
        measured = queue.send("latency", sizes.pings)
        idle = queue.send("idle", sizes.long_idle_pings)
    return {
        "latency_p50": measured["p50_ms"],
        "latency_p99": measured["p99_ms"],
        "latency_send": measured["send_p50_ms"],
        "latency_p50_bare": bare["p50_ms"],
        "latency_p99_bare": bare["p99_ms"],
        "idle_latency_p50": idle["p50_ms"],
        "idle_latency_max": idle["p99_ms"],  # of so few the last
        "idle_latency_p50_bare": idle_bare["p50_ms"],
    }


def delays(sizes: Sizes) -> Figures:
    """What delayed messages take of a worker, and how late they are when they are due."""
    with queue_on_redis() as (queue, _):
        worker = queue.start_idle_worker(1000)
        time.sleep(SETTLE_S)
        before = worker.memory_info().rss
        queue.fill("noop", sizes.delayed, delay=DAY_MS)
        cpu_percent = _cpu_percent(worker, CPU_WATCHED_S)
        growth = worker.memory_info().rss - before
        _check_counts(queue, (0, sizes.delayed, 0))
    with queue_on_redis(sizes.due) as (queue, _):
        together = _lateness(queue, sizes.due)
    with queue_on_redis(MARK) as (queue, _):
        queue.fill("noop", sizes.later, delay=HOUR_MS)
        before_others = _lateness(queue, MARK)
    return {
        "delayed_mib": growth / 2**20,
        "delayed_cpu": cpu_percent,
        "due_p50": together["p50_ms"],
        "due_p99": together["p99_ms"],
        "due_max": before_others["max_ms"],
    }


def _cpu_percent(worker: psutil.Process, seconds: float) -> float:
    """What a process uses of a core over this time."""
    before = worker.cpu_times()
    time.sleep(seconds)
    after = worker.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds * 100


def _lateness(queue: Bench, count: int) -> Figures:
    """How late jobs begin that are all due at one instant."""
    queue.start_idle_worker(1000)
    queue.fill("be_due", count, eta=int(time.time() * 1000) + AHEAD_MS)
    return queue.read()


def dead(sizes: Sizes) -> Figures:
    """How long counting takes where very many messages have died."""
    with queue_on_redis() as (queue, server):
        queue.fill("noop", sizes.dead)
        broker = _broker(queue)
        consumer = broker.consume("default")
        left = sizes.dead
        while left:
            messages = consumer.fetch(500)
            consumer.complete([Verdict(Action.NACK, message, reason="for the benchmark") for message in messages])
            left -= len(messages)
        counts_ms = _times_ms(lambda: broker.get_queue_message_counts("default"))
        _check_counts(queue, (0, 0, sizes.dead))
        of = broker.layout.of("default")

        def lengths() -> None:
            with server.client.pipeline(transaction=False) as pipe:
                pipe.llen(of.ready)
                pipe.zcard(of.delayed)
                pipe.zcard(of.dead)
                pipe.execute()

        bare_ms = _times_ms(lengths)
        consumer.close()
    return {
        "counts": statistics.median(counts_ms),
        "counts_max": max(counts_ms),
        "counts_bare": statistics.median(bare_ms),
    }


def _check_counts(queue: Bench, expected: tuple[int, int, int]) -> None:
    """A figure of messages that are not there would mean nothing."""
    counts = _broker(queue).get_queue_message_counts("default")
    if counts != expected:
        raise SystemExit(f"Ready, delayed and dead were to be {expected}, but are {counts}.")


def _broker(queue: Bench) -> RedisBroker:
    assert isinstance(queue.broker, RedisBroker)
    return queue.broker


def _times_ms(call: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(COUNTS):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return times


def lengths(sizes: Sizes) -> Figures:
    """Whether it matters how many messages wait."""
    figures = {
        "short": _short_fills(sizes.short_fills),
        "long": statistics.median(_rates_of(sizes.noops, sizes.noops, 1)[0] for _ in range(TURNS)),
        "longest": statistics.median(_rates_of(sizes.noops, sizes.longest, TURNS)),
    }
    return {**figures, "lengths_ratio": min(figures.values()) / max(figures.values()) * 100}


def _short_fills(fills: int) -> float:
    """A thousand messages at once, again and again; each from when they are stored until all have run."""
    rates = []
    with queue_on_redis(MARK) as (queue, _):
        queue.start_idle_worker(1000)
        for _ in range(fills):
            queue.fill("noop", MARK)
            stored = time.monotonic()
            stretch = queue.read_stretch()
            # The server has them, and may have given them out, before it has answered.
            rates.append(MARK / (stretch["ended"] - min(stored, stretch["began"])))
    return percentile(rates, 50)


def _rates_of(count: int, waiting: int, times: int) -> list[float]:
    """Jobs a second of the first this many jobs of all that wait, and of the next, some times."""
    with queue_on_redis(count) as (queue, _):
        queue.fill("noop", waiting)
        queue.start_worker(1000)
        return [count / float(queue.read_stretch()["seconds"]) for _ in range(times)]


def idle(_: Sizes) -> Figures:
    """What a worker with nothing to do asks of the server, and of its machine."""
    with queue_on_redis(queues=IDLE_QUEUES) as (queue, server):
        worker = queue.start_idle_worker(1000)
        time.sleep(SETTLE_S)
        with server.client.monitor() as monitor:
            cpu_percent = _cpu_percent(worker, WATCHED_S)
            server.client.echo("watched")
            commands = 0
            while True:
                seen = monitor.next_command()
                if seen["command"] == "ECHO watched":
                    break
                # What scripts do is no command of the worker.
                commands += seen["client_type"] != "lua"
    return {"idle_commands": commands / WATCHED_S, "idle_cpu": cpu_percent}


MEASUREMENTS: dict[str, Callable[[Sizes], Figures]] = {
    "noop": noop,
    "pair": pair,
    "send": send,
    "naps": naps,
    "latency": latency,
    "delays": delays,
    "dead": dead,
    "lengths": lengths,
    "idle": idle,
}


def main() -> None:
    """Measure; print the table."""
    parser = arguments((__doc__ or "").splitlines()[0], list(MEASUREMENTS))
    parser.add_argument("--quick", action="store_true", help="much less of everything, to try the benchmark itself")
    args = parser.parse_args()
    sizes = QUICK if args.quick else Sizes()

    def sized(measurement: Callable[[Sizes], Figures]) -> Callable[[], Figures]:
        return lambda: measurement(sizes)

    measure(args, {name: sized(measurement) for name, measurement in MEASUREMENTS.items()}, ROWS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
