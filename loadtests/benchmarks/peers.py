"""The queues that are laid side by side: what each needs, and how its worker is started.

A queue is a line in PEERS and a file in apps/, which has its jobs and its producer. Knows nothing
of what is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from processes import APPS, ROOT

#: Where environments are made. They are kept: what is installed in them is renewed by --renew.
ENVIRONMENTS = ROOT / ".benchmarks"


class CannotBeHad(Exception):
    """What a queue needs is not there, and the reason."""


class Installed(NamedTuple):
    """A queue that can be run.

    Attributes:
      versions(str): In words.
      programs(Path): The folder of its commands.
      producer(list[str]): The command of its producer, without arguments.
      environment(Mapping[str, str]): Variables that it needs.
    """

    versions: str
    programs: Path
    producer: list[str]
    environment: Mapping[str, str] = MappingProxyType({})


class Peer(NamedTuple):
    """A queue.

    Attributes:
      name(str): As --peers has it; its file is apps/app_NAME.
      title(str): In the tables.
      install(Callable): Makes its environment where there is none.
      worker(list[str]): How to start one worker process, with {programs}, {concurrency} and {apps}.
      delivery(str): What it promises, configured like this.
      settings(str): How it is configured.
      is_quick(bool): Whether it runs enough a second to be given 100,000 no-op jobs.
      without(dict[str, str]): Why it has no such figure, by the figure's name.
    """

    name: str
    title: str
    install: Callable[[bool], Installed]
    worker: Sequence[str]
    delivery: str
    settings: str
    is_quick: bool = False
    without: Mapping[str, str] = MappingProxyType({})

    def worker_command(self, installed: Installed, concurrency: int) -> list[str]:
        """The command that starts its worker."""
        words = {"programs": str(installed.programs), "concurrency": str(concurrency), "apps": str(APPS)}
        return [part.format(**words) for part in self.worker]


def _here(app: str, *shown: str) -> Callable[[bool], Installed]:
    """In the environment of the benchmark itself."""

    def install(_: bool) -> Installed:
        python = Path(sys.executable)
        return Installed(_versions(python, shown), python.parent, [str(python), str(APPS / app)])

    return install


def _from_pip(app: str, *packages: str, shown: Sequence[str]) -> Callable[[bool], Installed]:
    """In a virtual environment of its own, in the newest releases."""

    def install(renew: bool) -> Installed:
        folder = ENVIRONMENTS / app.removeprefix("app_").removesuffix(".py")
        python = folder / "bin" / "python"
        if renew or not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
            (folder / "complete").touch()
        return Installed(_versions(python, shown), python.parent, [str(python), str(APPS / app)])

    return install


def _from_npm(app: str, *packages: str) -> Callable[[bool], Installed]:
    def install(renew: bool) -> Installed:
        node, npm = shutil.which("node"), shutil.which("npm")
        if not node or not npm:
            raise CannotBeHad("needs node and npm")
        folder = ENVIRONMENTS / "node"
        if renew or not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _run([npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), *packages])
            (folder / "complete").touch()
        modules = folder / "node_modules"
        versions = [
            f"{name} {json.loads((modules / name / 'package.json').read_text())['version']}" for name in packages
        ]
        node_version = subprocess.run([node, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        return Installed(
            ", ".join([*versions, f"node {node_version}"]),
            Path(node).parent,
            [node, str(APPS / app)],
            {"NODE_PATH": str(modules)},
        )

    return install


def _from_debian(app: str, program: str, package: str) -> Callable[[bool], Installed]:
    def install(_: bool) -> Installed:
        found, ruby = shutil.which(program), shutil.which("ruby")
        if not found or not ruby:
            raise CannotBeHad(f"needs Debian's package {package}")
        shown = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Package} ${Version}, ", package, "ruby"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return Installed(shown.stdout.rstrip(", "), Path(found).parent, [ruby, str(APPS / app)])

    return install


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode:
        raise CannotBeHad(f"{command[0]} failed to install it")


def _versions(python: Path, names: Sequence[str]) -> str:
    program = "import importlib.metadata as m, sys; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    # Not where the checkout is on the path.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-c", program, *names]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


_GREENLETS = ["gevent", "redis"]
_NO_BULK = "has no such call"
_AT_LEAST_ONCE = "at least once"

PEERS = [
    Peer(
        "greenq",
        "greenq",
        _here("app_greenq.py", *_GREENLETS, "hiredis"),
        [
            "{programs}/python",
            "-m",
            "greenq",
            "--processes",
            "1",
            "--concurrency",
            "{concurrency}",
            "app_greenq:broker",
        ],
        _AT_LEAST_ONCE,
        "as it comes",
        is_quick=True,
    ),
    Peer(
        "bare",
        "the bare loop",
        _here("app_bare.py", *_GREENLETS, "hiredis"),
        ["{programs}/python", "{apps}/app_bare.py", "worker", "{concurrency}"],
        "reserves and settles, but takes nothing back",
        "[no queue](../loadtests/bare_redis_loop.py): what the client and the server allow",
        is_quick=True,
        without={"delayed": "has no delays"},
    ),
    Peer(
        "dramatiq",
        "Dramatiq, gevent",
        _from_pip("app_dramatiq.py", "dramatiq[redis,gevent]", shown=["dramatiq", *_GREENLETS]),
        ["{programs}/dramatiq-gevent", "--processes", "1", "--threads", "{concurrency}", "app_dramatiq:broker"],
        _AT_LEAST_ONCE,
        "a pool of 128 connections, with which it ran quickest",
        without={"bulk": _NO_BULK},
    ),
    Peer(
        "celery",
        "Celery, gevent",
        _from_pip("app_celery.py", "celery[redis,gevent]", shown=["celery", *_GREENLETS]),
        [
            *(
                "{programs}/celery",
                "--app",
                "app_celery",
                "worker",
                "--pool",
                "gevent",
                "--concurrency",
                "{concurrency}",
            ),
            *("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"),
        ],
        _AT_LEAST_ONCE,
        "`task_acks_late`, results and rate limits off, `visibility_timeout` 12 hours, prefetch as it comes",
        without={"bulk": _NO_BULK},
    ),
    Peer(
        "huey",
        "huey, greenlets",
        _from_pip("app_huey.py", "huey", "redis", "gevent", shown=["huey", *_GREENLETS]),
        [
            *("{programs}/huey_consumer", "app_huey.huey", "--worker-type", "greenlet"),
            *("--workers", "{concurrency}", "--no-periodic"),
        ],
        "at most once: it has no acknowledgements",
        "results off, a connection for each greenlet",
        without={"bulk": _NO_BULK},
    ),
    Peer(
        "taskiq",
        "taskiq",
        _from_pip("app_taskiq.py", "taskiq", "taskiq-redis", shown=["taskiq", "taskiq-redis", "redis"]),
        [
            *("{programs}/taskiq", "worker", "app_taskiq:broker", "--workers", "1"),
            *("--max-async-tasks", "{concurrency}", "--log-level", "WARNING"),
        ],
        _AT_LEAST_ONCE,
        "`RedisStreamBroker`, no result backend; no bulk call: 100 coroutines send at once",
        without={"delayed": "needs a scheduler process"},
    ),
    Peer(
        "arq",
        "arq",
        _from_pip("app_arq.py", "arq", shown=["arq", "redis"]),
        ["env", "CONCURRENCY={concurrency}", "{programs}/arq", "app_arq.Settings"],
        _AT_LEAST_ONCE,
        "`keep_result=0`; polls each 0.5 s as it comes; no bulk call: 100 coroutines send at once",
    ),
    Peer(
        "saq",
        "SAQ",
        _from_pip("app_saq.py", "saq[redis,hiredis]", "typing-extensions", shown=["saq", "redis"]),
        ["env", "CONCURRENCY={concurrency}", "{programs}/saq", "app_saq.settings"],
        "at least once, with `retries`: what a lost worker had is swept up",
        "`ttl=-1`, `timeout=0`; no bulk call: 100 coroutines send at once",
    ),
    Peer(
        "bullmq",
        "BullMQ (Node.js)",
        _from_npm("app_bullmq.cjs", "bullmq", "ioredis"),
        ["{programs}/node", "{apps}/app_bullmq.cjs", "worker", "{concurrency}"],
        _AT_LEAST_ONCE,
        "`removeOnComplete`",
    ),
    Peer(
        "sidekiq",
        "Sidekiq (Ruby)",
        _from_debian("app_sidekiq.rb", "sidekiq", "ruby-sidekiq"),
        ["{programs}/sidekiq", "-r", "{apps}/app_sidekiq.rb", "-c", "{concurrency}", "-q", "default"],
        "at most once: the free version takes a job out before it runs",
        "a thread a job; Debian's release, not the newest",
    ),
]
