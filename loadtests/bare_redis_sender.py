"""The bare sender: what storing messages in Redis costs with no task queue around it.

    python bare_redis_sender.py single|batches|latency|idle COUNT --port 6379

The yardstick for greenq's producers: in a process that nothing has patched, with redis-py's
own client as it comes. ``single`` makes the two writes that a message needs, its payload
into a hash and its id to a list, by one EVALSHA each, of a payload that is ready-made;
``batches`` makes messages and stores a thousand of them at a time by a pipeline; ``latency``
sends to an idle bare loop, and ``idle`` to one that has been idle for long. Prints one line of
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import uuid
from collections.abc import Iterable
from typing import Any

import redis
from runs import percentile
from telling import PIPE_VARIABLE

READY, RESERVED, BODIES = "bare:ready", "bare:reserved", "bare:bodies"
BATCH = 1000
PAUSE_S, LONG_PAUSE_S = 0.005, 10

STORE = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[1])
return 1
"""


def fill(client: Any, count: int, actor_name: str = "noop") -> None:
    """Make this many messages and store them, a batch in one round trip."""
    for start in range(0, count, BATCH):
        store(client, range(start, min(start + BATCH, count)), actor_name)


def store(client: Any, numbers: Iterable[int], actor_name: str) -> None:
    """Make a message of each number; store all of them in one round trip."""
    bodies: dict[str, bytes] = {}
    for number in numbers:
        message_id = str(uuid.uuid4())
        bodies[message_id] = body(message_id, number, actor_name)
    with client.pipeline(transaction=False) as pipe:
        pipe.hset(BODIES, mapping=bodies)
        pipe.rpush(READY, *bodies)
        pipe.execute()


def body(message_id: str, number: int, actor_name: str = "noop") -> bytes:
    """A message as greenq has them."""
    message = {
        "queue_name": "default",
        "actor_name": actor_name,
        "args": [number],
        "kwargs": {},
        "options": {},
        "message_id": message_id,
        "message_timestamp": int(time.time() * 1000),
    }
    return json.dumps(message, separators=(",", ":")).encode()


def send_single(client: Any, count: int) -> dict[str, float]:
    """How many messages a second can be stored one by one."""
    payload = body(str(uuid.uuid4()), 0)
    sha = client.script_load(STORE)
    started, cpu_s = time.monotonic(), time.process_time()
    for number in range(count):
        client.evalsha(sha, 2, BODIES, READY, f"{number:021x}", payload)
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    return {"per_s": count / seconds, "cpu_us": cpu_s / count * 1e6}


def send_batches(client: Any, count: int) -> dict[str, float]:
    """How many messages a second can be made and stored, a thousand at a time."""
    started = time.monotonic()
    fill(client, count)
    return {"per_s": count / (time.monotonic() - started)}


def send_to_idle_loop(client: Any, count: int, pause_s: float = PAUSE_S) -> dict[str, float]:
    """How long it takes from storing a message until the bare loop runs it."""
    sha = client.script_load(STORE)
    latencies_ms = []
    with open(os.environ[PIPE_VARIABLE], "r+b", buffering=0) as pipe:
        for number in range(count):
            message_id = str(uuid.uuid4())
            payload = body(message_id, number, "ping")
            time.sleep(pause_s)  # the loop is to be idle, for as long as is measured
            sent = time.monotonic()
            client.evalsha(sha, 2, BODIES, READY, message_id, payload)
            answer = json.loads(pipe.readline())
            latencies_ms.append((answer["started"] - sent) * 1000)
    return {"p50_ms": percentile(latencies_ms, 50), "p99_ms": percentile(latencies_ms, 99)}


def send_to_long_idle_loop(client: Any, count: int) -> dict[str, float]:
    """The same with 10 seconds between two."""
    return send_to_idle_loop(client, count, LONG_PAUSE_S)


WAYS = {
    "single": send_single,
    "batches": send_batches,
    "latency": send_to_idle_loop,
    "idle": send_to_long_idle_loop,
}


def main() -> None:
    """Send; print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("count", type=int)
    parser.add_argument("--port", type=int, default=6379, help="of a server to fill; default: %(default)s")
    args = parser.parse_args()
    with redis.Redis(port=args.port) as client:
        client.delete(READY, RESERVED, BODIES)
        print(json.dumps(WAYS[args.way](client, args.count)))


if __name__ == "__main__":
    main()
