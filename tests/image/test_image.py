"""The image as Docker and Kubernetes would run it: what is in it, and how its process 1 behaves."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from textwrap import dedent

import psutil
import pytest
from packaging.utils import canonicalize_name

import greenq
from tests.image.lock import locked
from tests.support.containers import BASE
from tests.support.redis_server import redis_server
from tests.support.waiting import until

# Of each test, with what it waits for: the base, the image, the one derived from it.
pytestmark = pytest.mark.timeout(900)

APP = """
import os, pathlib, subprocess, time
import greenq

@greenq.actor
def hold():
    print("holding in", os.getpid(), flush=True)
    while not pathlib.Path("/data/go").exists():
        time.sleep(0.01)
    print("held on", flush=True)

@greenq.actor
def leave_a_child():
    subprocess.run(["sh", "-c", "sleep 0.2 &"])
    print("left a child, in a job whose parent is", os.getppid(), flush=True)
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The options by which /app has a module with actors, as `docker run` takes them."""
    path = tmp_path_factory.mktemp("app") / "myapp.py"
    path.write_text(dedent(APP))
    path.parent.chmod(0o755)
    return ["--volume", f"{path}:/app/myapp.py:ro"]


# -- what is in it


@pytest.fixture(scope="module")
def inside(engine, image):
    """What a program sees in a container."""
    return json.loads(engine.run(image, "python", "-c", dedent(LOOK)))


LOOK = """
import importlib.metadata, json, os, pathlib, shutil, subprocess, sys

def may_write(folder):
    try:
        pathlib.Path(folder, "written").touch()
    except OSError:
        return False
    return True

IMPORT = "import gevent.monkey; gevent.monkey.patch_all(); import greenq.worker.process, greenq.brokers.redis; "
LIST = (
    "import sys, os; print(*(module.__name__ for module in list(sys.modules.values()) "
    "if getattr(module, '__cached__', None) and not os.path.exists(module.__cached__)))"
)
not_compiled = [
    subprocess.run([sys.executable, "-c", imports + LIST], capture_output=True, text=True, check=True).stdout.split()
    for imports in (IMPORT, "import greenq.cli.admin; ", "import greenq.__main__, greenq.supervisor; ")
]

print(json.dumps({
    "user": [os.getuid(), os.getgid(), sorted(set(os.getgroups()))],
    "tools": [each for each in ("gcc", "cc", "g++", "make", "ld", "git", "uv") if shutil.which(each)],
    "writable": [each for each in ("/", "/app", "/data", "/opt/greenq", "/usr/local", sys.prefix) if may_write(each)],
    "installed": {each.name: each.version for each in importlib.metadata.distributions()},
    "left": [each for each in ("/build", "/wheels") if os.path.exists(each)],
    "not compiled": not_compiled,
    "prefix": sys.prefix,
    "home": os.path.expanduser("~"),
}))
"""


def test_it_runs_as_a_user_of_its_own_who_may_write_to_data_alone(inside):
    assert inside["user"] == [10001, 10001, [10001]]
    assert inside["home"] == "/app"
    assert inside["prefix"] == "/opt/greenq"
    assert inside["writable"] == ["/data"]


def test_it_has_no_build_tools_and_nothing_of_the_build(inside):
    assert inside["tools"] == []
    assert inside["left"] == []
    assert not {"setuptools", "wheel", "build"} & set(inside["installed"])


def test_what_is_installed_is_greenq_and_what_the_lock_file_says(inside):
    installed = {canonicalize_name(name): version for name, version in inside["installed"].items()}
    assert installed.pop("greenq") == greenq.__version__
    assert installed.pop("pip")  # the base's; derived images use it

    assert {"gevent", "greenlet", "psutil", "redis", "hiredis", "pika", "prometheus-client", "pymemcache"} < set(
        installed
    )
    assert installed.items() <= {(each.name, each.version) for each in locked()}


def test_nothing_is_compiled_anew_by_each_process(inside):
    assert inside["not compiled"] == [[], [], []]


def test_what_it_declares_is_in_exec_form_and_by_number(engine, image):
    declared = engine.inspect(image)
    config = declared["Config"]

    assert config["Cmd"] == ["greenq-worker"]
    assert not config.get("Entrypoint")
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["WorkingDir"] == "/app"
    assert declared["Healthcheck"]["Test"] == ["CMD", "greenq", "health"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["version"] == greenq.__version__
    assert {"title", "description", "licenses", "revision"} < set(labels)


def test_it_adds_less_than_55_mb_to_its_base(engine, image):
    assert engine.inspect(image)["Size"] - engine.inspect(BASE)["Size"] < 55_000_000


# -- how it runs


@pytest.fixture(scope="module")
def worker(engine, image, app):
    """A worker on a Redis server, in the network of this machine."""
    with redis_server() as server:
        url = ["--env", f"GREENQ_BROKER_URL={server.url}"]
        options = ["--network", "host", *url, *app, "--volume", "held:/data"]
        container = engine.start(
            "worker", *options, image, "greenq-worker", "--concurrency", "1000", "-p", "1", "myapp"
        )
        try:
            container.wait_until_ready()
            yield container
        finally:
            container.end()


def enqueue(container, actor):
    container.python(f"import myapp; myapp.{actor}.send()")


def test_the_worker_command_is_process_1(worker):
    supervisor = psutil.Process(worker.first)

    status = Path(f"/proc/{supervisor.pid}/status").read_text()
    assert re.findall(r"NSpid:\s+(\d+)\s+(\d+)\n", status) == [(str(supervisor.pid), "1")]
    assert supervisor.cmdline()[1:] == ["/opt/greenq/bin/greenq-worker", "--concurrency", "1000", "-p", "1", "myapp"]
    assert {each.uids().effective for each in [supervisor, *supervisor.children()]} == {10001}


def test_orphans_are_reaped(worker):
    enqueue(worker, "leave_a_child")
    worker.wait_for("left a child, in a job whose parent is 1")

    # A zombie would still be one of them.
    until(lambda: not [each for each in psutil.Process(worker.first).children() if each.name() in ("sh", "sleep")])


def test_the_health_check_is_well_while_the_worker_is_and_not_when_it_is_stopped(worker, engine, image):
    check = engine.inspect(image)["Healthcheck"]["Test"][1:]
    assert "live, ready" in worker.run(*check)

    (process,) = psutil.Process(worker.first).children()
    process.send_signal(signal.SIGSTOP)
    try:
        told = worker.run(*check, code=1)
    finally:
        process.send_signal(signal.SIGCONT)

    assert "NOT live" in told
    assert "its hub does not turn" in told


def test_the_health_check_is_not_well_where_no_worker_runs(engine, image):
    engine.run(image, "greenq", "health", code=1)


def test_hup_reloads_it(worker, engine):
    (before,) = psutil.Process(worker.first).children()

    engine.podman("kill", "--signal", "HUP", "worker")
    worker.wait_for("Worker process is ready", 2)

    until(lambda: not before.is_running())
    (after,) = psutil.Process(worker.first).children()
    assert after != before


def test_term_drains_it_and_it_exits_with_0(worker):
    enqueue(worker, "hold")
    worker.wait_for("holding in")

    os.kill(worker.first, signal.SIGTERM)  # as `docker stop` and Kubernetes have it
    worker.wait_for("Stopping on SIGTERM")
    worker.run("touch", "/data/go")

    assert worker.exit_code() == 0
    assert "held on" in worker.log
