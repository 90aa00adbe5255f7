"""Measures everything several times and prints the figures as a Markdown table.

Knows neither queues nor processes: a measurement is a function that answers figures by
name, and a row says how one of them is shown.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

Figures = dict[str, float]
Measurements = Mapping[str, Callable[[], Figures]]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    title: str
    unit: str
    goal: str = ""


def arguments(description: str, names: Sequence[str]) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=5, help="how often to measure everything; default: %(default)s")
    parser.add_argument("--only", choices=names, help="measure nothing but this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all runs there too")
    return parser


def measure(args: argparse.Namespace, measurements: Measurements, rows: Sequence[Row]) -> None:
    """Measure everything in turn, several times; print the table."""
    # Ended by TERM as by ctrl-C: what was started ends too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = [args.only] if args.only else list(measurements)
    runs: list[Figures] = []
    for number in range(1, args.runs + 1):
        figures: Figures = {}
        for name in names:
            print(f"run {number} of {args.runs}: {name}", file=sys.stderr, flush=True)
            figures |= measurements[name]()
        runs.append(figures)
        if args.json:
            args.json.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")
    print(f"{machine()}; {args.runs} runs\n\n{table(rows, runs)}")


def machine() -> str:
    """The machine in words."""
    memory_gib = psutil.virtual_memory().total / 2**30
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB of memory, {sys.platform}, Python {python}"


def table(rows: Sequence[Row], runs: Sequence[Figures]) -> str:
    """All figures as a Markdown table: median and spread over the runs."""
    lines = ["| | median | lowest to highest | goal |", "|---|---|---|---|"]
    for row in rows:
        values = [run[row.name] for run in runs if row.name in run]
        if values:
            cells = [shown(value) for value in (statistics.median(values), min(values), max(values))]
            lines.append(f"| {row.title} | {cells[0]} {row.unit} | {cells[1]} to {cells[2]} | {row.goal} |")
    return "\n".join(lines)


def shown(value: float) -> str:
    """A figure with as many digits as tell something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that this many percent of the others do not exceed."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]
