"""Results over outages, and what is particular to the servers and files they are kept on. In both worlds."""

from __future__ import annotations

import contextlib
import logging
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from greenq.results import ResultFailure, Results, ResultTimeout
from greenq.results.backends import MemcachedBackend, RedisBackend, SqliteBackend
from tests.support.memcached_server import memcached_server, shared_memcached
from tests.support.ports import free_port
from tests.support.redis_server import redis_server, shared_server
from tests.support.waiting import PATIENCE_S, happens, until

LONG = 600_000
WAIT = {"block": True, "timeout": PATIENCE_S * 1000}


def message(**fields):
    return greenq.Message("default", "work", (), {}, {})._replace(**fields)


@pytest.fixture
def server():
    server = shared_server()
    server.client().flushall()
    return server


@pytest.fixture
def backend(server):
    backend = RedisBackend(url=server.url)
    yield backend
    backend.close()


@pytest.fixture
def start():
    started = []

    def start(broker, threads=4):
        worker = greenq.Worker(broker, worker_timeout=100, worker_threads=threads)
        started.append(worker)
        worker.start()
        return worker

    yield start
    for worker in started:
        worker.stop(5000)


# -- redis


def test_all_who_wait_in_a_process_share_one_connection(server, backend):
    client = server.client()
    sent = [message() for _ in range(30)]
    before = len(client.client_list())
    with ThreadPoolExecutor(30) as pool:
        waiting = [pool.submit(each.get_result, backend=backend, **WAIT) for each in sent]
        until(lambda: len(list(client.scan_iter("*:waiting"))) == 30)

        assert len(client.client_list(_type="pubsub")) == 1
        # Two connections would do, but all look at the beginning.
        assert len(client.client_list()) <= before + 17
        for each in sent:
            backend.store_result(each, 42, LONG)
        assert [each.result() for each in waiting] == [42] * 30


def test_who_waited_leaves_no_trace_on_redis(server, backend):
    client, sent, missing = server.client(), message(), message()
    threading.Timer(0.1, backend.store_result, (sent, 42, LONG)).start()

    assert sent.get_result(backend=backend, **WAIT) == 42
    with pytest.raises(ResultTimeout):
        missing.get_result(backend=backend, block=True, timeout=50)

    key = backend.build_message_key(sent).encode()
    (trace,) = [each for each in client.scan_iter("*") if each != key]
    assert missing.message_id.encode() in trace
    assert 0 < client.pttl(trace) <= 90_000
    assert 0 < client.pttl(key) <= LONG


def test_those_who_wait_are_told_after_their_connection_was_cut(server, backend, monkeypatch):
    monkeypatch.setattr("greenq.stores.redis.values.LOOK_EVERY_S", 3600)
    client, sent = server.client(), message()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sent.get_result, backend=backend, **WAIT)
        until(lambda: client.client_list(_type="pubsub"))

        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        backend.store_result(sent, 42, LONG)

        assert waiting.result() == 42


def test_those_who_wait_wait_over_an_outage():
    with redis_server() as server:
        backend, sent = RedisBackend(url=server.url), message()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(sent.get_result, backend=backend, **WAIT)
            until(lambda: server.client().client_list(_type="pubsub"))
            server.stop(signal.SIGKILL)
            time.sleep(0.3)  # an outage has a length
            server.start()

            backend.store_result(sent, 42, LONG)

            assert waiting.result() == 42
        backend.close()


def test_a_wait_at_a_backend_that_stays_away_ends_in_time_and_says_so():
    port = free_port()
    backend = RedisBackend(host="127.0.0.1", port=port)
    started = time.monotonic()

    with pytest.raises(ResultTimeout, match=str(port)):
        message().get_result(backend=backend, block=True, timeout=300)

    assert 0.3 <= time.monotonic() - started < 5
    backend.close()


def test_reading_from_a_backend_that_is_away_says_where():
    port = free_port()
    backend = RedisBackend(host="127.0.0.1", port=port)

    with pytest.raises(greenq.ConnectionError, match=str(port)):
        message().get_result(backend=backend)
    backend.close()


def test_a_job_that_ends_in_an_outage_of_its_backend_has_a_result_after_it(start, caplog):
    caplog.set_level(logging.INFO)
    with redis_server() as server:
        broker, backend = StubBroker(), RedisBackend(url=server.url)
        broker.add_middleware(Results(backend=backend, store_results=True))
        runs, may_end = [], threading.Event()

        @greenq.actor(broker=broker)
        def work(number):
            runs.append(number)
            happens(may_end)
            return number

        sent = [work.send(number) for number in range(4)]
        start(broker)
        until(lambda: len(runs) == 4)
        server.stop(signal.SIGKILL)
        may_end.set()
        until(lambda: "Results cannot be stored now" in caplog.text)
        server.start()

        assert [each.get_result(backend=backend, **WAIT) for each in sent] == list(range(4))
        broker.join("default", timeout=PATIENCE_S * 1000)
        assert len(runs) == 4
        told = [each.levelname for each in caplog.records if each.name == "greenq.results.middleware.Results"]
        assert told == ["WARNING", "INFO"]
        broker.close()
        backend.close()


# -- memcached


def test_a_result_that_is_too_large_for_memcached_is_a_failure(start):
    broker, backend = StubBroker(), MemcachedBackend(servers=[shared_memcached().address])
    broker.add_middleware(Results(backend=backend, store_results=True))

    @greenq.actor(broker=broker)
    def work():
        return "x" * 2_000_000

    start(broker)

    with pytest.raises(ResultFailure, match="too large"):
        work.send().get_result(backend=backend, **WAIT)
    broker.close()
    backend.close()


def test_a_memcached_that_came_back_is_used_again():
    with memcached_server() as server:
        backend, sent = MemcachedBackend(servers=[server.address]), message()
        backend.store_result(sent, 1, LONG)
        server.stop()
        with pytest.raises(greenq.ConnectionError):
            backend.store_result(sent, 2, LONG)

        server.start()

        backend.store_result(sent, 3, LONG)
        assert sent.get_result(backend=backend) == 3
        backend.close()


# -- sqlite


def test_results_that_are_over_do_not_pile_up_in_the_file(tmp_path):
    backend = SqliteBackend(tmp_path / "store.db")
    for _ in range(300):
        backend.store_result(message(), 1, 1)

    backend.store_result(message(), 1, LONG)

    with contextlib.closing(sqlite3.connect(backend.path)) as file:
        assert file.execute("SELECT count(*) FROM entries").fetchone()[0] < 100
    backend.close()


def test_results_and_rate_limits_may_share_a_file(tmp_path):
    from greenq.rate_limits.backends import SqliteBackend as Limits

    backend, limits, sent = SqliteBackend(tmp_path / "store.db"), Limits(tmp_path / "store.db"), message()

    backend.store_result(sent, 42, LONG)

    assert limits.incr("key", 1, 1, LONG)
    assert sent.get_result(backend=backend) == 42
    backend.close()
    limits.close()
