"""What runs in the processes that are measured: the actors, and the ways to send.

A worker imports it as ``jobs:broker``; what it sees it tells the benchmark through a pipe,
see telling.py. As a program it is a producer:

    python jobs.py one|threads|greenlets|batches|latency|idle COUNT [SENDERS]

The broker is the one that GREENQ_BROKER_URL names.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.argv[1] == "greenlets":
    from gevent import monkey

    monkey.patch_all()

import json
import os
import threading
import time
from collections.abc import Callable

from runs import percentile
from telling import PIPE_VARIABLE, Stretch, expected, tell

import greenq
from greenq.middleware.prometheus import Prometheus

#: Whether the middleware Prometheus counts, too.
METRICS_VARIABLE = "LOADTEST_METRICS"
#: How many queues a worker consumes.
QUEUES_VARIABLE = "LOADTEST_QUEUES"

SENDERS = 50
BATCH = 1000
PARKED_S = 600
LIMIT_MS = 2000
#: Between two sends of which the latency is measured, so that the worker is idle again; and
#: so that it has been idle for long.
PAUSE_S, LONG_PAUSE_S = 0.005, 10

broker = greenq.get_broker()
if os.environ.get(METRICS_VARIABLE):
    broker.add_middleware(Prometheus())
for _number in range(1, int(os.environ.get(QUEUES_VARIABLE, "1"))):
    broker.declare_queue(f"queue-{_number}")

_stretch = Stretch(expected)
_parked = 0
_late_ms: list[float] = []


@greenq.actor
def noop(number: int) -> None:
    """Return at once."""
    _stretch.begin()
    _stretch.end()


@greenq.actor
def nap(number: int) -> None:
    """Wait for 100 ms, as for an answer from the network."""
    _stretch.begin()
    time.sleep(0.1)
    _stretch.end()


@greenq.actor(time_limit=PARKED_S * 2000)
def park(number: int) -> None:
    """Wait until the worker is killed."""
    global _parked
    _parked += 1
    if _parked == expected:
        tell(all_started=time.monotonic())
    time.sleep(PARKED_S)


@greenq.actor(time_limit=LIMIT_MS, max_retries=0)
def overstay(number: int) -> None:
    """Wait for longer than allowed; tell how late the interrupts of all came."""
    started = time.monotonic()
    try:
        time.sleep(PARKED_S)
    finally:
        _note_late((time.monotonic() - started) * 1000 - LIMIT_MS)


@greenq.actor
def be_due(eta_ms: int) -> None:
    """Tell how late all of them began."""
    _note_late(time.time() * 1000 - eta_ms)


@greenq.actor
def ping(number: int) -> None:
    """Say when it started, and where."""
    tell(started=time.monotonic(), pid=os.getpid())


def _note_late(late_ms: float) -> None:
    _late_ms.append(late_ms)
    if len(_late_ms) == expected:
        tell(p50_ms=percentile(_late_ms, 50), p99_ms=percentile(_late_ms, 99), max_ms=max(_late_ms))


# -- the producers


def send_from_one(count: int) -> dict[str, float]:
    """Send this many messages, one after the other."""
    noop.send(0)  # connects
    started, cpu_s = time.monotonic(), time.process_time()
    for number in range(count):
        noop.send(number)
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    return {"per_s": count / seconds, "cpu_us": cpu_s / count * 1e6}


def send_from_threads(count: int) -> dict[str, float]:
    """Send this many messages from 50 threads, or as many as SENDERS says."""

    def start(send: Callable[[], None]) -> Callable[[], object]:
        thread = threading.Thread(target=send)
        thread.start()
        return thread.join

    return _send_from_many(count, start)


def send_from_greenlets(count: int) -> dict[str, float]:
    """The same from greenlets of a process that gevent has patched."""
    import gevent

    return _send_from_many(count, lambda send: gevent.spawn(send).get)


def _send_from_many(count: int, start: Callable[[Callable[[], None]], Callable[[], object]]) -> dict[str, float]:
    many = int(sys.argv[3]) if len(sys.argv) > 3 else SENDERS
    begin = threading.Event()

    def send() -> None:
        begin.wait()
        for number in range(count // many):
            noop.send(number)

    joins = [start(send) for _ in range(many)]
    # What it takes to start them, and to connect, is not in the figure.
    noop.send(0)
    started, cpu_s = time.monotonic(), time.process_time()
    begin.set()
    for join in joins:
        join()
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    return {"per_s": count / seconds, "cpu_us": cpu_s / count * 1e6}


def send_in_batches(count: int) -> dict[str, float]:
    """Send this many messages, a thousand at a time."""
    started = time.monotonic()
    for start in range(0, count, BATCH):
        noop.send_many((number,) for number in range(start, start + BATCH))
    return {"per_s": count / (time.monotonic() - started)}


def send_to_idle_worker(count: int, pause_s: float = PAUSE_S) -> dict[str, float]:
    """Send messages to a worker that has nothing else to do; how long until each starts."""
    latencies_ms, sends_ms = [], []
    with open(os.environ[PIPE_VARIABLE], "r+b", buffering=0) as pipe:
        for number in range(count):
            time.sleep(pause_s)
            sent = time.monotonic()
            ping.send(number)
            sends_ms.append((time.monotonic() - sent) * 1000)
            answer = json.loads(pipe.readline())
            latencies_ms.append((answer["started"] - sent) * 1000)
    return {
        "p50_ms": percentile(latencies_ms, 50),
        "p99_ms": percentile(latencies_ms, 99),
        "send_p50_ms": percentile(sends_ms, 50),
    }


def send_to_long_idle_worker(count: int) -> dict[str, float]:
    """The same with 10 seconds between two."""
    return send_to_idle_worker(count, LONG_PAUSE_S)


def main() -> None:
    """Send; print one line of JSON."""
    ways = {
        "one": send_from_one,
        "threads": send_from_threads,
        "greenlets": send_from_greenlets,
        "batches": send_in_batches,
        "latency": send_to_idle_worker,
        "idle": send_to_long_idle_worker,
    }
    way, count = sys.argv[1], int(sys.argv[2])
    print(json.dumps(ways[way](count)))
    broker.close()


if __name__ == "__main__":
    main()
