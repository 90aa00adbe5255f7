"""The bare loop: what Redis and gevent allow on this machine with no task queue around them.

    python bare_redis_loop.py noop|nap|ping --port 6379 [--jobs N] [--concurrency N]

The yardstick that redis_road.py lays beside greenq. It does what no queue can leave out and
nothing else: fetches up to 500 messages by one script that also reserves them; each is
decoded from JSON and run in a greenlet, with one timer armed and five hooks called before
and after; one greenlet settles those that are done while the next batch gathers. No
retries, leases or order of priority, no care for errors. Without ``--concurrency`` it
fetches as fast as it can, however much is under way. ``ping`` waits for messages by a
blocking command that moves nothing, tells when each began, and goes on until it is killed.
Prints one line of JSON.
"""
# ruff: noqa: E402 - gevent has to come before whatever waits

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import gevent
import redis
from bare_redis_sender import BODIES, READY, RESERVED, fill
from gevent.event import Event
from telling import tell

BATCH = 500
HOOKS = 5
TIME_LIMIT_S = 600
NAP_S = 0.1
BLOCK_S = 30

FETCH = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {} end
redis.call('SADD', KEYS[2], unpack(ids))
return redis.call('HMGET', KEYS[3], unpack(ids))
"""


class Loop:
    """Fetches, runs and settles jobs until there are none.

    Parameters:
      client: Of redis-py.
      jobs(int): How many there are.
      concurrency(int): How many may be under way at once. Default: all.
      actors(Mapping[str, Callable]): What messages name. Default: noop, nap and ping.
    """

    def __init__(
        self,
        client: Any,
        jobs: int,
        concurrency: int | None = None,
        actors: Mapping[str, Callable[[int], None]] | None = None,
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._free = concurrency or jobs
        self._fetch = client.register_script(FETCH)
        self._timer: Callable[[float], Any] = gevent.get_hub().loop.timer
        self._actors = actors or {"noop": _noop, "nap": _nap, "ping": _ping}
        self._before = [_hook] * HOOKS
        self._after = [_hook] * HOOKS
        self._finished: list[str] = []
        self._done = 0
        self._wanted = Event()
        self._room = Event()
        self._all_done = Event()

    def run(self) -> None:
        """Go on until the last job has run."""
        helpers = [gevent.spawn(self._settle), gevent.spawn(self._consume)]
        self._all_done.wait()
        gevent.killall(helpers)

    def _consume(self) -> None:
        while self._done < self._jobs:
            self._wait_for_room()
            if not self._start_some():
                gevent.sleep(0.001)

    def answer(self) -> None:
        """Wait for messages and run them, until killed."""
        gevent.spawn(self._settle)
        # A connection of its own, which waits longer than others may.
        port = self._client.connection_pool.connection_kwargs["port"]
        waiting: Any = redis.Redis(port=port, socket_timeout=BLOCK_S * 2)
        while True:
            self._wait_for_room()
            waiting.execute_command("BLMOVE", READY, READY, "LEFT", "LEFT", BLOCK_S)
            self._start_some()

    def _wait_for_room(self) -> None:
        if self._free <= 0:
            self._room.clear()
            self._room.wait()

    def _start_some(self) -> int:
        bodies = self._fetch(keys=[READY, RESERVED, BODIES], args=[min(BATCH, self._free)])
        self._free -= len(bodies)
        for body in bodies:
            gevent.spawn(self._run_one, body)
        return len(bodies)

    def _run_one(self, body: bytes) -> None:
        message = json.loads(body)
        for hook in self._before:
            hook(message)
        timer = self._timer(TIME_LIMIT_S)
        timer.start(int)
        try:
            self._actors[message["actor_name"]](*message["args"], **message["kwargs"])
        finally:
            timer.close()
        for hook in self._after:
            hook(message)
        self._finished.append(message["message_id"])
        self._wanted.set()
        self._free += 1
        if self._free == 1:
            self._room.set()
        self._done += 1
        if self._done == self._jobs:
            self._all_done.set()

    def _settle(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            ids, self._finished = self._finished, []
            with self._client.pipeline(transaction=False) as pipe:
                pipe.srem(RESERVED, *ids)
                pipe.hdel(BODIES, *ids)
                pipe.execute()


def _hook(message: dict[str, Any]) -> None:
    message["options"].get("nothing")


def _noop(number: int) -> None:
    pass


def _nap(number: int) -> None:
    time.sleep(NAP_S)


def _ping(number: int) -> None:
    tell(started=time.monotonic())


def measure(client: Any, actor_name: str, jobs: int, concurrency: int | None) -> dict[str, float]:
    """How fast the loop runs jobs that wait already, and what that costs."""
    fill(client, jobs, actor_name)
    loop = Loop(client, jobs, concurrency)
    redis_cpu_s, cpu_s, started = _redis_cpu_s(client), time.process_time(), time.monotonic()
    loop.run()
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    redis_cpu_s = _redis_cpu_s(client) - redis_cpu_s
    return {
        "jobs_per_s": jobs / seconds,
        "cpu_us_per_job": cpu_s / jobs * 1e6,
        "redis_cpu_us_per_job": redis_cpu_s / jobs * 1e6,
    }


def _redis_cpu_s(client: Any) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def main() -> None:
    """Measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("actor_name", choices=("noop", "nap", "ping"))
    parser.add_argument("--port", type=int, default=6379, help="of a server to fill; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--concurrency", type=int, help="default: no limit")
    args = parser.parse_args()
    client = redis.Redis(port=args.port)
    client.delete(READY, RESERVED, BODIES)
    if args.actor_name == "ping":
        tell(ready=time.monotonic())
        Loop(client, args.jobs).answer()
    print(json.dumps(measure(client, args.actor_name, args.jobs, args.concurrency)))


if __name__ == "__main__":
    main()
