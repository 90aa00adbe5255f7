"""The site is built from the Markdown of this repository, without a warning, and every page is in its navigation."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


#: On a machine that is busy with everything else that is tested, it takes ten times as long as alone.
pytestmark = pytest.mark.timeout(15 * PATIENCE_S)


class Page:
    """What a page of the site links to, and the places that can be linked to."""

    def __init__(self, path):
        self.path = path
        tags = re.findall(r"<[a-z][^>]*>", path.read_text())
        self.links = [html.unescape(link) for tag in tags for link in re.findall(r' (?:href|src)="([^"]+)"', tag)]
        self.places = {html.unescape(place) for tag in tags for place in re.findall(r' id="([^"]+)"', tag)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    built = tmp_path_factory.mktemp("site")
    command = re.search(r"python (-m sphinx .*) docs/_build", (ROOT / "CONTRIBUTING.md").read_text())[1]
    # The colours of the code are a third of the work.
    command = [sys.executable, *command.split(), "-D", "highlight_sources=0", str(built)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10 * PATIENCE_S, check=False)
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\nA page of docs/ that is new needs a line in docs/index.md"
    )
    return built


def test_every_link_of_the_site_leads_to_a_file_and_to_a_place_in_it(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    broken = []
    for page in pages.values():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link in ("#", "#!"):
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in pages[target].places):
                broken.append(f"{page.path.relative_to(site)}: {link}")

    assert len(pages) > 100
    assert broken == []


def test_nothing_of_the_site_is_loaded_from_elsewhere(site):
    loaded = re.compile(r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["'](?:https?:)?//[^"']*""")

    assert [found for page in site.rglob("*.html") for found in loaded.findall(page.read_text())] == []


def test_the_root_of_the_site_leads_to_its_first_page(site):
    assert "url=docs/index.html" in (site / "index.html").read_text()
    assert "Background jobs on greenlets" in (site / "docs/index.html").read_text()


def test_the_navigation_has_the_sections_of_the_first_page_and_what_they_list(site):
    page = (site / "docs/signals.html").read_text()
    sections = re.findall("^## (.*)", (ROOT / "docs/index.md").read_text(), re.MULTILINE)

    assert re.findall(r'<span class="caption-text">(.*?)</span>', page) == sections
    assert 'href="reference.html">Reference</a>' in page


def test_a_link_to_a_test_leads_to_its_line(site):
    signals = (ROOT / "docs/signals.md").read_text()
    name, file = re.search(r"\[(test_\w+)\]\(\.\./([\w/.]+)\)", signals).groups()
    line = 1 + next(at for at, text in enumerate((ROOT / file).read_text().splitlines()) if f"def {name}(" in text)

    assert f'href="../files/{file}.html#line-{line}"' in (site / "docs/signals.html").read_text()
    assert name in (site / f"files/{file}.html").read_text()
