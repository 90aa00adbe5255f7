"""What docs/io-on-greenlets.md says of drivers that need no installation is what loadtests/drivers.py finds."""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from tests.support.processes import PATCH, end_with_this_process

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/io-on-greenlets.md").read_text()
TRIED = [
    *("with_redis", "with_urllib", "with_sqlite3", "with_sleep", "with_sleep_in_a_coroutine", "with_subprocess"),
    *("with_system", "with_event", "with_select", "with_thread_pool", "with_file", "with_flock", "with_logging"),
    "with_a_loop",
]


@pytest.fixture(scope="module")
def trials():
    """All trials that there are, by the names of their functions."""
    spec = importlib.util.spec_from_file_location("driver_trials", ROOT / "loadtests/driver_trials.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["driver_trials"] = module
    spec.loader.exec_module(module)
    yield module.TRIALS
    del sys.modules["driver_trials"]


def rows():
    """The lines of the page's tables of drivers, by what is in their first cell."""
    tables = re.findall(r"^\| \| version .*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    lines = [line.strip("|").split(" | ") for table in tables for line in table.splitlines()]
    return {cells[0].strip(): [cell.strip().strip("*") for cell in cells[1:]] for cells in lines}


def outcomes_of(folder, *arguments):
    """What loadtests/drivers.py finds."""
    outcomes = folder / "outcomes.json"
    command = [sys.executable, str(ROOT / "loadtests/drivers.py"), "--here", "--json", str(outcomes), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, preexec_fn=end_with_this_process)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(outcomes.read_text())


def test_the_page_has_each_driver_that_is_tried(trials):
    assert list(rows()) == sorted((each.name for each in trials.values()), key=list(rows()).index)
    assert all(cells[1] != "not tried" for cells in rows().values())


def test_drivers_that_need_no_installation_do_what_the_page_says(trials, tmp_path):
    outcomes = outcomes_of(tmp_path, "--jobs", "4", "--only", *TRIED)

    found = {trials[name].name: outcome["verdict"] for name, outcome in outcomes.items()}
    assert found == {name: rows()[name][1] for name in found}
    for name, outcome in outcomes.items():
        lane = f'`lane="{trials[name].lane}"`'
        assert ("lane" in outcome and outcome["lane"]["verdict"] != "blocks") == (lane in rows()[trials[name].name][4])
    # The worker's own warning names the actor and the line; on a busy machine it may not have seen one of them.
    blocking = [name for name, outcome in outcomes.items() if outcome["verdict"] == "blocks"]
    named = [name for name in blocking if any("driver_trials.py:" in where for _, where, _ in outcomes[name]["told"])]
    assert len(named) >= max(1, len(blocking) - 2)
    if "with_sqlite3" in named:
        assert any(int(ms) >= 190 and who == "with_sqlite3" for ms, _, who in outcomes["with_sqlite3"]["told"])


def test_names_are_looked_up_ten_at_a_time(tmp_path):
    (outcome,) = outcomes_of(tmp_path, "--only", "with_getaddrinfo").values()

    # On a busy machine they take longer together; never shorter.
    at_a_time = int(re.fullmatch(r"(\d+) at a time", outcome["verdict"])[1])
    assert 1 < at_a_time <= 10
    assert rows()["`socket.getaddrinfo`, gevent's default resolver"][1] == "10 at a time"


def test_what_a_job_leaves_in_a_threads_locals_is_seen_by_the_next_one_and_its_context_is_not():
    broker, seen = StubBroker(), []
    local, variable = threading.local(), contextvars.ContextVar("variable", default=None)

    @greenq.actor(broker=broker)
    def look(name):
        seen.append((getattr(local, "name", None), variable.get()))
        local.name = name
        variable.set(name)

    look.send("one")
    look.send("two")
    worker = greenq.Worker(broker, worker_threads=1)
    worker.start()
    with contextlib.closing(broker):
        broker.join("default", timeout=20_000)
        worker.stop(5000)

    assert seen == [(None, None), ("one", None)]


def test_the_examples_of_the_page_run_where_gevent_has_patched(tmp_path):
    examples = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))

    done = subprocess.run(
        [sys.executable, "-c", PATCH + examples],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GREENQ_BROKER_URL": "memory://"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "in time too late\n"
