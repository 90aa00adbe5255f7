"""Images that are really built, and containers that really run: buildah and podman, which need no daemon.

Everything they keep is in a folder of its own, so that the user's own images are not seen, and ends with the
tests, also if they are killed. The base of greenq's image comes from a registry; here a stand-in is made of Debian's
packages, with the same release of Debian and the same version of Python. As in the real one, there is no compiled
library.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent
from typing import Any

from .command import Command
from .processes import ROOT, end_with_this_process

PROGRAMS = ("buildah", "podman", "runc", "mmdebstrap")

#: The stand-in's name, and what it stands in for.
BASE, STANDS_IN_FOR = "localhost/python", "docker.io/library/python:3.13-slim-trixie"

#: Seconds; where other tests have the CPU, a build takes a minute.
BUILT_WITHIN_S, RUN_WITHIN_S = 400, 120

_RELEASE = "trixie"

#: What a slim image has of Debian, and Python with pip.
_PACKAGES = "passwd,python3,python3-venv"

_FINISH = """\
ln -s /usr/bin/python3 "$1/usr/local/bin/python"
ln -s /usr/bin/python3 "$1/usr/local/bin/python3"
cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"
find "$1/usr" -name __pycache__ -prune -exec rm -r {} +
"""

_RECIPE = [
    "mmdebstrap",
    "--quiet",
    "--variant=apt",
    f"--include={_PACKAGES}",
    '--aptopt=Acquire::Retries "3"',
    *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "locale")),
    f"--customize-hook={_FINISH}",
    _RELEASE,
]
_SOURCE = f"deb http://deb.debian.org/debian {_RELEASE} main"

# runc, because crun wants more of the kernel than a machine of CI may have, and no network but loopback, because a
# bridge does so, too; locks in files, because those in memory are shared with the user's own containers.
_SETTINGS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "none"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"""

# Lives until the tests end, whatever ends them. A container's last act is a podman of its own, which would make the
# folders anew; this shell does not name them in its command line, so what does is a container or such a podman.
_CLEANER = """\
read -r _
podman --root "$GREENQ_IMAGES/store" --runroot "$GREENQ_IMAGES/run" --tmpdir "$GREENQ_IMAGES/libpod" \\
    rm --all --force --time 0
tries=300
while [ $tries -gt 0 ] && pgrep -f "$GREENQ_IMAGES/" >/dev/null; do tries=$((tries - 1)); sleep 0.1; done
umount --recursive "$GREENQ_IMAGES/store/overlay"
rm -rf "$GREENQ_IMAGES"
"""


class Engine:
    """buildah and podman, with images and containers of their own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="greenq-images-"))
        (self.folder / "containers.conf").write_text(_SETTINGS)
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(self.folder),
        }
        store = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        self._buildah = ["buildah", *store]
        self._podman = ["podman", *store, "--tmpdir", str(self.folder / "libpod")]
        self._cleaner = subprocess.Popen(
            ["sh", "-c", _CLEANER],
            env={**self._environment, "GREENQ_IMAGES": str(self.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def make_base(self) -> None:
        """Have the stand-in, made of packages or as it was kept by an earlier run."""
        recipe = hashlib.sha256("\0".join([*_RECIPE, _SOURCE]).encode()).hexdigest()[:12]
        kept = ROOT / ".tests-venv" / f"base-{recipe}.tar"
        kept.parent.mkdir(exist_ok=True)
        if not kept.exists():
            made = self.folder / "base.tar"
            self._done([*_RECIPE, str(made), _SOURCE], BUILT_WITHIN_S)
            unfinished = kept.with_suffix(f".{os.getpid()}")
            shutil.move(made, unfinished)
            unfinished.rename(kept)
        self._done([*self._podman, "import", "--quiet", "--change", 'CMD ["python3"]', str(kept), BASE], BUILT_WITHIN_S)

    def why_not(self) -> str:
        """Why no container can be run here; empty if it can."""
        tried = self._run([*self._podman, *_RUN, BASE, "true"], RUN_WITHIN_S)
        return tried.stderr.strip() if tried.returncode else ""

    def build(self, context: Path, tag: str, **arguments: str) -> None:
        """Build the Dockerfile of a folder."""
        given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
        options = ["--pull=never", "--network", "host", "--format", "docker", "--tag", f"localhost/{tag}"]
        self._done([*self._buildah, "bud", *options, *given, str(context)], BUILT_WITHIN_S)

    def inspect(self, image: str) -> dict[str, Any]:
        """What is declared of an image."""
        (found,) = json.loads(self.podman("image", "inspect", image))
        return found

    def podman(self, *arguments: str, code: int = 0) -> str:
        """Run a command of podman; return what it printed."""
        return self._done([*self._podman, *arguments], RUN_WITHIN_S, code)

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a container printed, when it has ended with this code."""
        return self.podman(*_RUN, *arguments, code=code)

    def start(self, name: str, *arguments: str) -> Container:
        """A container that runs."""
        return Container(self, name, [*self._podman, *_RUN, "--name", name, *arguments], self._environment)

    def _done(self, command: list[str], within_s: float, code: int = 0) -> str:
        done = self._run(command, within_s)
        assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _run(self, command: list[str], within_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
            preexec_fn=end_with_this_process,
        )

    def end(self) -> None:
        """Remove all containers, images and files."""
        assert self._cleaner.stdin is not None
        self._cleaner.stdin.close()
        self._cleaner.wait(RUN_WITHIN_S)


# What is healthy is asked by the tests, and not by a timer of systemd, which need not be there.
_RUN = ("run", "--rm", "--pull=never", "--no-healthcheck")

_BECOME = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


class Container(Command):
    """A container that runs, and what it prints."""

    def __init__(self, engine: Engine, name: str, command: list[str], environment: dict[str, str]) -> None:
        super().__init__(engine.folder, *command, program=("-c", _BECOME), **environment)
        self._engine = engine
        self._name = name

    @property
    def first(self) -> int:
        """The pid that its process 1 has outside."""
        return int(self._engine.podman("inspect", "--format", "{{.State.Pid}}", self._name))

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command inside; return what it printed."""
        return self._engine.podman("exec", self._name, *command, code=code)

    def python(self, text: str) -> str:
        """Run Python inside; return what it printed."""
        return self.run("python", "-c", dedent(text))

    def stop(self, within_s: int) -> int:
        """Stop it as its image says, and kill it after this time; return its exit code."""
        self._engine.podman("stop", "--time", str(within_s), self._name)
        return self.exit_code()

    def end(self) -> None:
        if self.process.poll() is None:
            self._engine.podman("rm", "--force", "--time", "0", "--ignore", self._name)
        super().end()


def is_root() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0
