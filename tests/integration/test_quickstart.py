"""The quickstart, as a reader does it: every file is written, every command is run, in an environment of its own.

A command that "runs until Ctrl-C" goes on beside the next ones, as in a second terminal, until another such command
comes. What pip would fetch is taken from the environment of the tests, so that no network is needed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from greenq.brokers.redis import RedisBroker
from tests.support.command import Command
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/quickstart.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)

#: What stands in the place of the new environment's pip: it installs greenq, with what the tests have installed.
PIP = """\
#!{python}
import configparser, pathlib, sys
command, checkout = sys.argv[1:]
assert command == "install"
settings = configparser.ConfigParser()
settings.read_string(pathlib.Path(checkout, "setup.cfg").read_text())
assert settings["metadata"]["name"] == "greenq"
pathlib.Path("{packages}", "greenq.pth").write_text(f"{{checkout}}\\n{installed}\\n")
for line in settings["options.entry_points"]["console_scripts"].split("\\n"):
    if line:
        name, _, place = line.partition(" = ")
        module, _, function = place.partition(":")
        script = pathlib.Path("{bin}", name)
        lines = ["#!{bin}/python", "import sys", f"from {{module}} import {{function}}", f"sys.exit({{function}}())"]
        script.write_text("\\n".join(lines))
        script.chmod(0o755)
"""


class Reader:
    """Somebody who does what the page says.

    Parameters:
      folder(Path): An empty one.
      environment(dict[str, str]): The variables of the terminals.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.worker: Command | None = None
        self._activated: list[str] = []

    def write(self, code: str) -> None:
        name = re.match(r"# (\w+\.py)\n", code)
        assert name, f"no name of a file in the first line of\n{code}"
        (self.folder / name[1]).write_text(code)

    def type(self, block: str) -> None:
        """Run the commands of a block, and compare what they print with what it says."""
        for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, *printed = text.splitlines()
            line = line.replace("/path/to/greenq", str(ROOT))
            if "# runs until Ctrl-C" in line:
                self._start(line.partition("#")[0], printed)
            else:
                self._run(line, printed)

    def _run(self, line: str, printed: list[str]) -> None:
        done = subprocess.run(
            self._shell(line),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 2,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if printed:
            assert done.stdout.splitlines() == printed
        if line.startswith(". "):
            self._activated = [line]
        if "-m venv" in line:
            self._give_pip()

    def _start(self, line: str, printed: list[str]) -> None:
        self.stop()
        command = self._shell(f"exec {line}")
        self.worker = Command(self.folder, program=("-c", _BASH, *command), **self.environment)
        self.worker.wait_for("ready in")
        for each in printed:
            self.worker.wait_for(each)

    def stop(self) -> None:
        """Press Ctrl-C where a command runs; it ends well."""
        if self.worker:
            self.worker.send_to_all(signal.SIGINT)
            assert self.worker.exit_code() == 0
        self.worker = None

    def _shell(self, line: str) -> list[str]:
        return ["bash", "-c", "\n".join(["set -e", *self._activated, line])]

    def _give_pip(self) -> None:
        bin = self.folder / ".venv/bin"
        (packages,) = (self.folder / ".venv/lib").glob("python*/site-packages")
        text = PIP.format(python=bin / "python", bin=bin, packages=packages, installed=sysconfig.get_paths()["platlib"])
        (bin / "pip").write_text(text)
        (bin / "pip").chmod(0o755)


#: The program in the place of Python in Command.
_BASH = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def reader(tmp_path):
    # The reader's python3 is that of the tests; an environment without pip is made in a tenth of the time.
    python = tmp_path / "bin/python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys._base_executable} "$@" $([ "$2" = venv ] && echo --without-pip)\n')
    python.chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL", "GREENQ"))}
    reader = Reader(folder, {**kept, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": ""})
    yield reader
    if reader.worker:
        reader.worker.end()


def test_every_block_of_the_quickstart_does_what_it_says(reader):
    done = []
    for language, text in BLOCKS:
        if language == "python" and text.startswith("# "):
            reader.write(text)
        elif language == "console":
            reader.type(text)
            done.append(text)
            if "seq 1000" in text:
                greeted = reader.worker.wait_for(r"(?m)^hello (\d+)$", 1000)
                assert sorted(map(int, greeted)) == list(range(1, 1001))
    reader.stop()

    assert len(done) == 6
    assert {language for language, _ in BLOCKS} == {"python", "console"}


def test_the_broker_for_several_machines_is_one_that_can_be_made():
    names = {}
    (code,) = (text for language, text in BLOCKS if language == "python" and not text.startswith("# "))

    exec(code, names)

    assert isinstance(names["broker"], RedisBroker)
