"""The README's example, commands and figures are as they stand."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import urllib.request

import pytest

from greenq.cli.options import parse_options
from tests.support.command import Command
from tests.support.ports import free_ports
from tests.support.processes import ROOT
from tests.support.redis_server import shared_server
from tests.support.waiting import PATIENCE_S, until

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

    def run(*arguments, **env):
        runs.append(Command(tmp_path, *arguments, **env))
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

    until(lambda: "1000 jobs in flight" in look_at(command.pid))
    greeted = command.wait_for(r"hello (number \d+)", 1000)
    command.send(signal.SIGINT)

    assert sent.returncode == 0
    assert set(greeted) == {f"number {number}" for number in range(1000)}
    assert command.exit_code() == 0


def look_at(pid):
    top = [sys.executable, str(ROOT / "bin/greenq"), "top", "--once", "--limit", "1", "--pid", str(pid)]
    return subprocess.run(top, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False).stdout


def test_the_command_for_production_has_options_that_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (_, arguments) = commands("greenq-worker")

    options = parse_options(arguments)

    assert (options.broker, options.processes, options.health, options.log_format) == ("shop", 4, "8080", "json")
    assert (options.worker_shutdown_timeout, options.max_memory) == (60_000, 1 << 30)


def test_the_application_for_production_runs_by_its_command_on_redis(run, tmp_path):
    health, metrics = free_ports(2)
    snippet = blocks("python")[1].replace("redis://10.0.0.5:6379/0", shared_server().url)
    (tmp_path / "shop.py").write_text(snippet)
    (_, arguments) = commands("greenq-worker")
    arguments = [str(health) if each == "8080" else each for each in arguments]

    command = run(*arguments, GREENQ_PROM_PORT=str(metrics))
    command.wait_for("ready in")
    until(lambda: answers(health, "/ready"))
    until(lambda: answers(metrics, "/metrics"))
    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert "No actors" not in command.log


def answers(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
            return answer.status == 200
    except OSError:
        return False


def tables(text):
    """The cells of all tables, by column and row."""
    cells = {}
    for head, body in re.findall(r"^\|([^\n]*)\|\n\|---[^\n]*\n((?:\|.*\n)+)", text, re.MULTILINE):
        _, *names = [name.strip() for name in head.split("|")]
        for line in body.splitlines():
            row, *given = [cell.strip() for cell in line.strip("|").split("|")]
            cells.update({(name, row): cell for name, cell in zip(names, given, strict=True)})
    return cells


def test_the_figures_beside_other_queues_are_those_of_the_benchmarks():
    page = (ROOT / "docs/benchmarks.md").read_text()
    measured = {place: cell.partition(" (")[0] for place, cell in tables(page).items()}
    section = README.partition("## How fast it is\n")[2].partition("\n## ")[0]
    told = {place: cell for place, cell in tables(section).items() if place[0]}

    assert told == {place: measured[place] for place in told}
    assert {row for _, row in told} == {row for column, row in measured if column == "no-op jobs a second"}
    assert {column for column, _ in told} == {
        "no-op jobs a second",
        "jobs of 100 ms, % of the ideal",
        "enqueue to start p50, ms",
        "a parked job, KiB",
    }


def test_the_figures_on_rabbitmq_are_those_of_the_load_tests():
    measured = (ROOT / "loadtests/README.md").read_text()
    part = measured.partition("### Figures on RabbitMQ\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| no-op jobs, [^|]* \| [^|]* \|$", README, re.MULTILINE)

    assert len(rows) == 3
    for row in rows:
        assert row.removesuffix("|") in part, row
