"""docs/internals.md names every room of the house, and its pictures are those of their texts."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "internals.md").read_text()
DRAWINGS = sorted((DOCS / "diagrams").glob("*.dot"))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_diagrams", DOCS / "build_diagrams.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_folder_and_every_module_at_the_top_of_greenq_is_linked_to():
    linked = set(re.findall(r"\]\(\.\./(greenq/[\w/.]+)\)", PAGE))
    modules = set((ROOT / "greenq").glob("*.py"))
    folders = {path.parent for path in (ROOT / "greenq").rglob("*.py")} - {ROOT / "greenq"}

    assert {str(path.relative_to(ROOT)) for path in modules | folders} - linked == set()


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda path: path.stem)
def test_a_picture_was_made_of_its_text_and_is_on_the_page(script, drawing):
    picture = drawing.with_suffix(".svg").read_text()

    assert f"Made of {drawing.name} ({script.digest(drawing)})" in picture, "run python docs/build_diagrams.py"
    assert f"](diagrams/{drawing.stem}.svg)" in PAGE


def test_there_is_no_picture_without_a_text():
    assert {path.stem for path in (DOCS / "diagrams").glob("*.svg")} == {each.stem for each in DRAWINGS}


def test_the_picture_of_the_rooms_has_those_of_the_house_from_the_doors_to_the_leaves():
    from .test_house import ORDER

    drawn = re.findall(r'label="([\w-]+): ', (DOCS / "diagrams/rooms.dot").read_text())

    assert drawn == ORDER[::-1]


def test_the_page_has_the_rooms_in_the_order_of_the_picture():
    from .test_house import ROOMS

    sections = re.split(r"^### ", PAGE.partition("## Rooms")[2].partition("\n## ")[0], flags=re.MULTILINE)[1:]
    shown = {}
    for section in sections:
        linked = re.findall(r"\]\(\.\./greenq/([\w]+)(?:\.py)?[/)]", section)
        shown[section.splitlines()[0].lower()] = set(linked) - {"__init__"}

    assert list(shown) == list(ROOMS)[::-1]
    for room, names in ROOMS.items():
        assert shown[room] == {
            name for name in names if (ROOT / "greenq" / name).exists() or (ROOT / f"greenq/{name}.py").exists()
        }
