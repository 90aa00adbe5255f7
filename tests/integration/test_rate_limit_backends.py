"""What is particular to the servers and files on which rate limiters count."""

from __future__ import annotations

import contextlib
import signal
import threading

import pymemcache
import pytest
import redis

import greenq
from greenq.brokers.stub import StubBroker
from greenq.rate_limits import ConcurrentRateLimiter, WindowRateLimiter
from greenq.rate_limits.backends import MemcachedBackend, RedisBackend, SqliteBackend, memcached
from greenq.stores.memcached import safe_key
from tests.contract.backends import SHARED, place_of
from tests.support.memcached_server import memcached_server, shared_memcached
from tests.support.ports import free_port
from tests.support.processes import both_worlds, output_of
from tests.support.redis_server import redis_server, shared_server

LONG = 600_000


@pytest.fixture
def server():
    server = shared_server()
    server.client().flushall()
    return server


def everything(client):
    return {key: (client.dump(key), client.expiretime(key)) for key in client.scan_iter("*")}


# -- redis


def test_a_refused_acquire_leaves_no_trace_on_redis(server):
    backend, client = RedisBackend(url=server.url), server.client()
    concurrent = ConcurrentRateLimiter(backend, "concurrent")
    window = WindowRateLimiter(backend, "window", window=600)
    with window.acquire(), concurrent.acquire():
        before = everything(client)

        for limiter in (concurrent, window) * 3:
            with limiter.acquire(raise_on_failure=False) as acquired:
                assert not acquired
            with limiter.acquire(wait=20, raise_on_failure=False) as acquired:
                assert not acquired

        assert everything(client) == before
    backend.close()


def test_a_slot_that_was_given_back_leaves_no_trace_on_redis(server):
    backend = RedisBackend(url=server.url)

    with ConcurrentRateLimiter(backend, "key", limit=3).acquire():
        assert server.client().dbsize() == 1

    assert server.client().dbsize() == 0
    backend.close()


def test_scripts_that_redis_has_forgotten_are_sent_again(server):
    backend = RedisBackend(url=server.url)
    assert backend.incr("key", 1, 5, LONG)

    server.client().script_flush()

    assert backend.incr("key", 1, 5, LONG)
    backend.close()


def test_more_threads_than_connections_wait_for_one_and_none_is_refused(server):
    backend, client = RedisBackend(url=server.url, max_connections=2), server.client()
    connections = len(client.client_list())
    taken = []

    def take():
        taken.extend(backend.incr("key", 1, 1000, LONG) for _ in range(20))

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert taken == [True] * 400
    assert len(client.client_list()) <= connections + 2
    backend.close()


def test_a_client_of_ones_own_is_used_as_it_is(server):
    client = redis.Redis(port=server.port)

    backend = RedisBackend(client=client, host="ignored")

    assert backend.client is client
    assert backend.add("key", 1, LONG)
    backend.close()
    assert client.ping(), "it is not ours to close"
    client.close()


def test_a_client_that_decodes_is_refused_with_what_to_do(server):
    with pytest.raises(ValueError, match="decode_responses"):
        RedisBackend(client=redis.Redis(port=server.port, decode_responses=True))


def test_an_acquire_on_a_redis_that_is_away_says_where():
    port = free_port()
    backend = RedisBackend(host="127.0.0.1", port=port)

    with pytest.raises(greenq.ConnectionError, match=str(port)), ConcurrentRateLimiter(backend, "key").acquire():
        pytest.fail("it was let in")
    backend.close()


def test_a_redis_that_came_back_is_used_at_once():
    with redis_server(appendonly="yes", appendfsync="always") as server:
        backend = RedisBackend(url=server.url)
        assert backend.incr("key", 1, 2, LONG)
        server.stop()
        with pytest.raises(greenq.ConnectionError):
            backend.incr("key", 1, 2, LONG)

        server.start()

        assert [backend.incr("key", 1, 2, LONG) for _ in range(2)] == [True, False]
        backend.close()


def test_a_block_whose_slot_cannot_be_given_back_has_still_ended_well(caplog):
    with redis_server() as server:
        backend = RedisBackend(url=server.url)
        with ConcurrentRateLimiter(backend, "key").acquire():
            server.stop(signal.SIGKILL)

        assert "could not be given back" in caplog.text
        backend.close()


def test_an_acquire_whose_answer_was_lost_takes_no_slot_for_its_lease():
    with redis_server() as server:
        backend = RedisBackend(url=server.url, socket_timeout=1)
        limiter = ConcurrentRateLimiter(backend, "key")
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(greenq.ConnectionError), limiter.acquire():
            pytest.fail("it was let in")

        server.process.send_signal(signal.SIGCONT)

        # What was asked for before is done now: the slot is taken, and given back right behind.
        with limiter.acquire(wait=20_000) as acquired:
            assert acquired
        backend.close()


# -- memcached


class NeverQuickEnough:
    """A client of memcached that finds every value changed by somebody else."""

    def gets(self, key):
        return b"9999999999999:0", b"1"

    def cas(self, *args, **kwargs):
        return False


class Pool:
    @contextlib.contextmanager
    def reserve(self):
        yield NeverQuickEnough()


def test_contention_on_memcached_ends_with_an_error_that_says_which_key(monkeypatch):
    monkeypatch.setattr(memcached, "LONGEST_CONTENTION_S", 0.1)

    with pytest.raises(greenq.RateLimiterBusy, match="'contended'"):
        MemcachedBackend(pool=Pool()).incr("contended", 1, 5, LONG)


def test_a_refused_acquire_leaves_no_trace_on_memcached():
    with memcached_server() as server:
        backend = MemcachedBackend(servers=[server.address], binary=True)
        limiter = ConcurrentRateLimiter(backend, "key")
        client = pymemcache.Client(server.address)
        with limiter.acquire():
            before = client.gets("key@holders")

            with limiter.acquire(raise_on_failure=False) as acquired:
                assert not acquired

            assert client.gets("key@holders") == before
        assert client.get("key@holders") is None
        client.close()
        backend.close()


def test_the_pool_of_memcached_gives_clients():
    backend = MemcachedBackend(servers=[shared_memcached().address])

    with backend.pool.reserve() as client:
        assert client.set("from-the-pool", b"1")
    backend.close()


@pytest.mark.parametrize("servers", ["127.0.0.1:{port}", ["127.0.0.1:{port}"], [("127.0.0.1", 0)]])
def test_servers_of_memcached_may_be_given_in_several_ways(servers):
    port = shared_memcached().port
    if isinstance(servers, str):
        servers = servers.format(port=port)
    else:
        servers = [each.format(port=port) if isinstance(each, str) else (each[0], port) for each in servers]
    backend = MemcachedBackend(servers=servers)

    assert backend.incr("given-in-several-ways", 1, 100, LONG)
    backend.close()


def test_keys_are_spread_over_several_servers():
    with memcached_server() as other:
        backend = MemcachedBackend(servers=[shared_memcached().address, other.address])

        assert all(backend.add(f"spread-{number}", 1, LONG) for number in range(50))
        assert not any(backend.add(f"spread-{number}", 1, LONG) for number in range(50))

        client = pymemcache.Client(other.address)
        assert 0 < int(client.stats()[b"curr_items"]) < 50
        client.close()
        backend.close()


def test_keys_that_memcached_does_not_take_are_replaced():
    backend = MemcachedBackend(servers=[shared_memcached().address])

    for key in ("with space", "ümlaut", "x" * 300, "line\nbreak"):
        assert backend.incr(key, 1, 1, LONG)
        assert not backend.incr(key, 1, 1, LONG)
    assert safe_key("plain") == "plain"
    backend.close()


def test_a_memcached_that_is_away_is_a_connection_error_that_says_where():
    port = free_port()
    backend = MemcachedBackend(servers=[f"127.0.0.1:{port}"])

    with pytest.raises(greenq.ConnectionError, match=str(port)):
        backend.incr("key", 1, 5, LONG)


# -- sqlite


def test_a_refused_acquire_leaves_no_trace_in_the_file(tmp_path):
    import sqlite3

    backend = SqliteBackend(tmp_path / "store.db")
    limiter = ConcurrentRateLimiter(backend, "key")

    def rows():
        with contextlib.closing(sqlite3.connect(backend.path)) as file:
            return [file.execute(f"SELECT * FROM {table}").fetchall() for table in ("entries", "counters", "holders")]

    with limiter.acquire():
        before = rows()
        with limiter.acquire(raise_on_failure=False) as acquired:
            assert not acquired
        assert rows() == before
    assert rows() == [[], [], []]
    backend.close()


def test_counters_that_are_over_do_not_pile_up_in_the_file(tmp_path):
    import sqlite3

    backend = SqliteBackend(tmp_path / "store.db")

    for number in range(100):
        backend.incr(f"key-{number}", 1, 5, 1)
    backend.incr("last", 1, 5, LONG)

    with contextlib.closing(sqlite3.connect(backend.path)) as file:
        (count,) = file.execute("SELECT count(*) FROM counters").fetchone()
    assert count < 30
    backend.close()


def test_a_brokers_file_is_refused_for_rate_limits_and_left_as_it_is(tmp_path):
    from greenq.brokers.sqlite import SqliteBroker

    broker = SqliteBroker(tmp_path / "queue.db")
    broker.connect()
    backend = SqliteBackend(tmp_path / "queue.db")

    with pytest.raises(greenq.ConnectionFailed, match="for something else"):
        backend.incr("key", 1, 5, LONG)

    broker.declare_queue("default")
    broker.enqueue(greenq.Message("default", "actor", (), {}, {}))
    backend.close()
    broker.close()


FORK = """
import os, sys
from tests.contract.backends import open_limits
backend = open_limits(sys.argv[1], sys.argv[2])
backend.incr(sys.argv[3], 1, 3, 600_000)
told, tell = os.pipe()
if not os.fork():
    os.write(tell, b"1" if backend.incr(sys.argv[3], 1, 3, 600_000) else b"0")
    os._exit(0)
print(os.read(told, 1).decode(), backend.incr(sys.argv[3], 1, 3, 600_000))
print(backend.incr(sys.argv[3], 1, 3, 600_000))
"""


@both_worlds
@pytest.mark.parametrize("name", SHARED)
def test_a_forked_child_goes_on_with_connections_of_its_own(name, server, tmp_path, patched):
    assert output_of(FORK, name, place_of(name, tmp_path), tmp_path, patched=patched) == ["1 True", "False"]


# -- in a worker


def test_a_job_that_is_interrupted_while_it_waits_leaves_the_line(server):
    broker, backend = StubBroker(fail_fast_default=False), RedisBackend(url=server.url)
    limiter = ConcurrentRateLimiter(backend, "key")

    @greenq.actor(broker=broker, time_limit=100, max_retries=0)
    def work():
        with limiter.acquire(wait=LONG):
            pytest.fail("it was let in")

    worker = greenq.Worker(broker, worker_threads=4)
    worker.start()
    with limiter.acquire():
        for _ in range(3):
            work.send()
        broker.join("default", timeout=20_000)
        assert len(broker.dead_letters) == 3
    worker.stop(5000)

    with limiter.acquire(wait=5000) as acquired:
        assert acquired
    assert server.client().dbsize() == 0
    backend.close()
    broker.close()


def test_a_job_that_waits_for_a_limit_spends_no_retry(server):
    broker, backend = StubBroker(), RedisBackend(url=server.url)
    limiter = ConcurrentRateLimiter(backend, "key")
    done = []

    @greenq.actor(broker=broker, max_retries=0)
    def work(number):
        with limiter.acquire(wait=20_000):
            done.append(number)

    worker = greenq.Worker(broker, worker_threads=8)
    worker.start()
    for number in range(50):
        work.send(number)
    broker.join("default", timeout=20_000)
    worker.stop(5000)

    assert sorted(done) == list(range(50))
    backend.close()
    broker.close()
