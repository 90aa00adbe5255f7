"""The keeper of a lease: when it takes back from others, and when it must not."""

from __future__ import annotations

import threading
import time

import greenq.lease
from greenq.lease import LeaseKeeper
from greenq.runtime import current
from tests.support.waiting import PATIENCE_S

LEASE_MS = 300


class Watched:
    """A keeper whose calls are noted; ``taken_back`` is set at each taking back."""

    def __init__(self):
        self.renewed = threading.Event()
        self.taken_back = threading.Event()
        self.keeper = LeaseKeeper(LEASE_MS, self.renewed.set, self.taken_back.set)


def test_nothing_is_taken_back_before_the_lease_has_been_held_for_its_length():
    began = time.monotonic()
    watched = Watched()

    assert watched.taken_back.wait(PATIENCE_S)
    assert time.monotonic() - began >= LEASE_MS / 1000
    watched.keeper.stop()


def test_a_step_of_the_wall_clock_gives_the_others_a_lease_to_renew(monkeypatch):
    step_ms = 0
    real = greenq.lease.now_ms
    monkeypatch.setattr(greenq.lease, "now_ms", lambda: real() + step_ms)
    watched = Watched()
    assert watched.taken_back.wait(PATIENCE_S)

    step_ms = 3_600_000
    stepped = time.monotonic()
    watched.renewed.clear()
    assert watched.renewed.wait(PATIENCE_S)
    watched.taken_back.clear()  # whatever was under way when the clock was set
    assert watched.taken_back.wait(PATIENCE_S)

    assert time.monotonic() - stepped >= LEASE_MS / 1000
    watched.keeper.stop()


def test_an_outage_gives_the_others_a_lease_to_renew():
    failing = threading.Event()
    failed, taken_back = threading.Event(), threading.Event()

    def renew():
        if failing.is_set():
            failed.set()
            raise OSError("away")

    keeper = LeaseKeeper(LEASE_MS, renew, taken_back.set)
    assert taken_back.wait(PATIENCE_S)
    failing.set()
    assert failed.wait(PATIENCE_S)
    taken_back.clear()
    failing.clear()
    back = time.monotonic()

    assert taken_back.wait(PATIENCE_S)
    assert time.monotonic() - back >= LEASE_MS / 1000
    keeper.stop()


def test_leases_of_any_length_are_looked_after_every_few_seconds(monkeypatch):
    waits, waited = [], threading.Event()

    class Lock:
        """Says that nobody stopped the keeper, until it has waited twice."""

        def acquire(self, blocking=True, timeout=-1):
            if timeout != -1:
                waits.append(timeout)
            return len(waits) == 2 and (waited.set() or True)

        def locked(self):
            return False

    monkeypatch.setattr(type(current()), "native_lock", lambda self: Lock())
    for lease_ms in (60_000, 900):
        waits.clear()
        waited.clear()
        LeaseKeeper(lease_ms, lambda: None, lambda: None)
        assert waited.wait(PATIENCE_S)
        assert waits == [min(4, lease_ms / 3000)] * 2
