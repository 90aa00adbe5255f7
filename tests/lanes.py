"""Everything that has to pass, in lanes side by side: python -m tests.lanes

Most tests wait for servers and processes, so several runs of pytest on two cores take little
longer than one. A lane is an ordinary run of pytest with servers of its own, so no test of one
meets a test of another.

All tests run in the world of native threads; those of the worker, the contract and the brokers
that workers use run once more with gevent's patch. Some cases of the contract run in one world
alone: see tests/README.md. In each world a test is in the lane of the server in its name, or with
the others, so that few lanes start each kind of server; modules that stop a RabbitMQ server have
servers of their own, and so a lane.

Tests that hold greenq to a time that it promises ("in_time") run after the lanes, with the machine
to themselves, in one world after the other.

Each line is printed as it comes, after the name of its lane; what failed is said again at the end.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
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

#: The modules whose servers are their own, because they stop them.
OUTAGES = "(rabbitmq_ledger or rabbitmq_outages or rabbitmq_failover or rabbitmq_tls)"

#: Which tests are in which lane, as pytest's -k has it: each is in one.
LANES = {
    "RabbitMQ's outages": OUTAGES,
    "RabbitMQ": f"rabbitmq and not {OUTAGES}",
    "Redis": "redis and not rabbitmq",
    "others": "not redis and not rabbitmq",
}


class World(NamedTuple):
    """One of the two worlds.

    Attributes:
      arguments(list[str]): What it gives to pytest.
      marks(list[str]): Of which tests, as pytest's -m has it; all these conditions hold.
    """

    arguments: list[str]
    marks: list[str]

    def lane(self, mark: str, *names: str) -> list[str]:
        """The arguments of pytest for a lane in this world, of the tests with this mark and these names."""
        return [*self.arguments, "-k", " and ".join(names), "-m", " and ".join([mark, *self.marks])]


WORLDS = {
    "threads": World([], ["not greenlets_alone"]),
    "greenlets": World(["-p", "tests.support.patch", *IN_BOTH_WORLDS], ["not starts_both_worlds", "not threads_alone"]),
}


class Lane:
    """A run of pytest whose lines are printed.

    Parameters:
      name(str): Printed in front of each line.
      arguments(list[str]): Of pytest.
    """

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name = name
        self.failures: list[str] = []
        self.took_s = 0.0
        self._last_line = ""
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "pytest", "-q", "--color=no", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=end_with_this_process,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        started = time.monotonic()
        assert self._process.stdout is not None
        for line in self._process.stdout:
            line = line.rstrip()
            print(f"{self.name}: {line}", flush=True)
            if line.startswith(("FAILED ", "ERROR ")):
                self.failures.append(line)
            self._last_line = line or self._last_line
        self.took_s = time.monotonic() - started

    def passed(self) -> bool:
        """Wait for the end of the run; tell whether all of it passed."""
        self._reader.join()
        return self._process.wait() == 0

    def __str__(self) -> str:
        outcome = "passed" if self.passed() else f"FAILED with exit code {self._process.returncode}"
        return f"{self.name}: {outcome} after {self.took_s:.0f} s: {self._last_line}"


def can_be_collected() -> bool:
    """Import all tests: an error in one is told once, and every lane finds them compiled."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(done.stdout)
    return done.returncode == 0


def run(lanes: dict[str, list[str]]) -> int:
    """Run all lanes to their end; return the exit code of a program: 0 if everything passed."""
    running = [Lane(name, arguments) for name, arguments in lanes.items()]
    passed = [each.passed() for each in running]
    print()
    for each in running:
        print(each)
        for line in each.failures:
            print(f"    {line}")
    return 0 if all(passed) else 1


def main() -> int:
    if not can_be_collected():
        return 1
    codes = [
        run(
            {
                f"{name}, {lane}": world.lane("not in_time", chosen)
                for lane, chosen in LANES.items()
                for name, world in WORLDS.items()
            }
        )
    ]
    for name, world in WORLDS.items():
        codes.append(run({f"{name}, in time": world.lane("in_time")}))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
