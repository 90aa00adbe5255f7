"""What was sent, what ran and what was answered, written down by all who take part, and what is missing.

A ledger is a file to which every process appends a line for each thing that happened; a job that
was sent is done when a worker says that it ran, and answered when its result came back to its
sender. Times are those of the monotonic clock, which all processes of a machine share.

    began 81203.114                        the first user comes
    sent 7f0c... 81203.120 0.412 work      when its send began, how many ms that took, and the actor
    unsent 81203.131 ConnectionClosed:...  a send that raised
    ran 7f0c... 81203.145 4711             when the job ended, and in which process
    answered 7f0c... 81203.146
    failed 7f0c... 81203.146 ResultFail... an answer that is an error
    befell 81233.114 a worker is killed    what happens to all of them
    unbefell 81243.114                     and when that is over, where it lasts

Knows no broker and no locust.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

#: Where it is; without one nothing is written down.
LEDGER_VARIABLE = "LOADTEST_LEDGER"


class Ledger:
    """The file, to write to from anywhere in this process.

    Parameters:
      path(str): The file, which may be there already. Default: as the environment says.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        path = path or os.environ.get(LEDGER_VARIABLE, os.devnull)
        # Appended at once and as a whole: it is there even if the process is killed in the next moment.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, *particulars: object) -> None:
        """Append a line."""
        line = " ".join(map(str, (what, *particulars))).replace("\n", " ")
        os.write(self._file, f"{line}\n".encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Job(NamedTuple):
    """What is known of a job whose send returned.

    Attributes:
      sent_at(float): When its send began.
      enqueued_ms(float): How long its send took.
      actor(str): The name of its actor.
      runs(int): How many of its runs came to their end.
      ran_ms(float): How long after the beginning of its send the first of them did; None if none did.
      done_ms(float): How long after the beginning of its send its result came; None if it did not.
    """

    sent_at: float
    enqueued_ms: float
    actor: str
    runs: int
    ran_ms: float | None
    done_ms: float | None


class Event(NamedTuple):
    """Something that befell all of them.

    Attributes:
      text(str): What.
      began_at(float): When.
      ended_at(float): When it was over; when it began, of what is over at once.
    """

    text: str
    began_at: float
    ended_at: float


class Account:
    """What a ledger says in the end.

    Attributes:
      jobs(dict[str, Job]): The jobs whose send returned, by id.
      began_at(float): When the first user came.
      unsent(list[str]): What the other sends raised.
      failed(list[str]): Answers that are errors.
      events(list[Event]): What befell all of them.
    """

    def __init__(self, path: Path) -> None:
        self.began_at = 0.0
        self.unsent: list[str] = []
        self.failed: list[str] = []
        self.events: list[Event] = []
        sent: dict[str, tuple[float, float, str]] = {}
        ran: dict[str, tuple[int, float]] = {}
        answered: dict[str, float] = {}
        with open(path) as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # it is just being written
                what, first, *rest = line[:-1].split(" ")
                if what == "began":
                    self.began_at = float(first)
                elif what == "sent":
                    sent[first] = float(rest[0]), float(rest[1]), rest[2]
                elif what == "unsent":
                    self.unsent.append(" ".join(rest))
                elif what == "ran":
                    runs, ended_at = ran.get(first, (0, float(rest[0])))
                    ran[first] = runs + 1, ended_at
                elif what == "answered":
                    answered[first] = float(rest[0])
                elif what == "failed":
                    self.failed.append(" ".join([first, *rest[1:]]))
                elif what == "befell":
                    self.events.append(Event(" ".join(rest), float(first), float(first)))
                elif what == "unbefell":
                    self.events[-1] = self.events[-1]._replace(ended_at=float(first))
        # A send that raised may have stored its message all the same: nothing was promised of that.
        self.jobs: dict[str, Job] = {}
        for key, (sent_at, enqueued_ms, actor) in sent.items():
            ran_ms = (ran[key][1] - sent_at) * 1000 if key in ran else None
            done_ms = (answered[key] - sent_at) * 1000 if key in answered else None
            self.jobs[key] = Job(sent_at, enqueued_ms, actor, ran[key][0] if key in ran else 0, ran_ms, done_ms)

    def lost(self) -> list[str]:
        """Ids of the jobs that were sent and never ran to their end."""
        return [key for key, job in self.jobs.items() if not job.runs]

    def unanswered(self) -> list[str]:
        """Ids of the jobs that ran and whose sender waits in vain."""
        return [key for key, job in self.jobs.items() if job.runs and job.done_ms is None]

    def done_again(self) -> int:
        """How many runs came to their end beyond one for each job."""
        return sum(job.runs - 1 for job in self.jobs.values() if job.runs)

    def complaints(self) -> list[str]:
        """What is wrong, a line each."""
        found = [
            (self.lost(), "sent and never done"),
            (self.unanswered(), "done, but no result came"),
            (self.failed, "answered by an error"),
            (self.unsent, "not sent, because the send raised"),
        ]
        lines = [f"{_jobs(len(names))} {what}: {_first(names)}" for names, what in found if names]
        return lines if self.jobs else ["nothing was sent", *lines]


def lately_at_work(path: Path) -> set[int]:
    """The processes of the last hundred jobs that ran, from a ledger that grows."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        lines = file.read().decode(errors="replace").splitlines()[1:-1]
    ran = [line.split(" ") for line in lines if line.startswith("ran ")]
    return {int(particulars[3]) for particulars in ran[-100:]}


def now() -> float:
    """The time to write down."""
    return time.monotonic()


def _jobs(count: int) -> str:
    return "1 job was" if count == 1 else f"{count:,} jobs were"


def _first(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
