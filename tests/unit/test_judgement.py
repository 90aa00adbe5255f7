"""Which answers of a supervisor mean that the workers live, and that they work."""

from __future__ import annotations

import pytest

from greenq.health.judgement import judge, silent


def worker(state="ready", answers=True, consuming=True):
    return {"worker": 1, "pid": 2, "state": state, "answers": answers, "consuming": consuming}


@pytest.mark.parametrize(
    ("workers", "is_live", "is_ready"),
    [
        ([worker()], True, True),
        ([worker(consuming=False)], True, False),
        ([worker(consuming=False), worker()], True, True),
        ([worker(answers=False)], False, False),
        ([worker(answers=False), worker()], False, True),
        ([worker("starting", None, False)], True, False),
        ([worker("starting", None, False), worker("stopping")], True, False),
        ([worker("stopping", answers=False), worker()], False, True),
        ([], True, False),
    ],
)
def test_live_means_that_all_answer_and_ready_that_one_consumes(workers, is_live, is_ready):
    health = judge({"workers": workers, "is_stopping": False})

    assert (health.is_live, health.is_ready) == (is_live, is_ready)
    assert bool(health.reasons) == (not (is_live and is_ready))


def test_a_command_that_stops_is_live_and_not_ready():
    health = judge({"workers": [worker()], "is_stopping": True})

    assert (health.is_live, health.is_ready) == (True, False)


def test_a_supervisor_that_is_silent_is_neither():
    assert silent("it is away").document() == {"live": False, "ready": False, "reasons": ["it is away"], "workers": []}
