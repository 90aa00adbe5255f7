"""What runs in this worker, for whoever asks: `greenq top`, `greenq stack`, USR1.

    supervisor --control pipe--> process.py --> here --report pipe--> supervisor

With ten thousand jobs in flight an answer takes a while, so it is made in slices, between which the
hub has its turn: nobody waits for it. Nothing is kept while nobody asks.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..json_lines import encode
from ..log_lines import log_with_details
from ..logging import get_logger
from .async_jobs import AsyncJob
from .lanes import LaneJob
from .whereabouts import is_of_a_library, is_users

if TYPE_CHECKING:
    from ..consumer import MessageProxy
    from .slots import WorkerThread
    from .worker import Worker

#: Jobs that are looked at without a turn of the hub; one takes 10 to 30 microseconds, its stack ten times that.
MOST_A_SLICE = 50

#: And whose ids alone are compared.
_MOST_COMPARED = 1000

#: Seconds between two slices. Not 0: gevent takes up to fifty turns of that kind before it looks at its timers and
#: sockets again, and they would wait for fifty slices.
_TURN_S = 0.0001

#: Of a line to the supervisor, in bytes: what a pipe takes whole, or not at all. So what others
#: report meanwhile does not come to stand in the middle of it, and writing one never waits for
#: a pipe that has room for it.
_LONGEST_LINE = select.PIPE_BUF
#: Of each text in it, in characters, so that one job fits; and where it does not all the same.
_LONGEST_TEXT, _LONGEST_TEXT_AT_NEED = 200, 60

#: Frames of a stack that are told; the innermost.
_MOST_FRAMES = 200

#: Seconds that a supervisor may take to make room for the next line. Then it is told no more of this.
_PATIENCE_S = 5.0

#: Jobs that USR1 logs; the rest is counted. And how many ids are named of those that wait alike.
MOST_LOGGED, _IDS_NAMED = 1000, 5

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_DOORS = {(_OWN + "actor.py", "run_guarded"), (_OWN + os.path.join("worker", "async_jobs.py"), "_run")}


class Place(NamedTuple):
    """A line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} at {self.file}:{self.line}" if self.file else self.function


class InFlight:
    """Answers what is asked of a worker.

    Parameters:
      worker(Worker): Whose jobs.
      write(Callable[[bytes], bool]): Takes lines of the answers, waiting for room; False if nobody takes
        them any more. Default: nobody is answered.
    """

    def __init__(self, worker: Worker, write: Callable[[bytes], bool] = lambda line: False) -> None:
        self.logger = get_logger(__name__, type(self))
        self._worker = worker
        self._write = write

    def obey(self, command: Mapping[str, Any]) -> None:
        """Answer a command of the supervisor, in a task of its own: ping, jobs, stack or dump."""
        tell = {"ping": self._ping, "jobs": self._tell_jobs, "stack": self._tell_stack, "dump": self._dump}
        what = tell.get(str(command.get("command")))
        if what is not None:
            self._worker.runtime.spawn(lambda: what(command), name=f"tell {command['command']}")

    # -- the answers

    def _ping(self, command: Mapping[str, Any]) -> None:
        self._end(command)

    def _tell_jobs(self, command: Mapping[str, Any]) -> None:
        ask = command.get("ask")
        for rows in self.slices():
            for line in _lines(rows, "jobs", ask=ask):
                if not self._write(line):
                    return
        self._end(command)

    def _tell_stack(self, command: Mapping[str, Any]) -> None:
        wanted = command.get("message_id")
        for number, job in enumerate(self._worker.slots.running(), 1):
            if number % _MOST_COMPARED == 0:
                self._worker.runtime.sleep(_TURN_S)  # a turn for the jobs
            message = job.message
            if message is not None and message._message.message_id == wanted:
                row, frames = self._row(job, message), [_told(place) for place in self._stack(job)]
                self._write(encode({"event": "answer", "ask": command.get("ask"), "jobs": [row]}))
                for line in _lines(frames, "frames", ask=command.get("ask"), of=row["message_id"]):
                    self._write(line)
        self._end(command)

    def _end(self, command: Mapping[str, Any]) -> None:
        self._write(encode({"event": "answer", "ask": command.get("ask"), "is_last": True}))

    # -- jobs

    def slices(self) -> Iterator[list[dict[str, Any]]]:
        """All jobs in flight, a few at a time. Switches after each slice: jobs may begin and end meanwhile."""
        seen: set[str] = set()
        rows: list[dict[str, Any]] = []
        # A snapshot: who begins later is not told. One that moves from the loop to a greenlet is met once.
        for number, job in enumerate(self._worker.slots.running(), 1):
            message = job.message
            if message is not None and message._message.message_id not in seen:
                seen.add(message._message.message_id)
                rows.append(self._row(job, message))
            if number % MOST_A_SLICE == 0:
                yield rows
                rows = []
                self._worker.runtime.sleep(_TURN_S)  # a turn for the jobs
        yield rows

    def _row(self, job: WorkerThread | AsyncJob, message: MessageProxy) -> dict[str, Any]:
        inner = message._message
        now = time.monotonic()
        done, total = message._progress or (None, None)
        place = self._where(job, message)
        return {
            "message_id": _cut(inner.message_id),
            "actor": _cut(inner.actor_name),
            "queue": _cut(inner.queue_name),
            "age_ms": round((now - message._began_at) * 1000),
            "left_ms": self._left_ms(job, message, now),
            **(_told(place) if place is not None else {"file": None, "line": None, "function": None}),
            "done": _number(done),
            "total": _number(total),
        }

    def _left_ms(self, job: WorkerThread | AsyncJob, message: MessageProxy, now: float) -> int | None:
        """What is left of its limit, which is all of it while it waits for a host, or in a hook; None without one."""
        limit_ms, guard = message.time_limit_ms, job.guard
        if limit_ms is None or not math.isfinite(limit_ms):
            return None
        ends_at = None if guard is None else guard.ends_at
        return round(limit_ms if ends_at is None else (ends_at - now) * 1000)

    # -- where they are

    def _where(self, job: WorkerThread | AsyncJob, message: MessageProxy) -> Place | None:
        """The innermost line of the user's own code; without one, of a library; without one, the innermost."""
        places = self._innermost_first(job)
        first = next(places, None)
        if first is None or is_users(first.file):
            return first
        others = list(places)
        for place in others:
            if is_users(place.file):
                return place
        # An application that is installed looks like a library; what its actor is part of is its own.
        home = self._home_of(message)
        if home is not None:
            for place in (first, *others):
                if place.file.startswith(home):
                    return place
        return next((place for place in (first, *others) if is_of_a_library(place.file)), first)

    def _home_of(self, message: MessageProxy) -> str | None:
        """The directory that the message's actor is in."""
        actor = self._worker.broker.actors.get(message._message.actor_name)
        code = getattr(inspect.unwrap(actor.fn), "__code__", None) if actor is not None else None
        return None if code is None else os.path.join(os.path.dirname(code.co_filename), "")

    def _stack(self, job: WorkerThread | AsyncJob) -> list[Place]:
        """Its stack from the actor inwards, or all of it if it is in no actor."""
        places = list(self._innermost_first(job))
        # The outermost door, because an actor may call greenq, too; without what is between the two.
        doors = [number for number, place in enumerate(places) if _is_door(place)]
        inside = places[: doors[-1] if doors else None]
        while doors and inside and inside[-1].file.startswith(_OWN):
            inside.pop()
        return inside[:_MOST_FRAMES][::-1]

    def _innermost_first(self, job: WorkerThread | AsyncJob) -> Iterator[Place]:
        if isinstance(job, AsyncJob):
            coroutine = job.coroutine()
            if coroutine is not None:
                yield from _places_of_coroutine(coroutine, self._worker.event_loop.frame)
            return
        frame = None
        if isinstance(job.guard, LaneJob):
            if job.guard.pid is not None:
                yield Place("", 0, f"in process {job.guard.pid}")
                return
            frame = job.guard.frame()
        yield from _places(frame or job.task.frame())

    # -- USR1

    def _dump(self, command: Mapping[str, Any]) -> None:
        """Log all jobs in flight with their stacks, those that wait in the same place together."""
        alike: dict[tuple[str, tuple[Place, ...]], list[str]] = {}
        count = 0
        running = self._worker.slots.running()
        for job in running[:MOST_LOGGED]:
            message = job.message
            if message is not None:
                stack = tuple(self._stack(job))
                inner = message._message
                alike.setdefault((_cut(inner.actor_name), stack), []).append(_cut(inner.message_id))
                count += 1
            if count % MOST_A_SLICE == 0:
                self._worker.runtime.sleep(_TURN_S)  # a turn for the jobs
        left_out = max(0, len(running) - MOST_LOGGED)
        self.logger.info(
            "SIGUSR1: %d jobs are in flight%s.",
            count + left_out,
            f", of which {MOST_LOGGED} follow" if left_out else "",
        )
        for (actor, stack), ids in sorted(alike.items(), key=lambda item: -len(item[1])):
            more = f" and {len(ids) - _IDS_NAMED} more" if len(ids) > _IDS_NAMED else ""
            named = ", ".join(ids[:_IDS_NAMED]) + more
            what = "1 job" if len(ids) == 1 else f"{len(ids)} jobs"
            place = next((each for each in reversed(stack) if is_users(each.file)), stack[-1] if stack else None)
            where = "in no Python code" if place is None else f"in {place}"
            log_with_details(
                self.logger, logging.INFO, f"{what} of actor {actor} {where}: {named}.", "\n".join(_printed(stack))
            )
            self._worker.runtime.sleep(_TURN_S)  # a turn for the jobs
        self._end(command)


def _is_door(place: Place) -> bool:
    """Whether this is where greenq leaves for an actor's code."""
    return (place.file, place.function.rpartition(".")[2]) in _DOORS


def _places(frame: FrameType | None) -> Iterator[Place]:
    while frame is not None:
        code = frame.f_code
        yield Place(code.co_filename, frame.f_lineno or 0, getattr(code, "co_qualname", code.co_name))
        frame = frame.f_back


def _places_of_coroutine(coroutine: Any, frame_of_loop: Callable[[], FrameType | None]) -> Iterator[Place]:
    """Where a coroutine waits, through all that it awaits, innermost first."""
    places: list[Place] = []
    awaited = coroutine
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        frame = frame or getattr(awaited, "ag_frame", None)
        if frame is None:
            break
        if getattr(awaited, "cr_running", False):
            # It does not await: it blocks the loop, on whose stack it is.
            yield from _places(frame_of_loop())
            return
        code = frame.f_code
        places.append(Place(code.co_filename, frame.f_lineno or 0, getattr(code, "co_qualname", code.co_name)))
        inner = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
        awaited = inner or getattr(awaited, "ag_await", None)
    yield from reversed(places)


# -- on paper


def _told(place: Place) -> dict[str, Any]:
    # Of a path the end tells more.
    file = place.file if len(place.file) <= _LONGEST_TEXT else "..." + place.file[-_LONGEST_TEXT:]
    return {"file": file or None, "line": place.line or None, "function": _cut(place.function)}


def _printed(stack: tuple[Place, ...]) -> Iterator[str]:
    """As a traceback has it."""
    for place in stack:
        if not place.file:
            yield f"  {place.function}"
            continue
        yield f'  File "{place.file}", line {place.line}, in {place.function}'
        text = linecache.getline(place.file, place.line).strip()
        if text:
            yield f"    {text:.{_LONGEST_TEXT}}"


def _cut(text: str, most: int = _LONGEST_TEXT) -> str:
    text = f"{text}"
    return text if len(text) <= most else text[:most] + "..."


def _number(value: Any) -> float | None:
    # What a job gives to progress() may be anything, and JSON knows no infinity.
    if isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < sys.maxsize:
        return value
    return None


def _lines(rows: list[dict[str, Any]], name: str, **rest: Any) -> Iterator[bytes]:
    """Answers with these rows under this name, in as few lines as they fit into."""
    # Each row is encoded once: that is most of what an answer costs.
    head = encode({"event": "answer", **rest, name: []})[: -len(b"]}\n")]
    room = _LONGEST_LINE - len(head) - len(b"]}\n")
    some: list[bytes] = []
    size = 0
    for row in rows:
        data = encode(row)
        if len(data) > room:
            data = encode(
                {key: _cut(each, _LONGEST_TEXT_AT_NEED) if type(each) is str else each for key, each in row.items()}
            )
        if size + len(data) > room:
            yield head + b",".join(some) + b"]}\n"
            some, size = [], 0
        some.append(data[:-1])
        size += len(data)
    if some:
        yield head + b",".join(some) + b"]}\n"


def pipe_writer(fd: int) -> Callable[[bytes], bool]:
    """What writes lines of at most PIPE_BUF bytes to a pipe when it has room, and lets others go on meanwhile.

    It answers False, and has written nothing, if there is no room for a while, or nobody reads any more.
    """

    def write(line: bytes) -> bool:
        # gevent's select in a worker: it switches, unless there is room already.
        try:
            _, writable, _ = select.select([], [fd], [], _PATIENCE_S)
            return bool(writable) and os.write(fd, line) == len(line)
        except OSError:
            return False

    return write
