"""Who is worn out, by a clock of the test's own."""

from __future__ import annotations

import pytest

from greenq.supervisor import recycling
from greenq.supervisor.recycling import Recycling

MIB = 1024 * 1024


class Worker:
    """As much of a worker as is looked at."""

    def __init__(self, clock, memory=40 * MIB):
        self.number = 1
        self.clock = clock
        self.ready_at = clock.now
        self.stopping = self.killed = False
        self.stuck = self.worn = None
        self.memory = memory

    def ready_for_s(self):
        return self.clock.now - self.ready_at


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(recycling, "time", clock)
    return clock


def test_nobody_is_worn_out_by_default(clock):
    worker = Worker(clock, memory=1_000_000 * MIB)
    clock.now += 1e9

    assert Recycling().next([worker]) is None


def test_a_worker_that_says_so_is_worn_out(clock):
    worker = Worker(clock)
    worker.worn = "it has done 5 jobs"

    assert Recycling().next([Worker(clock), worker]) == (worker, "it has done 5 jobs")


def test_a_worker_that_grew_beyond_the_limit_is_worn_out(clock):
    limited, worker = Recycling(max_memory=100 * MIB), Worker(clock)
    limited.greet(worker)
    worker.memory = 101 * MIB
    clock.now += 10

    assert limited.next([worker]) == (worker, "it has 101 MiB, and --max-memory is 100 MiB")


def test_a_worker_that_is_too_large_from_the_beginning_is_told_of_once_and_recycled_once_a_minute(clock, caplog):
    limited = Recycling(max_memory=100 * MIB)
    recycled = 0
    worker = Worker(clock, memory=95 * MIB)
    limited.greet(worker)
    for _ in range(600):  # ten minutes
        worker.memory = 105 * MIB
        clock.now += 1
        if limited.next([worker]) is not None:
            recycled += 1
            worker = Worker(clock, memory=95 * MIB)
            limited.greet(worker)

    assert 8 <= recycled <= 10
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "needs 95 MiB as soon as it is ready, and --max-memory is 100 MiB" in caplog.text


def test_an_old_worker_is_worn_out(clock):
    limited, worker = Recycling(max_age_ms=60_000), Worker(clock)
    clock.now += 59

    assert limited.next([worker]) is None
    clock.now += 1
    assert limited.next([worker]) == (worker, "it has run for 60 s (--max-age)")


@pytest.mark.parametrize("attribute", ["stopping", "killed", "stuck"])
def test_a_worker_that_is_about_to_end_anyway_is_not_worn_out(clock, attribute):
    worker = Worker(clock)
    worker.worn = "it has done 5 jobs"
    setattr(worker, attribute, True)

    assert Recycling().next([worker]) is None


def test_a_worker_whose_replacement_failed_is_left_alone_for_a_minute(clock):
    limited, worker = Recycling(), Worker(clock)
    worker.worn = "it has done 5 jobs"
    limited.postpone(worker)
    clock.now += 59

    assert limited.next([worker]) is None
    clock.now += 2
    assert limited.next([worker]) is not None
