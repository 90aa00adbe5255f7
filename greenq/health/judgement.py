"""What a supervisor's answer about its workers means. Values in, values out.

live    the supervisor answers, and so does every worker that has started: their hubs turn
ready   one of them at least is connected to the broker and fetches messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: Milliseconds that a worker may take to answer: a hub that does not turn for that long is stuck. What
#: asks the supervisor waits longer by the seconds that follow.
ANSWERS_WITHIN_MS = 5000
SUPERVISOR_ANSWERS_WITHIN_S = ANSWERS_WITHIN_MS / 1000 + 2.0

#: What the supervisor is asked.
REQUEST = {"request": "health", "timeout_ms": ANSWERS_WITHIN_MS}


class Health(NamedTuple):
    """How a supervisor and its workers are.

    Attributes:
      is_live(bool): Whether nothing has to be restarted.
      is_ready(bool): Whether messages are run.
      reasons(tuple[str, ...]): Why not, in sentences.
      workers(tuple[Mapping, ...]): Each worker as the supervisor knows it.
    """

    is_live: bool
    is_ready: bool
    reasons: tuple[str, ...]
    workers: tuple[Mapping[str, Any], ...] = ()

    def document(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "live": self.is_live,
            "ready": self.is_ready,
            "reasons": list(self.reasons),
            "workers": [dict(each) for each in self.workers],
        }


def silent(reason: str) -> Health:
    """The health of a supervisor that does not answer."""
    return Health(False, False, (reason,))


def judge(answer: Mapping[str, Any]) -> Health:
    """The health that a supervisor's answer tells of."""
    workers = tuple(answer.get("workers", ()))
    stuck = [each for each in workers if each.get("answers") is False]
    consuming = [each for each in workers if each.get("consuming") and each.get("state") == "ready"]
    reasons = [
        f"Worker {each.get('worker')} (PID {each.get('pid')}) has not answered within {ANSWERS_WITHIN_MS // 1000} s: "
        f"its hub does not turn{_why(each)}."
        for each in stuck
    ]
    is_ready = any(each not in stuck for each in consuming) and not answer.get("is_stopping")
    if answer.get("is_stopping"):
        reasons.append("The command is stopping.")
    elif not is_ready:
        started = [each for each in workers if each.get("state") == "ready"]
        reasons.append(
            "No worker fetches messages: the broker is away, or they are paused."
            if started
            else "No worker has started yet."
        )
    return Health(not stuck, is_ready, tuple(reasons), workers)


def _why(worker: Mapping[str, Any]) -> str:
    return f", message {worker['on_cpu']} has its CPU" if worker.get("on_cpu") else ""
