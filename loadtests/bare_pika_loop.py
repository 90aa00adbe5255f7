"""The bare loop: what RabbitMQ, pika and gevent allow on this machine with no task queue around them.

    python bare_pika_loop.py noop|nap --port 5672 [--jobs N] [--concurrency N] [--prefetch N] [--server-pid PID]
    python bare_pika_loop.py pipelined|waiting --port 5672 [--jobs N] [--senders N]
    python bare_pika_loop.py ping --port 5672

The yardstick that rabbitmq_road.py lays beside greenq, on pika's GeventConnection as it comes. It
does what no queue can leave out and nothing else. As a consumer: at most 2,000 messages (or
``--prefetch``) are unacknowledged; each is decoded from JSON and run in a greenlet, with one timer armed and five
hooks called before and after; one greenlet acknowledges all up to the first that is not done,
in one frame each time it runs. No retries, delays or priorities, no care for errors or for a
connection that is lost. Without ``--concurrency`` what comes is begun at once. ``ping`` tells
when each began, and goes on until it is killed.

As a sender it makes messages and publishes them persistent and confirmed: ``pipelined`` from
one greenlet that waits only where 2,000 are unconfirmed, ``waiting`` from many, each of which
waits for every message of its own. Prints one line of JSON.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402 - gevent has to come before whatever waits
import json  # noqa: E402
import time  # noqa: E402
from collections import deque  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import pika  # noqa: E402
import psutil  # noqa: E402
from bare_pika_sender import PERSISTENT, QUEUE, body  # noqa: E402
from gevent.event import Event  # noqa: E402
from pika.adapters.gevent_connection import GeventConnection  # noqa: E402
from telling import tell  # noqa: E402

PREFETCH = 2000
WINDOW = 2000
#: How many are published between two looks at the window.
CHUNK = 500
HOOKS = 5
TIME_LIMIT_S = 600
NAP_S = 0.1
LIMIT_S = 300


def open_channel(port: int) -> Any:
    """A channel of a connection of its own, which has the queue."""
    opened, channels = Event(), []

    def on_channel(channel: Any) -> None:
        channels.append(channel)
        channel.queue_declare(QUEUE, durable=True, callback=lambda _frame: opened.set())

    connection = GeventConnection(
        pika.ConnectionParameters("127.0.0.1", port),
        on_open_callback=lambda connection: connection.channel(on_open_callback=on_channel),
    )
    gevent.spawn(connection.ioloop.start)
    _wait(opened)
    return channels[0]


def _wait(event: Event) -> None:
    if not event.wait(LIMIT_S):
        raise SystemExit(f"The server answered nothing for {LIMIT_S} s.")


# -- sending


def publish_pipelined(channel: Any, count: int, actor_name: str = "noop") -> dict[str, float]:
    """Publish this many from one greenlet, confirmed; how fast that was."""
    upto, moved = 0, Event()

    def on_confirm(frame: Any) -> None:
        # Those of one queue are confirmed in order.
        nonlocal upto
        upto = frame.method.delivery_tag
        moved.set()

    _confirm(channel, on_confirm)
    started, cpu_s = time.monotonic(), time.process_time()
    for number in range(1, count + 1):
        channel.basic_publish("", QUEUE, body(number, actor_name), PERSISTENT)
        if number % CHUNK == 0 or number == count:
            while number - upto > (WINDOW if number < count else 0):
                moved.clear()
                _wait(moved)
    return _figures(count, started, cpu_s)


def publish_waiting(channel: Any, count: int, senders: int) -> dict[str, float]:
    """Publish this many, each sender waiting for each of its own; how fast that was."""
    waiting: dict[int, Event] = {}
    first, last = 1, 0

    def on_confirm(frame: Any) -> None:
        nonlocal first
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            for each in range(first, tag + 1):
                if each in waiting:
                    waiting.pop(each).set()
            first = tag + 1
        else:
            waiting.pop(tag).set()

    def send() -> None:
        nonlocal last
        confirmed = Event()
        for number in range(count // senders):
            payload = body(number)
            last += 1
            waiting[last] = confirmed
            channel.basic_publish("", QUEUE, payload, PERSISTENT)
            confirmed.wait()
            confirmed.clear()

    _confirm(channel, on_confirm)
    started, cpu_s = time.monotonic(), time.process_time()
    gevent.joinall([gevent.spawn(send) for _ in range(senders)], raise_error=True)
    return _figures(count, started, cpu_s)


def _figures(count: int, started: float, cpu_s: float) -> dict[str, float]:
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    return {"per_s": count / seconds, "cpu_us": cpu_s / count * 1e6}


def _confirm(channel: Any, on_confirm: Callable[[Any], None]) -> None:
    confirmed = Event()
    channel.confirm_delivery(on_confirm, callback=lambda _frame: confirmed.set())
    _wait(confirmed)


# -- consuming


class Loop:
    """Consumes, runs and acknowledges jobs.

    Parameters:
      channel: Of pika.
      jobs(int): How many there are.
      concurrency(int): How many may be under way at once. Default: all.
      prefetch(int): How many may be unacknowledged.
    """

    def __init__(self, channel: Any, jobs: int, concurrency: int | None = None, prefetch: int = PREFETCH) -> None:
        self._channel = channel
        self._prefetch = prefetch
        self._jobs = jobs
        self._free = concurrency or jobs
        self._timer: Callable[[float], Any] = gevent.get_hub().loop.timer
        self._actors: dict[str, Callable[..., None]] = {"noop": _noop, "nap": _nap, "ping": _ping}
        self._before = [_hook] * HOOKS
        self._after = [_hook] * HOOKS
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._finished: set[int] = set()
        self._wanted = Event()
        self.consuming = Event()

    def run(self) -> None:
        """Go on until the last job is acknowledged."""
        settling = gevent.spawn(self._settle)
        self._channel.basic_qos(prefetch_count=self._prefetch, callback=self._consume)
        settling.get()

    def _consume(self, _frame: Any) -> None:
        self._channel.basic_consume(QUEUE, self._on_message, callback=lambda _frame: self.consuming.set())

    def _on_message(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        if self._free:
            self._free -= 1
            gevent.spawn(self._run_one, method.delivery_tag, body)
        else:
            self._waiting.append((method.delivery_tag, body))

    def _run_one(self, tag: int, body: bytes) -> None:
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
        self._finished.add(tag)
        self._wanted.set()
        if self._waiting:
            gevent.spawn(self._run_one, *self._waiting.popleft())
        else:
            self._free += 1

    def _settle(self) -> None:
        acked, finished = 0, self._finished
        while acked < self._jobs:
            self._wanted.wait()
            self._wanted.clear()
            upto = acked
            while upto + 1 in finished:
                upto += 1
                finished.discard(upto)
            if upto > acked:
                self._channel.basic_ack(upto, multiple=True)
                acked = upto


def _hook(message: dict[str, Any]) -> None:
    message["options"].get("nothing")


def _noop(number: int) -> None:
    pass


def _nap(number: int) -> None:
    time.sleep(NAP_S)


def _ping(number: int) -> None:
    tell(started=time.monotonic())


def measure_jobs(
    port: int, actor_name: str, jobs: int, concurrency: int | None, prefetch: int, server_pid: int | None
) -> dict[str, float]:
    """How fast the loop runs jobs that wait already, and what that costs."""
    publish_pipelined(open_channel(port), jobs, actor_name)
    loop = Loop(open_channel(port), jobs, concurrency, prefetch)
    server_cpu_s, cpu_s, started = _cpu_s(server_pid), time.process_time(), time.monotonic()
    loop.run()
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    server_cpu_s = _cpu_s(server_pid) - server_cpu_s
    return {
        "jobs_per_s": jobs / seconds,
        "cpu_us_per_job": cpu_s / jobs * 1e6,
        "server_cpu_us_per_job": server_cpu_s / jobs * 1e6,
    }


def _cpu_s(pid: int | None) -> float:
    if pid is None:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def answer(port: int) -> None:
    """Run what comes, until killed."""
    loop = Loop(open_channel(port), 2**63)
    running = gevent.spawn(loop.run)
    _wait(loop.consuming)
    tell(ready=time.monotonic())
    running.get()


def _purge(port: int) -> None:
    purged = Event()
    channel = open_channel(port)
    channel.queue_purge(QUEUE, callback=lambda _frame: purged.set())
    _wait(purged)


def main() -> None:
    """Measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("noop", "nap", "ping", "pipelined", "waiting"))
    parser.add_argument("--port", type=int, default=5672, help="of a server to fill; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--concurrency", type=int, help="default: no limit")
    parser.add_argument("--prefetch", type=int, default=PREFETCH, help="default: %(default)s")
    parser.add_argument("--senders", type=int, default=100, help="how many wait; default: %(default)s")
    parser.add_argument("--server-pid", type=int, metavar="PID", help="of the server, to measure its CPU as well")
    args = parser.parse_args()
    _purge(args.port)
    if args.what == "ping":
        answer(args.port)
    elif args.what == "pipelined":
        figures = publish_pipelined(open_channel(args.port), args.jobs)
    elif args.what == "waiting":
        figures = publish_waiting(open_channel(args.port), args.jobs, args.senders)
    else:
        figures = measure_jobs(args.port, args.what, args.jobs, args.concurrency, args.prefetch, args.server_pid)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
