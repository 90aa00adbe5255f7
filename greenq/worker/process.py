"""What runs inside a worker process of `greenq-worker`: one Worker, from start to exit.

    control pipe   the supervisor's commands; its end means that the supervisor died
    report pipe    what the supervisor is told: EVENTS in supervisor/reports.py; answers are from in_flight.py

The process was patched by gevent before this module was imported. The main greenlet
waits for the end and reports news, another one listens; signal handlers only write to a
pipe, because they may run on the stack of any greenlet, the hub's among them.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import logging
import os
import select
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

from .. import errors, logged_job
from ..exit_codes import ExitCode
from ..greenlets import contain_exits, hand_down, leave_others_behind, log_failures, share_asyncio
from ..json_lines import Decoder, encode
from ..log_lines import configure, log_with_details, print_by_lines, without_password
from ..log_writer import Native
from ..logged_job import LoggedJob
from ..logging import get_logger
from ..metrics import shared
from ..runtime import Runtime, current
from ..shared_page import SharedPage
from . import arrival, children
from .application import CannotStart, explain, find_broker, not_shared, sentence
from .fork import forks_of
from .in_flight import InFlight, pipe_writer
from .job_marks import JobMarks
from .lanes import Imports
from .last_resort import exit_in_time, exit_now, exit_without, stand_still
from .news import News
from .worker import Worker

#: Seconds between two looks for news.
_LOOK_EVERY_S = 1.0

#: Seconds between them until the first job is done: a worker that dies young, but has done
#: one, must not count towards giving up.
_LOOK_FOR_FIRST_JOB_EVERY_S = 0.05

#: Seconds after the time that jobs have at a stop until which the broker may be closed: a little
#: longer than the worker's last write may take.
_CLOSE_S = 0.55

#: Seconds in which a second TERM is taken for the first: timeout(1) sends it to its child
#: and to the whole group.
_SAME_SIGNAL_S = 0.05

#: Seconds between them where the number of jobs is limited.
_LOOK_FOR_LAST_JOB_EVERY_S = 0.1

#: What the whole process group is sent, and only the supervisor obeys.
_LEFT = (signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1)

#: Seconds for which it is tried again to take back what a dead worker held, where the broker is not away
#: but has an error in it: long enough for another worker to be told, and to try as well.
_TAKE_BACK_S = 5.0

#: Of a traceback, so that the report fits into the pipe whatever the supervisor does.
_LONGEST_REASON = 30_000


def main() -> NoReturn:
    """Run the worker that the supervisor asks for, until it is told to stop. Exits the process."""
    start_fd, control_fd, report_fd = (int(argument) for argument in sys.argv[-3:])
    process = WorkerProcess(control_fd, report_fd)
    process.take_signals()
    process.leave_children_alone()
    process.read_options(start_fd)
    print_by_lines()
    share_asyncio()
    try:
        process.boot()
    except CannotStart as failure:
        process.tell_failure(failure)
        exit_now(failure.exit_code)
    tune_interpreter()
    contain_exits()
    process.serve()
    exit_now(process.stop())


def tune_interpreter() -> None:
    """Set the interpreter up for thousands of greenlets and a few native threads."""
    # Leave what was imported alone, and look at the rest every 10,000 objects instead of 700: a
    # batch of messages is thousands of objects that die by themselves, while those of a
    # thousand parked jobs were looked at again and again (8 % of a worker's time).
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    # Native threads (a broker's, the lease's) wait this long for a busy hub to let go of the
    # interpreter, instead of 5 ms each time. For their sake only: jobs a second are the same.
    sys.setswitchinterval(0.001)


class WorkerProcess:
    """The one worker of this process, and its talk with the supervisor.

    Parameters:
      control_fd(int): Where commands come from. It is closed, and another number kept.
      report_fd(int): Where reports go; likewise.
    """

    def __init__(self, control_fd: int, report_fd: int) -> None:
        self._control_fd = _lowered(control_fd)
        self._report_fd = _lowered(report_fd)
        self._wake_fd, self._wakeup_fd = os.pipe()
        os.set_blocking(self._wakeup_fd, False)
        self._commands = Decoder()
        self._first_term_s: float | None = None
        self._is_booting = True
        self._is_ready = False
        self._runtime = current()
        self._end = self._runtime.event()
        self._supervisor_pid = os.getppid()
        #: In which this process shows what it does; None if it was given none.
        self.page: SharedPage | None = None
        self._in_flight: InFlight | None = None
        self.logger = get_logger("greenq", "WorkerProcess")

    # -- signals

    def take_signals(self) -> None:
        """Set the handlers; then let through the signals that were held back until now."""
        signal.signal(signal.SIGTERM, self._on_term)
        # Ctrl-C, Ctrl-Z and a closed terminal reach the whole process group: what they mean is the
        # supervisor's to decide. A handler, because programs that jobs start would inherit
        # an ignored signal, and could not be interrupted by the job either.
        for signum in _LEFT:
            signal.signal(signum, _leave_it_to_the_supervisor)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def leave_children_alone(self) -> None:
        """Have children that jobs fork be no workers: no greenlet, no signal and no pipe of this one is theirs."""
        leave_others_behind()
        pipes = (self._control_fd, self._report_fd, self._wake_fd, self._wakeup_fd)
        children.leave_alone((signal.SIGTERM, signal.SIGQUIT, *_LEFT), lambda: pipes)

    def _on_term(self, signum: int, frame: FrameType | None) -> None:
        if self._is_booting:
            # No message is held yet, and an import may take long, or hang.
            os._exit(ExitCode.DONE)
        now_s = time.monotonic()
        if self._first_term_s is None:
            self._first_term_s = now_s
            os.write(self._wakeup_fd, b"\0")
        elif self._is_ready and now_s - self._first_term_s >= _SAME_SIGNAL_S:
            os._exit(ExitCode.KILLED)

    # -- boot

    def read_options(self, start_fd: int) -> None:
        """Read how to start, and set up logging."""
        with open(start_fd, "rb") as file:
            told = json.load(file)
        self.number = told["number"]
        self._is_patient: bool = told["patient"]
        self.options: dict[str, Any] = told["options"]
        shared.hand_over(told["shared_fd"], told["area"], self.number)
        self.page = _open_page(told["page_fd"])
        _tell_stacks_to(told["words_fd"])
        self._orphans: list[dict[str, Any]] = told["take_back"]
        self._is_quiet: bool = told["quiet"]
        self.logger = get_logger("greenq", f"WorkerProcess({self.number})")
        sys.argv[:] = self.options["argv"]
        how = self._logging()
        if how is not None:
            runtime = self._runtime
            configure(**how, task_name=runtime.task_name, native=_native(runtime), lock=runtime.native_rlock)

    def _logging(self) -> dict[str, Any] | None:
        """How this process and those of its lanes log; None if the application sees to that."""
        if self.options["skip_logging"]:
            return None
        return {
            "level": logging.DEBUG if self.options["verbose"] else logging.INFO,
            "log_file": self.options["log_file"],
            "log_format": self.options["log_format"],
        }

    def boot(self) -> None:
        """Import what the user named, start the worker, report that it is ready.

        Raises:
          CannotStart: Something failed.
        """
        sys.path[:0] = [os.path.abspath(path) for path in self.options["path"]]
        spec = self.options["broker"]
        what = f"import {spec!r}"
        try:
            self.broker = find_broker(spec)
            if not self.broker.shared:
                raise CannotStart(ExitCode.USAGE, not_shared(self.broker))
            self.broker.emit_after("process_boot")
            for module in self.options["modules"]:
                what = f"import {module!r}"
                importlib.import_module(module)
            what = "start the worker"
            self._start_worker()
        except CannotStart:
            raise
        except errors.ConnectionError as error:
            # Of the user's code. What was imported half-way cannot be imported again.
            raise CannotStart(
                ExitCode.UNREACHABLE, f"it could not {what}, which uses the broker. {sentence(error)}"
            ) from error
        except BaseException as error:
            raise CannotStart(ExitCode.USAGE, explain(what, error)) from error

    def _start_worker(self) -> None:
        # Already now, because the supervisor may die while the broker is waited for.
        self._runtime.spawn(self._listen, name="control")
        self._set_lease()
        self._connect()
        # Before anything is fetched, because the first job may end the process.
        self._report(event="worker_id", worker_id=self.broker.worker_id)
        # Also before: it has waited for as long as this process took to start.
        for orphan in self._orphans:
            self._take_back(orphan["worker_id"], orphan["charge"], orphan["cause"])
        middleware = [type(each).__name__ for each in self.broker.middleware]
        self._mark_log()
        queues = self.options["queues"]
        self.worker = Worker(
            self.broker,
            queues=None if queues is None else set(queues),
            concurrency=self.options["concurrency"],
            lane_threads=self.options["lane_threads"],
            lane_processes=self.options["lane_processes"],
        )
        self.worker.lanes.imports = Imports(
            self.options["broker"], tuple(self.options["modules"]), logging=self._logging()
        )
        watch = self.worker.watch
        watch.page, watch.report = self.page, self._report
        watch.block_warn_ms, watch.hard_limit_ms = self.options["block_warn"], self.options["hard_limit"]
        self.worker.lanes.hard_limit_ms = self.options["hard_limit"]
        self.worker.solitude.tell = lambda message_id: self._report(event="alone", message_id=message_id)
        exit_without(self._supervisor_pid, self._runtime, self.options["worker_shutdown_timeout"])
        self._in_flight = InFlight(self.worker, pipe_writer(self._report_fd))
        # From here on messages may be held, so that a TERM has to stop gracefully.
        self._is_booting = False
        self.worker.is_paused = self._is_quiet
        self.worker.start()
        self.news = News(self.worker, self.broker, max_jobs=self.options["max_jobs"], report=self._report)
        self._report(
            event="ready",
            worker_id=self.news.worker_id,
            is_consuming=self.news.is_consuming,
            broker=without_password(str(self.broker)),
            lease_ms=self.broker.lease_ms,
            queues=sorted(self.broker.get_declared_queues() if queues is None else queues),
            actors=len(self.broker.get_declared_actors()),
            actor_queues=sorted({actor.queue_name for actor in self.broker.actors.values()}),
            middleware=middleware,
            modules=[self.options["broker"], *self.options["modules"]],
            forks=forks_of(self.broker, self.options["fork_function"]),
            gevent=sys.modules["gevent"].__version__,
        )
        self._is_ready = True
        self.logger.info("Worker process is ready.")

    def _set_lease(self) -> None:
        lease_ms = self.options["lease"]
        if lease_ms is None:
            return
        try:
            self.broker.set_lease(lease_ms)
        except (ValueError, RuntimeError) as error:
            raise CannotStart(ExitCode.USAGE, f"--lease cannot be used here: {error}") from error

    def _mark_log(self) -> None:
        """If the log is JSON, have it tell which job each record is of."""
        if self.options["skip_logging"] or self.options["log_format"] != "json":
            return
        first = type(self.broker.middleware[0]) if self.broker.middleware else None
        self.broker.add_middleware(JobMarks(), before=first)
        hand_down(logged_job.current, LoggedJob.seen_below)
        log_failures(get_logger("greenq", "Greenlets"))

    def _connect(self) -> None:
        # The worker's own consumers try for as long as it takes, which is right for an outage
        # and wrong for a mistaken address. It also gives this process its worker id, which
        # the supervisor should know before anything is fetched.
        wait_ms = None if self._is_patient else self.options["wait_for_broker"]
        self.broker.logger.addFilter(self._pass_on)
        try:
            arrival.connect(self.broker, wait_ms=wait_ms, runtime=self._runtime, tell_waiting=self._tell_waiting)
        except errors.BrokerUnusable as error:
            reason = f"the broker cannot be used. {sentence(error)}"
            raise CannotStart(ExitCode.UNREACHABLE, reason) from error
        except errors.ConnectionError as error:
            tried = f"for {wait_ms / 1000:g} s" if wait_ms else "once"
            raise CannotStart(
                ExitCode.UNREACHABLE,
                f"the broker is away. {sentence(error)} It was tried {tried}: start it, or correct its address. "
                "--wait-for-broker says how long to wait.",
            ) from error
        finally:
            self.broker.logger.removeFilter(self._pass_on)

    def _pass_on(self, record: logging.LogRecord) -> bool:
        """Have the supervisor log what the broker says of its server: once for all workers."""
        text = without_password(record.getMessage())
        return not self._report(event="remark", level=record.levelno, text=text[:_LONGEST_REASON])

    def _tell_waiting(self, error: errors.ConnectionError) -> None:
        """Have the supervisor log that the broker is waited for: once for all workers."""
        how_long = (
            "as long as it takes"
            if self._is_patient
            else f"for {self.options['wait_for_broker'] / 1000:g} s (--wait-for-broker)"
        )
        self._report(event="waiting", reason=f"the broker is away. {sentence(error)} Trying again {how_long}.")

    def tell_failure(self, failure: CannotStart) -> None:
        """Have the supervisor log why: of many workers that fail alike it logs one."""
        reason = failure.reason
        if len(reason) > _LONGEST_REASON:
            reason = reason[:1000] + "\n  ...\n" + reason[-_LONGEST_REASON:]
        if not self._report(event="failed", reason=reason):
            line, _, details = reason.partition("\n")
            log_with_details(self.logger, logging.CRITICAL, f"Could not start: {line}", details)

    # -- work

    def serve(self) -> None:
        """Return when the process is to stop; until then report news."""
        # With a time-out: gevent takes a main greenlet that waits for an event without one
        # for a deadlock when nothing but file descriptors is left to wake it.
        often_s = _LOOK_EVERY_S if self.options["max_jobs"] is None else _LOOK_FOR_LAST_JOB_EVERY_S
        while not self._end.wait(often_s if self.news.has_told_job else _LOOK_FOR_FIRST_JOB_EVERY_S):
            self.news.tell()

    def _listen(self) -> None:
        is_supervised = True
        while True:
            watched = [self._control_fd, self._wake_fd] if is_supervised else [self._wake_fd]
            readable, _, _ = select.select(watched, [], [])
            if self._wake_fd in readable:
                os.read(self._wake_fd, 64)
                self.logger.info("Received SIGTERM.")
                self._end.set()
            if self._control_fd in readable:
                data = os.read(self._control_fd, 65536)
                if not data:
                    is_supervised = False
                    self.logger.warning("The supervisor has died.")
                    if self._is_booting:
                        exit_now(ExitCode.DONE)  # nothing is held yet
                    self._end.set()
                for command in self._commands.feed(data):
                    self._obey(command)

    def _obey(self, command: dict[str, Any]) -> None:
        if command.get("command") == "stop":
            self._end.set()
        elif command.get("command") == "quiet":
            self._be_quiet()
        elif command.get("command") == "take_back":
            worker_id, charge, cause = command["worker_id"], command["charge"], command["cause"]
            self._runtime.spawn(lambda: self._take_back(worker_id, charge, cause), name="take back")
        elif self._in_flight is not None:
            self._in_flight.obey(command)

    def _be_quiet(self) -> None:
        self._is_quiet = True
        if not self._is_booting:
            self._runtime.spawn(self._pause, name="quiet")

    def _pause(self) -> None:
        self.worker.pause()
        self.logger.info("Quiet: nothing new is begun.")

    def _take_back(self, worker_id: str, charge: list[str], cause: str) -> None:
        try:
            count = self._try_to_take_back(worker_id, charge, cause)
        except Exception:
            self.logger.exception(
                "What worker %s held at its death could not be returned to its queues; it is when the lease runs out.",
                worker_id,
            )
        else:
            self.logger.info("Returned %d messages that worker %s held at its death.", count, worker_id)
        self._report(event="taken_back", worker_id=worker_id)

    def _try_to_take_back(self, worker_id: str, charge: list[str], cause: str) -> int:
        """Take it back, however long the broker is away; other errors are raised if they last.

        Whoever takes it back by its lease does not know what there is evidence against. Until it is done the
        supervisor has another do it as well, and should this process end.
        """
        failures = 0
        gives_up_at = time.monotonic() + _TAKE_BACK_S
        while True:
            try:
                return self.broker.take_back(worker_id, charge=charge, cause=cause)
            except Exception as error:
                if not isinstance(error, errors.ConnectionError) and time.monotonic() >= gives_up_at:
                    raise
                if failures == 0:
                    self.logger.warning(
                        "What worker %s held at its death cannot be returned to its queues now. %s Trying again.",
                        worker_id,
                        sentence(error),
                    )
                self._runtime.sleep(arrival.pause_s(failures))
                failures += 1

    def _report(self, **report: Any) -> bool:
        data = encode(report)
        try:
            while data:
                data = data[os.write(self._report_fd, data) :]
        except OSError:
            return False  # the supervisor is gone, which the control pipe tells
        return True

    # -- stop

    def stop(self) -> ExitCode:
        """Stop the worker gracefully, close the broker; return the code to exit with."""
        self.logger.info("Stopping: running jobs may finish.")
        timeout_ms = self.options["worker_shutdown_timeout"]
        exit_in_time(self._runtime, timeout_ms)
        ends_at = time.monotonic() + timeout_ms / 1000 + _CLOSE_S
        try:
            self.worker.stop(timeout=timeout_ms)
            self.news.tell()
            is_closed = self._close_broker(max(0.0, ends_at - time.monotonic()))
            # A broker that is away may be closed all the same, and has nothing back then.
            if is_closed and not self.worker.outage.is_on:
                self._report(event="gave_back")
        except Exception:
            self.logger.exception("Stopping failed; what was held is returned when the lease runs out.")
            return ExitCode.KILLED
        if self.worker.given_back:
            self.logger.warning(
                "Stopped: %d messages were given back unfinished at the deadline.", self.worker.given_back
            )
            return ExitCode.GIVEN_BACK
        self.logger.info("Stopped.")
        return ExitCode.DONE

    def _close_broker(self, wait_s: float) -> bool:
        """Whether it could be closed in time, so that it has everything back."""
        # In a task, which a broker that does not answer holds up for as long as its client waits.
        failures: list[Exception] = []

        def close() -> None:
            try:
                self.broker.close()
            except Exception as error:
                failures.append(error)

        is_closed = self._runtime.spawn(close, name="close the broker").join(wait_s)
        if not is_closed:
            self.logger.warning(
                "The broker did not answer in time: what it still has of this worker is returned when the lease ends."
            )
        if failures:
            raise failures[0]
        return is_closed


def _lowered(fd: int) -> int:
    """The same under the lowest number that is free, closed in programs that jobs start."""
    # Inherited under the number that it has in the supervisor. That has a few for each worker, and gevent's
    # select, as the system's, knows no number from 1024 on.
    low = os.dup(fd)
    os.close(fd)
    return low


def _open_page(fd: int | None) -> SharedPage | None:
    """The page in which this process shows what it does; None if it was given none."""
    if fd is None:
        return None
    page = SharedPage(fd)
    os.close(fd)  # programs that jobs start must not keep it
    return page


def _tell_stacks_to(fd: int | None) -> None:
    """Have the stacks of all threads written there at a fatal signal, and when the supervisor asks for them."""
    if fd is None:
        return
    os.set_inheritable(fd, False)
    faulthandler.enable(fd, all_threads=True)
    faulthandler.register(signal.SIGQUIT, fd, all_threads=True)


def _native(runtime: Runtime) -> Native:
    """How the log waits without switching greenlets."""
    return Native(
        pause=stand_still(runtime),
        poll=runtime.native_poll,
        lock=runtime.native_lock,
        start_thread=lambda run: runtime.start_native_thread(run, name="log"),
    )


def _leave_it_to_the_supervisor(signum: int, frame: FrameType | None) -> None:
    pass
