"""The examples of the documentation run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from greenq.cli.options import OPTIONS, parse_options
from greenq.metrics.catalogue import METRICS, Labels
from greenq.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]


def rows(page, heading):
    """The table below a heading on a page."""
    _, table = (ROOT / "docs" / page).read_text().split(f"{heading}\n")
    _, *lines = table.split("\n\n")[0].splitlines()
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def run(*command, folder):
    """Run a program where an example is; return what it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page_on_actors_lists_every_option_there_is():
    page = (ROOT / "docs/actors.md").read_text()
    _, table = page.split("| option |")

    documented = set(re.findall(r"^\| `(\w+)` \|", table.split("\n\n")[0], re.MULTILINE))

    assert documented == StubBroker().actor_options


def test_the_page_on_metrics_lists_every_metric_as_it_is_served():
    documented = rows("metrics.md", "| name | type | labels | unit | meaning |")

    assert documented == [
        (f"`{metric.name}`", metric.type, ", ".join(labels.value), metric.unit, metric.meaning)
        for labels in Labels
        for metric in METRICS
        if metric.labels is labels
    ]


def test_the_page_on_the_command_line_lists_every_option_with_its_names_and_default():
    documented = rows("command-line.md", "| option | variable | key | default | meaning |")

    assert documented == [
        (
            ", ".join(f"`{flag}`" for flag in option.flags) or option.name.removesuffix("s").upper(),
            f"`{option.variable}`",
            f"`{option.key}`",
            option.default_told,
            option.meaning,
        )
        for option in OPTIONS
    ]


def test_the_page_on_the_command_line_lists_every_other_variable():
    documented = rows("command-line.md", "| variable | default | meaning |")

    assert documented == [(f"`{each.name}`", each.default_told, each.meaning) for each in SETTINGS]


def test_the_file_on_the_page_on_the_command_line_is_understood(tmp_path, monkeypatch):
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/command-line.md").read_text(), re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(example)
    monkeypatch.chdir(tmp_path)

    assert parse_options([]).broker == "app:broker"


def test_the_example_of_the_page_on_dead_letters_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/dead-letters.md").read_text(), re.DOTALL)

    printed = run("-c", example, folder=tmp_path)

    assert printed.startswith("QueueCounts(ready=0, reserved=0, delayed=0, dead=3)\n")
    assert printed.count("the bank is closed") >= 9  # three reasons, six failures
    assert printed.count("charged ") == 2
    assert printed.endswith("\n0\n")


def test_the_classes_of_the_page_on_actors_are_actors():
    greenq.set_broker(StubBroker())
    names = {"greenq": greenq}

    for example in re.findall(r"```python\n(.*?)```", (ROOT / "docs/actors.md").read_text(), re.DOTALL):
        exec(example, names)

    assert names["Foo"]() == "Hello from Foo!"
    assert (names["Foo"].queue_name, names["Resize"].options) == ("tasks", {"max_retries": 3})


@pytest.mark.parametrize("page", ["retries.md", "delays.md", "priorities.md"])
def test_the_examples_of_a_page_print_what_it_says(page, tmp_path):
    text = (ROOT / "docs" / page).read_text()

    printed = run("-c", "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), folder=tmp_path)

    assert printed == "".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    assert len(printed.splitlines()) >= 4


def test_the_tests_of_the_page_on_testing_pass(tmp_path):
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL):
        (tmp_path / re.match(r"# (\w+\.py)\n", code)[1]).write_text(code)

    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path)

    assert "5 passed" in printed


@pytest.mark.parametrize("page", ["delivery.md", "signals.md"])
def test_each_promise_is_linked_to_tests_that_there_are(page):
    text = (ROOT / "docs" / page).read_text()
    tables = re.findall(r"^\|.*\| shown by \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    promises = [line for table in tables for line in table.splitlines()]

    for line in promises:
        linked = re.findall(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)", line)
        assert linked, f"nothing shows that {line}"
        for name, path in linked:
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path} has no {name}"
    assert len(promises) > 10
