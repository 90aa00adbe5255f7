"""What runs in a process of ``lane="process"``: one job after another, until its worker closes the sockets.

A plain Python process; gevent does not patch it. Its main thread runs the jobs, because signals are
raised there; another one watches for the worker's end. The middleware's hooks run in the worker: what
a job needs of them here (which message it is, what its log is marked with) is set for it.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import faulthandler
import functools
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from ... import logged_job
from ...actor import Actor
from ...broker import Broker, get_broker
from ...consumer import MessageProxy
from ...cpu import of_context
from ...errors import ActorNotFound, MiddlewareError, describe
from ...failures import traceback_of
from ...log_lines import configure, print_by_lines
from ...logged_job import LoggedJob
from ...message import Message
from ...middleware import CurrentMessage, Middleware
from .. import children
from ..application import explain, find_broker
from .signals import SIGNALS
from .wire import Began, Ended, Failed, Job, Raised, Ready, Returned, Setup, Wire, pack

#: The descriptor that the worker gives it.
_FD = 3

#: When to stop is the worker's to decide.
_LEFT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds that the process may take to end once its worker has let go of it.
_END_WITHIN_S = 5.0

#: Linux's prctl: have the kernel send a signal when the parent dies.
_PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Run the jobs that the worker sends. Exits the process."""
    wire = Wire(socket.socket(fileno=_FD))
    wire.end.set_inheritable(False)
    wire.end.setblocking(True)  # gevent makes both ends for waiting in its hub
    try:
        setup: Setup = wire.receive()
        _Process(wire, setup).run()
    except Ended:
        pass
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    sys.exit(0)


class _Process:
    def __init__(self, wire: Wire, setup: Setup) -> None:
        self._wire = wire
        self._setup = setup
        self._guard = _Guard()
        self._brokers: set[Broker] = set()
        self._has_job = False

    def run(self) -> None:
        if self._setup.is_bound:
            _end_with(self._setup.worker_pid)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._guard.take_signals()
        print_by_lines()
        # A copy of the socket would keep the worker from hearing that this process has died.
        children.leave_alone((*SIGNALS.values(), *_LEFT), lambda: (self._wire.end.fileno(),))
        with contextlib.suppress(Exception):  # there may be no standard error
            faulthandler.enable()
        try:
            self._boot()
        except BaseException as error:
            self._wire.send(Failed(explain(f"import {self._setup.spec!r}", error)))
            raise Ended from error
        # What was imported stays: see tune_interpreter in worker/process.py.
        gc.collect()
        gc.freeze()
        self._wire.send(Ready())
        while True:
            self._perform(self._wire.receive())

    # -- start

    def _boot(self) -> None:
        setup = self._setup
        sys.argv[:] = setup.argv
        if setup.logging is not None:
            configure(**setup.logging, task_name=functools.partial(_task_name, setup.number))
        if setup.spec is not None:
            self._adopt(find_broker(setup.spec))
            for module in setup.modules:
                importlib.import_module(module)

    def _adopt(self, broker: Broker) -> None:
        """Refuse what jobs enqueue, if it would stay in the memory of this process."""
        if broker not in self._brokers:
            self._brokers.add(broker)
            if not broker.shared:
                broker.add_middleware(_Refuse())

    # -- the worker's end

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._wire.end.fileno(), 0)  # hang-ups are always told
        poll.poll()
        if not self._has_job:
            threading.Event().wait(_END_WITHIN_S)  # it ends by itself
        # What the job has started is in its group.
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    # -- jobs

    def _perform(self, job: Job) -> None:
        self._guard.begin()
        self._has_job = True
        self._wire.send(Began())
        # A context of its own, as in the worker: what one job sets no other one sees.
        answer = contextvars.Context().run(self._run, job)
        self._guard.message = None
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        self._has_job = False
        try:
            self._wire.send(answer)
        except Ended:
            raise
        except Exception as error:
            self._wire.send(_unsendable(answer, error))

    def _run(self, job: Job) -> Returned | Raised:
        try:
            actor = self._find(job)
            self._set_the_scene(job, actor.broker)
            message: Message[Any] = job.message
            return Returned(actor.run_guarded(self._guard.run, message.args, message.kwargs))
        except BaseException as error:
            return _raised(error)

    def _find(self, job: Job) -> Actor[Any, Any]:
        name = job.message.actor_name
        if job.function is None:
            actor: Actor[Any, Any] = get_actor(self._brokers, name)
            return actor
        module, path = job.function
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        found = getattr(found, "__actor__", found)
        if not isinstance(found, Actor) or found.actor_name != name:
            raise ActorNotFound(
                f"In the process of a lane {module}.{path} is not the actor {name!r}. Give the actor the name of its "
                "function, or run the worker by greenq-worker."
            )
        self._adopt(found.broker)
        return found

    def _set_the_scene(self, job: Job, broker: Broker) -> None:
        if job.marks is not None:
            logged_job.current.set(LoggedJob(job.marks))
        self._guard.ends_at = job.ends_at
        proxy = self._guard.message = MessageProxy(job.message)
        of_context.set(self._guard)
        proxy.time_limit_ms, proxy.deliveries = job.time_limit_ms, job.deliveries
        for middleware in broker.middleware:
            if isinstance(middleware, CurrentMessage):
                middleware.before_process_message(broker, proxy)


def get_actor(brokers: set[Broker], name: str) -> Actor[Any, Any]:
    """The actor of this name, of the broker that was named or of the global one."""
    for broker in brokers:
        if name in broker.actors:
            return broker.actors[name]
    return get_broker().get_actor(name)


def _raised(error: BaseException) -> Raised:
    try:
        traceback = traceback_of(error)
    except Exception:  # of the application's own class
        traceback = describe(error)
    return pack(error, traceback)


def _unsendable(answer: Returned | Raised, error: Exception) -> Raised:
    what = answer.result if isinstance(answer, Returned) else None
    told = TypeError(
        f"The actor ran to its end, and what it returned, of type {type(what).__name__}, cannot be brought out of its "
        f"process: {describe(error)}. Return plain data, or nothing."
    )
    return pack(told, describe(told))


def _task_name(number: int) -> str:
    name = threading.current_thread().name
    return f"lane {number}" if name == "MainThread" else name


class _Refuse(Middleware):
    """Vetoes what a job enqueues on a broker whose messages live in one process."""

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        raise MiddlewareError(
            f"A job with lane='process' cannot enqueue on a {type(broker).__name__}, which keeps its messages in the "
            "memory of one process: nobody would ever run it. Use a broker that processes share, such as SqliteBroker."
        )


class _Guard:
    """The actor's own code: where a signal raises its exception. To whoever asks (time_left.py) it is the job."""

    def __init__(self) -> None:
        self.message: Any = None
        #: When the job's time limit passes, in monotonic seconds; None without one.
        self.ends_at: float | None = None
        # As of every job: see cpu.py. Of these the worker keeps the true ones.
        self.interrupted_by: type[BaseException] | None = None
        self.soft_at: float | None = None
        self.blocked_s = 0.0
        self.shown = b""
        self._is_inside = False
        self._pending: type[BaseException] | None = None

    def take_signals(self) -> None:
        for exception, signum in SIGNALS.items():
            signal.signal(signum, functools.partial(self._on_signal, exception))
        for signum in _LEFT:
            signal.signal(signum, _leave_it_to_the_worker)

    @property
    def is_inside(self) -> bool:
        return self._is_inside

    def struck(self) -> None:
        pass  # there is no alarm here

    def begin(self) -> None:
        """There is another job: interrupts that were for the last one came too late."""
        self._pending = None

    def run(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            self._is_inside = True
            if self._pending is not None:
                raise self._pending
            return call(*args, **kwargs)
        finally:
            self._is_inside = False

    def _on_signal(self, exception: type[BaseException], signum: int, frame: FrameType | None) -> None:
        if self._is_inside:
            raise exception
        self._pending = exception


def _leave_it_to_the_worker(signum: int, frame: FrameType | None) -> None:
    pass


def _end_with(worker_pid: int) -> None:
    """Have the kernel kill this process with its worker, where it can: C code stops the watch, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker_pid:  # it has died already
        os._exit(0)
