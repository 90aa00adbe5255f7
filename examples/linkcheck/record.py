"""The crawl's own record: a small SQLite file that knows every page and what became of it.

It stands beside the queue and not in it, so that the queue can be any broker's. Knows
neither greenq nor greenlets; crawl.py says in which order things are written and why that
loses no page, group_commit.py brings the requests of many greenlets here.

Each call takes many requests and passes them to SQLite as one JSON value, because
Python's sqlite3 lets go of the interpreter's lock at every row it steps over: beside a busy
hub each of them would wait for the lock again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

WAITING = "waiting"
FETCHING = "fetching"
#: The states in which a page is done with.
CHECKED = "checked"
BROKEN = "broken"
FAILED = "failed"
TIMED_OUT = "timed out"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS crawl (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    start    TEXT NOT NULL,
    root     TEXT               -- the folder that is served; null if the site is not ours
);
CREATE TABLE IF NOT EXISTS pages (
    url      TEXT PRIMARY KEY,
    owner    TEXT NOT NULL,     -- the id of the only message that may fetch it
    found_on TEXT,              -- the page with the first link to it
    state    TEXT NOT NULL DEFAULT 'waiting',
    status   INTEGER,           -- of the last answer
    attempts INTEGER NOT NULL DEFAULT 0,
    links    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""

_ADD = """
INSERT OR IGNORE INTO pages (url, owner, found_on)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each(?)
"""
_START_ATTEMPT = """
UPDATE pages SET state = 'fetching', attempts = attempts + 1 FROM json_each(?) AS claim
WHERE url = json_extract(claim.value, '$[0]') AND owner = json_extract(claim.value, '$[1]')
  AND state IN ('waiting', 'fetching')
"""
_OWNERS = """
SELECT json_group_array(json_array(url, owner)) FROM pages
WHERE url IN (SELECT json_extract(value, '$[0]') FROM json_each(?)) AND state = 'fetching'
"""
_KNOWN = "SELECT json_group_array(url) FROM pages WHERE url IN (SELECT value FROM json_each(?))"
_SETTLE = """
UPDATE pages SET
    state = json_extract(verdict.value, '$[2]'),
    status = json_extract(verdict.value, '$[3]'),
    links = json_extract(verdict.value, '$[4]')
FROM json_each(?) AS verdict
WHERE url = json_extract(verdict.value, '$[0]') AND owner = json_extract(verdict.value, '$[1]')
  AND state IN ('waiting', 'fetching')
"""
_TALLY = """
SELECT coalesce(sum(state = 'waiting'), 0), coalesce(sum(state = 'fetching'), 0),
       coalesce(sum(state = 'checked'), 0), coalesce(sum(state = 'broken'), 0),
       coalesce(sum(state = 'failed'), 0), coalesce(sum(state = 'timed out'), 0),
       coalesce(sum(attempts), 0), coalesce(sum(attempts > 1), 0),
       coalesce(sum(max(attempts - 1, 0)), 0), coalesce(sum(links), 0)
FROM pages
"""


class Claim(NamedTuple):
    """A message that was sent for a page."""

    url: str
    owner: str
    """The message's id."""
    found_on: str | None
    """The page with the link; None for the first page of all."""


class Settlement(NamedTuple):
    """What an attempt to fetch a page came to."""

    url: str
    owner: str
    state: str
    status: int | None = None
    links: int = 0


class Tally(NamedTuple):
    """The record in numbers."""

    waiting: int
    fetching: int
    checked: int
    broken: int
    failed: int
    timed_out: int
    attempts: int
    retried: int
    """Pages with more than one attempt."""
    retries: int
    """Attempts after a page's first."""
    links: int

    @property
    def pages(self) -> int:
        return self.finished + self.waiting + self.fetching

    @property
    def finished(self) -> int:
        return self.checked + self.broken + self.failed + self.timed_out


class Record:
    """The record in a file, which any number of processes may have open.

    Parameters:
      file(Path): The file; made if it is not there.

    Not for two threads at a time. Calls wait for other processes' writes.
    """

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # What a killed process has committed stays; only a power cut can take the last commits.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that is asked for inside it, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # -- the start

    def crawl(self) -> tuple[str, str | None] | None:
        """The first page's URL and the folder that is served there; None in a new record."""
        row: tuple[str, str | None] | None = self._connection.execute("SELECT start, root FROM crawl").fetchone()
        return row

    def set_crawl(self, start: str, root: str | None) -> None:
        """Remember what crawl() tells."""
        self._connection.execute("INSERT INTO crawl (only_row, start, root) VALUES (1, ?, ?)", (start, root))

    # -- for jobs; many at a time

    def add(self, lists: Sequence[Sequence[Claim]]) -> list[None]:
        """Add the pages that messages have been sent for. Known ones stay as they are."""
        self._connection.execute(_ADD, (json.dumps([claim for claims in lists for claim in claims]),))
        return [None] * len(lists)

    def claim(self, claims: Sequence[Claim]) -> list[bool]:
        """Start an attempt for each message that may fetch its page; answer which ones may.

        A page belongs to the first message that is recorded for it, and nobody may fetch one
        that is done with.
        """
        self.add([claims])
        asked = json.dumps(claims)
        self._connection.execute(_START_ATTEMPT, (asked,))
        owners: dict[str, str] = dict(self._list(_OWNERS, asked))
        return [owners.get(claim.url) == claim.owner for claim in claims]

    def known(self, lists: Sequence[Sequence[str]]) -> list[set[str]]:
        """Which URLs of each list are recorded."""
        everything = self._list(_KNOWN, json.dumps(sorted({url for urls in lists for url in urls})))
        return [set(urls).intersection(everything) for urls in lists]

    def settle(self, settlements: Sequence[Settlement]) -> list[None]:
        """Record what attempts came to.

        What a message says of a page that is not its own, or is done with, is passed over.
        """
        self._connection.execute(_SETTLE, (json.dumps(settlements),))
        return [None] * len(settlements)

    # -- for the report

    def tally(self) -> Tally:
        """The record in numbers."""
        return Tally(*self._connection.execute(_TALLY).fetchone())

    def broken_links(self, most: int) -> list[tuple[str, str | None, int]]:
        """Some pages that are not there, each with the first page that links to it and the status."""
        query = "SELECT url, found_on, status FROM pages WHERE state = 'broken' ORDER BY url LIMIT ?"
        return self._connection.execute(query, (most,)).fetchall()

    def state_of(self, url: str) -> tuple[str | None, int | None]:
        """A page's state and the status of its last answer; None for what is not known."""
        found = self._connection.execute("SELECT state, status FROM pages WHERE url = ?", (url,)).fetchone()
        return (None, None) if found is None else (found[0], found[1])

    def close(self) -> None:
        self._connection.close()

    def _list(self, query: str, asked: str) -> list[Any]:
        found: list[Any] = json.loads(self._connection.execute(query, (asked,)).fetchone()[0])
        return found
