"""The benchmark beside other queues, as a user starts it, with greenq and the bare loop alone."""

from __future__ import annotations

import re
import shutil

from tests.support.command import ROOT, Command

BESIDE = str(ROOT / "loadtests" / "benchmarks" / "beside.py")
PAGE = ROOT / "docs" / "benchmarks.md"

#: Seconds that a run may take, on a machine however busy.
_LONG_S = 110


def headers(text: str) -> list[str]:
    """The first lines of all tables."""
    return re.findall(r"^(\|.*)\n\|---", text, re.MULTILINE)


def rows(text: str, queue: str) -> list[list[str]]:
    """What all tables of figures say of a queue."""
    lines = re.findall(rf"^\| {queue} \| (.*) \|$", text.partition("### What was run")[0], re.MULTILINE)
    return [line.split(" | ") for line in lines]


def test_the_benchmark_writes_the_tables_of_its_page(tmp_path):
    page = tmp_path / "benchmarks.md"
    shutil.copy(PAGE, page)
    command = Command(tmp_path, "--quick", "--peers", "greenq,bare", "--write", str(page), program=(BESIDE,))
    try:
        command.process.wait(_LONG_S)

        assert command.exit_code() == 0, command.log
        assert "FAILED" not in command.log, command.log
        before, now = PAGE.read_text(), page.read_text()
        assert headers(now) == headers(before)
        assert [part.partition("<!-- figures: begin -->")[0] for part in (now, before)] == [
            before.partition("<!-- figures: begin -->")[0]
        ] * 2
        assert now.partition("<!-- figures: end -->")[2] == before.partition("<!-- figures: end -->")[2]
        ours, bare = rows(now, "greenq"), rows(now, "the bare loop")
        assert len(ours) == len(bare) == 4
        growth = ours[3].pop(1)  # of so few it may be nothing, and is compared with nothing
        assert re.fullmatch(r"-?[\d.]+", growth), growth
        assert all(re.fullmatch(r"[\d,.]+ · 1\.0", cell) for row in ours for cell in row), ours
        assert bare[3][1:] == ["has no delays"] * 3
        figures = [*bare[0], *bare[1], *bare[2], bare[3][0]]
        assert all(re.fullmatch(r"[\d,.]+ · [\d,.]+", cell) for cell in figures), bare
    finally:
        command.end()
