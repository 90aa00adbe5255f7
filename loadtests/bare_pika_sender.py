"""The bare sender: what a confirmed publish costs with pika and no task queue around it.

    python bare_pika_sender.py single|latency COUNT --port 5672

The yardstick for a producer that sends one message after the other: in a process that nothing
has patched, on pika's BlockingConnection, each persistent and confirmed before the next.
``single`` publishes a payload that is ready-made; ``latency`` sends to an idle bare loop. What
many greenlets can send is in bare_pika_loop.py. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import uuid
from typing import Any

import pika
from runs import percentile
from telling import PIPE_VARIABLE

QUEUE = "bare"
PERSISTENT = pika.BasicProperties(delivery_mode=2)
PAUSE_S = 0.005


def body(number: int, actor_name: str = "noop") -> bytes:
    """A message as greenq has them."""
    message = {
        "queue_name": "default",
        "actor_name": actor_name,
        "args": [number],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.uuid4()),
        "message_timestamp": int(time.time() * 1000),
    }
    return json.dumps(message, separators=(",", ":")).encode()


def send_single(channel: Any, count: int) -> dict[str, float]:
    """How many messages a second can be stored one by one."""
    payload = body(0)
    started, cpu_s = time.monotonic(), time.process_time()
    for _ in range(count):
        channel.basic_publish("", QUEUE, payload, PERSISTENT)
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    return {"per_s": count / seconds, "cpu_us": cpu_s / count * 1e6}


def send_to_idle_loop(channel: Any, count: int) -> dict[str, float]:
    """How long it takes from publishing a message until the bare loop runs it."""
    latencies_ms = []
    with open(os.environ[PIPE_VARIABLE], "r+b", buffering=0) as pipe:
        for number in range(count):
            payload = body(number, "ping")
            time.sleep(PAUSE_S)
            sent = time.monotonic()
            channel.basic_publish("", QUEUE, payload, PERSISTENT)
            answer = json.loads(pipe.readline())
            latencies_ms.append((answer["started"] - sent) * 1000)
    return {"p50_ms": percentile(latencies_ms, 50), "p99_ms": percentile(latencies_ms, 99)}


WAYS = {"single": send_single, "latency": send_to_idle_loop}


def main() -> None:
    """Send; print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("count", type=int)
    parser.add_argument("--port", type=int, default=5672, help="of a server to fill; default: %(default)s")
    args = parser.parse_args()
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", args.port))
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True)
    channel.queue_purge(QUEUE)
    channel.confirm_delivery()
    print(json.dumps(WAYS[args.way](channel, args.count)))
    connection.close()


if __name__ == "__main__":
    main()
