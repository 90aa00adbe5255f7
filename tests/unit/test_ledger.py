"""What the chaos tests find wrong with a ledger: an unseen second run would make all of them worthless."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.ledger import Entry, Ledger


@pytest.fixture
def write(tmp_path):
    """Writes lines, each of which happened a millisecond after the one before; the ledger reads them."""
    ledger = Ledger(tmp_path / "ledger")

    def write(*lines):
        with ledger.path.open("a") as file:
            for at_ms, (what, whom, pid) in enumerate(lines):
                file.write(json.dumps(Entry(what, "", whom, 0, at_ms, pid)) + "\n")
        return ledger

    yield write
    ledger.close()


ASKED, RUN, AGAIN = ("asked", "it", 1), ("started", "it", 2), ("started", "it", 3)


def test_a_second_run_without_a_reason_is_found(write):
    (problem,) = write(ASKED, RUN, AGAIN).unexplained(has_copies=True)

    assert "attempt 0 of it ran again in 3" in problem


@pytest.mark.parametrize(("dead", "found"), [("2", 0), ("3", 1), ("7", 1)])
def test_the_death_of_the_first_process_explains_it_and_no_other_does(write, dead, found):
    assert len(write(ASKED, RUN, ("killed", dead, 1), AGAIN).unexplained()) == found


def test_a_kill_that_came_after_the_second_run_explains_nothing(write):
    assert len(write(ASKED, RUN, AGAIN, ("killed", "2", 1)).unexplained(has_copies=True)) == 1


def test_each_run_needs_a_reason(write):
    ledger = write(ASKED, RUN, ("killed", "2", 1), AGAIN, ("started", "it", 4))

    assert len(ledger.unexplained()) == 1


def test_a_lease_that_its_process_lost_explains_it(write):
    assert write(ASKED, RUN, AGAIN).unexplained([2]) == []


@pytest.mark.parametrize("disturbance", [[("killed", "7", 1)], [("outage begins", "", 1), ("outage ends", "", 1)]])
def test_a_disturbance_explains_copies_of_what_had_been_sent_where_there_are_any(write, disturbance):
    ledger = write(ASKED, *disturbance, RUN, AGAIN)

    assert ledger.unexplained(has_copies=True) == []
    assert len(ledger.unexplained()) == 1


def test_what_was_sent_after_the_last_disturbance_runs_once_though_there_are_copies(write):
    disturbances = [("killed", "7", 1), ("outage begins", "", 1), ("outage ends", "", 1)]

    assert len(write(*disturbances, ASKED, RUN, AGAIN).unexplained(has_copies=True)) == 1


def test_a_line_that_is_half_there_is_read_when_it_is_whole(write):
    ledger = write(ASKED)
    whole = json.dumps(Entry("started", "", "it", 0, 9, 2)).encode() + b"\n"

    os.write(ledger._fd, whole[:10])
    assert ledger.entries("started") == []
    os.write(ledger._fd, whole[10:])

    assert [each.at_ms for each in ledger.entries("started")] == [9]
