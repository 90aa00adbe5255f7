"""Who is taken for stuck, and who is not, by a clock of the test's own."""

from __future__ import annotations

import os

import pytest

from greenq import shared_page
from greenq.shared_page import SharedPage
from greenq.supervisor import watchman
from greenq.supervisor.watchman import Watchman


class Worker:
    """As much of a worker as a watchman looks at."""

    def __init__(self, page, lease_ms):
        self.page, self.lease_ms = page, lease_ms
        self.pid = os.getpid()
        self.killed = False
        self.stuck = None
        self.memory = None


class Night:
    """A watchman, a worker and a clock."""

    def __init__(self, monkeypatch, page):
        self.now = 1000.0
        monkeypatch.setattr(watchman.time, "monotonic", lambda: self.now)
        self.worker = Worker(page, lease_ms=3000)
        self.watchman = Watchman()
        self.watchman.greet(self.worker)

    def looks(self, times, every=0.5, beats=False):
        """So many looks; what is found."""
        found = []
        for _ in range(times):
            self.now += every
            if beats:
                self.worker.page.beat()
            found += [stuck.reason for _, stuck in self.watchman.look([self.worker])]
        return found


@pytest.fixture
def night(monkeypatch):
    fd = shared_page.make()
    page = SharedPage(fd)
    yield Night(monkeypatch, page)
    page.close()
    os.close(fd)


def test_a_worker_that_beats_is_left_alone(night):
    assert night.looks(100, beats=True) == []


def test_a_worker_whose_beats_stand_still_for_two_thirds_of_its_lease_is_stuck(night):
    night.looks(3, beats=True)

    assert night.looks(3) == []
    (reason,) = night.looks(1)
    assert reason.startswith("nothing in it moved for 2 s, two thirds of its lease")


def test_a_worker_that_has_never_beaten_is_not_watched_for_beats(night):
    assert night.looks(100) == []


def test_a_worker_that_is_not_ready_is_left_alone(night):
    night.watchman = Watchman()
    night.worker.page.kill_at = 1.0

    assert night.looks(10) == []


def test_a_worker_past_the_time_at_which_it_is_to_be_killed_is_stuck(night):
    night.worker.page.kill_at = night.now + 1.2

    assert night.looks(2, beats=True) == []
    (reason,) = night.looks(1, beats=True)
    assert reason == "a job kept it busy beyond its time limit and --hard-limit"


def test_a_supervisor_that_was_paused_itself_blames_nobody_for_that_time(night):
    night.worker.page.kill_at = night.now + 60
    night.looks(1, beats=True)

    assert night.looks(1, every=3600) == []  # the worker, too, has just awoken
    night.worker.page.kill_at = 0
    assert night.looks(2, beats=True) == []


def test_what_is_not_changed_after_such_a_pause_counts_at_the_next_look(night):
    night.worker.page.kill_at = night.now + 60

    assert night.looks(1, every=3600) == []
    assert len(night.looks(1)) == 1


def test_it_looks_twice_a_second_however_often_it_is_called(night):
    night.worker.page.kill_at = 1.0

    assert night.looks(4, every=0.1) == []
    assert len(night.looks(1, every=0.1)) == 1


def test_the_memory_of_a_worker_is_known(night):
    assert night.worker.memory > 1024 * 1024
    night.worker.memory = None
    night.looks(2)
    assert night.worker.memory > 1024 * 1024
