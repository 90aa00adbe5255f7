"""Where jobs run that block: in native threads, or in processes, beside the greenlets.

    slot's greenlet -> LaneJob -> Places, which has a free host or waits -> Host: a thread or a process

The slot's greenlet waits for the job as for anything else, so that whatever asks how many jobs
are under way, or interrupts one, need not know where it runs.

    job.py        one such job; its guard
    places.py     as many hosts as there may be, and who waits for one
    threads.py    a native thread of the worker's own
    processes.py  a process of the worker's own; what runs in it is in child.py
    wire.py       what a worker and its processes say to each other, and how an exception travels

In a process that gevent has not patched every job has a native thread anyway: ``lane="thread"``
says nothing new there.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from ...machine import cpu_count
from .job import LaneJob
from .places import Places
from .processes import Imports, ProcessHost, problem_with

if TYPE_CHECKING:
    from ...actor import Actor
    from ...consumer import MessageProxy
    from ...runtime import Runtime
    from ..consumer import ConsumerThread
    from ..deadlines import Deadlines

__all__ = ["THREADS", "Imports", "LaneJob", "Lanes"]

#: How many threads there are at most by default. What blocks one waits for a disk or another machine, or
#: computes without the interpreter: more of the latter than the machine has CPUs help nobody, more of the
#: former want a number of their own.
THREADS = 8

#: A process that had nothing to do for so many seconds is ended: it may hold much memory.
_IDLE_S = 60.0

#: What a job has left behind in a thread may keep it; nothing of it is waited for for longer.
_THREADS_END_WITHIN_S = 1.0


class Lanes:
    """The lanes of a worker.

    Parameters:
      runtime(Runtime): The world.
      deadlines(Deadlines): Keeps the jobs' time limits.
      threads(int): The most native threads. Default: 8.
      processes(int): The most processes. Default: the number of CPUs.

    Attributes:
      imports(Imports | None): What a process imports, in which its actors are found by their names. None, the
        default: there they are found by the modules and names of their functions.
      hard_limit_ms(float): After how long a process is killed whose job goes on after its time limit.
      idle_s(float): After how long an idle process is ended.
    """

    def __init__(
        self, runtime: Runtime, deadlines: Deadlines, *, threads: int | None = None, processes: int | None = None
    ) -> None:
        self.imports: Imports | None = None
        self.hard_limit_ms = 30_000.0
        self._runtime = runtime
        self._deadlines = deadlines
        self._processes = Places(runtime, self._most(processes, cpu_count()), self._process, idle_s=_IDLE_S)
        self._threads: Places | None = None
        if runtime.most_slots is None:
            from .threads import ThreadHost

            make = functools.partial(ThreadHost, runtime)
            self._threads = Places(runtime, self._most(threads, THREADS), make, idle_s=None)

    def _most(self, given: int | None, default: int) -> int:
        if given is not None and given < 1:
            raise ValueError(f"A lane needs 1 or more threads or processes, not {given!r}.")
        return default if given is None else given

    def _process(self, number: int) -> ProcessHost:
        return ProcessHost(self._runtime, number, self.imports, self.hard_limit_ms / 1000)

    @property
    def idle_s(self) -> float | None:
        return self._processes.idle_s

    @idle_s.setter
    def idle_s(self, seconds: float) -> None:
        self._processes.idle_s = seconds

    def problem_with(self, actor: Actor[Any, Any]) -> str | None:
        """Why the jobs of an actor cannot run in its lane; None if they can."""
        return problem_with(actor) if actor.lane == "process" and self.imports is None else None

    def job(self, message: MessageProxy, consumer: ConsumerThread, actor: Actor[Any, Any]) -> LaneJob | None:
        """A job of an actor that has a lane, ready to run; None if its slot is where it runs."""
        places = self._processes if actor.lane == "process" else self._threads
        return None if places is None else LaneJob(self._runtime, message, consumer, actor, places, self._deadlines)

    def turn_away(self) -> None:
        """Have the jobs that wait for their turn go back: the worker stops, and nothing begins. Does not wait."""
        for places in (self._processes, self._threads):
            if places is not None:
                places.turn_away()

    def kill(self) -> None:
        """Kill the processes in which jobs run: the time to stop is over. Does not wait."""
        self._processes.kill()

    def close(self) -> None:
        """Have all threads and processes end once they have nothing to do. Does not wait."""
        self._processes.close()
        if self._threads is not None:
            self._threads.close()

    def wait_for_threads(self, deadline: float) -> None:
        """Wait for the threads that had nothing to do at ``close``: a second, or until this on the monotonic clock.

        An interpreter that ends while one lets go of its hub crashes. Switches.
        """
        if self._threads is not None:
            self._threads.wait_for_ends(min(deadline, time.monotonic() + _THREADS_END_WITHIN_S))
