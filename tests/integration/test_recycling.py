"""Workers that are replaced although nothing is wrong with them: after so many jobs, so much memory, so much time."""

from __future__ import annotations

import itertools
import signal
import time

import psutil
import pytest

from tests.support import command as support
from tests.support.command import enqueue, waiting, write_module

APP = (
    support.APP
    + """
leaked = []

@greenq.actor
def leak(number):
    leaked.append(b"x" * 1024 * 1024)
    time.sleep(0.05)
    with (HERE / "done").open("a") as file:
        file.write(f"{number} {os.getpid()} {time.monotonic()}\\n")
"""
)


def test_a_worker_that_has_done_its_jobs_works_on_until_a_fresh_one_is_ready(run, folder):
    command = run("app", "-p", "1", "--max-jobs", "3")
    (old,) = command.wait_until_ready()
    write_module(folder, "app", APP + "\nwhile not (HERE / 'open').exists():\n    time.sleep(0.01)\n")
    for number in range(5):
        enqueue(folder, "say", number)

    command.wait_for(
        rf"Worker 1 \(PID {old}\) is recycled, because it has done \d+ jobs \(--max-jobs 3\): a fresh worker"
    )
    enqueue(folder, "say", "more")
    command.wait_for(rf"\[PID {old}\].* said more")
    assert not command.matches("Stopping: running jobs")
    (folder / "open").touch()

    command.wait_for(rf"Worker 1 \(PID {old}\) exited with code 0, recycled")
    enqueue(folder, "say", "enough")
    command.wait_for("said enough")
    assert len(command.matches(r"said \d")) == 5


def test_the_jobs_of_a_worker_that_is_recycled_finish(run, folder):
    command = run("app", "-p", "1", "--max-jobs", "1")
    (old,) = command.wait_until_ready()
    enqueue(folder, "hold", "on")
    command.wait_for("holding on")
    enqueue(folder, "say", "enough")

    command.wait_for("Stopping: running jobs may finish")
    enqueue(folder, "say", "beside it")
    command.wait_for("said beside it")
    (folder / "go").touch()

    command.wait_for(rf"\[PID {old}\].* held on")
    command.wait_for(rf"Worker 1 \(PID {old}\) exited with code 0, recycled")


def test_workers_grow_old_one_after_the_other(run, folder):
    command = run("app", "-p", "2", "--max-age", "1s")
    command.wait_until_ready(2)

    command.wait_for(r"is recycled, because it has run for 1 s \(--max-age\)", 3)

    events = command.matches(r"(is recycled|exited with code 0, recycled)")
    assert events[:5] == ["is recycled", "exited with code 0, recycled"] * 2 + ["is recycled"]


def test_a_worker_goes_on_where_a_fresh_one_cannot_start(run, folder):
    command = run("app", "-p", "1", "--max-jobs", "1")
    (old,) = command.wait_until_ready()
    write_module(folder, "app", "import no_such_thing\n")
    enqueue(folder, "say", "one")

    command.wait_for("ERROR.* Worker 1 is not recycled now, because the fresh one exited with code 2")
    enqueue(folder, "say", "two")

    command.wait_for(rf"\[PID {old}\].* said two")


def test_a_reload_during_a_recycling_takes_its_place(run, folder):
    command = run("app", "-p", "1", "--max-jobs", "1")
    command.wait_until_ready()
    enqueue(folder, "say", "one")
    command.wait_for("is recycled")
    command.send(signal.SIGHUP)

    command.wait_for("Reloaded: all new workers are ready")
    enqueue(folder, "say", "two")
    command.wait_for("said two")
    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert waiting(folder) == 0


@pytest.mark.in_time
def test_memory_is_bounded_and_work_goes_on_where_each_job_leaks(run, folder):
    jobs, limit_mib = 500, 100
    for number in range(jobs):
        enqueue(folder, "leak", number)
    command = run("app", "-p", "1", "-c", "2", "--max-memory", f"{limit_mib}M")
    supervisor = psutil.Process(command.pid)
    largest = 0

    deadline = time.monotonic() + 90
    while not (folder / "done").exists() or (folder / "done").read_text().count("\n") < jobs:
        assert time.monotonic() < deadline, command.log
        for worker in supervisor.children():
            try:
                largest = max(largest, worker.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.1)  # nothing tells of memory

    lines = [line.split() for line in (folder / "done").read_text().splitlines()]
    times = sorted(float(at) for _, _, at in lines)
    assert sorted(int(number) for number, _, _ in lines) == list(range(jobs))
    assert len(command.matches("is recycled, because it has")) >= 2
    assert largest < 350 * 1024 * 1024  # and 530 MiB without
    assert max(after - before for before, after in itertools.pairwise(times)) < 3
