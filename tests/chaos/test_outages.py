"""A broker that goes away, a network that fails: consumption goes on by itself, and nothing confirmed is lost.

For each broker one command with two processes and one sender live through all of it, one thing
after the other, behind a proxy that can stall and cut. After each, what was sent since has run;
at the end all that was ever confirmed has.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from contextlib import closing, contextmanager

import pytest

from tests.support.company import LEASE_MS, Company
from tests.support.places import Place
from tests.support.rabbitmq_server import shared_server as shared_rabbitmq
from tests.support.redis_server import redis_server
from tests.support.tcp_proxy import TO_CLIENT, TO_SERVER, tcp_proxy
from tests.support.waiting import PATIENCE_S

pytestmark = [pytest.mark.starts_both_worlds, pytest.mark.timeout(10 * PATIENCE_S)]

SEED = 1

#: How long what stalls does so: where there are leases, for longer than one.
STALLS_S = {"redis": LEASE_MS / 1000 + 1, "rabbitmq": 1.5}

#: How long another process has the file of SQLite to itself.
LOCKED_S = 2


@contextmanager
def company_on(place, folder, own_place=None):
    company = Company(place, folder, SEED, own_place)
    try:
        company.wait_until_at_work()
        yield company
    finally:
        company.end()


def restart(server):
    server.stop(signal.SIGKILL)
    server.start()


def live_through(company, proxy, stalls_s, outages):
    """All that a network can do, and these."""
    for direction in (TO_SERVER, TO_CLIENT):
        with company.outage(f"nothing goes {direction}"):
            proxy.stall(direction)
            time.sleep(stalls_s)  # this is what is tested: that it lasts
            proxy.go_on()
    with company.outage("connections are reset"):
        proxy.cut()
    with company.outage("connections are reset after nothing went either way"):
        proxy.stall()
        time.sleep(stalls_s)
        proxy.cut()
        proxy.go_on()
    for name, happen in outages.items():
        with company.outage(name):
            happen()


def test_redis_is_killed_and_its_network_fails_and_all_that_was_confirmed_runs_once(tmp_path):
    with redis_server(appendonly="yes", appendfsync="always") as server, tcp_proxy(server.port) as proxy:
        place = Place("redis", server.url, LEASE_MS)
        seen = place._replace(address=proxy.url_of(server.url))
        with company_on(seen, tmp_path, place) as company:
            outages = {
                "the server closes connections": lambda: server.admin.client_kill_filter(_type="normal", skipme=True),
                "the server is killed": lambda: restart(server),
            }

            live_through(company, proxy, STALLS_S["redis"], outages)

            company.settle()
            print(company.summary(), file=sys.stderr)
            company.assert_nothing_is_wrong()


@pytest.fixture
def rabbitmq_node():
    """It is killed."""
    return shared_rabbitmq()


@pytest.mark.parametrize("kind", ["rabbitmq-classic", "rabbitmq-quorum"])
def test_a_rabbitmq_node_is_killed_and_its_network_fails_and_all_that_was_confirmed_runs(rabbitmq_node, kind, tmp_path):
    vhost = rabbitmq_node.new_vhost()
    with tcp_proxy(rabbitmq_node.port) as proxy:
        place = Place(kind, vhost.url)
        seen = place._replace(address=proxy.url_of(vhost.url))
        with company_on(seen, tmp_path, place) as company:
            outages = {
                "the node closes connections": vhost.close_connections,
                # Last: of a quorum queue that was declared within the last second before that it forgets the
                # process, and nothing can be had from the queue again (RabbitMQ 3.10).
                "the node is killed": lambda: restart(rabbitmq_node),
            }

            live_through(company, proxy, STALLS_S["rabbitmq"], outages)

            company.settle()
            print(company.summary(), file=sys.stderr)
            company.assert_nothing_is_wrong()


def test_a_file_of_sqlite_is_locked_and_then_the_whole_tree_killed_and_all_that_was_confirmed_runs(tmp_path):
    path = tmp_path / "queue.db"
    with company_on(Place("sqlite", str(path), LEASE_MS), tmp_path) as company:
        with company.outage("the file is locked"), closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(LOCKED_S)  # this is what is tested: that it lasts
        with company.outage("the tree is killed"):
            company.kill_the_tree()
            company.wait_until_at_work()

        company.settle()
        print(company.summary(), file=sys.stderr)
        company.assert_nothing_is_wrong()
