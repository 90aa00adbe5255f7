"""The examples of the documentation run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent
from types import SimpleNamespace

import pika
import pytest
import redis

import greenq
import greenq.inspection
from greenq.brokers.rabbitmq import RabbitmqBroker
from greenq.brokers.redis import RedisBroker
from greenq.brokers.sqlite import SqliteBroker
from greenq.brokers.stub import StubBroker
from greenq.cli.options import OPTIONS, parse_options
from greenq.metrics.catalogue import METRICS, Labels
from greenq.middleware import GroupCallbacks
from greenq.rate_limits import Barrier, ConcurrentRateLimiter
from greenq.rate_limits.backends import StubBackend
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


def blocks(page):
    """The Python of a page, from the first line to the last."""
    text = (ROOT / page).read_text()
    return [dedent(code) for _, code in re.findall(r"^( *)```python\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)]


def test_every_page_with_examples_is_known_to_a_test():
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("loadtests/*.md"),
    ]
    # That one names pages for what they quote.
    tests = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_operators_pages.py"
    )

    assert [page.name for page in pages if blocks(page) and f'{page.name}"' not in tests] == []


def test_the_examples_of_the_page_on_actors_run():
    broker = StubBroker()
    greenq.set_broker(broker)
    names = {"greenq": greenq}

    for example in blocks("docs/actors.md"):
        exec(example, names)

    assert broker.queue_counts("mail") == greenq.inspection.QueueCounts(ready=1, reserved=0, delayed=3, dead=0)
    assert names["Foo"]() == "Hello from Foo!"
    assert (names["Foo"].queue_name, names["Resize"].options) == ("tasks", {"max_retries": 3})


def test_the_examples_of_the_page_on_metrics_run():
    broker = StubBroker()
    scheduler = SimpleNamespace(run=print)
    names = {"broker": broker, "Middleware": greenq.Middleware, "my_app": SimpleNamespace(scheduler=scheduler)}

    for example in blocks("docs/metrics.md"):
        exec(example, names)

    assert type(broker.middleware[-1]).__name__ == "Prometheus"
    assert names["Scheduled"]().forks == [print]


def test_the_examples_of_the_page_on_brokers_make_brokers(tmp_path):
    names = {}
    which, of_a_file = (example.replace("/var/lib/shop", str(tmp_path)) for example in blocks("docs/brokers.md"))
    imports, choices = which.split("\n\n")
    exec(imports, names)

    made = []
    for line in [*choices.splitlines(), f"broker = {of_a_file}"]:
        exec(line, names)
        made.append(names["broker"])
    for broker in made:
        broker.close()

    assert [type(broker) for broker in made] == [SqliteBroker, RedisBroker, RabbitmqBroker, SqliteBroker]


def test_the_example_of_the_page_on_rabbitmq_makes_a_broker():
    names = {}

    (example,) = blocks("docs/rabbitmq.md")
    exec(example, names)

    assert isinstance(names["broker"], RabbitmqBroker)


def test_the_example_of_the_page_on_what_runs_imports_all_lines(tmp_path):
    greenq.set_broker(StubBroker())
    path = tmp_path / "lines"
    path.write_text("one\ntwo\n")
    imported = []
    names = {"greenq": greenq, "import_one": imported.append}

    (example,) = blocks("docs/sight.md")
    exec(example, names)
    names["import_all"](str(path))

    assert imported == ["one\n", "two\n"]


def test_the_examples_of_the_reference_run():
    broker = StubBroker()
    broker.add_middleware(GroupCallbacks(StubBackend()))
    greenq.set_broker(broker)
    names = {**vars(greenq), "RedisBroker": RedisBroker, "RabbitmqBroker": RabbitmqBroker, "pika": pika}
    names.update(urls=["a", "b"], paths=["c", "d"], url="a", backend=StubBackend(), Barrier=Barrier)
    names["sentinel"] = SimpleNamespace(master_for=lambda _: redis.Redis())
    names["limiter"] = ConcurrentRateLimiter(names["backend"], "some-limit", limit=1)
    for name in ("resize", "fetch", "count_words"):
        names[name] = greenq.actor(lambda *_, **__: None, actor_name=name)

    for example in blocks("docs/reference.md"):
        # One is the body of an actor.
        exec(f"def example():\n{indent(example, '    ')}" if "return" in example else example, names)
    names["example"]()
    names["barrier"] = Barrier(StubBackend(), "the same once more")
    names["barrier"].create(parties=3)

    promised = re.findall(r"^(barrier\.wait.*)  # (\w+)$", (ROOT / "docs/reference.md").read_text(), re.MULTILINE)
    assert [str(eval(call, names)) for call, _ in promised] == [told for _, told in promised]
    assert broker.queue_counts("images").ready == 1
    assert broker.queue_counts("default").ready == 2 + 2 + 2 + 2


@pytest.mark.parametrize("page", ["retries.md", "delays.md", "priorities.md"])
def test_the_examples_of_a_page_print_what_it_says(page, tmp_path):
    text = (ROOT / "docs" / page).read_text()

    printed = run("-c", "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), folder=tmp_path)

    assert printed == "".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    assert len(printed.splitlines()) >= 3


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
