"""Signals that come at once, without a process."""

from __future__ import annotations

import signal

import pytest

from greenq.supervisor import Launch, Supervisor


class Pipe:
    def __init__(self, *signums):
        self.signums = list(signums)

    def read(self):
        signums, self.signums = self.signums, []
        return signums


class Reload:
    """Counts how often it is begun."""

    is_under_way = False

    def __init__(self):
        self.reasons = []

    def begin(self, reason):
        self.reasons.append(reason)


@pytest.fixture
def supervisor(monkeypatch):
    launch = Launch(("false",), {}, {})
    supervisor = Supervisor(launch, processes=3, stop_timeout_ms=0, announce=lambda facts, first: None)
    supervisor.sizes = []
    monkeypatch.setattr(supervisor, "_reload", Reload())
    monkeypatch.setattr(supervisor._crew, "adjust", lambda: supervisor.sizes.append(supervisor._crew.size))
    return supervisor


def test_reloads_that_are_asked_for_at_once_are_one(supervisor):
    supervisor._obey(Pipe(*[signal.SIGHUP, signal.SIGTTIN] * 50))

    assert supervisor._reload.reasons == ["SIGHUP"]


def test_workers_that_come_and_go_at_once_are_not_started(supervisor):
    supervisor._obey(Pipe(*[signal.SIGTTIN] * 50, *[signal.SIGTTOU] * 51))

    assert supervisor.sizes == [2]


def test_no_worker_is_started_for_what_comes_after_a_stop(supervisor):
    supervisor._obey(Pipe(signal.SIGTERM))
    supervisor._obey(Pipe(signal.SIGTTIN, signal.SIGHUP))

    assert supervisor._reload.reasons == []
    assert supervisor.sizes == []
