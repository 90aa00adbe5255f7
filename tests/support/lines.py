"""What a script prints, as it comes."""

from __future__ import annotations

import threading

from .waiting import PATIENCE_S


class Lines:
    """What a script prints, as it comes."""

    def __init__(self, script):
        self.script = script
        self.lines = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(script.process.stdout,), daemon=True)
        self._thread.start()

    def _read(self, stream):
        for line in stream:
            with self._news:
                self.lines.append(line.strip())
                self._news.notify_all()

    def wait_for(self, wanted, timeout_s=PATIENCE_S):
        with self._news:
            found = self._news.wait_for(lambda: wanted(self.lines), timeout_s)
        assert found, f"after {timeout_s} s: {len(self.lines)} lines, {self.lines[-5:]}; errors: {self.script.errors}"

    def rest(self):
        self._thread.join(PATIENCE_S)
        return self.lines
