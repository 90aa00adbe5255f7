"""A worker, or the process of a fork function, as its supervisor sees it: a pid, two pipes and what it reported.

Starts it and talks to it. Does not decide anything: see supervisor.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import shared_page
from ..json_lines import encode
from ..nameless import nameless_fd
from ..shared_page import SharedPage
from . import signals
from .last_words import ASK, LastWords
from .reports import Reports

#: Seconds that a stuck worker has for telling its stacks before it is killed.
_TELL_S = 0.5

#: Seconds in which a killed one is gone. Only one that hangs in the kernel needs more, and waiting for it
#: would not help.
_REAP_AFTER_KILL_S = 2.0


@dataclass(frozen=True)
class Launch:
    """How such processes are started.

    Attributes:
      command(tuple[str, ...]): Program and arguments. Three numbers are appended: the file
        descriptors on which it reads how to start, reads commands, and writes reports.
      environment(Mapping[str, str]): Its environment variables.
      options(Mapping[str, Any]): What it is told first, as JSON: ``{"number": its place,
        "patient", "shared_fd", "area": see Child, "page_fd" and "words_fd": of its page and of the file
        for its last words, "take_back": see Orphan, "quiet": see Child, "options": these}``.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    options: Mapping[str, Any]


class Orphan(NamedTuple):
    """What a worker held that died.

    Attributes:
      worker_id(str): Under which it held it.
      charge(Sequence[str]): Ids of messages for which there is evidence that they were its death.
      cause(str): How it died, in words.
    """

    worker_id: str
    charge: Sequence[str]
    cause: str


class Stuck(NamedTuple):
    """What is known of a worker that does not go on.

    Attributes:
      reason(str): Why it is taken for stuck.
      message_id(str): Whose job is the cause, if the worker could tell; else empty.
    """

    reason: str
    message_id: str = ""


class Child:
    """A worker, or the process of a fork function, that was started.

    It hears of its supervisor's death from the end of its control pipe: the supervisor has
    the only other end, so nothing needs to be done for that.

    Parameters:
      number(int): Its place, from 1.
      launch(Launch): How it is started.
      patient(bool): Whether it is to wait for as long as it takes for what it cannot start
        without, and is not there: as one that replaces a worker that had it.
      name(str): For the log. Default: by its place.
      shared_fd(int): Of a file that it inherits. Default: none.
      area(int): The number of its part of that file. Default: none.
      is_watched(bool): Whether it is given a page of memory in which it shows what it does, and a file
        for its last words.
      orphans(Sequence[Orphan]): What it is to take back before it does anything else.
      is_quiet(bool): Whether it is to take no messages.

    Attributes:
      pid(int): Its process id.
      page(SharedPage | None): Its page, readable until ``forget()``: also after its death.
      report_fd(int): Readable when it has reported something.
      ready_at(float | None): Monotonic seconds at which it became ready.
      words(LastWords | None): Its last ones, readable as long as its page.
      worker_id(str | None): Under which it holds work now; its own word, as it reported it.
      lease_ms(int | None): For how many milliseconds it holds it; None if that is not known.
      is_consuming(bool): Whether it fetches messages, as it reported.
      errands(dict[str, Orphan]): What it was told to take back and nobody has yet, by the worker id.
      gave_back(bool): Whether it holds nothing any more, as it reported at its end.
      alone(str | None): The id of the message that runs with nothing beside it, by its own word; see
        worker/alone.py.
      memory(int | None): Bytes that it had when last looked at.
      stuck(Stuck | None): Why it is to be killed, if it is stuck.
      is_quiet(bool): Whether it takes no messages.
      worn(str | None): Why another is to take its place, in its own words.
      why_stopped(str): The reason for which it was told to stop, for the log.
      failure(str | None): Why it could not start, in its own words.
      stopping(bool): Whether it was told to stop.
      kill_at(float | None): Monotonic seconds at which the patience with its stop ends.
      killed(bool): Whether it was killed.
      give_up_at(float | None): Monotonic seconds at which it has been killed in vain.
      is_given_up(bool): Whether it has, so that nobody waits for its end any more.
      returncode(int | None): How it ended, as subprocess has it.

    Raises:
      OSError: The system has no room for another process, or for its pipes.
    """

    def __init__(
        self,
        number: int,
        launch: Launch,
        *,
        patient: bool,
        name: str | None = None,
        shared_fd: int | None = None,
        area: int | None = None,
        is_watched: bool = False,
        orphans: Sequence[Orphan] = (),
        is_quiet: bool = False,
    ) -> None:
        self.number = number
        self.area = area
        self._name = name or f"Worker {number}"
        self.ready_at: float | None = None
        self.worker_id: str | None = None
        self.did_a_job = False
        self.lease_ms: int | None = None
        self.errands = {orphan.worker_id: orphan for orphan in orphans}
        self.memory: int | None = None
        self.gave_back = False
        self.alone: str | None = None
        self.stuck: Stuck | None = None
        self.is_quiet = is_quiet
        self.worn: str | None = None
        self.why_stopped = ""
        self.is_consuming = False
        self.failure: str | None = None
        self.stopping = False
        self.kill_at: float | None = None
        self.killed = False
        self.give_up_at: float | None = None
        self.is_given_up = False
        self._unsaid = b""
        self.page: SharedPage | None = None
        self.words: LastWords | None = None
        told = {
            "number": number,
            "patient": patient,
            "shared_fd": shared_fd,
            "area": area,
            "take_back": [orphan._asdict() for orphan in orphans],
            "quiet": is_quiet,
        }
        self._start(launch, {**told, "options": dict(launch.options)}, shared_fd, is_watched)

    def _start(self, launch: Launch, told: Mapping[str, Any], shared_fd: int | None, is_watched: bool) -> None:
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as childs_ends:
            page_fd: int | None = None
            if is_watched:
                on_failure.callback(self.forget)
                page_fd = shared_page.make()
                childs_ends.callback(os.close, page_fd)
                self.page = SharedPage(page_fd)
                self.words = LastWords()
            words_fd = None if self.words is None else self.words.fd
            # Not by the pipe: with a few thousand queues it is more than a pipe takes, and who was
            # told half of it would wait for the rest.
            start = nameless_fd("greenq-start")
            childs_ends.callback(os.close, start)
            with open(start, "wb", closefd=False) as file:
                file.write(json.dumps({**told, "page_fd": page_fd, "words_fd": words_fd}).encode())
            os.lseek(start, 0, os.SEEK_SET)
            control, control_fd = os.pipe()
            self._control_fd: int | None = control_fd
            childs_ends.callback(os.close, control)
            on_failure.callback(os.close, control_fd)
            self.report_fd, report = os.pipe()
            childs_ends.callback(os.close, report)
            on_failure.callback(os.close, self.report_fd)
            os.set_blocking(control_fd, False)
            os.set_blocking(self.report_fd, False)
            # It lets the signals through as soon as it has handlers for them: none can kill
            # it, or print a KeyboardInterrupt, before it has.
            with signals.blocked():
                self._process = subprocess.Popen(
                    [*launch.command, str(start), str(control), str(report)],
                    env=dict(launch.environment),
                    stdin=subprocess.DEVNULL,
                    pass_fds=[
                        start,
                        control,
                        report,
                        *(fd for fd in (shared_fd, page_fd, words_fd) if fd is not None),
                    ],
                )
            on_failure.pop_all()
        self._reports = Reports(self.report_fd)
        self.pid = self._process.pid

    # -- what it says

    def read_reports(self) -> list[dict[str, Any]] | None:
        """What it has reported since the last call; None when it will report no more."""
        return self._reports.read()

    # -- what it is told

    def take_back(self, orphan: Orphan) -> bool:
        """Have it take back what a dead worker held; False if it cannot be told."""
        told = self._tell({"command": "take_back", **orphan._asdict()})
        if told:
            self.errands[orphan.worker_id] = orphan
        return told

    def ask(self, command: dict[str, Any]) -> bool:
        """Have it answer a question of control.py; False if it cannot be told."""
        return self._tell(command)

    def _tell(self, command: dict[str, Any]) -> bool:
        if self._control_fd is None:
            return False
        # A pipe that is full belongs to a worker that has stopped reading: never wait for it. One that has
        # room for half of a command takes the other half later, or it would spoil the next one.
        self.say_the_rest()
        if self._unsaid:
            return False
        line = encode(command)
        try:
            said = os.write(self._control_fd, line)
        except OSError:
            return False
        self._unsaid = line[said:]
        return True

    def say_the_rest(self) -> None:
        """Tell it what the pipe had no room for, if it has now."""
        if self._unsaid and self._control_fd is not None:
            with contextlib.suppress(OSError):
                self._unsaid = self._unsaid[os.write(self._control_fd, self._unsaid) :]

    def be_quiet(self) -> None:
        """Tell it to take nothing new, for the rest of its life."""
        self.is_quiet = True
        command = {"command": "quiet"}
        if not self._tell(command) and self._control_fd is not None:
            self._unsaid += encode(command)  # it is told when it reads again: nobody else would do it

    def reopen_log(self) -> None:
        """Have the process of a fork function go on in a new log file where the old one was moved away."""
        self._signal(signal.SIGHUP)

    def stop(self, patience_s: float, why: str = "") -> None:
        """Tell it to stop gracefully, once. It is to be killed if it takes longer."""
        if self.stopping:
            return
        self.stopping = True
        self.why_stopped = why
        self._kill_in(patience_s)
        # By the pipe if it listens already: systemd and timeout(1) send TERM to the whole
        # group, and one of ours on top of that would be a worker's second, which kills.
        if self.ready_at is None or not self._tell({"command": "stop"}):
            self._signal(signal.SIGTERM)

    def leave(self, patience_s: float) -> None:
        """Close its control pipe, from which it hears that it is needed no more."""
        if self._control_fd is None:
            return
        self.stopping = True
        self._kill_in(patience_s)
        os.close(self._control_fd)
        self._control_fd = None

    def condemn(self, stuck: Stuck) -> None:
        """Have it tell its stacks, as it is stuck. It is to be killed soon after."""
        self.stuck = stuck
        self._kill_in(_TELL_S)
        if self.words is not None:
            self.words.begin()
            self._signal(ASK)

    def kill(self) -> None:
        """End it at once."""
        if not self.killed:
            self.give_up_at = time.monotonic() + _REAP_AFTER_KILL_S
        self.killed = True
        self.kill_at = None
        self._signal(signal.SIGKILL)

    def give_up(self) -> None:
        """Note that it was killed and has not ended."""
        self.give_up_at = None
        self.is_given_up = True

    def _kill_in(self, seconds: float) -> None:
        # Whichever is first: one that is stuck is not spared because it is told to stop, and one that
        # becomes stuck while it stops has no more time for that.
        at = time.monotonic() + seconds
        self.kill_at = at if self.kill_at is None else min(at, self.kill_at)

    def _signal(self, signum: signal.Signals) -> None:
        # Its last reports are read when it was reaped, and its pid is another's from then on.
        if self.returncode is None:
            os.kill(self.pid, signum)

    # -- its end

    def was_reaped(self, returncode: int) -> None:
        """Note how it has ended. What it reported can still be read."""
        # The supervisor reaps: subprocess is told, so that it does not try as well.
        self._process.returncode = returncode

    def close(self) -> None:
        """Close its pipes."""
        if self._control_fd is not None:
            os.close(self._control_fd)
        os.close(self.report_fd)

    def forget(self) -> None:
        """Let go of what is kept of one that has ended."""
        if self.page is not None:
            self.page.close()
            self.page = None
        if self.words is not None:
            self.words.close()
            self.words = None

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def state(self) -> str:
        """In one word: starting, ready or stopping."""
        if self.stopping:
            return "stopping"
        return "starting" if self.ready_at is None else "ready"

    def ready_for_s(self) -> float:
        """Seconds since it became ready; 0 if it did not."""
        return 0.0 if self.ready_at is None else time.monotonic() - self.ready_at

    def __str__(self) -> str:
        return f"{self._name} (PID {self.pid})"
