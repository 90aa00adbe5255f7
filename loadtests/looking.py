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
    Row("cpu", "the most CPU of the worker in a pause meanwhile", "ms", "20 or less"),
    Row("cpu_before", "the most CPU in a pause in the two seconds before", "ms"),
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
        listed, paused, before = [], [], []  # of the last two: wall and CPU
        for _ in range(LOOKS):
            time.sleep(3)  # what the worker paused for earlier is forgotten
            before.append(_pauses_ms(path, noticing["message_id"]))
            began = time.monotonic()
            count = len(_jobs(path))
            listed.append((time.monotonic() - began) * 1000)
            paused.append(_pauses_ms(path, noticing["message_id"]))
            assert count == JOBS + 1
        (pause, cpu), (pause_before, cpu_before) = (
            map(max, zip(*paused, strict=True)),
            map(max, zip(*before, strict=True)),
        )
        return {
            "listed": max(listed),
            "pause": pause,
            "pause_before": pause_before,
            "cpu": cpu,
            "cpu_before": cpu_before,
        }


def _jobs(path: str) -> list[dict[str, object]]:
    return [job for answer in ask(path, {"request": "jobs"}, timeout_s=_LONGEST_S) for job in answer.get("jobs", ())]


def _pauses_ms(path: str, message_id: object) -> tuple[float, float]:
    """The longest pause, and the most CPU in one."""
    answers = ask(path, {"request": "stack", "message_id": message_id}, timeout_s=_LONGEST_S)
    job = next(job for answer in answers for job in answer.get("jobs", ()))
    return float(job["done"]), float(job["total"])


if __name__ == "__main__":
    assert HERE  # which has put the checkout on the path
    measure(arguments(__doc__.splitlines()[0], ["looking"]).parse_args(), {"looking": looking}, ROWS)
