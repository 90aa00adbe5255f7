"""Metrics as a scraper sees them: of real processes, over kills, reloads and stops."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command import APP, Command, enqueue, waiting, write_module
from tests.support.waiting import PATIENCE_S, until

METRICS = """
@greenq.actor
def spin():
    log.info("spinning")
    while not (HERE / "go").exists():
        pass

from greenq.middleware.prometheus import Prometheus
broker.add_middleware(Prometheus())

@greenq.actor(max_retries=2, min_backoff=1)
def fail():
    raise ValueError("no")
"""
SERVED = r"Metrics are served on http://127\.0\.0\.1:(\d+)/metrics"


@pytest.fixture
def folder(tmp_path):
    write_module(tmp_path, "app", APP + METRICS)
    assert waiting(tmp_path) == 0
    return tmp_path


@pytest.fixture
def run(folder):
    """Starts the command with metrics on a free port; ends all of its processes after the test."""
    commands = []

    def start(*arguments, **env):
        command = Command(folder, "app", *arguments, **{"GREENQ_PROM_PORT": "0", **env})
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()


def served(command, count=1):
    """The port, once it is served so many times."""
    return int(command.wait_for(SERVED, count)[-1])


def text(port, path="/metrics", host="127.0.0.1"):
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=PATIENCE_S) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return answer.read().decode()


def scrape(port):
    """What a Prometheus server gets: (sample's name, its labels' values) -> value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text(port))
        for sample in family.samples
    }


def see(port, *sample, value):
    until(lambda: scrape(port).get(sample) == value)


def is_free(port):
    with socket.socket() as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def counters(found):
    return {
        sample: value
        for sample, value in found.items()
        if sample[0].endswith(("_total", "_bucket", "_count", "_sum")) and sample[0] != "greenq_hub_lag_milliseconds"
    }


def test_two_processes_are_served_in_one_place_over_the_kill_of_one(run, folder):
    command = run("-p", "2")
    command.wait_until_ready(2)
    port = served(command)
    for number in range(20):
        enqueue(folder, "say", number)
    see(port, "greenq_messages_total", "default", "say", value=20)
    enqueue(folder, "hold", "one")
    ((_, pid),) = command.wait_for(r"holding (\w+) in (\d+)")
    see(port, "greenq_messages_inprogress", "default", "hold", value=1)
    before = scrape(port)

    os.kill(int(pid), signal.SIGKILL)
    command.wait_for("holding one in", 2)
    see(port, "greenq_message_redeliveries_total", "default", "hold", value=1)

    after = scrape(port)
    assert after["greenq_messages_total", "default", "say"] == 20
    assert all(value <= after[sample] for sample, value in counters(before).items())
    (folder / "go").touch()
    see(port, "greenq_messages_total", "default", "hold", value=1)
    see(port, "greenq_messages_inprogress", "default", "hold", value=0)
    until(lambda: sum(scrape(port)["greenq_worker_starts_total", each] for each in "12") == 3)
    command.send(signal.SIGTERM)
    assert command.exit_code() == 0
    assert is_free(port)


def test_gauges_of_a_killed_worker_are_gone_at_once(run, folder):
    # One that takes the place of the dead cannot start: nothing but the death changes gauges.
    command = run("-p", "1")
    (pid,) = command.wait_until_ready()
    port = served(command)
    enqueue(folder, "hold", "one")
    see(port, "greenq_slots_used", "1", value=1)
    see(port, "greenq_queue_reserved_messages", "default", value=1)
    write_module(folder, "app", "import time\ntime.sleep(600)\n")

    os.kill(pid, signal.SIGKILL)
    command.wait_for("was killed by SIGKILL")

    see(port, "greenq_worker_up", "1", value=0)
    found = scrape(port)
    assert found["greenq_slots_used", "1"] == found["greenq_slots_free", "1"] == 0
    assert found["greenq_messages_inprogress", "default", "hold"] == 0
    assert ("greenq_queue_reserved_messages", "default") not in found
    assert found["greenq_message_wait_milliseconds_count", "default", "hold"] == 1


def test_retries_are_counted_once(run, folder):
    command = run("-p", "2")
    port = served(command)

    enqueue(folder, "fail")

    see(port, "greenq_message_rejects_total", "default", "fail", value=1)
    found = scrape(port)
    assert found["greenq_messages_total", "default", "fail"] == 3
    assert found["greenq_message_retries_total", "default", "fail"] == 2
    see(port, "greenq_queue_dead_letters", "default", value=1)


def test_another_worker_looks_at_the_queues_when_the_one_that_did_was_killed(run, folder):
    command = run("-p", "2")
    pids = command.wait_until_ready(2)
    port = served(command)
    see(port, "greenq_queue_ready_messages", "default", value=0)

    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    command.wait_until_ready(4)

    see(port, "greenq_queue_ready_messages", "default", value=0)


def test_a_second_instance_says_that_the_port_is_taken_works_and_takes_it_later(run, folder):
    port = free_port()
    first = run("-p", "1", GREENQ_PROM_PORT=str(port))
    assert served(first) == port
    second = run("-p", "1", GREENQ_PROM_PORT=str(port))

    second.wait_for(f"ERROR.* Metrics are not served: port {port} of 127.0.0.1 is taken")
    first.send(signal.SIGTERM)
    assert first.exit_code() == 0

    assert served(second) == port
    enqueue(folder, "say", "hello")
    see(port, "greenq_messages_total", "default", "say", value=1)
    assert len(second.matches("is taken")) == 1


def test_two_instances_on_ports_of_their_own_count_for_themselves(run, folder):
    first, second = run("-p", "1"), run("-p", "1")
    ports = [served(first), served(second)]
    for number in range(10):
        enqueue(folder, "say", number)

    until(lambda: sum(scrape(port).get(("greenq_messages_total", "default", "say"), 0) for port in ports) == 10)


def test_scrapers_that_hang_keep_nobody_from_anything(run, folder):
    command = run("-p", "1")
    command.wait_until_ready()
    port = served(command)
    with contextlib.ExitStack() as held:
        for request in (b"", b"GET /metrics HT", b"GET /metrics HTTP/1.0\r\n\r\n"):
            client = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(request)

        enqueue(folder, "say", "hello")
        see(port, "greenq_messages_total", "default", "say", value=1)
        command.send(signal.SIGTERM)
        assert command.exit_code() == 0
        assert is_free(port)


def test_metrics_are_served_until_the_last_job_has_ended(run, folder):
    command = run("-p", "1")
    command.wait_until_ready()
    port = served(command)
    enqueue(folder, "hold", "one")
    see(port, "greenq_messages_inprogress", "default", "hold", value=1)

    command.send_to_all(signal.SIGTERM)  # as systemd does it
    command.wait_for("Stopping: running jobs may finish")
    assert scrape(port)["greenq_messages_inprogress", "default", "hold"] == 1
    (folder / "go").touch()

    assert command.exit_code() == 0
    assert is_free(port)


def test_a_reload_goes_on_counting(run, folder):
    port = free_port()
    command = run("-p", "1", GREENQ_PROM_PORT=str(port))
    assert served(command) == port
    enqueue(folder, "say", "before")
    see(port, "greenq_messages_total", "default", "say", value=1)

    command.send(signal.SIGHUP)
    served(command, 2)
    enqueue(folder, "say", "after")

    see(port, "greenq_messages_total", "default", "say", value=2)
    see(port, "greenq_worker_up", "1", value=1)


def test_the_process_that_serves_is_replaced_and_has_lost_nothing(run, folder):
    port = free_port()
    command = run("-p", "1", GREENQ_PROM_PORT=str(port))
    (pid,) = command.wait_for(r"PID (\d+)\].* Metrics are served")
    enqueue(folder, "say", "hello")
    see(port, "greenq_messages_total", "default", "say", value=1)

    os.kill(int(pid), signal.SIGKILL)
    served(command, 2)

    assert scrape(port)["greenq_messages_total", "default", "say"] == 1


def test_the_port_is_released_when_the_supervisor_is_killed(run):
    command = run("-p", "1")
    port = served(command)

    command.send(signal.SIGKILL)

    command.wait_for_workers()
    assert is_free(port)


@pytest.mark.parametrize("name", ["GREENQ_PROM_PORT", "greenq_prom_port"])
def test_the_port_and_the_host_can_be_said_in_both_spellings(run, name):
    port = free_port()
    host = name.replace("PORT", "HOST").replace("port", "host")
    env = {"GREENQ_PROM_PORT": "", name: str(port), host: "127.0.0.2"}
    command = run("-p", "1", **env)

    command.wait_for(rf"Metrics are served on http://127\.0\.0\.2:{port}/metrics")

    assert "greenq_worker_up" in text(port, host="127.0.0.2")


@pytest.mark.parametrize("port", ["many", "70000"])
def test_a_port_that_is_none_ends_the_command_as_any_wrong_setting_does(run, port):
    command = run("-p", "1", GREENQ_PROM_PORT=port)

    assert command.exit_code() == 2
    assert f"environment variable GREENQ_PROM_PORT: '{port}' is " in command.log


def test_a_host_that_is_none_is_told_and_the_workers_work(run, folder):
    command = run("-p", "1", GREENQ_PROM_HOST="no such host")

    command.wait_for("ERROR.* Metrics are not served: no such host:0 is no address .* Correct GREENQ_PROM_HOST")

    enqueue(folder, "say", "hello")
    command.wait_for("said hello")


def test_a_directory_for_the_counts_can_be_named_and_stays_empty(run, folder):
    (folder / "counts").mkdir()
    command = run("-p", "1", GREENQ_PROM_DB=str(folder / "counts"))
    port = served(command)
    enqueue(folder, "say", "hello")

    see(port, "greenq_messages_total", "default", "say", value=1)

    assert list((folder / "counts").iterdir()) == []


def test_a_directory_that_is_not_there_is_told_and_the_workers_work(run, folder):
    command = run("-p", "1", GREENQ_PROM_DB=str(folder / "missing"))

    command.wait_for(r"ERROR.* Metrics cannot be kept in .*missing \(GREENQ_PROM_DB\): No such file")

    enqueue(folder, "say", "hello")
    command.wait_for("said hello")


LIMITED = """
import resource, runpy
size = 3 * 1024 * 1024  # enough for the broker's files, and not for an area
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
runpy.run_module("greenq", run_name="__main__", alter_sys=True)
"""


def test_workers_that_cannot_be_counted_work_all_the_same(run, folder):
    command = run("-p", "2", program=("-c", LIMITED))
    command.wait_until_ready(2)

    enqueue(folder, "say", 1)

    command.wait_for("said 1")
    assert len(command.matches("whose metrics are not counted")) == 1
    assert scrape(served(command)) == {}


def test_a_job_that_keeps_the_hub_is_seen_while_it_does(run, folder):
    command = run("-p", "1")
    port = served(command)
    see(port, "greenq_hub_stalled_milliseconds", "1", value=0)

    enqueue(folder, "spin")

    until(lambda: scrape(port).get(("greenq_hub_stalled_milliseconds", "1"), 0) > 300)
    (folder / "go").touch()
    see(port, "greenq_hub_stalled_milliseconds", "1", value=0)
    found = scrape(port)
    slow = found["greenq_hub_lag_milliseconds_count", "1"] - found["greenq_hub_lag_milliseconds_bucket", "1", "250"]
    assert slow == 1


def test_a_scrape_asks_nothing_of_the_workers(run, folder):
    command = run("-p", "1")
    (pid,) = command.wait_until_ready()
    port = served(command)
    enqueue(folder, "say", "hello")
    see(port, "greenq_messages_total", "default", "say", value=1)

    os.kill(pid, signal.SIGSTOP)
    try:
        assert scrape(port)["greenq_messages_total", "default", "say"] == 1
    finally:
        os.kill(pid, signal.SIGCONT)


def test_every_path_is_answered(run):
    port = served(run("-p", "1"))

    assert "greenq_worker_up" in text(port, "/")
    assert "greenq_worker_up" in text(port, "/anything?x=1")


def test_metrics_of_the_application_are_served_beside(run, folder):
    write_module(
        folder,
        "own",
        """
        import greenq, app
        from prometheus_client import Counter
        PAGES = Counter("own_pages", "Pages that were printed.")
        @greenq.actor
        def print_page():
            PAGES.inc()
        """,
    )
    (folder / "own-metrics").mkdir()
    command = run("own", "-p", "2", PROMETHEUS_MULTIPROC_DIR=str(folder / "own-metrics"))
    port = served(command)

    for _ in range(5):
        enqueue(folder, "print_page")

    see(port, "own_pages_total", value=5)
    see(port, "greenq_messages_total", "default", "print_page", value=5)


def test_metrics_of_the_application_that_cannot_be_read_are_told_once_and_left_out(run, folder):
    command = run("-p", "1", PROMETHEUS_MULTIPROC_DIR=str(folder / "missing"))
    port = served(command)

    for _ in range(3):
        assert "greenq_worker_up" in text(port)

    assert len(command.wait_for("own metrics in .* cannot be read")) == 1


def test_nothing_is_served_without_the_middleware(run, folder):
    write_module(folder, "app", APP)
    command = run("-p", "1")
    command.wait_until_ready()
    enqueue(folder, "say", "hello")
    command.wait_for("said hello")

    command.send(signal.SIGTERM)

    assert command.exit_code() == 0
    assert not command.matches("Metrics")
