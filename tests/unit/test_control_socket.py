"""Where control sockets are, and to whom they are open."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from greenq import control_socket
from greenq.control_socket import ControlError, ControlSocket, ask, found
from tests.support.waiting import PATIENCE_S, beside


@pytest.fixture
def runtime(monkeypatch):
    """The user's directory for sockets; short, because the path of one has to be."""
    with tempfile.TemporaryDirectory(prefix="gq-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        # None of those that others on this machine have.
        monkeypatch.setattr(control_socket, "directories", lambda: [os.path.join(directory, "greenq")])
        yield Path(directory)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_it_is_the_users_alone_and_gone_at_the_end(runtime):
    with ControlSocket() as opened:
        assert opened.path == str(runtime / "greenq" / f"{os.getpid()}.sock")
        assert (mode(opened.path), mode(runtime / "greenq")) == (0o600, 0o700)
        assert found() == [opened.path]

    assert found() == []
    assert not os.path.exists(opened.path)


def test_without_a_runtime_directory_it_is_in_one_of_the_user_in_tmp(monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    assert control_socket.directories() == [f"/tmp/greenq-{os.geteuid()}"]


def test_a_directory_that_is_open_to_others_is_not_used(runtime):
    (runtime / "greenq").mkdir(0o755)
    (runtime / "greenq").chmod(0o755)

    with pytest.raises(ControlError, match="open to other users: chmod 700"), ControlSocket():
        pass
    assert found() == []


def test_a_symbolic_link_is_not_followed(runtime):
    (runtime / "elsewhere").mkdir(0o700)
    (runtime / "greenq").symlink_to(runtime / "elsewhere")

    with pytest.raises(ControlError, match="is no directory"), ControlSocket():
        pass
    assert list((runtime / "elsewhere").iterdir()) == []


def test_a_directory_of_another_user_is_not_used(runtime, monkeypatch):
    (runtime / "greenq").mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    with pytest.raises(ControlError, match="belongs to another user"), ControlSocket():
        pass


def test_what_a_dead_supervisor_left_is_passed_over_and_removed(runtime):
    dead = subprocess.run(
        [sys.executable, "-c", "import os, signal; from greenq.control_socket import ControlSocket\n"
         "with ControlSocket() as opened: os.kill(os.getpid(), signal.SIGKILL)"],
        check=False,
    )  # fmt: skip
    (left,) = (runtime / "greenq").iterdir()
    assert dead.returncode == -9

    with ControlSocket() as opened:
        assert found() == [opened.path]

    assert not left.exists()


def test_a_path_of_the_users_own_takes_the_place_of_a_stale_socket(runtime):
    path = str(runtime / "mine")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(path)

    with ControlSocket(path) as opened:
        assert opened.path == path
        assert mode(path) == 0o600


def test_a_socket_in_use_and_a_file_are_left_alone(runtime):
    (runtime / "file").write_text("precious")

    with pytest.raises(ControlError, match="is no socket, and was left alone"), ControlSocket(str(runtime / "file")):
        pass
    with (
        ControlSocket(str(runtime / "mine")),
        pytest.raises(ControlError, match="in use"),
        ControlSocket(str(runtime / "mine")),
    ):
        pass

    assert (runtime / "file").read_text() == "precious"


def test_a_path_that_cannot_be_is_told(runtime):
    for path in (str(runtime / "no" / "such"), str(runtime / ("x" * 200))):
        with pytest.raises(ControlError, match=r"cannot be made: .*--control"), ControlSocket(path):
            pass


def test_a_default_path_that_is_too_long_is_not_tried(runtime, monkeypatch):
    directory = runtime / ("x" * 90) / "greenq"
    directory.parent.mkdir()
    monkeypatch.setattr(control_socket, "directories", lambda: [str(directory)])

    with pytest.raises(ControlError, match="too long for a socket"), ControlSocket():
        pass


def test_who_does_not_answer_is_told_in_one_sentence(runtime):
    with ControlSocket() as opened, pytest.raises(ControlError, match="does not answer: it is stopped"):
        list(ask(opened.path, {"request": "jobs"}, timeout_s=0.05))
    with pytest.raises(ControlError, match="No supervisor listens"):
        list(ask(opened.path, {"request": "jobs"}, timeout_s=0.05))


def test_who_comes_when_as_many_wait_as_may_waits_too(runtime):
    with ControlSocket() as opened:
        waiting = []
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(opened.path)
            except BlockingIOError:
                break
        with pytest.raises(ControlError, match="does not answer: it is stopped"):
            list(ask(opened.path, {"request": "jobs"}, timeout_s=0.05))
        opened.socket.settimeout(PATIENCE_S)

        def answer():
            for _ in waiting[:-1]:
                opened.socket.accept()[0].close()
            last, _ = opened.socket.accept()
            with last:
                last.sendall(b'{"end":true}\n')
                last.recv(1000)

        with beside(answer):
            assert list(ask(opened.path, {"request": "jobs"}, timeout_s=PATIENCE_S)) == [{"end": True}]
        for each in waiting:
            each.close()
