"""Everything that has to pass, in lanes side by side: python -m tests.lanes

Most tests wait for servers and processes, so several runs of pytest on two cores take little
longer than one; with more than a few at once each test only gets a smaller part of a processor,
and what it waits for comes late. A lane is an ordinary run of pytest with servers of its own, so
no test of one meets a test of another.

All tests run in the world of native threads; those of the worker, the contract and the brokers
that workers use run once more with gevent's patch. Some cases of the contract run in one world
alone: see tests/README.md. In each world a test is in the lane of the server in its name, or with
the others, so that few lanes start each kind of server; modules that stop a RabbitMQ server have
servers of their own, and so a lane. What starts commands and waits for them is dealt out to three.

Tests that hold greenq to a time that it promises ("in_time") run after the lanes, with the machine
to themselves, in one world after the other. mypy runs beside the others.

Each line is printed as it comes, after the name of its lane; what failed is said again at the end.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import end_with_this_process

ROOT = Path(__file__).resolve().parents[1]

IN_BOTH_WORLDS = [
    "tests/worker",
    "tests/contract",
    "tests/integration/test_reference_style_broker.py",
    "tests/integration/test_rate_limit_backends.py",
    "tests/integration/test_result_backends.py",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/integration/test_redis_*.py")),
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/integration/test_rabbitmq_*.py")),
]

#: The modules that stop RabbitMQ's servers, or have their own, are a lane.
OUTAGES = [f"tests/integration/test_rabbitmq_{name}.py" for name in ("outages", "failover", "tls")]

#: What starts commands and waits for them, most of the time; dealt out to so many lanes, in one world alone.
COMMANDS = "tests/integration"
COMMAND_LANES = 3

#: What kills commands and restarts their brokers is two more lanes, in one world alone: commands are processes.
CHAOS = "tests/chaos"

#: What builds greenq's image and runs it is one more: nothing of it is in this process, so in one world alone.
IMAGE = "tests/image"

#: Which of the other tests are in which lane, as pytest's -k has it: each is in one.
LANES = {
    "RabbitMQ": "rabbitmq",
    "Redis": "redis and not rabbitmq",
    "others": "not redis and not rabbitmq",
}


class World(NamedTuple):
    """One of the two worlds.

    Attributes:
      arguments(list[str]): What it gives to pytest.
      files(list[str]): In which files and folders its tests are.
      marks(list[str]): Of which tests, as pytest's -m has it; all these conditions hold.
      has_commands(bool): Whether it runs what starts commands.
    """

    arguments: list[str]
    files: list[str]
    marks: list[str]
    has_commands: bool = False

    def lanes(self) -> dict[str, list[str]]:
        """The arguments of pytest for each lane in this world."""
        # What is named itself is not ignored.
        apart = [*OUTAGES, CHAOS, IMAGE]
        files = [each for each in self.files if each not in apart] + [f"--ignore={each}" for each in apart]
        others = {name: self._of("not in_time", [*files, "-k", names]) for name, names in LANES.items()}
        if self.has_commands:
            others["others"] = self._of("not in_time", [*files, f"--ignore={COMMANDS}", "-k", LANES["others"]])
            others |= self._commands()
        return {"RabbitMQ's outages": self._of("not in_time", OUTAGES), **others}

    def _commands(self) -> dict[str, list[str]]:
        names = [str(path.relative_to(ROOT)) for path in _python_files(ROOT / COMMANDS)]
        files = [name for name in names if not {"redis", "rabbitmq"} & set(name.split("_"))]
        return {
            f"commands {number + 1}": self._of(
                "not in_time",
                [
                    *files[number::COMMAND_LANES],
                    *(f"--ignore={each}" for each in (*OUTAGES, CHAOS)),
                    "-k",
                    LANES["others"],
                ],
            )
            for number in range(COMMAND_LANES)
        }

    def chaos(self) -> dict[str, list[str]]:
        """The arguments of pytest for the lanes of what kills commands and restarts brokers."""
        names = {"RabbitMQ's chaos": "rabbitmq", "others' chaos": "not rabbitmq"}
        return {name: self._of("not in_time", [CHAOS, "-k", chosen]) for name, chosen in names.items()}

    def image(self) -> dict[str, list[str]]:
        """The arguments of pytest for the lane of the image."""
        return {"the image": self._of("not in_time", [IMAGE])}

    def in_time(self) -> list[str]:
        """The arguments of pytest for the tests that are in time."""
        # To make tests of everything that is in all files takes seconds.
        files = [file for each in self.files for file in _python_files(ROOT / each) if "in_time" in file.read_text()]
        return self._of("in_time", [str(file.relative_to(ROOT)) for file in files])

    def _of(self, mark: str, chosen: list[str]) -> list[str]:
        return [*self.arguments, *chosen, "-m", " and ".join([mark, *self.marks])]


def _python_files(path: Path) -> list[Path]:
    return sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


WORLDS = {
    "threads": World([], ["tests"], ["not greenlets_alone"], has_commands=True),
    "greenlets": World(["-p", "tests.support.patch"], IN_BOTH_WORLDS, ["not starts_both_worlds", "not threads_alone"]),
}


#: Of a lane, so many lines of pytest's report of failures are printed again at the end.
_REPORT_LINES = 150

#: Where that report begins, and where it ends.
_REPORT = re.compile(r"=+ (FAILURES|ERRORS) =+")
_AFTER_REPORT = re.compile(r"=+ (short test summary info|warnings summary) ")

#: A line of pytest's or mypy's.
_FAILURE = re.compile(r"FAILED |ERROR |\S+\.py:\d+: error: ")

#: So many lanes run at once, which keeps two processors busy.
AT_ONCE = 5
_places = threading.Semaphore(AT_ONCE)


class Lane:
    """A run of a program whose lines are printed.

    Parameters:
      name(str): Printed in front of each line.
      module(list[str]): The program, as python -m has it, with its arguments.
    """

    def __init__(self, name: str, *module: str) -> None:
        self.name = name
        self.failures: list[str] = []
        self.report: deque[str] = deque(maxlen=_REPORT_LINES)
        self.took_s = 0.0
        self._last_line = ""
        self._module = module
        self._exit_code: int | None = None
        # The program ends with the thread that starts it, so it is this one that waits for it.
        self._runner = threading.Thread(target=self._run)
        self._runner.start()

    def _run(self) -> None:
        with _places:
            started = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", *self._module],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                preexec_fn=end_with_this_process,
            )
            assert process.stdout is not None
            is_report = False
            for line in process.stdout:
                line = line.rstrip()
                print(f"{self.name}: {line}", flush=True)
                is_report = (is_report or bool(_REPORT.match(line))) and not _AFTER_REPORT.match(line)
                if is_report:
                    self.report.append(line)
                if _FAILURE.match(line):
                    self.failures.append(line)
                self._last_line = line or self._last_line
            self._exit_code = process.wait()
            self.took_s = time.monotonic() - started

    def passed(self) -> bool:
        """Wait for the end of the run; tell whether all of it passed."""
        self._runner.join()
        return self._exit_code == 0

    def __str__(self) -> str:
        outcome = "passed" if self.passed() else f"FAILED with exit code {self._exit_code}"
        return f"{self.name}: {outcome} after {self.took_s:.0f} s: {self._last_line}"


def can_be_collected() -> bool:
    """Import all tests: an error in one is told once, and every lane finds them compiled."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(done.stdout)
    return done.returncode == 0


def run(lanes: dict[str, list[str]]) -> list[Lane]:
    """Run all lanes to their end."""
    running = [Lane(name, "pytest", "-q", "--color=no", *given) for name, given in lanes.items()]
    for each in running:
        each.passed()
    return running


def tell(lanes: list[Lane]) -> int:
    """Print how lanes ended, and all of what failed; return a program's exit code: 0 if all passed."""
    for each in lanes:
        print("", *each.report, sep=f"\n{each.name}: ")
    print()
    for each in lanes:
        print(each)
        for line in each.failures:
            print(f"    {line}")
    return 0 if all(each.passed() for each in lanes) else 1


def main() -> int:
    types = Lane("types", "mypy")
    if not can_be_collected():
        return tell([types]) or 1
    worlds = reversed(WORLDS.items())
    lanes = {f"{name}, {lane}": given for name, world in worlds for lane, given in world.lanes().items()}
    # Last what takes the least, so that no processor waits long for the last of them.
    lanes.update(WORLDS["threads"].chaos())
    lanes.update(WORLDS["threads"].image())
    done = [types, *run(lanes)]
    for name, world in WORLDS.items():
        done += run({f"{name}, in time": world.in_time()})
    return tell(done)


if __name__ == "__main__":
    sys.exit(main())
