"""Links of all Markdown files lead somewhere, on a forge as on the site: see test_site.py."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "examples", "loadtests", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
PAGES = [page for page in PAGES if not {"_build", ".venv", "node_modules"} & set(page.parts)]

_BLOCK = re.compile(r"^( *)(```+).*?^\1\2", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()]*\))?)\)")


@lru_cache
def links(page):
    """Where the links of a page lead to, without those to other sites."""
    # What stands between backticks is code, but may also be the text of a link.
    text = re.sub(r"`[^`\n]+`", "code", _BLOCK.sub("", page.read_text()))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


@lru_cache
def anchors(page):
    """The places of a page that can be linked to: its headings, as forges name them, and those that it marks."""
    text = page.read_text()
    found = set(re.findall(r'<a id="([^"]+)"></a>', text))
    for heading in re.findall(r"^#+ +(.*?) *$", _BLOCK.sub("", text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        number = next(number for number in range(len(found) + 1) if _numbered(slug, number) not in found)
        found.add(_numbered(slug, number))
    return found


def _numbered(slug, number):
    return f"{slug}-{number}" if number else slug


def leads_nowhere(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or ROOT not in target.parents:
        return True
    return bool(anchor) and (target.suffix != ".md" or anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    assert [link for link in links(page) if leads_nowhere(page, link)] == []


def test_the_links_of_all_pages_were_looked_at():
    assert len(PAGES) > 45
    assert sum(len(links(page)) for page in PAGES) > 600


def test_a_link_that_leads_nowhere_is_found():
    page = ROOT / "docs" / "index.md"

    assert leads_nowhere(page, "nothing.md")
    assert leads_nowhere(page, "signals.md#nothing")
    assert leads_nowhere(page, "#nothing")
    assert leads_nowhere(page, "/etc/passwd")
    assert not leads_nowhere(page, "signals.md#exit-codes")
    assert not leads_nowhere(page, "reference.md#Actor.send")


def test_a_link_is_seen_wherever_it_stands_but_in_code(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "[`a`](a.md), ![b](b.svg) `[c](c.md)`\n```\n[d](d.md)\n```\n| [e [f]](e.md#g) | https://x.example |\n"
    )

    assert links(page) == ["a.md", "b.svg", "e.md#g"]
