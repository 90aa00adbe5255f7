"""docs/pictures/top.svg: made by its script, of what greenq top shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from greenq.cli import top

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("picture_of_top", DOCS / "picture_of_top.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_one_that_the_script_makes(script):
    picture = script.PICTURE.read_text()

    assert script.svg_of(script.lines_of(picture)) == picture


def test_the_picture_has_the_columns_that_there_are_and_a_thousand_jobs(script):
    count, _, head, *rows = script.lines_of(script.PICTURE.read_text())

    assert head.split("  ")[0] == "MESSAGE"
    assert [name.strip() for name in head.split("  ") if name.strip()] == list(top._HEAD)
    assert count == "1000 jobs in flight in 1 worker"
    assert len(rows) > 5


def test_what_stands_on_a_picture_is_escaped(script):
    lines = ["1 jobs in flight in 1 worker", "", "<script> & co"]

    assert script.lines_of(script.svg_of(lines)) == lines
