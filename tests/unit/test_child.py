"""A worker as its supervisor sees it: what is told to it, and what is left of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from greenq.supervisor.child import Child, Launch

ROOT = Path(__file__).resolve().parents[2]

SHOW = """
import json, os, signal, sys
from greenq.shared_page import SharedPage, shown
told = json.load(open(int(sys.argv[-3])))
if told["page_fd"] is not None:
    SharedPage(told["page_fd"]).on_cpu[:] = shown("the one")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start():
    """Starts this program as a worker is started, and waits for its end."""
    children = []

    def start(program, **options):
        launch = Launch((sys.executable, "-c", program), {**os.environ, "PYTHONPATH": str(ROOT)}, {})
        child = Child(1, launch, patient=False, **options)
        children.append(child)
        child.ended(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
        return child

    yield start
    for child in children:
        child.forget()


def test_what_a_worker_showed_in_its_page_is_there_after_its_death(start):
    child = start(SHOW, is_watched=True)

    assert child.returncode == -9
    assert child.page.message_on_cpu == "the one"


def test_a_process_beside_the_workers_has_no_page(start):
    child = start(SHOW)

    assert child.returncode == -9
    assert child.page is None
