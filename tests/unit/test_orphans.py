"""Who is told of what a dead worker held, by a clock of the test's own."""

from __future__ import annotations

import pytest

from greenq.supervisor import orphans as module
from greenq.supervisor.child import Orphan
from greenq.supervisor.death import Death
from greenq.supervisor.orphans import Orphans

DEATH = Death("was killed by SIGKILL", "", "", ("the one",), "", False)
HELD = Orphan("the dead", ("the one",), "was killed by SIGKILL")


class Worker:
    """As much of a worker as is looked at; it listens, and does nothing."""

    worker_id = None
    ready_at = 1.0
    killed = stopping = False
    stuck = None
    listens = True

    def __init__(self):
        self.errands = {}

    def take_back(self, orphan):
        if self.listens:
            self.errands[orphan.worker_id] = orphan
        return self.listens


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def orphans():
    """With one in it."""
    orphans, dead = Orphans(), Worker()
    dead.worker_id = "the dead"
    orphans.leave(dead, DEATH, held_something=True)
    return orphans


def test_one_worker_is_told(orphans, clock):
    one, other = Worker(), Worker()

    orphans.pass_on([one, other])
    orphans.pass_on([one, other])

    assert one.errands == {"the dead": HELD}
    assert other.errands == {}
    assert not orphans


def test_another_is_told_as_well_when_the_first_has_not_done_it_in_a_second(orphans, clock):
    busy, other = Worker(), Worker()
    orphans.pass_on([busy, other])

    clock.now += 0.9
    orphans.pass_on([busy, other])
    assert other.errands == {}

    clock.now += 0.2
    orphans.pass_on([busy, other])
    assert other.errands == {"the dead": HELD}


def test_a_ready_worker_is_told_of_what_one_was_told_that_is_still_starting(orphans, clock):
    starting, other = Worker(), Worker()
    starting.ready_at = None
    starting.errands = {orphan.worker_id: orphan for orphan in orphans.take()}

    clock.now += 1.1
    orphans.pass_on([starting, other])

    assert other.errands == {"the dead": HELD}


def test_who_replaces_a_dead_one_is_told_where_nobody_else_has_done_it(orphans, clock):
    busy = Worker()
    orphans.pass_on([busy])
    clock.now += 1.1
    orphans.pass_on([busy])

    assert orphans.take() == [HELD]


def test_nobody_is_told_of_what_is_done(orphans, clock):
    busy, other = Worker(), Worker()
    orphans.pass_on([busy])
    clock.now += 1.1
    orphans.pass_on([busy, other])
    assert other.errands == {"the dead": HELD}

    orphans.done("the dead", [busy, other])
    for _ in range(3):
        clock.now += 1.1
        orphans.pass_on([busy, other])

    assert busy.errands == other.errands == {}
    assert not orphans


def test_what_one_was_told_that_died_before_it_did_it_is_told_the_next(orphans, clock):
    one, other = Worker(), Worker()
    orphans.pass_on([one])
    orphans.leave(one, DEATH, held_something=False)

    orphans.pass_on([other])

    assert other.errands == {"the dead": HELD}


def test_thousands_are_told_of_as_soon_as_one_listens(clock):
    orphans, deaf = Orphans(), Worker()
    deaf.listens = False
    for number in range(5000):
        dead = Worker()
        dead.worker_id = str(number)
        orphans.leave(dead, DEATH, held_something=True)
    orphans.pass_on([deaf])
    assert orphans

    deaf.listens = True
    orphans.pass_on([deaf])

    assert list(deaf.errands) == [str(number) for number in range(5000)]
    assert not orphans
