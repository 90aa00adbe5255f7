"""A tree of files as a web site with the usual troubles: slow, failing and hanging pages.

A folder is a page of links, a file is a page. All troubles follow from a page's path alone,
so every run, and every process, sees the same site. Knows no sockets: see server.py.
"""

from __future__ import annotations

import hashlib
import html
import mimetypes
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

SKIPPED = {"site-packages", "dist-packages", "__pycache__"}
#: Longer files are cut here: this site is about pages, not about bytes.
MOST_BYTES = 256 * 1024

#: How many of a thousand pages answer 500 at first, and how many never answer.
FAILING_PER_MILLE = 40
HANGING_PER_MILLE = 10
#: How many of a thousand folders have a link to a page that is not there.
BROKEN_PER_MILLE = 100


class Temper(NamedTuple):
    """How a page behaves."""

    latency_s: float
    failures: int
    """How many fetches are answered with 500 before the page itself is."""
    hangs: bool
    """Whether it never answers. Folders always do: what is below them has no other way in."""


class Page(NamedTuple):
    """What a page answers, once it does."""

    status: int
    content_type: str
    body: bytes


class Tree:
    """The site made of a folder.

    Parameters:
      root(Path): The folder.
      latency_ms(tuple[int, int]): The shortest and the longest time that a page takes.
    """

    def __init__(self, root: Path, *, latency_ms: tuple[int, int]) -> None:
        self.root = root.resolve()
        self._latency_ms = latency_ms

    def temper(self, path: str) -> Temper:
        """How the page at this path behaves."""
        shortest, longest = self._latency_ms
        fails = _draw("failing", path) < FAILING_PER_MILLE
        return Temper(
            latency_s=(shortest + (longest - shortest) * _draw("latency", path) / 999) / 1000,
            failures=1 + _draw("failures", path) % 2 if fails else 0,
            hangs=not path.endswith("/") and _draw("hanging", path) < HANGING_PER_MILLE,
        )

    def page(self, path: str) -> Page:
        """The page at this path; one with status 404 if there is none."""
        place = self._place(path)
        if path.endswith("/") and place.is_dir():
            return Page(200, "text/html; charset=utf-8", self._listing(path, place))
        if not path.endswith("/") and place.is_file():
            # Sources are shown, not run: whatever is not HTML has no links to look for.
            is_html = mimetypes.guess_type(place.name)[0] == "text/html"
            with place.open("rb") as file:
                return Page(200, "text/html" if is_html else "text/plain", file.read(MOST_BYTES))
        return Page(404, "text/plain", b"There is no such page.\n")

    def _place(self, path: str) -> Path:
        place = Path(os.path.realpath(self.root / os.fsdecode(unquote_to_bytes(path.lstrip("/")))))
        return place if place.is_relative_to(self.root) else self.root / "nowhere"

    def _listing(self, path: str, folder: Path) -> bytes:
        links = [] if folder == self.root else ["../"]
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                # A symbolic link would be a second way to the same page, or one out of the tree.
                if entry.is_dir(follow_symlinks=False) and entry.name not in SKIPPED:
                    links.append(quote(os.fsencode(entry.name)) + "/")
                elif entry.is_file(follow_symlinks=False):
                    links.append(quote(os.fsencode(entry.name)))
        if _draw("broken", path) < BROKEN_PER_MILLE:
            links.append("moved-away.html")
        items = "\n".join(f'<li><a href="./{link}">{html.escape(link)}</a></li>' for link in links)
        return f"<!DOCTYPE html>\n<title>{html.escape(path)}</title>\n<ul>\n{items}\n</ul>\n".encode()


def _draw(what: str, path: str) -> int:
    """A number from 0 to 999 that is always the same for this path."""
    digest = hashlib.blake2b(f"{what} {path}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 1000
