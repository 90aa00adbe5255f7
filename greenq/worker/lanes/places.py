"""As many hosts as there may be, made when they are needed; who has to wait for one waits in order.

Does not know what a host is: see threads.py and processes.py.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import Shutdown

if TYPE_CHECKING:
    from ...runtime import Runtime, Task, Timer
    from .job import Host, LaneJob


class Places:
    """The hosts of one lane.

    Parameters:
      runtime(Runtime): The world.
      most(int): How many hosts there may be.
      make(Callable[[int], Host]): Makes one, of this number; it does not fail, and does not wait.
      idle_s(float): After how long an idle one is ended; None for never.
    """

    def __init__(self, runtime: Runtime, most: int, make: Callable[[int], Host], *, idle_s: float | None) -> None:
        self.most = most
        self.idle_s = idle_s
        self._runtime = runtime
        self._make = make
        self._lock = runtime.lock()
        self._number = 0
        self._busy: set[Host] = set()
        #: The one that was used last is at the end, and is the next to be taken: so the others may be ended.
        self._idle: list[tuple[float, Host]] = []
        self._waiting: deque[LaneJob] = deque()
        self._timer: Timer | None = None
        self._is_stopping = False
        #: What ends hosts.
        self._ending: list[Task] = []
        self._is_closed = False

    def take(self, job: LaneJob) -> Host | None:
        """A host, which is assigned to this job; None if it was interrupted before there was one. May switch."""
        with self._lock:
            self._waiting.append(job)
            self._assign()
        if self._is_stopping:
            self.turn_away()
        try:
            return job.wait_for_host()
        except BaseException:  # somebody killed the greenlet that waits
            with self._lock:
                if job in self._waiting:
                    self._waiting.remove(job)
            if job.host is not None:
                self.give_back(job.host)
            raise

    def give_back(self, host: Host) -> None:
        """A host is free again. Does not wait."""
        with self._lock:
            self._busy.discard(host)
            if not host.is_spent:
                self._idle.append((time.monotonic(), host))
            self._assign()
            leaving = self._take_all_idle() if self._is_closed else []
            self._look_later()
        self._end([host] if host.is_spent else leaving)

    def _assign(self) -> None:
        while self._waiting and (self._idle or len(self._busy) < self.most):
            host = self._idle.pop()[1] if self._idle else self._new()
            if self._waiting.popleft().assign(host):
                self._busy.add(host)
            else:
                self._idle.append((time.monotonic(), host))

    def _new(self) -> Host:
        self._number += 1
        return self._make(self._number)

    # -- ending those with nothing to do

    def _look_later(self) -> None:
        if self.idle_s is not None and self._idle and self._timer is None and not self._is_closed:
            left_s = self._idle[0][0] + self.idle_s - time.monotonic()
            self._timer = self._runtime.call_later(max(0.0, left_s), self._look)

    def _look(self) -> None:
        with self._lock:
            self._timer = None
            if self.idle_s is None:
                return
            since = time.monotonic() - self.idle_s
            leaving = [host for idle_since, host in self._idle if idle_since <= since]
            self._idle = [each for each in self._idle if each[0] > since]
            self._look_later()
        self._end(leaving)

    def _end(self, hosts: list[Host]) -> None:
        if not hosts:
            return
        tasks = [self._runtime.spawn(host.close, name="end of a lane") for host in hosts]
        with self._lock:
            self._ending = [task for task in self._ending if not task.has_ended()] + tasks

    def _take_all_idle(self) -> list[Host]:
        hosts, self._idle = [host for _, host in self._idle], []
        return hosts

    # -- stopping

    def turn_away(self) -> None:
        """Have no job wait from now on: who waits is interrupted. Does not wait."""
        with self._lock:
            self._is_stopping = True
            jobs = list(self._waiting)
            self._waiting.clear()
        for job in jobs:
            job.interrupt(Shutdown)

    def kill(self) -> None:
        """Have the jobs of all hosts end now, where that can be done. Does not wait."""
        with self._lock:
            busy = list(self._busy)
        for host in busy:
            host.kill()

    def close(self) -> None:
        """End the idle hosts, and each busy one once its job has ended. Does not wait."""
        with self._lock:
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            leaving = self._take_all_idle()
        self._end(leaving)

    def wait_for_ends(self, deadline: float) -> None:
        """Wait for those that are about to end, until this on the monotonic clock. Switches."""
        for task in list(self._ending):
            task.join(max(0.0, deadline - time.monotonic()))
