"""TERM: the command ends in its time whatever its jobs do, and what they had not finished is back in the queue."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.command import Command, write_module
from tests.support.redis_server import redis_server

from .ledger import APP, Place

BUDGET_S = 3


def names(kind, count):
    return [(f"{kind}-{number}",) for number in range(count)]


#: Seconds by which this process may see an end late, beside all that ends then.
UNSEEN_S = 3


def stop(command, when_stopping=lambda: None):
    """Send TERM; the exit code, and how many seconds its end took by the command's own log."""
    sent_at = time.monotonic()
    command.send(signal.SIGTERM)
    when_stopping()
    code = command.process.wait(BUDGET_S + 20)
    seen_after_s = time.monotonic() - sent_at
    (began,), (ended,) = command.times_of("Stopping on SIGTERM"), command.times_of("Exiting with code")
    assert seen_after_s < ended - began + UNSEEN_S  # nothing hangs before the one or after the other
    return code, ended - began


@pytest.mark.in_time
def test_a_stop_with_a_thousand_jobs_in_flight_is_in_time_and_loses_and_doubles_nothing(run, place):
    command = run("-p", "2", "-c", "500", "--worker-shutdown-timeout", f"{BUDGET_S}s")
    command.wait_until_ready(2)
    place.send("hold", *names("finishes", 400))
    place.send("stay", *names("is-cut", 300))
    place.send("ignore", *names("ignores", 300))
    place.wait_for("start", 1000)
    place.send("hold", *names("waits", 200))

    def let_go():
        command.wait_for("Stopping: running jobs may finish", 2)  # from here on they begin none
        place.let_go()

    code, took_s = stop(command, let_go)

    assert code == 7, command.log
    assert took_s < BUDGET_S + 1
    assert place.ready() == 800
    assert place.count("end") == dict.fromkeys((name for (name,) in names("finishes", 400)), 1)
    assert place.count("start").total() == 1000
    place.let_go("free")
    run("-p", "1", "-c", "1000")
    place.wait_for("end", 1200)
    assert set(place.count("end").values()) == {1}
    assert place.count("start") == {
        **dict.fromkeys((name for (name,) in names("finishes", 400) + names("waits", 200)), 1),
        **dict.fromkeys((name for (name,) in names("is-cut", 300) + names("ignores", 300)), 2),
    }


@pytest.mark.in_time
def test_a_job_that_spins_does_not_delay_the_end_and_runs_again_when_the_lease_has_ended(run, place):
    lease = [] if place.kind == "rabbitmq" else ["--lease", "3s"]
    command = run("-p", "1", "--worker-shutdown-timeout", "1s", *lease)
    command.wait_until_ready()
    place.send("spin", ("spinner",))
    place.wait_for("start", 1)

    code, took_s = stop(command)

    assert code == 1, command.log
    assert took_s < 1 + 1
    command.wait_for_workers()
    place.let_go("free")
    run("-p", "1", *lease)
    place.wait_for("end", 1)
    assert place.count("start") == {"spinner": 2}


def test_a_job_that_spins_outlives_its_supervisor_by_no_more_than_the_time_to_stop(run, place):
    command = run("-p", "1", "--worker-shutdown-timeout", "500ms")
    command.wait_until_ready()
    place.send("spin", ("spinner",))
    place.wait_for("start", 1)

    command.send(signal.SIGKILL)

    command.wait_for_workers()
    assert "did not stop in time and exits" in command.log


@pytest.mark.in_time
def test_a_stop_is_in_time_where_the_broker_does_not_answer(tmp_path):
    write_module(tmp_path, "app", APP)
    with redis_server() as server:
        place = Place("redis", server.url, tmp_path)
        arguments = ["app", "-p", "1", "--worker-shutdown-timeout", f"{BUDGET_S}s", "--lease", "2s"]
        command = Command(tmp_path, *arguments, GREENQ_BROKER_URL=server.url)
        try:
            command.wait_until_ready()
            place.send("stay", *names("is-cut", 20))
            place.wait_for("start", 20)

            server.process.send_signal(signal.SIGSTOP)
            code, took_s = stop(command)
            server.process.send_signal(signal.SIGCONT)

            assert code == 7, command.log
            assert took_s < BUDGET_S + 1
            place.let_go("free")
            command = Command(tmp_path, *arguments, GREENQ_BROKER_URL=server.url)
            place.wait_for("end", 20)
            assert set(place.count("end").values()) == {1}
        finally:
            command.end()
