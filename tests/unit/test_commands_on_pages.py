"""The commands that pages show can be given: greenq's own parsers take them, and the files that they name exist.

Of commands of others (docker, sudo) that part is looked at which starts one of greenq's.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from greenq.cli import admin
from greenq.cli.options import parse_options
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".", "docs", "docs/decisions", "examples/*", "loadtests", "tests")
PAGES = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.md") if path.name != "CHANGELOG.md")

#: What `greenq` is followed by where it is the command, and not the name of an image.
LOOKS = ("top", "stack", "health")

#: Runs a program of this checkout until it reads its command line, and has its parser read others in place of that.
READ_ALONE = """
import argparse, json, runpy, sys

kind, program, given = sys.argv[1:]
parse = argparse.ArgumentParser.parse_args
def parse_and_end(parser):
    for arguments in json.loads(given):
        parse(parser, arguments)
    print("read")
    raise SystemExit
argparse.ArgumentParser.parse_args = parse_and_end

if kind == "-m":
    runpy.run_module(program, run_name="__main__")
else:
    sys.path.insert(0, program.rpartition("/")[0])
    runpy.run_path(program, run_name="__main__")
"""


class Given(NamedTuple):
    """A command.

    Attributes:
      variables(dict[str, str]): That stand before it.
      words(list[str]): The program and its arguments.
    """

    variables: dict[str, str]
    words: list[str]


def shown(page):
    """The command lines of a page: those after a prompt, and those in its sentences."""
    text = page.read_text()
    blocks = re.findall(r"^ *```console\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in re.findall(r"^ *\$ (.*)$", block.replace("\\\n", " "), re.MULTILINE)]
    sentences = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    quoted = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", sentences)]
    # A command that is only named stands without its arguments.
    begins = re.compile(rf"(.* )?(greenq-worker |greenq ({'|'.join(LOOKS)}) )|python |pip ")
    return lines + [span for span in quoted if begins.match(span)]


def commands():
    """Every command of every page, once for each page."""
    for page in PAGES:
        for line in dict.fromkeys(shown(page)):
            # `...` stands for whatever else is said there.
            words = [word for word in shlex.split(line, comments=True) if word != "..."]
            while words:
                end = next((at for at, word in enumerate(words) if word in ("|", "||", "&&")), len(words))
                part, words = words[:end], words[end + 1 :]
                variables = []
                while part and re.match("[A-Z_]+=", part[0]):
                    variables.append(part.pop(0).split("=", 1))
                if part:
                    name = f"{page.relative_to(ROOT)}: {' '.join(part)}"
                    yield pytest.param(Given(dict(variables), part), id=name)


COMMANDS = list(commands())


def ours(words):
    """The part of a command that is greenq-worker's or greenq's, or nothing."""
    if words[:3] == ["python", "-m", "greenq"]:
        return ["greenq-worker", *words[3:]]
    starts = [
        at
        for at, (word, after) in enumerate(zip(words, [*words[1:], ""], strict=True))
        if word == "greenq-worker" or (word == "greenq" and (at == 0 or after in LOOKS))
    ]
    return words[starts[0] :] if starts else []


def of_scripts():
    """What commands give to programs of this checkout that read arguments: by kind and name, these."""
    found = {}
    for given in (each.values[0].words for each in COMMANDS):
        if given[0].endswith("examples/linkcheck/run"):
            found.setdefault(("-m", "examples.linkcheck"), []).append(given[1:])
        elif len(given) > 2 and Path(given[0]).name == "python":
            if given[1] == "-m" and given[2].startswith("examples."):
                found.setdefault(("-m", given[2]), []).append(given[3:])
            elif given[1].startswith("loadtests/"):
                found.setdefault(("script", given[1]), []).append(given[2:])
    return found


@pytest.mark.parametrize("given", [each for each in COMMANDS if ours(each.values[0].words)])
def test_a_command_of_greenq_on_a_page_is_understood(given, tmp_path, monkeypatch):
    # Where a page leaves the broker out, it has said before how else it is given.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GREENQ_BROKER", "app")
    for name, value in given.variables.items():
        monkeypatch.setenv(name, value)
    program, *arguments = ours(given.words)

    if program == "greenq":
        read = admin._parser().parse_args
    else:
        read = parse_options
    if arguments in (["--help"], ["--version"]):
        with pytest.raises(SystemExit, match=r"^0$"):
            read(arguments)
    else:
        read(arguments)


@pytest.mark.parametrize(("script", "given"), [pytest.param(*each, id=each[0][1]) for each in of_scripts().items()])
def test_the_commands_of_a_script_on_pages_are_understood(script, given):
    command = [sys.executable, "-c", READ_ALONE, *script, json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.stdout == "read\n", done.stdout + done.stderr


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_files_and_extras_that_commands_on_a_page_name_exist(page):
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    words = [word for line in shown(page) for word in shlex.split(line, comments=True)]
    files = [
        word for word in words if re.match(r"(\./|loadtests/|docs/|examples/|tests/)\w", word) and "_build" not in word
    ]
    extras = re.findall(r"(?:greenq|'\.)\[([a-z,]+)\]", page.read_text())

    assert [each for each in files if not (ROOT / each).exists()] == []
    assert {name for each in extras for name in each.split(",")} <= set(settings["options.extras_require"])


def test_commands_of_all_kinds_are_looked_at():
    given = [each.values[0].words for each in COMMANDS]

    assert {ours(words)[0] for words in given if ours(words)} == {"greenq-worker", "greenq"}
    assert ["greenq-worker", "--concurrency", "1000", "myapp"] in [ours(words) for words in given]
    assert len(of_scripts()) > 6
