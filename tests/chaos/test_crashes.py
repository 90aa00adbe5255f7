"""kill -9 of a worker, of the supervisor and of all of them: nothing is lost, and nothing waits for long."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

#: Seconds: much longer than it takes, and much shorter than the lease of 15 s, by which it would come back anyway.
SOON_S = 8


def kill_who_runs(place, name):
    """Kill the worker that runs this job; when, and who it was."""
    (start,) = [entry for entry in place.wait_for("start", 1) if entry.name == name]
    killed_at = time.monotonic()
    os.kill(start.pid, signal.SIGKILL)
    return killed_at, start.pid


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # of which whoever adopted it has not heard yet
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_killed_worker_held_runs_again_soon(run, place, workers):
    command = run("-p", str(workers))
    command.wait_until_ready(workers)
    place.send("hold", ("one",))

    killed_at, victim = kill_who_runs(place, "one")

    _, again = place.wait_for("start", 2)
    assert again.at - killed_at < SOON_S
    place.let_go()
    place.wait_for("end", 1)
    command.wait_for(rf"CRITICAL\] Worker \d \(PID {victim}\) was killed by SIGKILL; \d+ MiB")
    command.wait_until_ready(workers + 1)
    assert place.count("end") == {"one": 1}


def test_what_a_killed_worker_held_runs_again_soon_where_its_only_sibling_is_busy(run, place):
    command = run("-p", "2", "-c", "1")
    command.wait_until_ready(2)
    place.send("spin", ("spinner",))
    place.wait_for("start", 1)
    place.send("hold", ("one",))
    _, held = place.wait_for("start", 2)

    killed_at = time.monotonic()
    os.kill(held.pid, signal.SIGKILL)

    *_, again = place.wait_for("start", 3)
    assert again.name == "one"
    assert again.at - killed_at < SOON_S
    place.let_go("free")
    place.let_go()
    place.wait_for("end", 2)
    assert place.count("end") == {"spinner": 1, "one": 1}


def test_a_message_that_kills_its_worker_at_the_start_comes_back_soon(run, place):
    place.send("die", ("one",))

    run("-p", "1")

    first, second = place.wait_for("start", 2)
    assert second.at - first.at < SOON_S
    place.wait_for("end", 1)


@pytest.mark.in_time
def test_with_a_sibling_it_runs_again_within_a_second_and_the_worker_is_replaced_within_one(run, place):
    command = run("-p", "2", "-v")
    command.wait_until_ready(2)
    place.send("hold", ("one",))

    killed_at, victim = kill_who_runs(place, "one")

    _, again = place.wait_for("start", 2)
    *_, new = command.wait_for(r"Worker \d \(PID (\d+)\) was started", 3)
    assert again.at - killed_at < 1
    *_, started_at = command.times_of(r"Worker \d \(PID \d+\) was started")
    assert started_at - time.time() + time.monotonic() - killed_at < 1
    assert int(new) != victim


def test_a_replacement_takes_back_before_it_fetches(run, place):
    command = run("-p", "1", "-c", "1")
    command.wait_until_ready()
    place.send("hold", ("first",))
    place.wait_for("start", 1)
    place.send("hold", ("second",))

    kill_who_runs(place, "first")

    place.wait_for("start", 2)
    if place.kind != "rabbitmq":  # there the server returns it by itself
        taken, ready = (command.log.index(text) for text in ("Returned 1 messages", "Worker process is ready"))
        assert taken < command.log.index("Worker process is ready", ready + 1)
    place.let_go()
    place.wait_for("end", 2)
    assert place.count("end") == {"first": 1, "second": 1}


def test_workers_whose_supervisor_was_killed_finish_their_jobs_and_leave_nothing(run, place):
    command = run("-p", "2")
    workers = command.wait_until_ready(2)
    place.send("hold", *((str(number),) for number in range(20)))
    place.wait_for("start", 20)

    command.send(signal.SIGKILL)
    command.wait_for("The supervisor has died", 2)
    place.let_go()
    command.wait_for_workers()

    assert not [pid for pid in workers if is_running(pid)]
    assert place.count("end") == {str(number): 1 for number in range(20)}
    assert place.ready() == 0


def test_what_ran_when_everything_was_killed_runs_at_the_next_start(run, place):
    lease = [] if place.kind == "rabbitmq" else ["--lease", "2s"]
    command = run("-p", "2", *lease)
    command.wait_until_ready(2)
    place.send("hold", *((str(number),) for number in range(20)))
    place.wait_for("start", 20)

    command.send_to_all(signal.SIGKILL)
    command.wait_for_workers()
    place.let_go()
    run("-p", "1", *lease)

    place.wait_for("end", 20)
    assert place.count("end") == {str(number): 1 for number in range(20)}
    assert place.count("start") == {str(number): 2 for number in range(20)}
