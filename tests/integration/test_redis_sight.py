"""What is seen of a worker whose broker goes away and comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.support.command import ROOT, Command, write_module
from tests.support.redis_server import redis_server
from tests.support.waiting import PATIENCE_S, until

APP = """
import os, pathlib, time
import greenq
from greenq.brokers.redis import RedisBroker

HERE = pathlib.Path(__file__).parent
greenq.set_broker(RedisBroker(url=os.environ["APP_REDIS"]))

@greenq.actor
def hold():
    (HERE / "holds").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)
"""


@pytest.fixture
def server():
    with redis_server() as server:
        yield server


def page(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_an_absent_broker_is_live_and_not_ready_and_what_runs_is_seen_all_the_same(server, tmp_path):
    write_module(tmp_path, "app", APP)
    environment = {"APP_REDIS": server.url}
    control = str(tmp_path / "control") if len(str(tmp_path)) < 80 else f"/tmp/gq-{os.getpid()}"
    command = Command(tmp_path, "app", "-p", "1", "--health", "0", "--control", control, **environment)

    def greenq(*arguments):
        return subprocess.run(
            [sys.executable, str(ROOT / "bin" / "greenq"), *arguments, "--control", control],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )

    def codes():
        return page(port, "/health")[0], page(port, "/ready")[0]

    try:
        command.wait_until_ready()
        port = int(command.wait_for(r"Health is served on http://127\.0\.0\.1:(\d+)/health")[-1])
        until(lambda: codes() == (200, 200))
        subprocess.run(
            [sys.executable, "-c", "import app; app.hold.send()"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            check=True,
        )
        until(lambda: (tmp_path / "holds").exists())

        server.stop()
        until(lambda: codes() == (200, 503))
        assert page(port, "/ready")[1]["reasons"] == [
            "No worker fetches messages: the broker is away, or they are paused."
        ]
        assert [job["actor"] for job in json.loads(greenq("top", "--json").stdout)["jobs"]] == ["hold"]
        assert greenq("health").returncode == 0
        assert greenq("health", "--ready").returncode == 1
        server.start()

        until(lambda: codes() == (200, 200))
        (tmp_path / "go").touch()
        command.send(signal.SIGTERM)
        assert command.exit_code() == 0
    finally:
        command.end()
