"""When a worker that died is started again."""

from __future__ import annotations

from greenq.supervisor.streak import LONG_LIFE_S, RESTART_DELAYS_S, Streak


def test_delays_grow_and_the_tenth_death_in_a_row_is_one_too_many():
    streak = Streak()

    delays = [streak.died(did_a_job=False, ready_s=0) for _ in range(10)]

    assert delays[:4] == [0, 0.5, 1, 2]
    assert delays[:9] == sorted(RESTART_DELAYS_S)
    assert delays[9] is None


def test_a_job_done_and_a_long_life_end_the_row():
    for life in ({"did_a_job": True, "ready_s": 0}, {"did_a_job": False, "ready_s": LONG_LIFE_S}):
        streak = Streak()
        for _ in range(9):
            streak.died(did_a_job=False, ready_s=0)

        assert streak.died(**life) == 0


def test_an_outage_is_never_given_up():
    streak = Streak()

    assert {streak.could_not_start() for _ in range(100)} == set(RESTART_DELAYS_S)


def test_failed_starts_of_an_outage_do_not_count_as_deaths():
    streak = Streak()
    for _ in range(20):
        streak.could_not_start()

    assert streak.died(did_a_job=False, ready_s=1) is not None
