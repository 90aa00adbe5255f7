"""Redis goes away under a working worker, and comes back: nothing is lost or run twice.

The settings are a tenth of the usual ones, so that an outage is longer than a lease and
than several time-outs without lasting a minute.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time

import pytest
import redis

import greenq
from greenq.brokers.redis import RedisBroker, links
from greenq.worker.news import News
from greenq.worker.process import WorkerProcess
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.redis_server import redis_server
from tests.support.waiting import PATIENCE_S, beside, happens, until

LEASE_MS, TIMEOUT_S = 1500, 0.5
AWAY_S = 2 * LEASE_MS / 1000
QUEUES = ["default", "other", "third"]


class Jobs:
    """Actors on several queues that wait to be released, and what they ran."""

    def __init__(self, broker) -> None:
        self.release, self.ran = threading.Event(), []
        self._started = threading.Semaphore(0)

        def work(number):
            self.ran.append(number)
            self._started.release()
            assert self.release.wait(PATIENCE_S)

        self.actors = [
            greenq.actor(work, broker=broker, queue_name=name, actor_name=f"work_on_{name}") for name in QUEUES
        ]
        self.broker = broker

    def send(self, numbers) -> None:
        for number in numbers:
            self.actors[number % len(self.actors)].send(number)

    def wait_for(self, count) -> None:
        for _ in range(count):
            assert self._started.acquire(timeout=PATIENCE_S), f"{len(self.ran)} ran"

    def wait_until_settled(self) -> None:
        for name in QUEUES:
            self.broker.join(name, interval=10, timeout=PATIENCE_S * 1000)


@pytest.fixture
def server():
    with redis_server(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture
def open_broker(server):
    brokers = []

    def make(port=server.port, **options):
        broker = RedisBroker(
            host="127.0.0.1",
            port=port,
            heartbeat_timeout=LEASE_MS,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            **options,
        )
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        broker.close()
        broker.client.close()


@pytest.fixture
def start():
    workers = []

    def make(broker, threads=300):
        worker = greenq.Worker(broker, worker_threads=threads)
        workers.append(worker)
        worker.start()
        return worker

    yield make
    for worker in workers:
        worker.stop(5000)


@pytest.fixture
def outage_lines(caplog):
    """What was told of outages, once those that began have ended."""
    caplog.set_level(logging.INFO)

    def levels():
        return [record.levelname for record in caplog.records if record.name == "greenq.worker.outage.Outage"]

    def wait():
        until(lambda: levels().count("CRITICAL") == levels().count("INFO"))
        return levels()

    return wait


def kill(server):
    server.stop(signal.SIGKILL)
    return server.start


def stop(server):
    server.process.send_signal(signal.SIGSTOP)
    return lambda: server.process.send_signal(signal.SIGCONT)


def away(server, how):
    """Begin an outage that lasts; what is returned ends it."""
    end = how(server)
    time.sleep(AWAY_S)  # this is what is tested: that so much time passes
    return end


@pytest.mark.parametrize("how", [kill, stop])
def test_all_slots_are_busy_while_redis_is_away_and_each_job_runs_once(server, open_broker, start, how, outage_lines):
    jobs = Jobs(open_broker())
    worker = start(jobs.broker)
    count = worker.concurrency
    jobs.send(range(2 * count))
    jobs.wait_for(count)

    end = how(server)
    jobs.release.set()
    time.sleep(AWAY_S)
    end()

    jobs.wait_for(count)
    jobs.wait_until_settled()
    assert sorted(jobs.ran) == list(range(2 * count))
    # Whoever finds it back first may fetch before the others have written.
    assert outage_lines() == ["CRITICAL", "INFO"]


@pytest.mark.parametrize("how", [kill, stop])
def test_idle_workers_go_on_after_an_outage(server, open_broker, start, how, outage_lines):
    jobs = Jobs(open_broker())
    jobs.release.set()
    start(jobs.broker)
    jobs.send([0, 1, 2])
    jobs.wait_for(3)
    jobs.wait_until_settled()

    away(server, how)()
    producer = Jobs(open_broker())
    producer.send([3, 4, 5])

    jobs.wait_for(3)
    jobs.wait_until_settled()
    assert sorted(jobs.ran) == list(range(6))
    assert outage_lines() in (["CRITICAL", "INFO"], [])  # a wait may sleep through a server that was only stopped


def test_workers_of_two_processes_do_not_rob_each_other_after_an_outage(server, open_broker, start):
    first, second = Jobs(open_broker()), Jobs(open_broker())
    for jobs in (first, second):
        start(jobs.broker, threads=9)
    first.send(range(18))
    first.wait_for(9)
    second.wait_for(9)

    away(server, stop)()
    # Both leases are long over; each has to go on with what it has.
    first.send(range(18, 36))
    first.release.set()
    second.release.set()

    first.wait_until_settled()
    assert sorted(first.ran + second.ran) == list(range(36))


@pytest.fixture
def process(monkeypatch):
    """A worker process but for its worker and its broker; ``reports()`` tells what it has said."""
    (control_fd, command_fd), (heard_fd, report_fd) = os.pipe(), os.pipe()
    os.set_blocking(heard_fd, False)
    process = WorkerProcess(control_fd, report_fd)
    process.options = {"worker_shutdown_timeout": 300}
    monkeypatch.setattr("greenq.worker.process.exit_in_time", lambda *args: None)  # which would end the tests

    def reports():
        with contextlib.suppress(BlockingIOError):
            return [json.loads(line)["event"] for line in os.read(heard_fd, 65536).splitlines()]
        return []

    process.reports = reports
    yield process
    for fd in (command_fd, heard_fd, process._control_fd, process._report_fd, process._wake_fd, process._wakeup_fd):
        os.close(fd)


@pytest.mark.parametrize("is_away", [True, False], ids=["away", "there"])
def test_a_worker_that_stops_says_that_it_gave_everything_back_only_if_it_could(
    server, open_broker, start, process, is_away
):
    jobs = Jobs(open_broker())
    process.broker, process.worker = jobs.broker, start(jobs.broker)
    process.news = News(process.worker, process.broker, max_jobs=None, report=process._report)
    jobs.send([0])
    jobs.wait_for(1)

    if is_away:
        kill(server)
    jobs.release.set()
    process.stop()

    assert ("gave_back" in process.reports()) is not is_away


@pytest.mark.parametrize("how", [kill, stop])
def test_a_send_during_an_outage_says_whether_the_message_may_be_stored(server, open_broker, how, monkeypatch):
    monkeypatch.setattr(links, "_IDLE_S", 3600)  # so that the connection is trusted however long the kill takes
    jobs = Jobs(open_broker())
    jobs.send([0])
    end = how(server)
    began = time.monotonic()

    try:
        with pytest.raises(greenq.ConnectionClosed, match="may or may not be"):
            jobs.send([1])  # over a connection that was good just now
        with pytest.raises(greenq.ConnectionFailed, match="nothing was stored"):
            jobs.send([2])
        assert time.monotonic() - began < 10 * TIMEOUT_S  # two time-outs, and nothing that is repeated
    finally:
        end()


def test_nothing_that_was_confirmed_is_lost_when_redis_is_killed_under_load(server, open_broker, start):
    jobs, producer = Jobs(open_broker()), Jobs(open_broker())
    jobs.release.set()
    start(jobs.broker)
    confirmed, sent_all = [], threading.Event()

    def send():
        for number in range(400):
            try:
                producer.send([number])
            except greenq.ConnectionError:
                if number == 399:
                    break
                time.sleep(0.01)  # it is away
            else:
                confirmed.append(number)
        sent_all.set()

    thread = threading.Thread(target=send)
    thread.start()
    jobs.wait_for(100)
    server.stop(signal.SIGKILL)
    server.start()
    happens(sent_all)
    thread.join()

    jobs.wait_until_settled()
    assert set(confirmed) <= set(jobs.ran)
    assert len(confirmed) > 100


# -- a server that is busy, or stands still


@contextlib.contextmanager
def endless_script(server):
    """Another client's script that never ends, until it is killed."""
    client, killer = server.client(socket_timeout=None), server.client()

    def run():
        with pytest.raises(redis.exceptions.ResponseError, match="killed"):
            client.eval("while true do end", 0)

    with beside(run):
        try:
            until(lambda: is_busy(killer))
            yield
        finally:
            killer.script_kill()


def is_busy(client):
    try:
        client.ping()
    except redis.exceptions.ResponseError as error:
        return str(error).startswith("BUSY") or "busy running a script" in str(error)
    return False


@pytest.mark.in_time
def test_a_script_that_never_ends_is_an_outage_until_it_is_killed(open_broker, start, outage_lines):
    with redis_server(busy_reply_threshold="100") as server:
        jobs, producer = Jobs(open_broker(port=server.port)), Jobs(open_broker(port=server.port))
        worker = start(jobs.broker)
        count = worker.concurrency
        jobs.send(range(2 * count))
        jobs.wait_for(count)

        with endless_script(server):
            jobs.release.set()
            for number in range(3):
                began = time.monotonic()
                with pytest.raises(greenq.ConnectionFailed, match=r"refused, so nothing was stored: .*busy"):
                    producer.send([1000 + number])
                assert time.monotonic() - began < TIMEOUT_S
            time.sleep(AWAY_S)  # this is what is tested: longer than a lease
        producer.send([2000])

        jobs.wait_for(count + 1)
        jobs.wait_until_settled()
        assert sorted(jobs.ran) == [*range(2 * count), 2000]
        assert outage_lines() == ["CRITICAL", "INFO"]
        worker.stop(5000)


@pytest.mark.in_time
@pytest.mark.greenlets_alone  # 12 seconds of nothing
def test_a_server_that_stands_still_for_longer_than_the_default_time_out_costs_nothing(server, start, outage_lines):
    stands_still_s, at_once_s = 12, 3  # of a time-out of 5 s, and a lease of 15 s
    broker = RedisBroker(url=server.url)
    jobs = Jobs(broker)
    worker = start(broker)
    count = worker.concurrency
    jobs.send(range(2 * count))
    jobs.wait_for(count)

    end = stop(server)
    jobs.release.set()
    time.sleep(stands_still_s)
    end()
    began = time.monotonic()
    jobs.send([2 * count])

    jobs.wait_for(count + 1)
    jobs.wait_until_settled()
    assert time.monotonic() - began < at_once_s
    assert sorted(jobs.ran) == list(range(2 * count + 1))
    assert outage_lines() == ["CRITICAL", "INFO"]
    worker.stop(5000)
    broker.close()


BUSY_SLOTS = """
    import select, sys
    import gevent.event
    import greenq
    from greenq.brokers.redis import RedisBroker
    broker, release, ran = RedisBroker(url=sys.argv[1]), gevent.event.Event(), []

    @greenq.actor(broker=broker)
    def work(number):
        ran.append(number)
        if len(ran) == 1000:
            print("busy")
        release.wait()

    work.send_many([(number,) for number in range(1000)])
    worker = greenq.Worker(broker, concurrency=1000)
    worker.start()
    select.select([sys.stdin], [], [])
    sys.stdin.readline()
    release.set()
    select.select([sys.stdin], [], [])
    print(sorted(ran) == list(range(1000)))
    worker.stop()
    broker.close()
"""


@pytest.mark.in_time
def test_a_thousand_busy_slots_are_settled_within_seconds_of_the_servers_return(server, open_broker):
    settled_within_s = 3
    observer = open_broker()
    with running(BUSY_SLOTS, server.url, patched=True) as script:
        assert script.line() == "busy"
        end = kill(server)
        script.say("end the jobs")
        time.sleep(AWAY_S)

        end()
        observer.join("default", interval=20, timeout=settled_within_s * 1000)

        script.say("stop")
        assert script.line() == "True"
        assert script.rest() == []
    assert observer.get_queue_message_counts("default") == (0, 0, 0)


# -- a network that goes silent


class SilentNetwork:
    """A way to the server by another port, on which connections can go silent without an end."""

    def __init__(self, port) -> None:
        self.port = free_port()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._sockets = []
        self._is_silent = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            silent = self._is_silent
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink, silent), daemon=True).start()

    def _carry(self, source, sink, silent):
        try:
            while data := source.recv(65536):
                if not silent.is_set():
                    sink.sendall(data)
        except OSError:
            pass

    def silence(self):
        """Drop what goes over connections that exist, for ever; new ones work."""
        self._is_silent.set()
        self._is_silent = threading.Event()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            each.close()


@pytest.fixture
def network(server):
    network = SilentNetwork(server.port)
    yield network
    network.close()


def test_a_wait_on_a_connection_that_went_silent_is_ended_by_the_keeper(open_broker, network, start, outage_lines):
    jobs, producer = Jobs(open_broker(port=network.port)), Jobs(open_broker())
    jobs.release.set()
    start(jobs.broker)
    producer.send([0, 1, 2])
    jobs.wait_for(3)
    jobs.wait_until_settled()

    network.silence()
    producer.send([3, 4, 5])

    jobs.wait_for(3)  # well before the wait itself would end, after 30 s
    producer.wait_until_settled()
    assert sorted(jobs.ran) == list(range(6))
    assert outage_lines() == ["CRITICAL", "INFO"]
