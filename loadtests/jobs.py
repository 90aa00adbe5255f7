"""What runs in the processes that are measured: the actors, and the ways to send.

A worker imports it as ``jobs:broker``; it tells road.py what it saw through a named pipe,
one line of JSON for each thing that road.py waits for. As a program it is a producer:

    python jobs.py one|threads|greenlets|latency COUNT

Times are those of the monotonic clock, which all processes of a machine share.
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

import greenq
from greenq.brokers.sqlite import SqliteBroker

#: The file of the queue, and the pipe to road.py.
PATH_VARIABLE = "GREENQ_LOADTEST_PATH"
PIPE_VARIABLE = "GREENQ_LOADTEST_PIPE"
#: How many jobs road.py waits for.
COUNT_VARIABLE = "GREENQ_LOADTEST_COUNT"

SENDERS = 50
PARKED_S = 600
LIMIT_MS = 2000
#: Between two sends of which the latency is measured, so that the worker is idle again.
PAUSE_S = 0.005

broker = SqliteBroker(os.environ[PATH_VARIABLE])
greenq.set_broker(broker)

_expected = int(os.environ.get(COUNT_VARIABLE, "0"))
_started = 0
_ended = 0
_first_start = 0.0
_first_cpu_s = 0.0
_late_ms: list[float] = []


@greenq.actor
def noop(number: int) -> None:
    """Return at once."""
    _note_start()
    _note_end()


@greenq.actor
def nap(number: int) -> None:
    """Wait for 100 ms, as for an answer from the network."""
    _note_start()
    time.sleep(0.1)
    _note_end()


@greenq.actor(time_limit=PARKED_S * 2000)
def park(number: int) -> None:
    """Wait until the worker is killed."""
    _note_start()
    if _started == _expected:
        tell(all_started=time.monotonic())
    time.sleep(PARKED_S)


@greenq.actor(time_limit=LIMIT_MS, max_retries=0)
def overstay(number: int) -> None:
    """Wait for longer than allowed; tell how late the interrupts of all came."""
    started = time.monotonic()
    try:
        time.sleep(PARKED_S)
    finally:
        _late_ms.append((time.monotonic() - started) * 1000 - LIMIT_MS)
        if len(_late_ms) == _expected:
            _late_ms.sort()
            tell(p50_ms=_late_ms[_expected // 2], p99_ms=_late_ms[_expected * 99 // 100])


@greenq.actor
def ping(number: int) -> None:
    """Say when it started, and where."""
    tell(started=time.monotonic(), pid=os.getpid())


def _note_start() -> None:
    global _started, _first_start, _first_cpu_s
    if not _started:
        _first_start, _first_cpu_s = time.monotonic(), time.process_time()
    _started += 1


def _note_end() -> None:
    global _ended
    _ended += 1
    if _ended == _expected:
        tell(seconds=time.monotonic() - _first_start, cpu_s=time.process_time() - _first_cpu_s)


def tell(**what: float) -> None:
    """Write a line to road.py."""
    pipe = os.open(os.environ[PIPE_VARIABLE], os.O_WRONLY)
    try:
        os.write(pipe, json.dumps(what).encode() + b"\n")
    finally:
        os.close(pipe)


# -- the producers


def send_from_one(count: int) -> dict[str, float]:
    """Send this many messages, one after the other."""
    started = time.monotonic()
    for number in range(count):
        noop.send(number)
    return {"per_s": round(count / (time.monotonic() - started))}


def send_from_many(count: int) -> dict[str, float]:
    """Send this many messages from 50 threads, which are greenlets where gevent has patched."""

    def send() -> None:
        for number in range(count // SENDERS):
            noop.send(number)

    senders = [threading.Thread(target=send) for _ in range(SENDERS)]
    started = time.monotonic()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return {"per_s": round(count / (time.monotonic() - started))}


def send_to_idle_worker(count: int) -> dict[str, float]:
    """Send messages to a worker that has nothing else to do; how long until each starts."""
    latencies_ms = []
    with open(os.environ[PIPE_VARIABLE], "r+b", buffering=0) as pipe:
        for number in range(count):
            time.sleep(PAUSE_S)
            sent = time.monotonic()
            ping.send(number)
            answer = json.loads(pipe.readline())
            latencies_ms.append((answer["started"] - sent) * 1000)
    latencies_ms.sort()
    return {"p50_ms": round(latencies_ms[count // 2], 2), "p99_ms": round(latencies_ms[count * 99 // 100], 2)}


def main() -> None:
    """Send; print one line of JSON."""
    ways = {
        "one": send_from_one,
        "threads": send_from_many,
        "greenlets": send_from_many,
        "latency": send_to_idle_worker,
    }
    way, count = sys.argv[1], int(sys.argv[2])
    print(json.dumps(ways[way](count)))
    broker.close()


if __name__ == "__main__":
    main()
