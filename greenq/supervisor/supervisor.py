"""The loop that keeps the workers running, in a thread of its own: the only one.

It waits for signals, for reports of its workers and for the next thing that is due, and
for nothing else: it never talks to a server, never runs code of the user, and never
waits for a worker. What a worker holds when it dies is opaque to it: it passes the dead
worker's id on to a living one.

    TERM     all are stopped; what has not ended in time is killed
    HUP, or a change of the source
             see reload.py
    a worker that is worn out
             see recycling.py
    TSTP     all finish what they run, and take nothing new
    TTIN, TTOU
             a place more, or the last one less
    USR1     each worker logs its jobs in flight: see control.py, where others ask, too
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..exit_codes import ExitCode
from ..log_lines import log_with_details, reopen
from ..logging import get_logger
from ..metrics.shared import SharedFile
from .areas import Areas
from .beside import Beside
from .child import Child, Launch, Stuck
from .control import Control
from .crew import Crew
from .death import Death, death_of
from .log_deaths import log_failure
from .once import Once
from .orphans import Orphans
from .place import Place
from .recycling import Recycling
from .reload import Reload
from .signals import SignalPipe, describe_exit
from .streak import RESTART_DELAYS_S
from .systemd import Systemd
from .watchman import Watchman

#: Seconds that a worker may take to exit after the time that its jobs have. It ends itself a little
#: earlier; with what follows here, the command ends within a second.
KILL_AFTER_S = 0.7

#: Seconds in which further signals to stop are taken for the same one: timeout(1) sends it
#: to its child and to the whole group, which its child is part of.
SAME_SIGNAL_S = 0.02

#: Seconds after which the loop looks around at the latest, where it waits for something to be due.
_LONGEST_WAIT_S = 3600.0

#: Exit codes of a worker that has given everything back itself.
_CLEAN = (ExitCode.DONE, ExitCode.GIVEN_BACK)
#: Exit codes that a worker chooses when it cannot start.
_CANNOT_START = (ExitCode.USAGE, ExitCode.UNREACHABLE)


class Supervisor:
    """Runs a number of workers until it is told to stop.

    Parameters:
      launch(Launch): How workers are started.
      processes(int): How many.
      stop_timeout_ms(int): Milliseconds that a worker's jobs have to finish at a stop.
      announce(Callable[[Mapping, bool], None]): Called with the facts that the first worker
        reported when it became ready, and True; after a reload with those of the first
        new one, and False.
      restart_delays_s(Sequence[float]): Seconds to wait after each death in a row in one
        place. The death after the last of them is one too many.
      fork_timeout_ms(int): Milliseconds after the first worker was ready in which those processes
        wait for the others.
      fork_launch(Launch): How a process beside them is started that runs a fork function.
        Default: none is.
      watch_function(str): As ``module:name``, a fork function of greenq's own that reports changes of
        the source, at which the workers are reloaded. Default: none.
      shared_file(SharedFile): In which workers count. Default: none.
      recycling(Recycling): Says who is worn out. Default: nobody is.
      control_socket(socket): Listens for those who ask what runs. Default: nobody may.
      health_function(str): As ``module:name``, a fork function of greenq's own that serves how the workers
        are, until the last has ended. Default: none.
      systemd(Systemd): Is told how it goes. Default: nobody is.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        processes: int,
        stop_timeout_ms: int,
        announce: Callable[[Mapping[str, Any], bool], None],
        restart_delays_s: Sequence[float] = RESTART_DELAYS_S,
        fork_launch: Launch | None = None,
        fork_timeout_ms: int = 30_000,
        watch_function: str | None = None,
        shared_file: SharedFile | None = None,
        recycling: Recycling | None = None,
        control_socket: socket.socket | None = None,
        health_function: str | None = None,
        systemd: Systemd | None = None,
    ) -> None:
        self.logger: logging.Logger = get_logger("greenq", "MainProcess")
        self._patience_s = stop_timeout_ms / 1000 + KILL_AFTER_S
        self._announce = announce
        self._selector = selectors.DefaultSelector()
        self._orphans = Orphans()
        self._areas = Areas(shared_file)
        self._crew = Crew(
            launch,
            size=processes,
            patience_s=self._patience_s,
            restart_delays_s=restart_delays_s,
            areas=self._areas,
            orphans=self._orphans,
            selector=self._selector,
        )
        self._reload = Reload(self._crew)
        self._recycling = recycling or Recycling()
        self._once = Once(self.logger)
        own = [
            {"function": function, "outlasts_workers": function == health_function}
            for function in (watch_function, health_function)
            if function is not None
        ]
        self._beside = Beside(
            fork_launch,
            own=own,
            restart_delays_s=restart_delays_s,
            patience_s=self._patience_s,
            wait_s=fork_timeout_ms / 1000,
            shared_fd=self._areas.fd,
            selector=self._selector,
        )
        self._systemd = systemd or Systemd("")
        self._watchman = Watchman()
        self._control = Control(control_socket, self._selector, lambda: self._crew.children.values(), self._facts)
        self._exit_code: ExitCode | None = None

    def run(self) -> int:
        """Keep the workers running until a signal, or their failure, ends it.

        Returns the exit code of the command.
        """
        with SignalPipe() as pipe, self._selector:
            self._selector.register(pipe.fd, selectors.EVENT_READ)
            self._crew.adjust()
            self._beside.run_own()
            while not self._is_over():
                for key, events in self._selector.select(self._next_due_s()):
                    if isinstance(key.data, Child):
                        self._hear(key.data)
                    elif key.data is not None:
                        key.data(events)
                self._obey(pipe)
                self._reap()
                self._do_what_is_due()
                self._orphans.pass_on(self._crew.children.values())
                self._tell_systemd()
            self._control.close()
        return self._conclude()

    def _tell_systemd(self) -> None:
        self._systemd.look(
            is_stopping=self._exit_code is not None,
            is_reloading=self._reload.is_under_way,
            ready=self._crew.ready(),
            of=len(self._crew.places),
        )

    def _facts(self) -> dict[str, Any]:
        return {"is_stopping": self._exit_code is not None}

    def _is_over(self) -> bool:
        if self._exit_code is None:
            return False
        if not _are_gone(self._crew.children.values()):
            return False
        self._beside.stop(workers_are_gone=True)
        return _are_gone(self._beside.children.values())

    def _conclude(self) -> int:
        assert self._exit_code is not None
        if self._crew.children and self._exit_code in _CLEAN:
            self._exit_code = ExitCode.KILLED  # and some of them have not even ended
        if self._orphans:
            self.logger.warning(
                "What worker %s held is returned to its queues when the lease runs out: nobody was left to do it now.",
                self._orphans,
            )
        self.logger.info("Exiting with code %d.", self._exit_code)
        return int(self._exit_code)

    # -- signals

    def _obey(self, pipe: SignalPipe) -> None:
        signums = pipe.read()
        for index, signum in enumerate(signums):
            if signum in (signal.SIGHUP, signal.SIGUSR1) and signum in signums[index + 1 :]:
                continue  # what came at once is one: each reload would dismiss the workers of the one before
            if signum in (signal.SIGTERM, signal.SIGINT):
                name = signal.Signals(signum).name
                if self._exit_code is None:
                    time.sleep(SAME_SIGNAL_S)
                    pipe.read()
                    self.logger.info("Stopping on %s: running jobs may finish. A second signal kills.", name)
                    self._stop(ExitCode.DONE)
                    return
                self.logger.warning("Killing the workers: %s is the second signal.", name)
                self._kill_all()
            elif signum == signal.SIGHUP and self._exit_code is None:
                self._reopen_log()
                self._reload.begin("SIGHUP")
            elif signum == signal.SIGTSTP and self._exit_code is None:
                self._be_quiet()
            elif signum in (signal.SIGTTIN, signal.SIGTTOU) and self._exit_code is None:
                self._want(1 if signum == signal.SIGTTIN else -1, signal.Signals(signum).name)
            elif signum == signal.SIGUSR1:
                self._control.dump()
        if self._exit_code is None and not self._reload.is_under_way:  # else after it
            self._crew.adjust()

    def _reopen_log(self) -> None:
        # The new workers open it by themselves.
        self._beside.reopen_log()
        try:
            reopen()
        except OSError as error:
            self.logger.error("The log file cannot be opened anew: %s. The main process goes on in the old one.", error)

    def _be_quiet(self) -> None:
        self.logger.info(
            "Quiet on SIGTSTP: running jobs may finish, and no others are begun. SIGTERM stops; SIGHUP starts workers "
            "that take jobs again."
        )
        self._crew.is_quiet = True
        for child in self._crew.children.values():
            child.be_quiet()

    def _want(self, more: int, name: str) -> None:
        if self._crew.size + more < 1:
            self.logger.warning("%s changes nothing: one worker is the least.", name)
            return
        self._crew.size += more
        self.logger.info("The number of workers is %d from now on, on %s.", self._crew.size, name)

    def _stop(self, exit_code: ExitCode) -> None:
        self._exit_code = exit_code
        for child in self._crew.children.values():
            child.stop(self._patience_s)
        self._beside.stop(workers_are_gone=False)

    def _kill_all(self) -> None:
        self._exit_code = ExitCode.KILLED
        for child in self._all():
            child.kill()

    def _all(self) -> list[Child]:
        return [*self._crew.children.values(), *self._beside.children.values()]

    # -- what workers report

    def _hear(self, child: Child) -> None:
        reports = child.read_reports()
        if reports is None:
            # Its end of the pipe is closed: it is dying, and reaped when it has died.
            self._selector.unregister(child.report_fd)
            return
        for report in reports:
            self._note(child, report)

    def _note(self, child: Child, report: dict[str, Any]) -> None:
        event = report.get("event")
        if event == "ready":
            child.worker_id = report.get("worker_id")
            child.lease_ms = report.get("lease_ms")
            child.ready_at = time.monotonic()
            self._watchman.greet(child)
            self._recycling.greet(child)
            child.is_consuming = bool(report.get("is_consuming"))
            self._once.someone_is_ready()
            self._welcome(child, report)
        elif event == "worker_id":
            child.worker_id = report.get("worker_id")
        elif event == "job_done":
            child.did_a_job = True
        elif event == "taken_back":
            # Also one that is being buried, and is none of the crew any more.
            self._orphans.done(report["worker_id"], [child, *self._crew.children.values()])
        elif event == "gave_back":
            child.gave_back = True
        elif event == "worn":
            child.worn = str(report.get("reason"))
        elif event == "alone":
            child.alone = report.get("message_id")
        elif event == "overdue":
            self._condemn(child, _overdue(report))
        elif event == "answer":
            self._control.note(child, report)
        elif event == "consuming":
            child.is_consuming = bool(report.get("is_on"))
        elif event == "waiting":
            if self._exit_code is None:
                self._once.waiting(child, str(report.get("reason")))
        elif event == "remark":
            self._once.remark(int(report["level"]), str(report["text"]))
        elif event == "news":
            self.logger.log(int(report["level"]), "%s: %s", child, report["text"])
        elif event == "changed" and self._exit_code is None:
            self._reload.begin(f"a change of {report.get('what')}")
        elif event == "failed":
            child.failure = str(report.get("reason"))

    def _welcome(self, child: Child, facts: Mapping[str, Any]) -> None:
        """One has become ready: somebody may have waited for that."""
        if self._exit_code is not None:
            return  # it was told to stop meanwhile
        if not self._crew.was_ready:
            self._crew.was_ready = True
            self._announce(facts, True)
            self._beside.run_soon(facts.get("forks", ()))
        if self._crew.ready() == len(self._crew.places):
            self._beside.all_are_ready()
        if self._reload.is_complete():
            self._announce(facts, False)
            self._reload.finish()
            self._beside.run(facts.get("forks", ()))
        place = self._crew.place_of(child)
        if place is not None and child is place.newcomer and not self._reload.is_under_way:
            self._recycling.finish(self._crew, place)

    # -- deaths

    def _reap(self) -> None:
        while True:
            try:
                # Any child: as process 1 of a container it inherits strangers' orphans.
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            returncode = os.waitstatus_to_exitcode(status)
            if pid in self._crew.children:
                self._bury(self._crew.children.pop(pid), returncode)
            elif pid in self._beside.children:
                child = self._beside.children[pid]
                self._let_go(child, returncode)
                self._beside.bury(child, returncode)

    def _let_go(self, child: Child, returncode: int) -> None:
        child.was_reaped(returncode)
        if child.report_fd in self._selector.get_map():
            self._hear(child)
        if child.report_fd in self._selector.get_map():
            self._selector.unregister(child.report_fd)
        child.close()

    def _bury(self, child: Child, returncode: int) -> None:
        self._let_go(child, returncode)
        self._control.forget(child)
        self._areas.give_back(child.area)
        death = death_of(child, returncode)
        # By its own word: a job may end a process that stops with any code, and the broker may be away then.
        has_fetched_nothing = child.ready_at is None and child.stopping and returncode in _CLEAN
        self._orphans.leave(child, death, held_something=not (child.gave_back or has_fetched_nothing))
        self._mourn(child, returncode, death)
        child.forget()

    def _mourn(self, child: Child, returncode: int, death: Death) -> None:
        place = self._crew.place_of(child)
        was_newcomer = place is not None and child is place.newcomer
        if place is not None:
            place.leave(child)
        if self._exit_code is not None:
            self._count_in(child, returncode, death)
        elif place is None or child.stopping:
            if returncode in _CLEAN or child.failure is not None or (child.killed and not death.was_stuck):
                self.logger.info("%s %s, %s.", child, describe_exit(returncode), child.why_stopped)
            else:
                log_failure(self.logger, child, death)
        elif was_newcomer and self._reload.is_under_way:
            self._reload.newcomer_died(child, death)
        elif was_newcomer:
            self._recycling.newcomer_died(child, death)
        elif not self._crew.was_ready and returncode in _CANNOT_START:
            log_failure(self.logger, child, death)
            self._stop(ExitCode(returncode))
        else:
            log_failure(self.logger, child, death)
            if place.newcomer is not None and not self._reload.is_under_way:
                place.child, place.newcomer = place.newcomer, None  # who was to recycle it replaces it
            else:
                self._replace(place, child, returncode)

    def _count_in(self, child: Child, returncode: int, death: Death) -> None:
        if returncode in _CLEAN:
            self.logger.debug("%s %s.", child, describe_exit(returncode))
        elif child.failure is None and (death.was_stuck or not child.killed):
            log_with_details(self.logger, logging.ERROR, f"{child}, which was stopping, {death}.", death.words)
        # The command's code tells the worst of it, unless there is already worse to tell.
        if self._exit_code not in _CLEAN:
            return
        if returncode == ExitCode.GIVEN_BACK:
            self._exit_code = ExitCode.GIVEN_BACK
        elif returncode != ExitCode.DONE and child.ready_at is not None:
            self._exit_code = ExitCode.KILLED

    def _replace(self, place: Place, child: Child, returncode: int) -> None:
        if returncode == ExitCode.UNREACHABLE:
            # The living wait for their server by themselves, for as long as it takes: a
            # worker that had the bad luck to die during an outage must not end them.
            delay_s: float | None = place.streak.could_not_start()
        else:
            # Who was stuck in a job did one, of a kind.
            did_a_job = child.did_a_job or child.stuck is not None
            delay_s = place.streak.died(did_a_job=did_a_job, ready_s=child.ready_for_s())
        if delay_s is None:
            self.logger.critical(
                "Giving up: worker %d died %d times in a row without doing a job, the last time it %s. "
                "Stopping all workers.",
                place.number,
                place.streak.deaths,
                describe_exit(returncode),
            )
            self._stop(ExitCode.CRASH_LOOP)
        else:
            self.logger.warning(
                "Worker %d is replaced %s.", place.number, f"in {delay_s:g} s" if delay_s else "at once"
            )
            place.fill_in(delay_s)

    # -- stuck workers

    def _condemn(self, child: Child, stuck: Stuck) -> None:
        if child.killed or child.stuck is not None:
            return
        self.logger.debug("%s is stuck: %s. It tells its stacks, and is killed.", child, stuck.reason)
        child.condemn(stuck)

    # -- time

    def _next_due_s(self) -> float | None:
        due = self._crew.next_due() if self._exit_code is None else []
        due += [at for child in self._all() for at in (child.kill_at, child.give_up_at) if at is not None]
        due += self._beside.next_due() + self._control.next_due() + self._systemd.next_due()
        due += self._orphans.next_due() + self._watchman.next_due()
        # epoll counts milliseconds in an int: 24.8 days.
        return min(max(0.0, min(due) - time.monotonic()), _LONGEST_WAIT_S) if due else None

    def _do_what_is_due(self) -> None:
        for child, stuck in self._watchman.look(self._crew.children.values()):
            self._condemn(child, stuck)
        now = time.monotonic()
        for child in self._all():
            child.say_the_rest()
            if child.kill_at is not None and child.kill_at <= now:
                if child.stuck is None:
                    self.logger.error("%s did not exit in time after it was told to stop: it is killed.", child)
                child.kill()
            if child.give_up_at is not None and child.give_up_at <= now:
                child.give_up()
                self.logger.error(
                    "%s was killed and does not end: a call of its hangs in the operating system, as one to a disk or "
                    "a network file system that is away. Nobody takes its place before it ends.",
                    child,
                )
        if self._exit_code is None:
            self._crew.do_what_is_due()
            late = self._reload.look()
            if late is not None:
                self._condemn(*late)
            self._recycling.begin(self._crew)
        self._beside.do_what_is_due()
        self._control.do_what_is_due()
        self._systemd.do_what_is_due()


def _are_gone(children: Iterable[Child]) -> bool:
    """Whether none of them lives, but for those that will not be waited for."""
    return all(child.is_given_up for child in children)


def _overdue(report: Mapping[str, Any]) -> Stuck:
    """What a worker says of a job that goes on after its hard limit."""
    limit_ms, message_id = report.get("limit_ms") or 0, str(report.get("message_id") or "")
    return Stuck(
        f"message {message_id} of {report.get('actor')} went on beyond its time limit of {limit_ms / 1000:g} s "
        "and --hard-limit",
        message_id,
    )
