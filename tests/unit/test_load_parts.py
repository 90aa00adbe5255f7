"""What the load test of loadtests/load counts as wrong, and the proxy that makes a broker slow."""

from __future__ import annotations

import importlib
import re
import socket
import sys
import threading
import time
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import Any

import pytest

from tests.support.command import ROOT
from tests.support.waiting import PATIENCE_S

LOADTESTS_PAGE = (ROOT / "loadtests/README.md").read_text()


@pytest.fixture
def load(monkeypatch) -> Any:
    """Imports a module of the load test."""
    monkeypatch.syspath_prepend(str(ROOT / "loadtests" / "load"))
    yield importlib.import_module
    for name in ("load_ledger", "load_scenarios", "slow_proxy"):
        sys.modules.pop(name, None)


@pytest.fixture
def account_of(load, tmp_path) -> Any:
    """What a ledger with these lines says in the end."""

    def read(*lines: str) -> Any:
        path = tmp_path / "ledger"
        path.write_text("began 100.0\n" + "".join(f"{line}\n" for line in lines))
        return load("load_ledger").Account(path)

    return read


WELL = ("sent a 101.0 0.5 work", "ran a 101.02 7", "answered a 101.03")


def test_a_job_that_ran_and_was_answered_is_no_complaint(account_of):
    account = account_of(*WELL)

    assert account.complaints() == []
    job = account.jobs["a"]
    assert (job.ran_ms, job.done_ms) == (pytest.approx(20), pytest.approx(30))


def test_a_job_that_was_sent_and_never_ran_is_lost(account_of):
    account = account_of(*WELL, "sent b 101.0 0.5 work")

    assert account.lost() == ["b"]
    assert account.complaints() == ["1 job was sent and never done: b"]


def test_a_result_that_never_came_is_a_complaint(account_of):
    account = account_of(*WELL, "ran b 101.02 7", "sent b 101.0 0.5 work")

    assert account.complaints() == ["1 job was done, but no result came: b"]


def test_a_send_that_raised_and_an_answer_that_is_an_error_are_complaints(account_of):
    account = account_of(*WELL, "unsent 101.0 ConnectionFailed: away", "failed a 101.0 ResultFailure: oh")

    assert account.complaints() == [
        "1 job was answered by an error: a ResultFailure: oh",
        "1 job was not sent, because the send raised: ConnectionFailed: away",
    ]


def test_a_load_that_sent_nothing_is_a_complaint(account_of):
    assert account_of().complaints() == ["nothing was sent"]


def test_a_job_that_came_to_its_end_twice_is_counted_and_is_no_complaint(account_of):
    account = account_of(*WELL, "ran a 101.05 8")

    assert account.done_again() == 1
    assert account.complaints() == []


def test_a_line_that_is_half_there_is_not_read(load, tmp_path):
    (tmp_path / "ledger").write_text("began 100.0\n" + "\n".join(WELL) + "\nran a 1")

    assert load("load_ledger").Account(tmp_path / "ledger").done_again() == 0


def test_a_burst_is_ten_times_the_calm_and_comes_three_times(load):
    crowd = load("load_scenarios").SCENARIOS["burst"].crowd

    crowds = [crowd(percent / 100) for percent in range(100)]
    assert set(crowds) == {0.2, 2.0}
    assert crowds.count(2.0) == 30
    assert sum(before < after for before, after in pairwise(crowds)) == 3


def test_the_page_names_each_variable_of_the_users():
    users = (ROOT / "loadtests/load/locustfile.py").read_text()
    variables = re.findall(r'^    "([A-Z_]+)": ', users, re.MULTILINE)

    assert len(variables) == 6
    assert [each for each in variables if f"LOADTEST_{each}" not in LOADTESTS_PAGE] == []


def test_the_page_says_what_each_program_is_for():
    folder = ROOT / "loadtests"
    programs = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if "__pycache__" not in path.parts}
    by_folder = {each for each in programs if each.startswith(("benchmarks/apps/", "benchmarks/figures/"))}

    assert {each for each in programs - by_folder if f"]({each})" not in LOADTESTS_PAGE} == set()


def test_whoever_ran_a_job_lately_is_at_work(load, tmp_path):
    lines = [f"ran {number} 101.0 {number // 1000}\n" for number in range(3000)]
    (tmp_path / "ledger").write_text("began 100.0\n" + "".join(lines) + "ran 3000 101.0 3")

    assert load("load_ledger").lately_at_work(tmp_path / "ledger") == {2}


@contextmanager
def echo_server():
    """A server that sends back what it gets; its port."""

    def serve() -> None:
        connection, _ = listener.accept()
        with closing(connection):
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(PATIENCE_S)


def read_all(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(1 << 16)):
        data += more
    return data


def test_a_slow_proxy_delays_each_direction_and_keeps_the_order_when_it_is_quick_again(load):
    sent = b"".join(b"%6d" % number for number in range(20_000))
    with (
        echo_server() as port,
        load("slow_proxy").slow_proxy(port) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as connection,
    ):
        proxy.delay_s = 0.05
        began = time.monotonic()
        connection.sendall(sent[:60])
        assert read_all(connection, 60) == sent[:60]
        assert time.monotonic() - began >= 0.1

        connection.sendall(sent[60:120])
        proxy.delay_s = 0
        connection.sendall(sent[120:])
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection, len(sent)) == sent[60:]


def test_a_slow_proxy_ends_its_connections_with_it(load):
    with echo_server() as port:
        with load("slow_proxy").slow_proxy(port) as proxy:
            connection = socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S)
            connection.sendall(b"hello")
            assert read_all(connection, 5) == b"hello"
        with closing(connection):
            assert connection.recv(1) == b""
