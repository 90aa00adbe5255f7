"""Results and rate limits on clusters, behind Sentinel, and with the rights that the pages name. In both worlds."""

from __future__ import annotations

import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import greenq
from greenq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
from greenq.rate_limits.backends import RedisBackend as Limits
from greenq.results.backends import RedisBackend as ResultsOnRedis
from tests.support.redis_cluster import shared_cluster
from tests.support.redis_sentinel import redis_sentinels
from tests.support.redis_server import shared_server
from tests.support.waiting import PATIENCE_S, until

DOCS = Path(__file__).resolve().parents[2] / "docs"
LONG = 600_000
WAIT = {"block": True, "timeout": PATIENCE_S * 1000}


def message():
    return greenq.Message("default", "actor", (), {}, {})


def work_all_of(results, limits):
    """Use every verb of both backends."""
    sent = [message() for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(each.get_result, backend=results, **WAIT) for each in sent]
        for number, each in enumerate(sent):
            results.store_result(each, number, LONG)
        assert [each.result() for each in waiting] == list(range(12))
    for each in sent:
        each.forget_result(backend=results)
        with pytest.raises(greenq.ResultMissing):
            each.get_result(backend=results)

    for limiter in (
        ConcurrentRateLimiter(limits, "greenq-results:concurrent"),
        BucketRateLimiter(limits, "greenq-results:bucket", bucket=10**12),
        WindowRateLimiter(limits, "greenq-results:window", window=600),
    ):
        with limiter.acquire(), limiter.acquire(raise_on_failure=False) as second:
            assert not second
    barrier = Barrier(limits, "greenq-results:barrier")
    assert barrier.create(parties=2)
    threading.Timer(0.1, barrier.wait, kwargs={"block": False}).start()
    assert barrier.wait(timeout=PATIENCE_S * 1000)


def test_results_and_rate_limits_work_on_a_cluster():
    servers = shared_cluster()
    servers.flush()
    results, limits = ResultsOnRedis(client=servers.client()), Limits(client=servers.client())

    work_all_of(results, limits)

    results.close()
    limits.close()


def test_the_documented_rights_are_enough(monkeypatch):
    server = shared_server()
    admin = server.client()
    admin.flushall()
    rules = re.search(r"^ +user greenq-results ((?:.*\\\n)*.*)$", (DOCS / "results.md").read_text(), re.MULTILINE)[1]
    more = re.search(r"`(\+time .*?)`", (DOCS / "rate-limits.md").read_text())[1]
    admin.execute_command("ACL", "SETUSER", "results", *rules.replace("\\\n", " ").split())
    admin.execute_command("ACL", "SETUSER", "limits", *rules.replace("\\\n", " ").split(), *more.split())
    try:
        results = ResultsOnRedis(port=server.port, db=1, username="results", password="a-long-password")
        limits = Limits(port=server.port, username="limits", password="a-long-password")

        work_all_of(results, limits)

        # Told, and not only found by looking: the mailbox has its rights, too.
        monkeypatch.setattr("greenq.stores.redis.values.LOOK_EVERY_S", 3600)
        sent = message()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(sent.get_result, backend=results, **WAIT)
            until(lambda: admin.client_list(_type="pubsub"))
            results.store_result(sent, 42, LONG)
            assert waiting.result() == 42
        results.close()
        limits.close()
    finally:
        admin.execute_command("ACL", "DELUSER", "results", "limits")


def test_a_result_is_waited_for_over_a_failover():
    with redis_sentinels() as servers:
        results = ResultsOnRedis(client=servers.client(socket_timeout=2))
        before, after = message(), message()
        results.store_result(before, 1, LONG)
        servers.wait_until_replicated()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(after.get_result, backend=results, **WAIT)
            servers.first.stop(signal.SIGKILL)

            def is_stored():
                try:
                    results.store_result(after, 2, LONG)
                except greenq.ConnectionError:
                    return False
                return True

            until(is_stored)
            assert waiting.result() == 2
        assert before.get_result(backend=results) == 1
        results.close()
