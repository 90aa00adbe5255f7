"""The environment variables that are no options of the command line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import greenq
from greenq import settings
from greenq.brokers.stub import StubBroker
from greenq.worker import Worker
from greenq.worker.outage import pause_s

ROOT = Path(greenq.__file__).parent

#: Who reads the environment beside settings.py, and why.
OTHERS = {
    "__main__.py",  # hands all of it on to the workers
    "worker/lanes/processes.py",  # hands it on as well
    "control_socket.py",  # the system's, of where sockets belong
    "supervisor/systemd.py",  # systemd's own
    "metrics/whole_page.py",  # prometheus_client's own variable
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    for setting in settings.SETTINGS:
        monkeypatch.delenv(setting.name, raising=False)
        monkeypatch.delenv(setting.name.lower(), raising=False)


def test_a_variable_is_read_in_capitals_and_else_in_lower_case(monkeypatch):
    assert settings.PROM_PORT.get() == 9191
    monkeypatch.setenv("greenq_prom_port", "1")
    assert settings.PROM_PORT.get() == 1
    monkeypatch.setenv("GREENQ_PROM_PORT", "")
    assert settings.PROM_PORT.get() == 1
    monkeypatch.setenv("GREENQ_PROM_PORT", "2")
    assert settings.PROM_PORT.get() == 2


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        (settings.RESTART_DELAY, "3000", 3000),
        (settings.RESTART_DELAY, "3s", 3000),
        (settings.WORKER_TIMEOUT, "250ms", 250),
        (settings.QUEUE_PREFETCH, "0", 0),
        (settings.DELAY_QUEUE_PREFETCH, "12", 12),
        (settings.DEAD_MESSAGE_TTL, "2d", 172_800_000),
        (settings.GROUP_CALLBACK_BARRIER_TTL, "1h", 3_600_000),
        (settings.PROM_PORT, "0", 0),
        (settings.PROM_HOST, "::", "::"),
        (settings.PROM_DB, "/run", "/run"),
        (settings.BROKER_URL, "memory://", "memory://"),
    ],
)
def test_a_variable_says_what_its_text_means(monkeypatch, setting, text, value):
    monkeypatch.setenv(setting.name, text)

    assert setting.get() == value


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("GREENQ_RESTART_DELAY", "0", "1ms is the least"),
        ("greenq_restart_delay", "soon", "not a duration"),
        ("GREENQ_WORKER_TIMEOUT", "0.2", "1ms is the least"),
        ("GREENQ_QUEUE_PREFETCH", "-1", "not a whole number"),
        ("GREENQ_DELAY_QUEUE_PREFETCH", "1.5", "not a whole number"),
        ("GREENQ_GROUP_CALLBACK_BARRIER_TTL", "0", "1ms is the least"),
        ("GREENQ_DEAD_MESSAGE_TTL", "a week", "not a duration"),
        ("GREENQ_PROM_PORT", "65536", "0 to 65535"),
    ],
)
def test_a_wrong_value_is_told_with_the_variable_as_it_is_spelled(monkeypatch, name, text, told):
    monkeypatch.setenv(name, text)

    with pytest.raises(ValueError, match=f"^{name}: '{text}'.*{told}"):
        settings.check()


def test_the_longest_pause_between_tries_is_a_second_or_what_the_environment_says(monkeypatch):
    assert max(pause_s(20) for _ in range(50)) <= 1
    monkeypatch.setenv("GREENQ_RESTART_DELAY", "60s")
    assert max(pause_s(20) for _ in range(50)) > 1
    monkeypatch.setenv("GREENQ_RESTART_DELAY", "10ms")
    assert max(pause_s(20) for _ in range(50)) <= 0.01


def test_a_worker_takes_its_timeout_and_prefetch_from_the_environment(monkeypatch):
    monkeypatch.setenv("GREENQ_WORKER_TIMEOUT", "70")
    monkeypatch.setenv("GREENQ_QUEUE_PREFETCH", "5")
    monkeypatch.setenv("GREENQ_DELAY_QUEUE_PREFETCH", "70000")
    worker = Worker(StubBroker(), worker_threads=3)

    assert (worker.worker_timeout, worker.queue_prefetch, worker.delay_prefetch) == (70, 5, 65_535)
    assert Worker(StubBroker(), worker_timeout=90).worker_timeout == 90


def test_a_worker_has_its_own_timeout_and_prefetch_where_the_environment_says_nothing(monkeypatch):
    monkeypatch.setenv("GREENQ_QUEUE_PREFETCH", "0")
    worker = Worker(StubBroker(), worker_threads=3)

    assert (worker.worker_timeout, worker.queue_prefetch, worker.delay_prefetch) == (1000, 3, 3000)


@pytest.mark.parametrize("name", ["GREENQ_RESTART_DELAY", "GREENQ_WORKER_TIMEOUT", "GREENQ_QUEUE_PREFETCH"])
def test_a_worker_is_not_made_with_a_wrong_variable(monkeypatch, name):
    monkeypatch.setenv(name, "wrong")

    with pytest.raises(ValueError, match=name):
        Worker(StubBroker())


def test_variables_that_nobody_reads_are_told_with_the_nearest_right_name(monkeypatch):
    monkeypatch.setenv("GREENQ_RESTART_DELY", "1")
    monkeypatch.setenv("greenq_proces", "1")
    monkeypatch.setenv("GREENQ_WORKERS", "1")
    monkeypatch.setenv("GREENQ_EMPTY", "")
    monkeypatch.setenv("GREENQ_PROM_PORT", "1")

    assert settings.unknown_variables({"GREENQ_PROCESSES"}) == [
        "GREENQ_RESTART_DELY (did you mean GREENQ_RESTART_DELAY?)",
        "GREENQ_WORKERS",
        "greenq_proces (did you mean GREENQ_PROCESSES?)",
    ]


def test_what_kubernetes_tells_of_a_service_is_no_unknown_variable(monkeypatch):
    for name in (
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_AMQP",
        "PORT",
        "PORT_6379_TCP",
        "REDIS_PORT_6379_TCP_ADDR",
    ):
        monkeypatch.setenv(f"GREENQ_{name}", "tcp://10.0.0.1:6379")
    monkeypatch.setenv("GREENQ_PROM_PROT", "1")

    assert settings.unknown_variables(()) == ["GREENQ_PROM_PROT (did you mean GREENQ_PROM_PORT?)"]


def test_the_environment_is_read_in_one_place():
    readers = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb")
    }

    assert readers - OTHERS == {"settings.py"}
