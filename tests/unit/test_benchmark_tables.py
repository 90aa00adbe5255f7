"""What the benchmark beside other queues puts into a cell of its tables."""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any

import pytest

from tests.support.command import ROOT


@pytest.fixture
def cell_of(monkeypatch) -> Any:
    """The cell of a queue in the column "latency_p50", after these runs of greenq and of it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(ROOT / "loadtests" / "benchmarks"))
    beside = importlib.import_module("beside")

    def cell(ours: list[dict[str, float]], theirs: list[dict[str, float]], **failures: str) -> str:
        outcome = beside.Outcome([peer for peer in beside.PEERS if peer.name in ("greenq", "saq")])
        outcome.runs = {"greenq": ours, "saq": theirs}
        outcome.failures = {("saq", name): why for name, why in failures.items()}
        latency = outcome.tables().partition("### Latency")[2]
        row = next(line for line in latency.splitlines() if line.startswith("| SAQ |"))
        return row.split(" | ")[1]

    yield cell
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(ROOT / "loadtests")):
            del sys.modules[name]


OURS = [{"latency_p50": 1.0}, {"latency_p50": 2.0}, {"latency_p50": 4.0}]


def test_a_cell_has_the_median_and_the_median_of_the_ratios_of_each_run(cell_of):
    theirs = [{"latency_p50": 2.0}, {"latency_p50": 10.0}, {"latency_p50": 4.0}]

    assert cell_of(OURS, theirs) == "4.00 · 2.00 (1.00 to 5.00)"


def test_a_cell_says_in_how_many_runs_there_was_no_figure(cell_of):
    assert cell_of(OURS, [{}, {"latency_p50": 10.0}, {}], latency="failed") == "10.0 · 5.00, failed in 2 of 3 runs"


def test_a_cell_says_why_there_is_no_figure(cell_of):
    assert cell_of(OURS, [{}, {}, {}], latency="failed") == "failed"
    assert cell_of(OURS, [{}], latency="needs node and npm") == "needs node and npm"


def test_a_figure_that_was_endless_once_is_no_figure(cell_of):
    assert (
        cell_of(OURS, [{"latency_p50": math.inf}, {"latency_p50": 1.0}, {"latency_p50": 1.0}]) == "not all within 30 s"
    )
