"""What the pages for operators quote is what the code says: log lines, metrics, options, tests."""

from __future__ import annotations

import ast
import builtins
import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from greenq import errors
from greenq.cli.options import OPTIONS
from greenq.exit_codes import ExitCode
from greenq.metrics.catalogue import METRICS
from greenq.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("troubleshooting.md", "production.md", "brokers.md", "security.md")
#: Others that quote lines of the log.
QUOTING_PAGES = ("time-limits.md", "io-on-greenlets.md")
ALERTS = ROOT / "examples/deploy/alerts.yml"

#: What stands in the code's own words for what only the moment knows; as f-strings have it here.
_VALUE = "\0"
_PLACEHOLDER = re.compile(r"%(?:\.?\d+)?[a-z]|\0")
#: A text with less of its own than this could be found in any line.
_FEWEST_LETTERS = 12

#: What only the moment knows is a name, a number, an address, or what a server says.
_LONGEST_VALUE = 60

#: What servers and libraries say, and greenq passes on.
NOT_OURS = {"Connection refused", "ACCESS_REFUSED", "no permissions"}


class Text(NamedTuple):
    """A text in the code.

    Attributes:
      parts(list[str]): What it says, without what is filled in.
      pattern(re.Pattern): What it looks like when it is filled in.
      level(str): At which it is logged; empty where somebody else logs it.
    """

    parts: list[str]
    pattern: re.Pattern[str]
    level: str

    def is_in(self, line: str) -> bool:
        """Whether a line may have it: quicker to tell than where."""
        return all(part in line for part in self.parts)


def page(name):
    return (ROOT / "docs" / name).read_text()


def string_of(node):
    """What a string or an f-string says, or None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else _VALUE for part in node.values]
        return "".join(str(part) for part in parts)
    return None


def text_of(text, level):
    """What there is to know of this text; None if it says too little."""
    parts = _PLACEHOLDER.split(text)
    if sum(len(part.strip()) for part in parts) < _FEWEST_LETTERS:
        return None
    return Text(parts, re.compile(".*?".join(f"({re.escape(part)})" for part in parts), re.DOTALL), level)


def sources():
    return sorted((ROOT / "greenq").rglob("*.py"))


@functools.cache
def texts():
    """Every text in the code that says something."""
    found = []
    for path in sources():
        tree = ast.parse(path.read_text())
        levels = {}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
                level = {"exception": "ERROR"}.get(call.func.attr, call.func.attr.upper())
                if level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
                    levels[call.args[0]] = level
        for node in ast.walk(tree):
            text = string_of(node)
            if text is not None:
                found.append(text_of(text, levels.get(node, "")))
    return [text for text in found if text is not None]


def quoted_lines():
    """The log lines on all these pages, each with its level."""
    lines = []
    for name in (*PAGES, *QUOTING_PAGES):
        for _, block in re.findall(r"^( *)```text\n(.*?)^\1```", page(name), re.DOTALL | re.MULTILINE):
            lines += [
                pytest.param(*line.strip().split(" ", 1), id=f"{name}: {line[:60]}") for line in block.splitlines()
            ]
    return lines


@pytest.mark.parametrize(("level", "line"), quoted_lines())
def test_a_log_line_on_these_pages_is_one_that_the_code_writes(level, line):
    ours = [False] * len(line)
    known = [text for text in texts() if text.is_in(line)]
    for text in known:
        for found in text.pattern.finditer(line):
            for number in range(1, text.pattern.groups + 1):
                ours[found.start(number) : found.end(number)] = [True] * (found.end(number) - found.start(number))
    values = "".join(" " if is_ours else letter for letter, is_ours in zip(line, ours, strict=True))

    said_at = {text.level for text in known if text.level and text.pattern.fullmatch(line)}
    assert sum(ours) >= len(line) / 4, "no text in greenq/ reads like this"
    assert max(len(value) for value in values.split("  ")) <= _LONGEST_VALUE, (
        f"nothing in greenq/ says {values.split()}"
    )
    assert not said_at or level in said_at, f"it is logged as {' or '.join(sorted(said_at))}"


def test_what_is_looked_for_in_a_line_of_the_log_is_in_the_code():
    tables = re.findall(
        r"^\| the (?:text has|line says) \|.*\n\|[-|]+\n((?:\|.*\n)+)", page("troubleshooting.md"), re.MULTILINE
    )
    first_cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    looked_for = [part for cell in first_cells for part in re.findall(r"`(.+?)`", cell)]
    code = "\0".join(string_of(node) or "" for path in sources() for node in ast.walk(ast.parse(path.read_text())))

    for each in looked_for:
        ours = [part for part in re.split(r" ?\.\.\. ?|: |SIG\w+|code \d", each) if part.strip()]
        assert each in NOT_OURS or not ours or all(part.strip() in code for part in ours), f"nothing says {each!r}"
    assert len(looked_for) > 10


@pytest.mark.parametrize("name", PAGES)
def test_options_variables_and_metrics_on_these_pages_exist(name):
    text = page(name)
    flags = {flag for option in OPTIONS for flag in option.flags} | {"--version", "--help"}
    ours = set(re.findall(r"greenq-worker[^`\n]*?(--[a-z-]+)", text)) | set(re.findall(r"`(--[a-z-]+)", text))
    of_others = {
        "--group-by",
        "--ready",
        "--json",
        "--limit",
        "--once",
        "--pid",
        "--sort",
        "--interval",
        "--stop-timeout",
        "--ulimit",
    }
    variables = {option.variable for option in OPTIONS} | {setting.name for setting in SETTINGS}

    assert ours - of_others <= flags
    assert set(re.findall(r"\bGREENQ_[A-Z_]+\b", text)) - {"GREENQ_PROMPORT"} <= variables
    assert set(re.findall(r"\bgreenq_[a-z_]+\b", text)) <= served_names() | {"greenq_limits"}


def served_names():
    """The names under which metrics are scraped."""
    histograms = {metric.name for metric in METRICS if metric.type == "histogram"}
    return {metric.name for metric in METRICS} | {
        name + suffix for name in histograms for suffix in ("_bucket", "_sum", "_count")
    }


@pytest.mark.parametrize("name", PAGES)
def test_errors_on_these_pages_exist(name):
    ours = re.findall(
        r"`((?:[A-Z][a-z]+)+(?:Error|Failed|Closed|Missing|Timeout|Mismatch|Large|Exceeded|Died|Blocked))`", page(name)
    )

    for each in ours:
        assert hasattr(errors, each) or hasattr(builtins, each), each


@pytest.mark.parametrize("name", PAGES)
def test_tests_that_these_pages_name_exist(name):
    linked = re.findall(r"\[`?(test_\w+)`?\]\(\.\./(tests/[\w/]+\.py)\)", page(name))
    files = re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\)", page(name))

    for path in files:
        assert (ROOT / path).is_file(), path
    for test, path in linked:
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path} has no {test}"


def test_the_page_on_troubleshooting_tells_every_exit_code():
    table = page("troubleshooting.md").partition("| code | look for |")[2].partition("\n\n")[0]

    assert [int(code) for code in re.findall(r"^\| (\d) ", table, re.MULTILINE)] == sorted(ExitCode)


def test_the_table_of_contents_of_troubleshooting_has_each_symptom():
    text = page("troubleshooting.md")
    symptoms = [title for title in re.findall(r"^## (.+)$", text, re.MULTILINE) if title != "The first five minutes"]

    assert re.findall(r"^- \[(.+?)\]\(#", text, re.MULTILINE) == symptoms


# -- figures


def measured():
    """What the page of the benchmarks has, by its heading: each label with its median."""
    parts = re.split(r"^##+ ", (ROOT / "loadtests/README.md").read_text(), flags=re.MULTILINE)
    by_heading = {part.partition("\n")[0]: part for part in parts}
    headings = {"SQLite": "Figures", "Redis": "Figures on Redis", "RabbitMQ": "Figures on RabbitMQ"}
    return {
        broker: dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", by_heading[heading], re.MULTILINE))
        for broker, heading in headings.items()
    }


def test_the_figures_of_brokers_are_those_of_the_benchmarks():
    table = page("brokers.md").partition("| what | SQLite | Redis | RabbitMQ |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[1:]]

    for label, *figures in rows:
        assert figures == [measured()[broker][label] for broker in ("SQLite", "Redis", "RabbitMQ")]
    assert len(rows) > 4


def test_the_figures_of_sizing_are_those_of_the_benchmarks():
    table = page("production.md").partition("| what | how much |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[1:]]

    for label, figure in rows:
        assert figure == measured()["SQLite"][label]
    assert len(rows) == 3


def test_the_figures_in_sentences_are_those_of_the_benchmarks():
    brokers, production = (" ".join(page(name).split()) for name in ("brokers.md", "production.md"))
    found = measured()
    added = round((float(found["Redis"]["two processes, times one"].removesuffix(" x")) - 1) * 100)
    of_rabbitmq = found["RabbitMQ"]["RabbitMQ's CPU a no-op job"]
    noop, nap = (
        sorted(round(float(found[broker][f"worker's CPU a {job}"].removesuffix(" µs"))) for broker in found)
        for job in ("no-op job", "job of 100 ms")
    )

    assert f"A second process on Redis adds {added} %;" in brokers
    assert f"a message costs the server more CPU ({of_rabbitmq}) than the worker" in brokers
    assert f"{noop[0]} to {noop[-1]} µs for a no-op one, {nap[0]} to {nap[-1]} µs for one that waits" in production


# -- alerts


def rules():
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return [pytest.param(rule, id=rule["alert"]) for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules())
def test_an_alert_is_about_metrics_and_labels_that_are_served(rule):
    expression = rule["expr"]
    named = set(re.findall(r"\bgreenq_\w+", expression))
    by_name = {metric.name: set(metric.labels.value) for metric in METRICS}
    labels = set.union(*(by_name[re.sub(r"_(bucket|sum|count)$", "", name)] for name in named))
    grouped_by = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))

    assert named <= served_names()
    assert grouped_by <= labels | {"le", "instance"}
    assert told <= grouped_by | {"instance"} if grouped_by else told <= labels | {"instance"}
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_page_on_production_tells_every_alert():
    told = re.findall(r"^\| `(Greenq\w+)` \|", page("production.md"), re.MULTILINE)

    assert told == [rule.values[0]["alert"] for rule in rules()]
