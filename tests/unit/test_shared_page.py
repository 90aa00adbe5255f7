"""The page of memory in which a worker shows its supervisor what it does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from greenq import shared_page
from greenq.shared_page import SharedPage, name_bytes


@pytest.fixture
def fd():
    fd = shared_page.make()
    yield fd
    os.close(fd)


def test_what_a_process_showed_is_there_after_it_was_killed(fd):
    program = (
        "import os, signal, sys; from greenq.shared_page import SharedPage, name_bytes\n"
        "page = SharedPage(int(sys.argv[1]))\n"
        "page.beat(); page.turn(); page.turn(); page.kill_at = 12.5; page.sign.value = name_bytes('the one')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(fd)], pass_fds=[fd], check=False)

    page = SharedPage(fd)

    assert (page.beats, page.turns, page.kill_at, page.message_on_cpu) == (1, 2, 12.5, "the one")
    page.close()


def test_a_page_that_nobody_wrote_to_names_nobody(fd):
    page = SharedPage(fd)

    assert (page.beats, page.turns, page.kill_at, page.message_on_cpu) == (0, 0, 0, "")
    page.close()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_page_of_a_worker_whose_memory_is_corrupted_can_be_read(fd, number):
    page = SharedPage(fd)
    for index in range(3):
        page.numbers[index] = number

    assert (page.beats, page.turns) == (0, 0)
    page.close()


def test_a_shorter_id_leaves_nothing_of_the_longer_one_before_it(fd):
    page = SharedPage(fd)
    page.sign.value = name_bytes("a-rather-long-id")
    page.sign.value = name_bytes("é")

    assert page.message_on_cpu == "é"
    page.sign.value = b""
    assert page.message_on_cpu == ""
    page.close()


def test_an_id_that_does_not_fit_is_not_taken_for_another_one():
    assert name_bytes("x" * 128) == b"x" * 128
    assert name_bytes("x" * 129) == b""
