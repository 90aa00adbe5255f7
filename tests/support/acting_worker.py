"""A worker process without a worker in it: it says and shows what a test wants, and logs what it is told.

Started as a worker is: ``python -m tests.support.acting_worker FOLDER ROLE START CONTROL REPORT``. The
first in the folder plays the role, those that come after it beat and do nothing else.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from greenq.json_lines import Decoder, encode
from greenq.log_lines import configure
from greenq.logging import get_logger
from greenq.shared_page import SharedPage, name_bytes

#: Milliseconds of the lease that it says it has.
LEASE_MS = 1500

#: Lines that are no reports, though some look like one.
RUBBISH = (
    b"half a li",
    b"\xff\x00",
    b"[" * 100_000,
    b"7",
    b'{"event": []}',
    b'{"event": "remark"}',
    b'{"event": "news", "level": "high", "text": "no"}',
    b'{"event": "taken_back", "worker_id": []}',
    b'{"event": "overdue", "message_id": "one", "actor": "resize", "limit_ms": "long"}',
    b'{"event": "alone", "message_id": 7}',
    b'{"event": "ready", "worker_id": 7, "lease_ms": "long"}',
)

_logger = get_logger("acting")


class ActingWorker:
    def __init__(self, told: dict[str, Any], control_fd: int, report_fd: int) -> None:
        self.told, self.control_fd, self.report_fd = told, control_fd, report_fd
        self.page = SharedPage(told["page_fd"])
        self.beats = True
        faulthandler.enable(told["words_fd"], all_threads=True)
        faulthandler.register(signal.SIGQUIT, told["words_fd"], all_threads=True)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.page.beat()
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while self.beats:
            self.page.beat()
            time.sleep(0.05)

    def report(self, **report: Any) -> None:
        os.write(self.report_fd, encode(report))

    def serve(self) -> None:
        """Log each command until the one to stop."""
        decoder = Decoder()
        while data := os.read(self.control_fd, 65536):
            for command in decoder.feed(data):
                _logger.info("told %s", json.dumps(command))
                if command["command"] == "take_back":
                    self.report(event="taken_back", worker_id=command["worker_id"])
                if command["command"] == "stop":
                    self.report(event="gave_back")
                    return

    # -- roles

    def waits(self) -> None:
        self.serve()

    def spins(self) -> None:
        """A job has kept it busy for too long, and others are as they were."""
        self.page.sign.value = name_bytes("spinner")
        self.page.kill_at = time.monotonic()
        _spin()

    def holds_the_interpreter(self) -> None:
        """C code that lets no thread run."""
        self.page.sign.value = name_bytes("holder")
        while True:
            ctypes.PyDLL(None).sleep(3600)  # ends at a signal

    def is_overdue(self) -> None:
        """The hub turns, and says that one of its jobs does not end."""
        self.report(event="overdue", message_id="overdue-id", actor="resize", limit_ms=2000)
        self.serve()

    def dies_of_the_one_that_runs_alone(self) -> None:
        self.report(event="alone", message_id="earlier suspect")
        self.report(event="alone", message_id=None)
        self.report(event="alone", message_id="suspect")
        os.kill(os.getpid(), signal.SIGKILL)

    def dies_after_one_ran_alone(self) -> None:
        self.report(event="alone", message_id="suspect")
        self.report(event="alone", message_id=None)
        os.kill(os.getpid(), signal.SIGKILL)

    def segfaults(self) -> None:
        self.page.sign.value = name_bytes("breaker")
        ctypes.string_at(0)

    def segfaults_in_nobodys_job(self) -> None:
        ctypes.string_at(0)

    def exits(self) -> None:
        self.page.sign.value = name_bytes("leaver")
        os._exit(0)

    def writes_rubbish(self) -> None:
        """As user code does that has closed a descriptor too many and writes to whose number it was."""
        for rubbish in RUBBISH:
            os.write(self.report_fd, rubbish + b"\n")
        self.report(event="alone", message_id="suspect")
        os.kill(os.getpid(), signal.SIGKILL)

    def writes_without_end(self) -> None:
        threading.Thread(target=self._flood, daemon=True).start()
        self.serve()

    def _flood(self) -> None:
        while True:
            os.write(self.report_fd, bytes(65536))

    def exits_while_it_stops(self) -> None:
        """A job of it does, with the code of one that has given everything back."""
        os.read(self.control_fd, 65536)
        os._exit(0)

    def ignores_the_stop(self) -> None:
        self.page.sign.value = name_bytes("long one")
        select.select([], [], [])


def _spin() -> None:
    while True:
        pass


def main() -> None:
    folder, role, *fds = sys.argv[1:]
    start_fd, control_fd, report_fd = (int(fd) for fd in fds)
    with open(start_fd) as file:
        told = json.load(file)
    configure(level=10)
    marker = Path(folder) / "played"
    plays = not marker.exists() and (told["number"] == 1 or role == "waits")
    if plays:
        marker.touch()
    worker = ActingWorker(told, control_fd, report_fd)
    for orphan in told["take_back"]:
        _logger.info("told first %s", json.dumps(orphan))
        worker.report(event="taken_back", worker_id=orphan["worker_id"])
    worker.report(event="ready", worker_id=f"id-{os.getpid()}", lease_ms=LEASE_MS)
    _logger.info("said that it is ready")
    getattr(worker, role if plays else "waits")()


if __name__ == "__main__":
    main()
