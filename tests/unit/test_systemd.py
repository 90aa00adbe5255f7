"""What systemd is told, on a real datagram socket."""

from __future__ import annotations

import contextlib
import os
import socket
import time

import pytest

from greenq.supervisor import Systemd


@pytest.fixture
def systemd(tmp_path):
    """The socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def heard(listener):
    try:
        return listener.recv(4096).decode().splitlines()
    except BlockingIOError:
        return []


def look(told, ready=2, *, is_reloading=False, is_stopping=False):
    told.look(is_stopping=is_stopping, is_reloading=is_reloading, ready=ready, of=2)


def test_the_whole_life_of_a_command_is_told_each_step_once(systemd):
    told = Systemd(systemd.getsockname())

    look(told, 1)
    assert heard(systemd) == ["STATUS=1 of 2 workers are ready"]
    look(told)
    assert heard(systemd) == ["READY=1", "STATUS=2 of 2 workers are ready"]
    look(told)
    assert heard(systemd) == []
    look(told, 1)  # one has died: the service is what it was
    assert heard(systemd) == ["STATUS=1 of 2 workers are ready"]
    look(told, is_reloading=True)
    reloading, clock, status = heard(systemd)
    assert (reloading, status) == ("RELOADING=1", "STATUS=reloading")
    assert abs(int(clock.removeprefix("MONOTONIC_USEC=")) - time.monotonic_ns() // 1000) < 60_000_000
    look(told)
    assert heard(systemd)[0] == "READY=1"
    look(told, is_stopping=True)
    assert heard(systemd) == ["STOPPING=1", "STATUS=stopping"]
    look(told, 0, is_stopping=True)
    assert heard(systemd) == []


def test_what_it_had_no_room_for_is_told_when_it_reads_again(systemd):
    # At boot many services have something to tell.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"STATUS=busy", systemd.getsockname())
    told = Systemd(systemd.getsockname())

    look(told)
    while heard(systemd) == ["STATUS=busy"]:
        pass
    look(told)
    look(told)

    assert heard(systemd) == ["READY=1", "STATUS=2 of 2 workers are ready"]
    assert heard(systemd) == []


def test_the_watchdog_hears_of_the_loop_twice_in_its_time(systemd):
    patient, due = Systemd(systemd.getsockname(), watchdog_s=1000), Systemd(systemd.getsockname(), watchdog_s=0)

    patient.do_what_is_due()
    assert heard(systemd) == []
    assert patient.next_due()[0] == pytest.approx(time.monotonic() + 500, abs=20)
    for _ in range(2):
        due.do_what_is_due()
        assert heard(systemd) == ["WATCHDOG=1"]


def test_the_environment_is_read_once_and_not_handed_down(systemd, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))

    told = Systemd.from_environment()

    assert told.next_due()[0] == pytest.approx(time.monotonic() + 2, abs=1)
    assert [name for name in os.environ if name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")] == []
    look(told)
    assert heard(systemd)[0] == "READY=1"


def test_a_watchdog_that_is_meant_for_another_process_is_left_alone(systemd, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")

    assert Systemd.from_environment().next_due() == []


def test_an_abstract_socket_is_found():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0greenq-test-{os.getpid()}")

        look(Systemd(f"@greenq-test-{os.getpid()}"))

        assert listener.recv(4096).startswith(b"READY=1")


def test_without_systemd_and_without_a_reader_nothing_happens(tmp_path):
    look(Systemd(""))
    look(Systemd(str(tmp_path / "nobody")))
