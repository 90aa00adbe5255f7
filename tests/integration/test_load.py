"""The load test of loadtests/load: short runs of it, as a user starts it."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path
from typing import Any

import redis

from tests.support.command import ROOT, Command
from tests.support.waiting import until

DRIVE = str(ROOT / "loadtests" / "load" / "drive.py")

#: Seconds that a run may take, on a machine however busy.
_LONG_S = 100


def drive(folder: Path, scenario: str, *options: str) -> Command:
    """A run with a few users, whose reports are left in a folder named as the scenario."""
    return Command(folder, "--only", scenario, "--out", str(folder), *options, program=(DRIVE,))


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def lose_a_message(client: Any) -> str:
    """Take one that waits from the server, and its payload with it, as if it had never been there; its id."""
    key = client.rpop("greenq:default")
    payload = client.hget("greenq:default.msgs", key)
    client.hdel("greenq:default.msgs", key)
    return json.loads(payload)["message_id"]


def test_a_load_under_which_a_worker_is_killed_loses_nothing_and_leaves_its_reports(tmp_path):
    command = drive(tmp_path, "kill", "--seconds", "3", "--users", "10", "--rate", "5")
    try:
        command.process.wait(_LONG_S)

        assert command.exit_code() == 0, command.log
        assert "No job was lost." in command.lines
        reports = tmp_path / "kill"
        assert "was killed by SIGKILL" in (reports / "worker.log").read_text()
        jobs = rows(reports / "jobs.csv")
        assert len(jobs) > 30
        assert all(float(job["done_ms"]) > float(job["ran_ms"]) > 0 and int(job["runs"]) >= 1 for job in jobs)
        counted = {row["Type"]: int(row["Request Count"]) for row in rows(reports / "locust_stats.csv") if row["Type"]}
        assert counted == {"enqueued": len(jobs), "done": len(jobs)}
        assert {row["Type"] for row in rows(reports / "locust_stats_history.csv")} >= {"enqueued", "done"}
        assert "<html" in (reports / "locust.html").read_text()
        picture = (reports / "load.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert struct.unpack(">II", picture[16:24]) == (1430, 884)
    finally:
        command.end()


def test_a_load_that_loses_a_job_names_it_and_fails(tmp_path):
    # 25 jobs a second, of which two at a time run for a fifth of a second: the others wait.
    options = ("--seconds", "2", "--users", "5", "--rate", "5", "--concurrency", "1", "--work-ms", "200")
    command = drive(tmp_path, "steady", *options)
    try:
        (url,) = command.wait_for(r"broker (redis://\S+)")
        client = redis.Redis.from_url(url)
        log = tmp_path / "steady" / "worker.log"
        until(lambda: log.exists() and "Worker process is ready" in log.read_text())
        until(lambda: client.llen("greenq:default") > 2)
        lost = lose_a_message(client)
        client.close()
        command.process.wait(_LONG_S)

        assert command.exit_code() == 1, command.log
        assert f"steady: 1 job was sent and never done: {lost}" in command.lines
        jobs = {job["message_id"]: job for job in rows(tmp_path / "steady" / "jobs.csv")}
        assert (jobs[lost]["runs"], jobs[lost]["ran_ms"], jobs[lost]["done_ms"]) == ("0", "", "")
        assert all(job["runs"] == "1" for key, job in jobs.items() if key != lost)
    finally:
        command.end()
