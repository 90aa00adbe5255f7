"""Serves /health and /ready by HTTP, in a process of its own beside the workers: `greenq-worker --health`.

A fork function, see worker/fork.py. It asks the supervisor once a second, so that any number of probes
costs the workers one answer a second, and is answered at once.
"""

from __future__ import annotations

import json
import threading
import time

from ..control_socket import ControlError, ask
from ..http_listener import Answer, Told
from ..http_listener import serve as serve_http
from ..logging import get_logger
from ..units import host_and_port
from ..worker import fork
from .judgement import REQUEST, SUPERVISOR_ANSWERS_WITHIN_S, Health, judge, silent

_EVERY_S = 1.0

#: How long the first request waits for the first answer of the supervisor.
_FIRST_WITHIN_S = 1.0

#: What was heard is believed for so long: until the next answer is there, or overdue.
_BELIEVED_S = _EVERY_S + SUPERVISOR_ANSWERS_WITHIN_S + 1.0


class Watch:
    """Asks a supervisor again and again, in a thread of its own.

    Parameters:
      path(str): Of its control socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._health = silent("The supervisor has not answered yet.")
        self._heard_at = 0.0
        self._has_heard = threading.Event()

    def run(self) -> None:
        """Ask for ever."""
        while True:
            try:
                *_, answer = ask(self._path, REQUEST, timeout_s=SUPERVISOR_ANSWERS_WITHIN_S)
                self._health = judge(answer)
            except ControlError as error:
                self._health = silent(str(error))
            self._heard_at = time.monotonic()
            self._has_heard.set()
            time.sleep(_EVERY_S)  # between two looks, not for something to happen

    def health(self) -> Health:
        """As of the last answer. Waits a moment for the first."""
        self._has_heard.wait(_FIRST_WITHIN_S)
        age_s = time.monotonic() - self._heard_at
        if self._has_heard.is_set() and age_s > _BELIEVED_S:
            return silent(f"The supervisor was not heard for {age_s:.0f} s.")  # this process was itself stopped
        return self._health

    def answer(self, path: str) -> Answer:
        """The answer to a request."""
        if path not in ("/health", "/ready"):
            return _json(404, {"error": "There are /health and /ready."})
        health = self.health()
        is_well = health.is_live if path == "/health" else health.is_ready
        return _json(200 if is_well else 503, health.document())


def _json(code: int, document: object) -> Answer:
    return Answer(code, "application/json", json.dumps(document, indent=2).encode() + b"\n")


def serve() -> int:
    """Serve until the process is told to end."""
    options = fork.options()
    host, port = host_and_port(options["health"])
    watch = Watch(options["control_path"])
    threading.Thread(target=watch.run, name="health", daemon=True).start()
    told = Told("Health is", "/health", "--health", "--health")
    return serve_http(host, port, watch.answer, told, get_logger(__name__))
