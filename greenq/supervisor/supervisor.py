"""The loop that keeps the workers running, in a thread of its own: the only one.

It waits for signals, for reports of its workers and for the next thing that is due, and
for nothing else: it never talks to a server, never runs code of the user, and never
waits for a worker. What a worker holds when it dies is opaque to it: it passes the dead
worker's id on to a living one.

    HUP, or a change of the source
             newcomers are started beside the present workers; when all are ready, the
             present ones are stopped and the newcomers take their places
    TERM     all are stopped; what has not ended in time is killed
    worn out a newcomer is started beside a worker that has done its jobs, has grown too large or too
             old, and takes its place when it is ready; one at a time
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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..exit_codes import ExitCode
from ..log_lines import log_with_details, reopen
from ..logging import get_logger
from ..metrics.shared import SharedFile
from .child import Child, Launch, Stuck
from .control import Control
from .death import Death, death_of
from .forks import Forks
from .orphans import Orphans
from .recycling import Recycling
from .signals import SignalPipe, describe_exit
from .streak import RESTART_DELAYS_S, Streak
from .systemd import Systemd
from .watchman import Watchman

#: Seconds that a worker may take to exit after the time that its jobs have. It ends itself a little
#: earlier; with what follows here, the command ends within a second.
KILL_AFTER_S = 0.7

#: Seconds to wait for killed workers to be gone. Only one that hangs in the kernel needs
#: more, and waiting for it would not help.
REAP_AFTER_KILL_S = 2.0

#: Seconds in which further signals to stop are taken for the same one: timeout(1) sends it
#: to its child and to the whole group, which its child is part of.
SAME_SIGNAL_S = 0.02

#: Seconds after which the loop looks around at the latest, where it waits for something to be due.
_LONGEST_WAIT_S = 3600.0

#: Why workers are stopped at a reload.
_RELOAD = "as part of the reload"

#: Exit codes of a worker that has given everything back itself.
_CLEAN = (ExitCode.DONE, ExitCode.GIVEN_BACK)
#: Exit codes that a worker chooses when it cannot start.
_CANNOT_START = (ExitCode.USAGE, ExitCode.UNREACHABLE)


class Place:
    """One of the workers that there should be.

    Attributes:
      number(int): From 1.
      child(Child | None): Who has the place.
      newcomer(Child | None): Who is to take it, during a reload.
      streak(Streak): The deaths in a row here.
      restart_at(float | None): Monotonic seconds at which the next worker is started.
    """

    def __init__(self, number: int, streak: Streak) -> None:
        self.number = number
        self.child: Child | None = None
        self.newcomer: Child | None = None
        self.streak = streak
        self.restart_at: float | None = None

    def leave(self, child: Child) -> None:
        """One that has the place, or is to take it, has died."""
        if child is self.child:
            self.child = None
        if child is self.newcomer:
            self.newcomer = None


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
        self._launch = launch
        self._patience_s = stop_timeout_ms / 1000 + KILL_AFTER_S
        self._announce = announce
        self._restart_delays_s = restart_delays_s
        self._places: list[Place] = []
        self._wanted = processes
        self._is_quiet = False
        self._children: dict[int, Child] = {}
        self._shared_file = shared_file
        self._beside: dict[int, Child] = {}
        # Two of them, because a reload starts the application's anew, and not greenq's own.
        self._forks, self._watcher = (
            Forks(
                fork_launch,
                restart_delays_s=restart_delays_s,
                patience_s=self._patience_s,
                on_start=self._watch_fork,
                shared_fd=None if shared_file is None else shared_file.fd,
            )
            for _ in range(2)
        )
        self._own_functions = [
            {"function": function, "outlasts_workers": function == health_function}
            for function in (watch_function, health_function)
            if function is not None
        ]
        self._systemd = systemd or Systemd("")
        self._fork_timeout_s = fork_timeout_ms / 1000
        self._forks_to_start: Sequence[Mapping[str, Any]] = ()
        self._start_forks_at: float | None = None
        self._orphans = Orphans()
        self._watchman = Watchman()
        self._recycling = recycling or Recycling()
        #: Who was recycled last.
        self._recycled: Child | None = None
        self._selector = selectors.DefaultSelector()
        self._control = Control(control_socket, self._selector, lambda: self._children.values(), self._facts)
        self._was_ready = False
        self._told_waiting = False
        self._told_remarks: set[str] = set()
        self._told_uncounted = False
        self._reloading = False
        self._exit_code: ExitCode | None = None
        self._give_up_at: float | None = None

    def run(self) -> int:
        """Keep the workers running until a signal, or their failure, ends it.

        Returns the exit code of the command.
        """
        with SignalPipe() as pipe, self._selector:
            self._selector.register(pipe.fd, selectors.EVENT_READ)
            self._adjust()
            if self._own_functions:
                self._watcher.run(self._own_functions)
            while not self._is_over():
                for key, events in self._selector.select(self._next_due_s()):
                    if isinstance(key.data, Child):
                        self._hear(key.data)
                    elif key.data is not None:
                        key.data(events)
                self._obey(pipe)
                self._reap()
                self._do_what_is_due()
                self._orphans.pass_on(self._children.values())
                self._tell_systemd()
            self._control.close()
        return self._conclude()

    def _tell_systemd(self) -> None:
        self._systemd.look(
            is_stopping=self._exit_code is not None,
            is_reloading=self._reloading,
            ready=sum(place.child is not None and place.child.ready_at is not None for place in self._places),
            of=len(self._places),
        )

    def _facts(self) -> dict[str, Any]:
        return {"is_stopping": self._exit_code is not None, "processes": len(self._places)}

    def _is_over(self) -> bool:
        if self._exit_code is None:
            return False
        if not self._children:
            self._forks.stop(workers_are_gone=True)
            self._watcher.stop(workers_are_gone=True)
            if not self._beside:
                return True
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at

    def _conclude(self) -> int:
        assert self._exit_code is not None
        if self._orphans:
            self.logger.warning(
                "What worker %s held is returned to its queues when the lease runs out: nobody was left to do it now.",
                self._orphans,
            )
        self.logger.info("Exiting with code %d.", self._exit_code)
        return int(self._exit_code)

    # -- signals

    def _obey(self, pipe: SignalPipe) -> None:
        for signum in pipe.read():
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
                self._reload("SIGHUP")
            elif signum == signal.SIGTSTP and self._exit_code is None:
                self._be_quiet()
            elif signum in (signal.SIGTTIN, signal.SIGTTOU) and self._exit_code is None:
                self._want(1 if signum == signal.SIGTTIN else -1, signal.Signals(signum).name)
            elif signum == signal.SIGUSR1:
                self._control.dump()

    def _reopen_log(self) -> None:
        # The new workers open it by themselves.
        try:
            reopen()
        except OSError as error:
            self.logger.error("The log file cannot be opened anew: %s. The main process goes on in the old one.", error)

    def _be_quiet(self) -> None:
        self.logger.info(
            "Quiet on SIGTSTP: running jobs may finish, and no others are begun. SIGTERM stops; SIGHUP starts workers "
            "that take jobs again."
        )
        self._is_quiet = True
        for child in self._children.values():
            child.be_quiet()

    def _want(self, more: int, name: str) -> None:
        if self._wanted + more < 1:
            self.logger.warning("%s changes nothing: one worker is the least.", name)
            return
        self._wanted += more
        self.logger.info("The number of workers is %d from now on, on %s.", self._wanted, name)
        self._adjust()

    def _adjust(self) -> None:
        """Have as many places as are wanted; after a reload, if one is under way."""
        if self._reloading or self._exit_code is not None:
            return
        while len(self._places) < self._wanted:
            self._places.append(Place(len(self._places) + 1, Streak(self._restart_delays_s)))
            self._fill(self._places[-1])
        while len(self._places) > self._wanted:
            place = self._places.pop()
            for child in (place.child, place.newcomer):
                if child is not None:
                    child.stop(self._patience_s, "because one worker fewer is wanted")

    def _stop(self, exit_code: ExitCode) -> None:
        self._exit_code = exit_code
        for child in self._children.values():
            child.stop(self._patience_s)
        self._watcher.stop(workers_are_gone=False)
        self._forks.stop(workers_are_gone=False)

    def _kill_all(self) -> None:
        self._exit_code = ExitCode.KILLED
        self._give_up_at = time.monotonic() + REAP_AFTER_KILL_S
        for child in self._all():
            child.kill()

    # -- starting, and starting again

    def _fill(self, place: Place) -> None:
        place.restart_at = None
        # Who replaces a worker of a service that ran waits as its neighbours do.
        place.child = self._start(place, patient=self._was_ready, quiet=self._is_quiet)
        if place.child is None:
            self._start_later(place, place.streak.could_not_start())

    def _start(self, place: Place, *, patient: bool, quiet: bool) -> Child | None:
        area = self._take_area()
        self._orphans.pass_on(self._children.values())
        orphans = self._orphans.take()
        try:
            child = Child(
                place.number,
                self._launch,
                patient=patient,
                shared_fd=None if self._shared_file is None else self._shared_file.fd,
                area=area,
                is_watched=True,
                orphans=orphans,
                is_quiet=quiet,
            )
        except OSError as error:
            self._orphans.put_back(orphans)
            self._give_back(area)
            self.logger.error("Worker %d could not be started: %s.", place.number, error)
            return None
        self.logger.debug("%s was started.", child)
        self._children[child.pid] = child
        self._selector.register(child.report_fd, selectors.EVENT_READ, child)
        return child

    def _take_area(self) -> int | None:
        # A worker that is not counted is better than none: a limit on the size of files, say.
        if self._shared_file is None:
            return None
        try:
            return self._shared_file.take()
        except OSError as error:
            if not self._told_uncounted:
                self._told_uncounted = True
                self.logger.error(
                    "Workers are started whose metrics are not counted: no room for them could be had (%s).", error
                )
            return None

    def _give_back(self, area: int | None) -> None:
        if self._shared_file is not None and area is not None:
            self._shared_file.give_back(area)

    def _watch_fork(self, child: Child) -> None:
        self._beside[child.pid] = child
        self._selector.register(child.report_fd, selectors.EVENT_READ, child)

    def _all(self) -> list[Child]:
        return [*self._children.values(), *self._beside.values()]

    def _start_later(self, place: Place, delay_s: float) -> None:
        place.restart_at = time.monotonic() + delay_s

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
            self._told_waiting = False
            self._welcome(child, report)
        elif event == "worker_id":
            child.worker_id = report.get("worker_id")
        elif event == "job_done":
            child.did_a_job = True
        elif event == "taken_back":
            child.errands.pop(report.get("worker_id", ""), None)
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
            self._tell_waiting(child, report)
        elif event == "remark":
            self._tell_remark(int(report["level"]), str(report["text"]))
        elif event == "news":
            self.logger.log(int(report["level"]), "%s: %s", child, report["text"])
        elif event == "changed" and self._exit_code is None:
            self._reload(f"a change of {report.get('what')}")
        elif event == "failed":
            child.failure = str(report.get("reason"))

    def _tell_waiting(self, child: Child, report: Mapping[str, Any]) -> None:
        # All that start now wait for the same thing: one line for all of them.
        if not self._told_waiting and self._exit_code is None:
            self._told_waiting = True
            self.logger.warning("%s waits: %s", child, report.get("reason"))

    def _tell_remark(self, level: int, text: str) -> None:
        # Every worker that starts finds the same: one line for all, and for those that replace them.
        if text not in self._told_remarks:
            self._told_remarks.add(text)
            self.logger.log(level, "%s", text)

    def _welcome(self, child: Child, facts: Mapping[str, Any]) -> None:
        if not self._was_ready:
            self._was_ready = True
            self._announce(facts, True)
            self._forks_to_start = facts.get("forks", ())
            self._start_forks_at = time.monotonic() + self._fork_timeout_s
        if self._start_forks_at is not None and all(place.child and place.child.ready_at for place in self._places):
            self._start_forks()
        if self._reloading and all(place.newcomer and place.newcomer.ready_at for place in self._places):
            self._announce(facts, False)
            self._finish_reload()
            self._forks_to_start = facts.get("forks", ())
            self._start_forks()
        place = self._place_of(child)
        if place is not None and child is place.newcomer and not self._reloading:
            self._finish_recycling(place)

    def _start_forks(self) -> None:
        self._start_forks_at = None
        self._forks.run(self._forks_to_start)

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
            if pid in self._children:
                self._bury(self._children.pop(pid), returncode)
            elif pid in self._beside:
                child = self._beside.pop(pid)
                self._let_go(child, returncode)
                self._forks.bury(child, returncode)
                self._watcher.bury(child, returncode)

    def _let_go(self, child: Child, returncode: int) -> None:
        if child.report_fd in self._selector.get_map():
            self._hear(child)
        if child.report_fd in self._selector.get_map():
            self._selector.unregister(child.report_fd)
        child.ended(returncode)

    def _bury(self, child: Child, returncode: int) -> None:
        self._let_go(child, returncode)
        self._control.forget(child)
        self._give_back(child.area)
        death = death_of(child, returncode)
        self._orphans.leave(child, death, held_something=returncode not in _CLEAN or not child.stopping)
        self._mourn(child, returncode, death)
        child.forget()

    def _mourn(self, child: Child, returncode: int, death: Death) -> None:
        place = self._place_of(child)
        was_newcomer = place is not None and child is place.newcomer
        if place is not None:
            place.leave(child)
        if self._exit_code is not None:
            self._count_in(child, returncode, death)
        elif place is None or child.stopping:
            if returncode in _CLEAN or (child.killed and not death.was_stuck):
                self.logger.info("%s %s, %s.", child, describe_exit(returncode), child.why_stopped)
            else:
                self._log_failure(child, death)
        elif was_newcomer and self._reloading:
            self._abandon_reload(child, death)
        elif was_newcomer:
            self._abandon_recycling(child, death)
        elif not self._was_ready and returncode in _CANNOT_START:
            self._log_failure(child, death)
            self._stop(ExitCode(returncode))
        else:
            self._log_failure(child, death)
            if place.newcomer is not None and not self._reloading:
                place.child, place.newcomer = place.newcomer, None  # who was to recycle it replaces it
            else:
                self._replace(place, child, returncode)

    def _place_of(self, child: Child) -> Place | None:
        return next((each for each in self._places if child in (each.child, each.newcomer)), None)

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

    def _log_failure(self, child: Child, death: Death) -> None:
        if child.failure is None:
            level = logging.ERROR if death.was_stuck else logging.CRITICAL
            log_with_details(self.logger, level, f"{child} {death}.", death.words)
            return
        reason, _, details = child.failure.partition("\n")
        log_with_details(self.logger, logging.CRITICAL, f"{child} could not start: {reason}", details)

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
            self._start_later(place, delay_s)

    # -- stuck workers

    def _condemn(self, child: Child, stuck: Stuck) -> None:
        if child.killed or child.stuck is not None:
            return
        self.logger.debug("%s is stuck: %s. It tells its stacks, and is killed.", child, stuck.reason)
        child.condemn(stuck)

    # -- reload

    def _reload(self, reason: str) -> None:
        if self._reloading:
            # The code may have changed again since they were started.
            self.logger.info("Starting the reload anew on %s: the new workers were not ready yet.", reason)
            self._dismiss_newcomers()
        else:
            self.logger.info("Reloading on %s: starting new workers beside the present ones.", reason)
            self._dismiss_newcomers()  # of a recycling
        self._reloading = True
        for place in self._places:
            # Not patient: whoever reloads wants to know how it went, and the code, or the
            # address in it, may be wrong.
            place.newcomer = self._start(place, patient=False, quiet=False)
        if not all(place.newcomer for place in self._places):
            self._reloading = False
            self._dismiss_newcomers()
            self.logger.error("The reload was given up: the present workers go on with the code they have.")
            self._adjust()

    def _finish_reload(self) -> None:
        self._reloading = False
        self.logger.info("Reloaded: all new workers are ready, the old ones are stopped.")
        # Unless SIGTSTP came while they started.
        self._is_quiet = any(place.newcomer is not None and place.newcomer.is_quiet for place in self._places)
        for place in self._places:
            old, place.child, place.newcomer = place.child, place.newcomer, None
            place.restart_at = None
            place.streak.deaths = 0
            if old is not None:
                old.stop(self._patience_s, _RELOAD)
        self._adjust()

    def _abandon_reload(self, child: Child, death: Death) -> None:
        self._reloading = False
        self._dismiss_newcomers()
        self._log_failure(child, death)
        self.logger.error(
            "The reload was given up, because a new worker %s before all were ready: the present workers "
            "go on with the code they have.",
            death.cause,
        )
        self._adjust()

    def _dismiss_newcomers(self) -> None:
        # Stopped, not killed: one that is ready may have begun jobs.
        for place in self._places:
            if place.newcomer is not None:
                place.newcomer.stop(self._patience_s, _RELOAD)
                place.newcomer = None

    # -- recycling

    def _recycle(self) -> None:
        if self._reloading or self._exit_code is not None or any(place.newcomer for place in self._places):
            return
        if self._recycled is not None and self._recycled.returncode is None:
            return  # it still has jobs, and memory
        worn = self._recycling.next(place.child for place in self._places if place.child is not None)
        if worn is None:
            return
        child, reason = worn
        place = self._place_of(child)
        assert place is not None
        self.logger.info("%s is recycled, because %s: a fresh worker is started beside it.", child, reason)
        place.newcomer = self._start(place, patient=True, quiet=self._is_quiet)
        if place.newcomer is None:
            self._recycling.postpone(child)

    def _finish_recycling(self, place: Place) -> None:
        old, place.child, place.newcomer = place.child, place.newcomer, None
        if old is not None:
            old.stop(self._patience_s, "recycled")
            self._recycled = old

    def _abandon_recycling(self, child: Child, death: Death) -> None:
        self._log_failure(child, death)
        self._recycling.postpone(child)
        self.logger.error(
            "Worker %d is not recycled now, because the fresh one %s: the present one goes on, and another try is made "
            "in a minute.",
            child.number,
            death.cause,
        )

    # -- time

    def _next_due_s(self) -> float | None:
        due = [place.restart_at for place in self._places if place.restart_at is not None and self._exit_code is None]
        due += [child.kill_at for child in self._all() if child.kill_at is not None]
        due += self._forks.next_due() + self._watcher.next_due() + self._control.next_due()
        due += self._systemd.next_due()
        if self._start_forks_at is not None:
            due.append(self._start_forks_at)
        if self._give_up_at is not None:
            due.append(self._give_up_at)
        due += self._orphans.next_due() + self._watchman.next_due()
        # epoll counts milliseconds in an int: 24.8 days.
        return min(max(0.0, min(due) - time.monotonic()), _LONGEST_WAIT_S) if due else None

    def _do_what_is_due(self) -> None:
        for child, stuck in self._watchman.look(self._children.values()):
            self._condemn(child, stuck)
        now = time.monotonic()
        for child in self._all():
            if child.kill_at is not None and child.kill_at <= now:
                if child.stuck is None:
                    self.logger.error("%s did not exit in time after it was told to stop: it is killed.", child)
                child.kill()
        for place in self._places:
            if place.restart_at is not None and place.restart_at <= now and self._exit_code is None:
                self._fill(place)
        self._recycle()
        if self._start_forks_at is not None and self._start_forks_at <= now:
            self._start_forks()
        self._forks.do_what_is_due()
        self._watcher.do_what_is_due()
        self._control.do_what_is_due()
        self._systemd.do_what_is_due()


def _overdue(report: Mapping[str, Any]) -> Stuck:
    """What a worker says of a job that goes on after its hard limit."""
    limit_ms, message_id = report.get("limit_ms") or 0, str(report.get("message_id") or "")
    return Stuck(
        f"message {message_id} of {report.get('actor')} went on beyond its time limit of {limit_ms / 1000:g} s "
        "and --hard-limit",
        message_id,
    )
