"""The soak of loadtests/soak.py, as a user starts it, with few jobs."""

from __future__ import annotations

import pytest

from tests.support.command import ROOT, Command

SOAK = str(ROOT / "loadtests" / "soak.py")

#: Seconds that a run may take, on a machine however busy.
_LONG_S = 100


@pytest.fixture
def soak(tmp_path):
    commands = []

    def run(*options):
        commands.append(Command(tmp_path, *options, program=(SOAK,)))
        commands[-1].process.wait(_LONG_S)
        return commands[-1]

    yield run
    for command in commands:
        command.end()


def test_jobs_of_all_kinds_come_to_an_end_and_leave_nothing(soak):
    # With more jobs at once a round may need more greenlets than the one before.
    command = soak("--round", "40", "--jobs", "80")

    assert command.exit_code() == 0, command.log
    assert "No job was lost, and nothing has grown." in command.lines
    assert [line.split(" | ")[0] for line in command.lines if line.startswith("| ")] == [
        "| jobs",
        "| 0",
        "| 40",
        "| 80",
    ]


@pytest.mark.parametrize("options", [("--round", "40", "--jobs", "40"), ("--round", "40", "--jobs", "100")])
def test_a_soak_in_which_nothing_could_be_compared_is_refused(soak, options):
    command = soak(*options)

    assert command.exit_code() == 2
    assert "--jobs two or more rounds" in command.log
