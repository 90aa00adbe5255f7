"""Nothing is lost when workers, supervisors and whole trees are killed and connections cut at random, on every broker.

    GREENQ_CHAOS_S=600 ./run-tests tests/chaos/test_random_kills.py -rP       for ten minutes each
    GREENQ_CHAOS_SEED=7 ./run-tests tests/chaos/test_random_kills.py -k redis

A failure tells its seed. The seed decides what is sent and who is killed; the machine, in which
moment of its life.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager

import pytest

from tests.support.company import LEASE_MS, Company
from tests.support.places import KINDS, Place
from tests.support.rabbitmq_server import shared_server as shared_rabbitmq
from tests.support.redis_server import redis_server
from tests.support.waiting import PATIENCE_S

#: How long things are killed at random, and which things.
LASTS_S = float(os.environ.get("GREENQ_CHAOS_S", "8"))
SEED = os.environ.get("GREENQ_CHAOS_SEED", "1")


@contextmanager
def place_of(kind, folder):
    """Where it happens, and what closes all connections there; None if there are none."""
    if kind == "sqlite":
        yield Place(kind, str(folder / "queue.db"), LEASE_MS), None
    elif kind == "redis":
        with redis_server() as server:
            yield (
                Place(kind, server.url, LEASE_MS),
                lambda: server.admin.client_kill_filter(_type="normal", skipme=True),
            )
    else:
        with shared_rabbitmq().vhost() as vhost:
            yield Place(kind, vhost.url), vhost.close_connections


@pytest.mark.starts_both_worlds
@pytest.mark.timeout(8 * PATIENCE_S + 3 * LASTS_S)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_or_run_twice_without_a_reason_when_anything_is_killed(kind, tmp_path):
    with place_of(kind, tmp_path) as (place, cut):
        company = Company(place, tmp_path, SEED)
        try:
            company.add_mortals()
            kills = company.kills(cut)
            ends_at = time.monotonic() + LASTS_S
            while time.monotonic() < ends_at or len(company.disturbed) < (3 if cut is None else 4):
                next(kills)

            company.settle()

            print(company.summary(), file=sys.stderr)
            company.assert_nothing_is_wrong()
        finally:
            company.end()
