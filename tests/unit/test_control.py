"""What a supervisor answers by its control socket, without workers of flesh and blood."""

from __future__ import annotations

import os
import resource
import selectors
import socket
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from greenq import shared_page
from greenq.json_lines import Decoder, encode
from greenq.shared_page import SharedPage, name_bytes
from greenq.supervisor import control
from greenq.supervisor.control import Control
from tests.support.waiting import PATIENCE_S


class Worker:
    """A child that answers when it is told to."""

    def __init__(self, number):
        self.number, self.pid, self.ready_at = number, 1000 + number, 1.0
        self.state, self.is_consuming = "ready", True
        self.commands = []
        fd = shared_page.make()
        self.page = SharedPage(fd)
        os.close(fd)

    def ask(self, command):
        self.commands.append(command)
        return True

    def __str__(self):
        return f"Worker {self.number} (PID {self.pid})"


class Loop:
    """A supervisor's loop with nothing but the control in it."""

    def __init__(self, tmp_path, workers):
        self.workers = workers
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(tmp_path / "c"))
        self._listener.listen()
        self._listener.setblocking(False)
        self.path = str(tmp_path / "c")
        self.control = Control(self._listener, self._selector, lambda: self.workers, lambda: {"is_stopping": False})

    def turn(self):
        due = self.control.next_due()
        wait_s = max(0.0, min(due) - time.monotonic()) if due else 0.01
        for key, events in self._selector.select(min(wait_s, 0.01)):
            key.data(events)
        self.control.do_what_is_due()

    def turn_until(self, happened):
        ends_at = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < ends_at
            self.turn()

    def close(self):
        self.control.close()
        self._listener.close()
        self._selector.close()


@pytest.fixture
def loop(tmp_path):
    loop = Loop(tmp_path, [Worker(1), Worker(2)])
    yield loop
    loop.close()


def connected(loop, request):
    client = socket.socket(socket.AF_UNIX)
    client.connect(loop.path)
    client.setblocking(False)
    client.sendall(request + b"\n" if isinstance(request, bytes) else encode(request))
    return client


def answer(loop, client):
    """All documents of an answer."""
    decoder, documents = Decoder(), []

    def is_read():
        try:
            documents.extend(decoder.feed(client.recv(65536)))
        except BlockingIOError:
            return False
        return bool(documents) and documents[-1].get("end")

    loop.turn_until(is_read)
    client.close()
    return documents


def asked(loop):
    """The number of the question that both workers were asked."""
    loop.turn_until(lambda: all(worker.commands for worker in loop.workers))
    return loop.workers[0].commands[0]["ask"]


def test_what_workers_answer_is_passed_on_with_who_says_it(loop):
    client = connected(loop, {"request": "jobs"})
    number = asked(loop)

    for worker in loop.workers:
        loop.control.note(worker, {"ask": number, "jobs": [{"message_id": str(worker.number)}]})
        loop.control.note(worker, {"ask": number, "is_last": True})
    first, second, end = answer(loop, client)

    assert (first["worker"], first["pid"], first["jobs"]) == (1, 1001, [{"message_id": "1"}])
    assert second["worker"] == 2
    assert (end["workers"], end["silent"]) == (2, [])


def test_a_worker_that_does_not_answer_is_named_with_the_message_on_its_cpu(loop):
    client = connected(loop, {"request": "jobs", "timeout_ms": 50})
    number = asked(loop)
    loop.workers[1].page.sign.value = name_bytes("the guilty")

    loop.control.note(loop.workers[0], {"ask": number, "is_last": True})
    (end,) = answer(loop, client)
    loop.control.note(loop.workers[1], {"ask": number, "jobs": []})  # too late, and no harm

    assert end["silent"] == [{"worker": 2, "pid": 1002, "on_cpu": "the guilty"}]


def test_a_worker_that_dies_is_not_waited_for(loop):
    client = connected(loop, {"request": "jobs", "timeout_ms": 30_000})
    number = asked(loop)

    loop.control.note(loop.workers[0], {"ask": number, "is_last": True})
    loop.control.forget(loop.workers[1])

    assert answer(loop, client)[-1]["silent"] == []


@pytest.mark.parametrize(("timeout_ms", "goes_on"), [(10_000, True), (30_000, False)])
def test_the_time_begins_anew_with_each_part_of_an_answer_up_to_half_a_minute(loop, timeout_ms, goes_on):
    client = connected(loop, {"request": "jobs", "timeout_ms": timeout_ms})
    number = asked(loop)
    (first,) = loop.control.next_due()

    loop.control.note(loop.workers[0], {"ask": number, "jobs": []})

    (second,) = loop.control.next_due()
    assert (second > first) is goes_on
    client.close()


def test_who_has_the_cpu_is_looked_at_while_somebody_wants_to_know(loop):
    first, second = loop.workers
    first.page.turn()
    client = connected(loop, {"request": "jobs", "sample_ms": 60})
    number = asked(loop)
    for worker in loop.workers:
        loop.control.note(worker, {"ask": number, "is_last": True})
    first.page.sign.value = name_bytes("one")
    loop.turn_until(lambda: next(iter(loop.control._asks.values())).samples[first.pid]["one"] >= 2)
    first.page.sign.value = name_bytes("two")

    (end,) = answer(loop, client)

    seen, nothing = end["cpu"]
    assert seen["seen"]["one"] >= 2
    assert seen["looks"] >= sum(seen["seen"].values())
    assert set(seen["seen"]) <= {"one", "two"}  # and not nobody, whom it saw first
    assert nothing == {"pid": second.pid, "looks": 0, "seen": {}}  # which writes nothing into its page
    assert loop.control.next_due() == []


def test_a_client_that_does_not_read_is_dropped_by_time(loop, monkeypatch):
    monkeypatch.setattr(control, "_CLIENT_PATIENCE_S", 0.1)
    client = connected(loop, {"request": "jobs", "timeout_ms": 30_000})
    number = asked(loop)
    for _ in range(100):
        loop.control.note(loop.workers[0], {"ask": number, "jobs": ["x" * 60_000]})

    loop.turn_until(lambda: not loop.control._clients)
    client.close()


def test_a_client_that_does_not_read_is_dropped_by_size(loop, monkeypatch):
    monkeypatch.setattr(control, "_MOST_UNREAD", 1 << 20)
    client = connected(loop, {"request": "jobs", "timeout_ms": 30_000})
    number = asked(loop)

    for _ in range(100):
        loop.control.note(loop.workers[0], {"ask": number, "jobs": ["x" * 60_000]})

    assert not loop.control._clients
    client.close()


@pytest.mark.parametrize(
    "said",
    [
        b'{"request":"health","timeout_ms":NaN}',
        b'{"request":"health","timeout_ms":-1}',
        b'{"request":"health","timeout_ms":"5"}',
        b'{"request":"health","timeout_ms":null}',
        b'{"request":"jobs","sample_ms":NaN}',
        b'{"request":["jobs"]}',
        b'["jobs"]',
        b'{"request":"stack"}',
        b'{"request":"stack","message_id":1}',
        b'{"request":"stack","message_id":"%s"}' % (b"x" * 5000),
        b'{"request":"stack","message_id":"%s"}' % ("\u1234".encode() * 1000),  # six times as long in a command
    ],
    ids=lambda said: said.decode()[:50],
)
def test_a_request_that_makes_no_sense_is_asked_of_nobody(loop, said):
    client = connected(loop, said)

    (end,) = answer(loop, client)

    assert end["error"].startswith("A request is one of")
    assert not any(worker.commands for worker in loop.workers)
    assert loop.control.next_due() == []


@pytest.mark.parametrize("ms", ["1e999", "1" + "0" * 400, "0"], ids=["infinite", "no float", "none"])
def test_however_long_somebody_would_wait_the_workers_have_half_a_minute(loop, ms):
    client = connected(loop, b'{"request":"health","timeout_ms":%s,"sample_ms":%s}' % (ms.encode(), ms.encode()))
    loop.turn_until(lambda: all(worker.commands for worker in loop.workers))

    assert all(due <= time.monotonic() + 30 for due in loop.control.next_due())
    client.close()


def test_who_has_said_all_and_still_reads_is_answered(loop):
    # As `nc -U` and socat do.
    client = connected(loop, {"request": "jobs"})
    client.shutdown(socket.SHUT_WR)
    number = asked(loop)
    loop.turn()

    for worker in loop.workers:
        loop.control.note(worker, {"ask": number, "jobs": ["x" * 1_000_000]})
        loop.control.note(worker, {"ask": number, "is_last": True})
    documents = answer(loop, client)

    assert [len(each.get("jobs", ())) for each in documents] == [1, 1, 0]


@pytest.fixture
def used_up():
    """A context in which this process has no descriptors left."""

    @contextmanager
    def used_up():
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        fd = os.open(os.devnull, os.O_RDONLY)  # the lowest that is free
        os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (fd, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    return used_up


def test_who_asks_when_no_descriptors_are_left_is_answered_later_without_a_spin(loop, used_up, monkeypatch):
    monkeypatch.setattr(control, "_ACCEPT_AGAIN_S", 0.1)
    client = connected(loop, {"request": "jobs"})

    with used_up():
        loop.turn_until(lambda: loop.control.next_due())
        assert loop._selector.select(0) == []
    asked(loop)

    client.close()


def test_who_has_gone_is_dropped_before_the_answer(loop):
    client = connected(loop, {"request": "jobs", "timeout_ms": 30_000})
    asked(loop)

    client.close()

    loop.turn_until(lambda: not loop.control._clients)


def test_health_tells_of_all_workers_and_of_those_that_were_not_asked(loop):
    starting = SimpleNamespace(number=3, pid=1003, ready_at=None, state="starting", is_consuming=False, page=None)
    client = connected(loop, {"request": "health", "timeout_ms": 50})
    loop.workers.append(starting)
    loop.turn_until(lambda: loop.workers[0].commands)
    loop.control.note(loop.workers[0], {"ask": loop.workers[0].commands[0]["ask"], "is_last": True})

    (end,) = answer(loop, client)

    assert [(each["state"], each["answers"]) for each in end["workers"]] == [
        ("ready", True),
        ("ready", False),
        ("starting", None),
    ]
    assert end["is_stopping"] is False
