"""What it costs to look at ten thousand jobs in flight: how long it takes, and how long it holds a worker up.

    python looking.py [--runs 5] [--json FILE]

A benchmark, not a test: it prints a table and fails at no figure. A worker is started by the real
command and asked by its control socket, as `greenq top` does it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

from processes import HERE, bench
from runs import Figures, Row, arguments, measure

from greenq.control_socket import ask

JOBS, LOOKS = 10_000, 5
_LONGEST_S = 60

ROWS = [
    Row("listed", "10,000 jobs in flight listed", "ms", "under 1000"),
    Row("pause", "the longest pause in the worker meanwhile", "ms", "20 or less"),
    Row("pause_before", "the longest pause in the two seconds before", "ms"),
]


def looking() -> Figures:
    """Park the jobs, look at them a few times."""
    with bench(JOBS) as queue, tempfile.TemporaryDirectory(prefix="greenq-look-") as folder:
        path = os.path.join(folder, "control")
        queue.fill("park", JOBS)
        queue.fill("notice", 1)
        options = ["-p", "1", "-c", str(JOBS + 1), "--control", path]
        queue.start([sys.executable, "-m", "greenq", *options, "looking_jobs:broker"])
        queue.read()
        noticing = next(job for job in _jobs(path) if job["actor"] == "notice")
        listed, paused, before = [], [], []
        for _ in range(LOOKS):
            time.sleep(3)  # what the worker paused for earlier is forgotten
            before.append(_pause_ms(path, noticing["message_id"]))
            began = time.monotonic()
            count = len(_jobs(path))
            listed.append((time.monotonic() - began) * 1000)
            paused.append(_pause_ms(path, noticing["message_id"]))
            assert count == JOBS + 1
        return {"listed": max(listed), "pause": max(paused), "pause_before": max(before)}


def _jobs(path: str) -> list[dict[str, object]]:
    return [job for answer in ask(path, {"request": "jobs"}, timeout_s=_LONGEST_S) for job in answer.get("jobs", ())]


def _pause_ms(path: str, message_id: object) -> float:
    answers = ask(path, {"request": "stack", "message_id": message_id}, timeout_s=_LONGEST_S)
    return float(next(job["done"] for answer in answers for job in answer.get("jobs", ())))


if __name__ == "__main__":
    assert HERE  # which has put the checkout on the path
    measure(arguments(__doc__.splitlines()[0], ["looking"]).parse_args(), {"looking": looking}, ROWS)
