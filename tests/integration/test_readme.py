"""The README's example, commands and figures are as they stand."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys

import pytest

import greenq
from greenq.cli.options import parse_options
from tests.support.command import Command
from tests.support.processes import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(program):
    """The arguments of each command line of this program."""
    lines = re.findall(rf"^\$ {program} (.*)$", README, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def run(tmp_path):
    runs = []

    def run(*arguments):
        runs.append(Command(tmp_path, *arguments))
        return runs[-1]

    yield run
    for command in runs:
        command.end()


def test_the_example_enqueues_a_thousand_jobs_and_the_worker_runs_them_all_at_once(run, tmp_path):
    (tmp_path / "app.py").write_text(blocks("python")[0])
    sent = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, timeout=60, check=False
    )
    command = run(*commands("greenq-worker")[0])

    greeted = command.wait_for(r"hello (number \d+)", 1000)
    command.send(signal.SIGINT)

    assert sent.returncode == 0
    assert set(greeted) == {f"number {number}" for number in range(1000)}
    assert command.exit_code() == 0


def test_the_command_for_production_has_options_that_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (_, arguments) = commands("greenq-worker")

    options = parse_options(arguments)

    assert (options.broker, options.processes, options.health, options.log_format) == ("shop", 4, "8080", "json")
    assert (options.worker_shutdown_timeout, options.max_memory) == (60_000, 1 << 30)


def test_the_broker_for_production_is_made_as_it_stands():
    exec(blocks("python")[1], {"greenq": greenq})

    broker = greenq.get_broker()
    assert str(broker).startswith("RedisBroker(10.0.0.5:6379")
    assert type(broker.middleware[-1]).__name__ == "Prometheus"
    broker.close()


def test_the_figures_are_those_of_the_benchmarks():
    measured = (ROOT / "loadtests/README.md").read_text()
    parts = [
        measured.partition(f"### Figures on {broker}\n")[2].partition("\n#")[0] for broker in ("Redis", "RabbitMQ")
    ]
    rows = re.findall(r"^\| (no-op jobs[^|]*) \| ([^|]*) \| ([^|]*) \|$", README, re.MULTILINE)

    for label, *figures in rows:
        for part, figure in zip(parts, figures, strict=True):
            assert not figure.strip() or f"| {label} | {figure.strip()} |" in part, (label, figure)
    assert len(rows) == 3
