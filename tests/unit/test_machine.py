"""What the machine has, as a container sees it."""

from __future__ import annotations

import os

import pytest

from greenq import machine


@pytest.fixture
def of_eight(monkeypatch, tmp_path):
    """A machine with eight CPUs; returns the file that limits their time."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "CPU_LIMIT", str(tmp_path / "cpu.max"))
    return tmp_path / "cpu.max"


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        ("max 100000\n", 8),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("nonsense\n", 8),
    ],
)
def test_a_limit_of_cpu_time_counts_as_so_many_cpus(of_eight, limit, count):
    of_eight.write_text(limit)

    assert machine.cpu_count() == count


def test_without_a_limit_there_are_as_many_cpus_as_the_process_may_use(of_eight):
    assert not of_eight.exists()

    assert machine.cpu_count() == 8
