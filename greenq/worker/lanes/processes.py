"""A process in which jobs of ``lane="process"`` run, one after another, as its worker sees it.

A fresh interpreter, which gevent does not patch; it imports what the worker has imported. It is
started for its first job, and ended if it has had nothing to do for a while. What it does is in
child.py.

    interrupt    a signal: the exception is raised in its main thread, in the actor's own code
    kill         SIGKILL to it and to what its job has started: when a job goes on beyond the hard
                 limit, or beyond the time that its worker has to stop; and after an interrupted
                 job, which may have left programs behind

The same code serves both worlds: sockets, waitpid and spawning are gevent's where it has patched.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from ... import logged_job
from ...errors import LaneDied, Shutdown, TimeLimitExceeded
from ...logging import get_logger
from ..job_marks import marked
from ..outcome import Outcome
from .signals import SIGNALS
from .wire import Began, Ended, Failed, Job, Raised, Returned, Setup, Wire, unpack

if TYPE_CHECKING:
    from ...actor import Actor
    from ...runtime import Place, Runtime, Timer
    from .job import LaneJob

#: The descriptor of the process's end of the sockets.
_FD = 3

_CHILD = (
    "import os, sys; sys.path[:] = os.environ.pop('GREENQ_SYS_PATH').split(os.pathsep); "
    "from greenq.worker.lanes.child import main; main()"
)

_logger = get_logger(__name__, "Lanes")


@dataclass(frozen=True)
class Imports:
    """What a process of a worker of the command imports, as the command was told.

    Attributes:
      spec(str): Of the broker.
      modules(tuple[str, ...]): Further ones, that hold actors.
      logging(Mapping | None): The arguments of ``log_lines.configure``; None if the application sets up its own.
    """

    spec: str
    modules: tuple[str, ...]
    logging: Mapping[str, Any] | None


def problem_with(actor: Actor[Any, Any]) -> str | None:
    """Why another process cannot find an actor by the module and the name of its function; None if it can."""
    module, name = _place_of(actor)
    if module == "__main__" or "<" in name:
        return (
            f"Its actor has lane='process', and another process cannot import {module}.{name}: define it at the top "
            "level of a module, or run the worker by greenq-worker."
        )
    return None


def _place_of(actor: Actor[Any, Any]) -> tuple[str, str]:
    fn: Any = actor.fn
    if not hasattr(fn, "__qualname__"):  # the instance of a class
        fn = type(fn)
    return fn.__module__, fn.__qualname__


class ProcessHost:
    """One such process.

    Parameters:
      runtime(Runtime): The world.
      number(int): For its name in the log.
      imports(Imports | None): What it imports; None to have it import the modules of its jobs' actors.
      hard_limit_s(float): Seconds that a job may take to end after its time limit.
    """

    has_own_process = True

    def __init__(self, runtime: Runtime, number: int, imports: Imports | None, hard_limit_s: float) -> None:
        self.is_spent = False
        self._runtime = runtime
        self._number = number
        self._imports = imports
        self._hard_limit_s = hard_limit_s
        #: Guards the pid: it is given up before the process is reaped. But gevent's hub reaps by itself what has died,
        #: perhaps a moment before the slot hears of it.
        self._lock = runtime.native_lock()
        self._pid: int | None = None
        self._wire: Wire | None = None
        self._performs = False
        self._is_interrupted = False
        self._killed_for: type[BaseException] | None = None
        self._has_passed_hard_limit = False
        self._timer: Timer | None = None

    # -- the slot's side

    def prepare(self) -> None:
        if self._wire is not None and self._has_died_idle():
            self._forget()
        if self._wire is not None:
            return
        try:
            answer = self._start().receive()
        except Ended:
            raise self._died("while it started") from None
        except OSError as error:
            self.is_spent = True
            raise LaneDied(f"No process could be started: {error}.") from error
        except BaseException:
            self._reap_beside(self._leave())
            raise
        if isinstance(answer, Failed):
            self._died("")
            raise LaneDied(f"The process of a lane could not start: {answer.reason}")

    def perform(self, job: LaneJob, context: contextvars.Context) -> Outcome:
        try:
            self._hand_over(self._told(job, context))
            assert self._wire is not None
            answer = self._wire.receive()
        except Ended:
            return Outcome(exception=self._reason_of_death(job))
        except LaneDied as error:
            return Outcome(exception=error if self._killed_for is None else self._killed_for())
        except Exception as error:  # what was to be sent, or came, cannot be pickled
            self._reap_beside(self._leave())
            return Outcome(exception=error)
        except BaseException:  # somebody killed the slot
            self._reap_beside(self._leave())
            raise
        finally:
            self._end_of_job()
        if self._is_interrupted:
            self._reap(self._leave())
        if isinstance(answer, Raised):
            return Outcome(exception=unpack(answer))
        assert isinstance(answer, Returned)
        return Outcome(answer.result)

    def _hand_over(self, told: Job) -> None:
        """Have the process begin; another one if it has died while it was idle."""
        try:
            self._begin(told)
        except Ended:
            if self._killed_for is not None:
                raise
            self._forget()
            self.prepare()
            self._begin(told)
        with self._lock:
            self._performs = True

    def _has_died_idle(self) -> bool:
        # An idle one has nothing to say.
        assert self._wire is not None
        poll = self._runtime.native_poll()
        poll.register(self._wire.end.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _forget(self) -> None:
        """It has died while it was idle. Without a signal: its number may be another one's by now."""
        self._reap_beside(self._let_go())

    def _begin(self, told: Job) -> None:
        assert self._wire is not None
        self._wire.send(told)
        began = self._wire.receive()
        assert isinstance(began, Began)

    def _told(self, job: LaneJob, context: contextvars.Context) -> Job:
        marked: logged_job.LoggedJob | None = context.run(logged_job.current.get)
        return Job(
            message=job.message._message,
            function=_place_of(job.actor) if self._imports is None else None,
            time_limit_ms=job.message.time_limit_ms,
            ends_at=job.ends_at,
            deliveries=job.message.deliveries,
            marks=dict(marked.fields) if marked is not None else None,
        )

    def _end_of_job(self) -> None:
        with self._lock:
            self._performs = False
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _reason_of_death(self, job: LaneJob) -> BaseException:
        inner = job.message._message
        error = self._died(f"while it ran message {inner.message_id} of actor {inner.actor_name}")
        if self._killed_for is None:
            return error
        if self._has_passed_hard_limit:
            _logger.warning(
                "Message %s of actor %s went on for %g s after its time limit: its process was killed.",
                inner.message_id,
                inner.actor_name,
                self._hard_limit_s,
                extra=marked(inner),
            )
        return self._killed_for()

    # -- start and end of the process

    def _start(self) -> Wire:
        ours, childs = socket.socketpair()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(ours.close)
            with childs:
                fd = os.dup(childs.fileno()) if childs.fileno() == _FD else childs.fileno()
                environment = {**os.environ, "GREENQ_SYS_PATH": os.pathsep.join(sys.path)}
                pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-c", _CHILD, "greenq-lane"],
                    environment,
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, fd, _FD),
                    ],
                    # Signals for the worker's group, of a terminal or of systemd, are for the worker to
                    # obey. And what the job has started is in this group, and can be killed with it.
                    setpgroup=0,
                    setsigmask=(),
                )
                if fd != childs.fileno():
                    os.close(fd)
            on_failure.pop_all()
        with self._lock:
            self._pid = pid
        self._wire = wire = Wire(ours)
        _logger.debug("Process %d of a lane was started (PID %d).", self._number, pid)
        wire.send(self._setup())
        return wire

    def _setup(self) -> Setup:
        imports = self._imports
        return Setup(
            number=self._number,
            worker_pid=os.getpid(),
            # The kernel looks at the thread that started it, and among threads that one may end earlier.
            is_bound=self._runtime.most_slots is None,
            argv=list(sys.argv),
            spec=imports.spec if imports is not None else None,
            modules=imports.modules if imports is not None else (),
            logging=imports.logging if imports is not None else None,
        )

    def _died(self, when: str) -> LaneDied:
        """Reap it; what is to be said of its death. Switches, if it has closed its socket and lives on."""
        pid = self._leave()
        status = self._reap(pid)
        told = f"The process of a lane (PID {pid}) "
        if status is None:
            return LaneDied(f"{told}ended {when}.")
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return LaneDied(f"{told}was killed by {_name_of(-code)} {when}.", signal=-code)
        return LaneDied(f"{told}ended with code {code} {when}.", exit_code=code)

    def _leave(self) -> int | None:
        """Have nothing more to do with it, which is killed if it lives. Does not wait."""
        self.is_spent = True
        self._kill()
        return self._let_go()

    def _let_go(self) -> int | None:
        """It ends by itself, if it has not ended; whatever it may still have to tell is none of our business."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        with self._lock:
            pid, self._pid = self._pid, None
        return pid

    def _reap(self, pid: int | None) -> int | None:
        if pid is None:
            return None
        try:
            return os.waitpid(pid, 0)[1]
        except ChildProcessError:  # the application waits for all children of this process
            return None

    def _reap_beside(self, pid: int | None) -> None:
        """The same without waiting for it."""
        self._runtime.spawn(lambda: self._reap(pid), name="end of a lane")

    # -- interrupts

    def interrupt(self, exception: type[BaseException]) -> bool:
        with self._lock:
            if self._pid is None:
                return False
            if not self._performs:
                self._killed_for = exception
            else:
                try:
                    os.kill(self._pid, SIGNALS[exception])
                except ProcessLookupError:  # it has died, and the slot has not heard of it yet
                    return False
                self._is_interrupted = True
                if exception is TimeLimitExceeded and self._timer is None:
                    self._timer = self._runtime.call_later(self._hard_limit_s, self._pass_hard_limit)
                return True
        self._kill()
        return True

    def _pass_hard_limit(self) -> None:
        with self._lock:
            if not self._performs:
                return
            self._killed_for, self._has_passed_hard_limit = TimeLimitExceeded, True
        self._kill()

    def stack(self) -> list[Place]:
        return []  # another process's is not seen from here

    @property
    def pid(self) -> int | None:
        """The process's; None if it is not started, or has ended."""
        return self._pid

    def frame(self) -> FrameType | None:
        return None

    def kill(self) -> None:
        with self._lock:
            self._killed_for = Shutdown
        self._kill()

    def _kill(self) -> None:
        with self._lock:
            if self._pid is not None:
                for kill in (os.killpg, os.kill):  # it may not have come to have a group
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        self._reap(self._let_go())


def _name_of(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
