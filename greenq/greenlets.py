"""Our words for gevent: what runtime.py asks for, in a process that gevent has patched.

Everything of ours takes gevent from here.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
import gevent.os
import gevent.subprocess
from gevent._hub_local import set_hub, set_loop
from gevent.event import Event as GeventEvent
from gevent.hub import Waiter
from gevent.monkey import get_original
from greenlet import GreenletExit, getcurrent, gettrace, greenlet, settrace

from .cpu import cpu
from .errors import TimeLimitExceeded
from .event_loop import is_waited_for
from .runtime import Place, places
from .shared_page import LONGEST_ID
from .thread_guard import ThreadGuard

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

_start_new_thread = get_original("_thread", "start_new_thread")
_allocate_lock = get_original("_thread", "allocate_lock")
_get_ident = get_original("_thread", "get_ident")


#: How long waking many at once may keep the hub's timers waiting.
_TURN_S = 0.01


#: None if this module is imported first in a thread of a pool of gevent's: no way leads from there to it.
_main_hub = gevent.get_hub() if gevent.get_hub().main_hub else None


def _find_main_hub() -> Any:
    # It lives as long as the process; those of a pool's threads run only while a call waits in them.
    hub = gevent.get_hub()
    if hub.main_hub:
        return hub
    if _main_hub is None:
        raise RuntimeError(
            "This is a thread of a pool of gevent's, and greenq was never used in the main thread, in whose hub "
            "connections live. Import the module that makes the broker there, before the pool's first use of it."
        )
    return _main_hub


class _Event:
    """gevent's event, which may also be set by another thread of the process."""

    def __init__(self) -> None:
        self._event = GeventEvent()
        self._hub = gevent.get_hub()
        self._thread = _get_ident()

    def clear(self) -> None:
        self._event.clear()

    def is_set(self) -> bool:
        return bool(self._event.is_set())

    def wait(self, timeout: float | None = None) -> bool:
        return bool(self._event.wait(timeout))

    def set(self) -> None:
        if _get_ident() == self._thread:
            self._event.set()
        else:
            # gevent's own way across threads takes locks that a busy hub may hold.
            self._hub.loop.run_callback_threadsafe(self._event.set)


class _Task:
    def __init__(self, greenlet: gevent.Greenlet[..., Any]) -> None:
        self._greenlet = greenlet

    def join(self, timeout: float | None = None) -> bool:
        self._greenlet.join(timeout)
        return self.has_ended()

    def has_ended(self) -> bool:
        return bool(self._greenlet.ready())

    def frame(self) -> FrameType | None:
        frame: FrameType | None = self._greenlet.gr_frame
        return frame


class _Timer:
    def __init__(self, seconds: float, call: Callable[[], Any]) -> None:
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(call)

    def cancel(self) -> None:
        self._timer.close()


class _Guard:
    """Interrupts are thrown by the hub, so only while the greenlet waits for something.

    Our own code around the actor does not wait, so an interrupt cannot come late there. It
    could come to the next job of the same slot: a slot that was interrupted takes no other.
    One that never waits is interrupted by alarm.py, which looks at ``is_inside`` as well.
    """

    __slots__ = (
        "_greenlet",
        "blocked_s",
        "ends_at",
        "interrupted_by",
        "is_inside",
        "message",
        "shown",
        "soft_at",
    )

    def __init__(self) -> None:
        self._greenlet = getcurrent()
        self.is_inside = False
        self.interrupted_by: type[BaseException] | None = None
        self.ends_at: float | None = None
        self.soft_at: float | None = None
        self.blocked_s = 0.0
        self.message: Any = None
        self.shown = b""

    def begin(self, message: Any, message_id: str) -> None:
        self.message = message
        name = message_id.encode("utf-8", "replace")  # as shared_page.name_bytes has it, without a call
        self.shown = name = name if len(name) <= LONGEST_ID else b""
        if cpu.is_long:
            cpu.note()
        # ``since`` is set when the actor's own code starts; ``end`` takes the job out again.
        cpu.jobs[self._greenlet] = cpu.job = self
        cpu.sign.value = name

    def end(self) -> None:
        cpu.jobs.pop(self._greenlet, None)

    def run(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # An alarm may strike between any two lines here: the mark is set and cleared where what it raises
        # leaves by this function, and ``finally`` does nothing before it is cleared.
        self.is_inside = True
        try:
            return call(*args, **kwargs)
        finally:
            self.is_inside = False

    def stack(self) -> list[Place]:
        greenlet = self._greenlet
        frame = sys._getframe(1) if greenlet is getcurrent() else greenlet.gr_frame
        return places(frame, _Guard.run.__code__)

    def interrupt(self, exception: type[BaseException]) -> bool:
        if not self.is_inside:
            return False
        self.interrupted_by = exception
        hub = gevent.get_hub()
        if getcurrent() is hub:
            # A timer's callback: at once, before whatever else is waiting for its turn.
            self._throw(exception)
        else:
            # Not from here: the caller would only go on once the other one waits again.
            hub.loop.run_callback(self._throw, exception)
        return True

    def struck(self) -> None:
        # Of a task that a coroutine has started which it waits for it may never hear.
        if self._greenlet is not getcurrent() and not is_waited_for():
            self.interrupt(TimeLimitExceeded)

    def _throw(self, exception: type[BaseException]) -> None:
        if self.is_inside and not self._greenlet.dead:
            self._greenlet.throw(exception)


class _Queue:
    """Wakes the getter that waits the shortest: its stack is still in the processor's cache.

    gevent's own queue looks a woken getter up among all others that wait, which with a
    thousand idle slots is a good part of a short job's time.
    """

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self._items: deque[Any] = deque()
        self._waiting: list[Any] = []
        self._is_waking = False

    def qsize(self) -> int:
        return len(self._items)

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._waiting and not self._is_waking:
            self._is_waking = True
            self._hub.loop.run_callback(self._wake)

    def get(self) -> Any:
        while not self._items:
            waiter: Any = Waiter(self._hub)
            self._waiting.append(waiter)
            try:
                waiter.get()
            except BaseException:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                raise
        return self._items.popleft()

    def drain(self) -> list[Any]:
        """Take out all that is there."""
        items = list(self._items)
        self._items.clear()
        return items

    def _wake(self) -> None:
        # In the hub, which runs each one until it waits: one that takes item after item
        # leaves the others asleep. The hub's timers must have their turns in between.
        turn_ends = time.monotonic() + _TURN_S
        while self._items and self._waiting:
            if time.monotonic() >= turn_ends:
                self._hub.loop.run_callback(self._wake)
                return
            self._waiting.pop().switch(None)
        self._is_waking = False


class _Request:
    __slots__ = ("_waiter", "hub", "is_answered")

    def __init__(self) -> None:
        self.hub = gevent.get_hub()
        self.is_answered = False
        self._waiter: Any = None

    def wait(self) -> None:
        if self.is_answered:
            return
        self._waiter = Waiter(self.hub)
        # A call from another thread is no reason for the loop to go on: without a watcher of
        # its own, a process in which nothing else happens would be told that it is stuck.
        keeper = self.hub.loop.async_()
        keeper.start(_do_nothing)
        try:
            self._waiter.get()
        finally:
            keeper.close()

    def answer(self) -> None:
        self.is_answered = True
        if self._waiter is not None:
            self._waiter.switch(None)


def _do_nothing() -> None:
    pass


def _answer_all(requests: list[_Request], number: int = 0) -> None:
    # In the hub, as above: each runs until it waits again.
    turn_ends = time.monotonic() + _TURN_S
    while number < len(requests):
        requests[number].answer()
        number += 1
        if time.monotonic() >= turn_ends and number < len(requests):
            requests[number].hub.loop.run_callback(_answer_all, requests, number)
            return


class _JobThread:
    """A hub for a native thread in which jobs run, and a way to interrupt them. Made by the thread itself.

    What gevent has patched waits in the hub of the thread that calls it. An asynchronous exception
    is only raised where Python runs: in a job that waits there, by a call that the hub is given to
    make. So it strikes in the hub, and is passed on to the job.

    Parameters:
      name(str): Of the thread, for the log.
    """

    def __init__(self, name: str) -> None:
        _refuse_children_of_threads()
        self._ident = _get_ident()
        self._job = getcurrent()
        self._job.name = name  # type: ignore[attr-defined]  # greenlets take any attribute
        self._guard: _NativeGuard | None = None
        self._hub = hub = gevent.get_hub()
        hub.SYSTEM_ERROR = ()  # see contain_exits
        hub.handle_error = self._handle_error  # type: ignore[method-assign, assignment]  # gevent asks the hub alone
        # With this its loop also goes on while all that wait in it are to be woken by other threads.
        self._keeper = hub.loop.async_()
        self._keeper.start(self._come_to_a_line)
        self._is_woken = False
        self._waiter: Any = None
        # It has begun when the first interrupt comes, whose strike it would not survive before.
        gevent.sleep(0)

    def wait(self) -> None:
        # In the hub: whoever waits for a lock that a job has released is woken there.
        while not self._is_woken:
            self._waiter = Waiter(self._hub)
            try:
                self._waiter.get()
            finally:
                self._waiter = None
        self._is_woken = False

    def wake(self) -> None:
        self._is_woken = True
        self._keeper.send()

    def _come_to_a_line(self) -> None:
        if self._is_woken and self._waiter is not None:
            self._waiter.switch(None)

    def guard(self) -> _NativeGuard:
        """A guard for the thread's next job."""
        self._guard = guard = _NativeGuard(_get_ident(), _allocate_lock(), self._keeper)
        return guard

    def frame(self) -> FrameType | None:
        # While it waits its hub has the thread.
        frame: FrameType | None = self._job.gr_frame or sys._current_frames().get(self._ident)
        return frame

    def close(self) -> None:
        """Let go of the hub, at the thread's end, once it has done what was left to it."""
        gevent.sleep(0)
        self._keeper.close()
        self._hub.destroy(destroy_loop=True)

    def _handle_error(self, context: object, kind: Any, value: Any, traceback: Any) -> None:
        guard = self._guard
        if guard is None or guard.interrupted_by is None or kind is not guard.interrupted_by:
            type(self._hub).handle_error(self._hub, context, kind, value, traceback)
        else:
            self._hub.loop.run_callback(self._pass_on, guard, kind)

    def _pass_on(self, guard: _NativeGuard, kind: type[BaseException]) -> None:
        if guard.is_inside:
            self._job.throw(kind)


def _refuse_children_of_threads() -> None:
    """Have native threads start no programs and fork no children.

    gevent watches children in the main thread's hub alone. Elsewhere it says so when the child has been
    made: a program would do its work, and a forked child go on into our own code, while the job fails.
    """
    if hasattr(gevent.os.fork_and_watch, "__wrapped__"):
        return
    for module, name in (
        (gevent.os, "fork_and_watch"),
        (gevent.subprocess, "fork_and_watch"),
        (os, "posix_spawn"),
        (os, "posix_spawnp"),
    ):
        setattr(module, name, _for_the_main_thread(getattr(module, name)))


def _for_the_main_thread(start: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(start)
    def start_there(*args: Any, **kwargs: Any) -> T:
        if not gevent.get_hub().loop.default:
            raise RuntimeError(
                "Under gevent no native thread can start a program or fork a child, so an actor with lane='thread' "
                "cannot. Give it lane='process'; or no lane, where waiting for a program keeps nobody waiting."
            )
        return start(*args, **kwargs)

    return start_there


class _NativeGuard(ThreadGuard):
    """As of any native thread, but its jobs may wait in a hub of their own; see _JobThread."""

    def __init__(self, ident: int, lock: Any, keeper: Any) -> None:
        super().__init__(ident, lock)
        self._keeper = keeper
        self._greenlet = getcurrent()

    def stack(self) -> list[Place]:
        # While it waits its thread is in the hub.
        waiting = places(self._greenlet.gr_frame, ThreadGuard.run.__code__)
        return waiting or super().stack()

    def interrupt(self, exception: type[BaseException]) -> bool:
        is_sent = super().interrupt(exception)
        if is_sent:
            self._keeper.send()
        return is_sent


class GreenletRuntime:
    name = "greenlets"
    most_slots: int | None = None
    kills: tuple[type[BaseException], ...] = (GreenletExit,)

    def spawn(self, run: Callable[[], Any], *, name: str) -> _Task:
        greenlet = gevent.Greenlet(run)
        greenlet.name = name
        greenlet.start()
        return _Task(greenlet)

    def task_name(self) -> str:
        current = getcurrent()
        if hasattr(current, "task_name"):  # the asyncio loop's: which of its tasks
            return str(current.task_name())
        return str(getattr(current, "name", "MainThread"))

    def event(self) -> _Event:
        return _Event()

    def queue(self) -> _Queue:
        return _Queue()

    lock = staticmethod(contextlib.nullcontext)
    guard = staticmethod(_Guard)

    def guard_here(self) -> _Guard | None:
        here = getcurrent()
        job = cpu.jobs.get(here)
        # Of a coroutine that it waits for it is the job, too, and has another greenlet.
        return job if isinstance(job, _Guard) and job._greenlet is here and job.is_inside else None

    call_later = staticmethod(_Timer)
    sleep = staticmethod(gevent.sleep)
    request = staticmethod(_Request)

    def answer(self, requests: list[_Request]) -> None:
        # One wake-up of the hub for all of them. Nearly always there is one hub; a call from
        # a pool's thread has a hub of its own.
        by_hub: dict[int, list[_Request]] = {}
        for request in requests:
            by_hub.setdefault(id(request.hub), []).append(request)
        for group in by_hub.values():
            loop = group[0].hub.loop
            if loop is not None:
                loop.run_callback_threadsafe(_answer_all, group)

    def start_event_loop(
        self, serve: Callable[[asyncio.AbstractEventLoop], None], *, name: str
    ) -> tuple[asyncio.AbstractEventLoop, _Task]:
        from .greenlet_loop import GreenletLoop, LoopGreenlet

        share_asyncio()
        loop = GreenletLoop()
        greenlet = LoopGreenlet(serve, loop)
        greenlet.name = name
        greenlet.start()
        return loop, _Task(greenlet)

    def watch_switches(self, every_s: float, tick: Callable[[], object]) -> Callable[[], None] | None:
        hub = gevent.get_hub()
        if gettrace() is not None or not hub.main_hub:
            return None
        cpu.hub, cpu.task, cpu.here, cpu.thread = hub, getcurrent(), getcurrent, _get_ident()
        settrace(_switched)
        timer: Any = hub.loop.timer(every_s, every_s, ref=False)
        timer.start(tick)

        def end() -> None:
            timer.close()
            cpu.takes(None)
            _forget_switches()

        return end

    def start_native_thread(self, run: Callable[[], None], *, name: str) -> None:
        _start_new_thread(run, ())

    job_thread = staticmethod(_JobThread)
    main_hub = staticmethod(_find_main_hub)
    native_lock = staticmethod(_allocate_lock)
    native_poll = staticmethod(get_original("select", "poll"))
    native_rlock = staticmethod(get_original("_thread", "RLock"))
    native_socket = staticmethod(get_original("socket", "socket"))


_switched = cpu.switched


def _forget_switches() -> None:
    if gettrace() is _switched:
        settrace(None)
    cpu.forget()


# In a child that was forked, which must not write into its parent's page.
os.register_at_fork(after_in_child=_forget_switches)


def leave_others_behind() -> None:
    """Have children that are forked here run the greenlet that forks alone, from now on.

    gevent lets the copies of all others go on in the child: jobs would do there what they do here, and answers
    that came for this process would be read by the child. It gets a hub of its own instead.
    """
    os.register_at_fork(after_in_child=_begin_with_a_new_hub)


#: The greenlets of the parent, which would be told to end if they were forgotten.
_left_behind: list[Any] = []


def _begin_with_a_new_hub() -> None:
    global _main_hub
    old, this = gevent.get_hub(), getcurrent()
    if this is old or not old.main_hub:
        return  # the threads of the parent are not in the child, and a callback cannot do without its hub
    _left_behind.extend(each for each in gc.get_objects() if isinstance(each, greenlet))
    if this.parent is not None:
        # What returns from the job's code is the copy of a slot, which is to do nothing more.
        this.parent = greenlet(_leave, this.parent.parent)
    # Not by its own destroy(), which has it run to its end, and so first whoever is next in this turn of its loop.
    nothing: Any = None
    set_hub(nothing)
    set_loop(nothing)
    old.loop.destroy()
    old.loop = nothing
    _main_hub = gevent.get_hub()


def _leave(ending: object = None) -> None:
    os._exit(1)


def share_asyncio() -> None:
    """Let every greenlet of this process run an asyncio loop of its own, at the same time."""
    from .greenlet_selector import install

    install()


def contain_exits() -> None:
    """Keep what a greenlet raises in that greenlet, SystemExit and KeyboardInterrupt too.

    gevent raises these two in the main greenlet, wherever that is: ``sys.exit()`` in a greenlet
    that a job has spawned would end the whole process, with all the other jobs in it.
    """
    gevent.get_hub().SYSTEM_ERROR = ()


def hand_down(variable: contextvars.ContextVar[T | None], as_seen_below: Callable[[T], T]) -> None:
    """Have what this variable says seen in greenlets and threads that are started where it says it.

    gevent starts each in an empty context. Not in those of a pool: they outlive whoever happened to
    be the first to need them, and work for others.

    Parameters:
      variable(ContextVar): None is not handed down, nor is anything else of the context.
      as_seen_below(Callable): Makes what they see of its value.
    """

    def give(greenlet: gevent.Greenlet[..., Any]) -> None:
        value = variable.get(None)
        if value is None or greenlet.gr_context is not None or _is_of_a_pool(greenlet):
            return
        context = contextvars.Context()
        context.run(variable.set, as_seen_below(value))
        greenlet.gr_context = context

    gevent.Greenlet.add_spawn_callback(give)


def _is_of_a_pool(greenlet: gevent.Greenlet[..., Any]) -> bool:
    thread = getattr(getattr(greenlet, "_run", None), "__self__", None)
    target = getattr(thread, "_target", None)
    return getattr(target, "__module__", None) in ("concurrent.futures.thread", "multiprocessing.pool")


def log_failures(logger: logging.Logger) -> None:
    """Have what greenlets fail of logged, instead of printed."""

    def log(context: object, kind: Any, value: Any, traceback: Any) -> None:
        name = getattr(context, "name", None) or type(context).__name__
        logger.error("Greenlet %s failed.", name, exc_info=value if isinstance(value, BaseException) else None)

    gevent.get_hub().print_exception = log  # type: ignore[method-assign, assignment]  # each hub has its own way, or this


runtime = GreenletRuntime()
