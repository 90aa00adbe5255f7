"""The example of the site's first page: sent and run by the real commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.command import Command
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


def test_what_the_first_example_sends_is_run(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL)
    (tmp_path / "app.py").write_text(example)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "app.py"], cwd=tmp_path, env=environment, timeout=PATIENCE_S * 2, check=True)

    command = Command(tmp_path, "app", "--processes", "1")
    try:
        command.wait_for("hello world")
        command.send_to_all(signal.SIGINT)
        assert command.exit_code() == 0
    finally:
        command.end()
