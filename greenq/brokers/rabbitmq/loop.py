"""Where connections live: in the hub of a patched process, on one native thread in any other.

Whatever touches a connection is called there, in order, and never waits; tasks ask for it with
``soon`` and wait for an Answer.

An error that is raised there, ours or pika's, must not end the loop, on which everybody waits. It
is logged, and since nobody knows what was left half done, all connections are given up: whoever
waits on them is told, and whoever needs one makes it anew.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

from ...errors import ConnectionClosed
from ...runtime import Runtime, current, is_patched
from . import pika_log
from .pulse import Pulse, Pulsing
from .wire import ThreadConnection

#: Seconds between two log lines about errors in a loop; those in between are counted.
_LOG_EVERY_S = 60.0

#: Seconds for which a native thread's loop stands still after an error of its own.
_PAUSE_S = 1.0


class Answer:
    """What the loop owes to a task: a value or an error, once.

    Parameters:
      loop(Loop): Who answers.
    """

    __slots__ = ("_error", "_loop", "_request", "_timer", "_value", "is_given")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._request: Any = loop.runtime.request()
        self._value: Any = None
        self._error: BaseException | None = None
        self._timer: Any = None
        self.is_given = False

    def give(self, value: Any = None) -> None:
        """Called in the loop. What comes after the first answer is dropped."""
        if not self.is_given:
            self._value = value
            self._end()

    def fail(self, error: BaseException) -> None:
        """Called in the loop. What comes after the first answer is dropped."""
        if not self.is_given:
            self._error = error
            self._end()

    def _end(self) -> None:
        self.is_given = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._loop.asked.discard(self)
        self._loop.wake_up(self._request)

    def fail_after(self, seconds: float, make_error: Callable[[], BaseException]) -> None:
        """Fail if there is no answer in time. Called in the loop."""
        if not self.is_given:
            self._timer = self._loop.later(seconds, lambda: self.fail(make_error()))
            self._loop.asked.add(self)

    def wait(self) -> Any:
        """The value, or the error raised. Switches."""
        self._request.wait()
        if self._error is not None:
            raise self._error
        return self._value


class Loop:
    """One place for all connections of a broker."""

    def __init__(self) -> None:
        self.runtime: Runtime = current()
        self._calls: deque[Callable[[], None]] = deque()
        self._is_scheduled = False
        self._lock = self.runtime.native_lock()
        self.is_closed = False
        self._is_left = False
        #: What has an end by a timer, which would never come after the end of the loop.
        self.asked: set[Answer] = set()
        #: Called in the loop with an error, after one that nobody expected: connections are no good any more.
        self.on_failure: list[Callable[[ConnectionClosed], None]] = []
        self._is_failing = False
        self._logged_at: float | None = None
        self._unlogged = 0
        #: Requests of those who are woken together; None while each is woken at once.
        self._held: list[Any] | None = None
        self._place: _HubPlace | _ThreadPlace = (_HubPlace if is_patched() else _ThreadPlace)(self)
        pika_log.watch()
        _loops.add(self)

    def soon(self, call: Callable[[], None]) -> None:
        """Have this called, after all that was asked for before. From any thread.

        Raises:
          ConnectionClosed: The loop was closed.
        """
        try:
            with self._lock:
                if self.is_closed:
                    raise ConnectionClosed("The broker was closed")
                self._calls.append(call)
                if self._is_scheduled:
                    return
                self._is_scheduled = True
            self._place.wake(self._run_calls)
        except ConnectionClosed:
            raise
        except BaseException:
            # A job that is interrupted right here; others may have come since, and count on this.
            self._place.wake(self._run_calls)
            raise

    def _run_calls(self) -> None:
        self._is_scheduled = False
        calls = self._calls
        with pika_log.kept_back:
            for _ in range(len(calls)):
                if not calls:
                    return  # the end has run the rest
                call = calls.popleft()
                try:
                    call()
                except Exception as error:
                    self.fail(error)

    def guard(self, call: Callable[..., Any]) -> Callable[..., None]:
        """The same function for pika to call: what it raises is taken care of."""

        def guarded(*args: Any) -> None:
            if self._is_left:
                return  # a timer of the parent's
            with pika_log.kept_back:
                try:
                    call(*args)
                except Exception as error:
                    self.fail(error)

        return guarded

    def fail(self, error: BaseException) -> None:
        """Log an error that nobody expected, and give up all connections. In the loop only."""
        self._log(error)
        if self._is_failing:
            return
        self._is_failing = True
        lost = ConnectionClosed(
            f"The connections to RabbitMQ are given up because of an error in greenq, which is in the log: {error!r}"
        )
        # Whoever is told may send again at once, and that must not be given up with the rest.
        with self.together():
            self._tell(lost)
        self._is_failing = False

    def _tell(self, error: ConnectionClosed) -> None:
        for each in list(self.on_failure):
            try:
                each(error)
            except Exception as another:
                self._log(another)

    def _log(self, error: BaseException) -> None:
        now = time.monotonic()
        if self._logged_at is not None and now - self._logged_at < _LOG_EVERY_S:
            self._unlogged += 1
            return
        unlogged, self._unlogged, self._logged_at = self._unlogged, 0, now
        from ...logging import get_logger

        logger = get_logger(__name__, "Loop")

        def log() -> None:
            logger.critical(
                "An error in the loop of the RabbitMQ connections, which are opened anew; "
                "%d more since the last such line.",
                unlogged,
                exc_info=error,
            )

        try:
            # In a task of its own, because a log handler may wait.
            self.runtime.spawn(log, name="log")
        except RuntimeError:  # no more threads can be started
            log()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Wake all tasks that get their answers within the block after it, by one call of the hub.

        One call for each costs a process with many senders a twentieth more of CPU. In the loop only.
        """
        if self._held is not None:
            yield  # within another one
            return
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            self.runtime.answer(held)

    def wake_up(self, request: Any) -> None:
        """Have the task that waits for this request go on."""
        if self._held is None:
            self.runtime.answer([request])
        else:
            self._held.append(request)

    def later(self, seconds: float, call: Callable[[], None]) -> Any:
        """Have this called after a time; the answer has ``cancel``. In the loop only."""
        return self._place.io.call_later(seconds, call)

    def connect(self, parameters: Any, **callbacks: Any) -> Any:
        """A connection of pika's that begins to open. In the loop only."""
        return self._place.connect(parameters, callbacks)

    def ask(self, call: Callable[[Answer], None], timeout_s: float, what: str) -> Any:
        """Have the loop call this with an answer to give, and wait for it.

        Raises:
          ConnectionClosed: No answer came in time, or the loop was closed.

        Switches.
        """
        answer = Answer(self)

        def begin() -> None:
            answer.fail_after(timeout_s, lambda: ConnectionClosed(f"RabbitMQ did not {what} within {timeout_s:.3g} s"))
            try:
                call(answer)
            except Exception as error:
                answer.fail(error)

        self.soon(begin)
        return answer.wait()

    def close(self) -> None:
        """End the loop. Its connections have been closed before; who still waits is told. Switches."""
        done = Answer(self)

        def end() -> None:
            with self._lock:
                self.is_closed = True
            self._run_calls()
            closed = ConnectionClosed("The broker was closed")
            self._tell(closed)
            for answer in list(self.asked):
                answer.fail(closed)
            self._place.end()
            done.give()

        self.soon(end)
        done.wait()

    def leave_to_parent(self) -> None:
        """End, in a forked child, without touching the connections, which are the parent's.

        In a patched process everything goes on in the child as well, in its copy of the hub: it would
        take answers and messages from the parent, and write into its frames. What waited here at the
        fork waits in the parent; its copy is never answered.
        """
        self._lock = self.runtime.native_lock()  # another thread may have held it
        if self.is_closed:
            return  # somebody else's files may have the numbers of its own by now
        self.is_closed = self._is_left = True
        self._calls.clear()
        self._place.leave_to_parent()


_loops: weakref.WeakSet[Loop] = weakref.WeakSet()


def _leave_in_child() -> None:
    for each in list(_loops):
        each.leave_to_parent()


os.register_at_fork(after_in_child=_leave_in_child)


def _leave_files(fds: Iterable[int]) -> None:
    """Put nothing in the place of these files: for as long as a child has one, it stays open.

    Otherwise the server would not see the end of a parent that is killed.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


def _guarded(io: Any, guard: Callable[[Callable[..., Any]], Callable[..., None]]) -> Any:
    """pika's services, with care taken of what is raised by all that they have a loop call."""
    add, later, set_reader, set_writer = io.add_callback_threadsafe, io.call_later, io.set_reader, io.set_writer
    look_up = io.getaddrinfo
    io.add_callback_threadsafe = lambda callback: add(guard(callback))
    io.call_later = lambda delay, callback: later(delay, guard(callback))
    io.set_reader = lambda fd, on_readable: set_reader(fd, guard(on_readable))
    io.getaddrinfo = lambda on_done, **asked: look_up(on_done=guard(on_done), **asked)
    io.set_writer = lambda fd, on_writable: set_writer(fd, guard(on_writable))
    return io


class _HubPlace:
    """In gevent's hub, which runs anyway."""

    def __init__(self, loop: Loop) -> None:
        from pika.adapters import gevent_connection as adapter

        class HubConnection(Pulsing, adapter.GeventConnection):  # type: ignore[misc] # pika has no types
            pass

        self._adapter = adapter
        self._kind = HubConnection
        self._fail = loop.fail
        self._guard = loop.guard
        self._runtime = loop.runtime
        # Replaced as a whole, because a native thread looks at it.
        self._connections: list[Any] = []
        self._pulse: Pulse | None = None
        # Not the hub of this thread, which may be one of a pool: its hub runs only while a call waits in it.
        self._hub = loop.runtime.main_hub()
        self._hub_loop = self._hub.loop
        self._loop: Any = None

    @functools.cached_property
    def io(self) -> Any:
        """pika's services, one for all connections: each holds a pipe that pika never closes.

        Made at the first use, which is in the hub: only there may it be touched.
        """
        self._loop = self._adapter._GeventSelectorIOLoop(self._hub)
        return _guarded(self._adapter._GeventSelectorIOServicesAdapter(self._loop), self._guard)

    def connect(self, parameters: Any, callbacks: dict[str, Any]) -> Any:
        connection = self._kind(
            parameters, custom_ioloop=self.io, lock=self._runtime.native_lock(), on_failure=self._fail, **callbacks
        )
        self._connections = [*(each for each in self._connections if not each.is_closed), connection]
        if self._pulse is None:
            self._pulse = Pulse(
                self._runtime,
                lambda: [each for each in self._connections if each.is_open],
                lambda error: self._hub_loop.run_callback_threadsafe(self._fail, error),
            )
        return connection

    def wake(self, call: Callable[[], None]) -> None:
        self._hub_loop.run_callback_threadsafe(call)

    def end(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
        if self._loop is None:
            return
        queue = self._loop._callback_queue
        self._loop.remove_handler(queue._read_fd)
        for fd in (queue._read_fd, queue._write_fd):
            with contextlib.suppress(OSError):
                os.close(fd)

    def leave_to_parent(self) -> None:
        if self._loop is None:
            return
        watchers = self._loop._io_watchers_by_fd
        fds = [*watchers, self._loop._callback_queue._write_fd]
        for watcher in watchers.values():
            watcher.close()
        watchers.clear()
        _leave_files(fds)


class _ThreadPlace:
    """In pika's own loop, on a native thread of its own."""

    def __init__(self, loop: Loop) -> None:
        self._loop = IOLoop()
        self.io: Any = _guarded(SelectorIOServicesAdapter(self._loop), loop.guard)
        self._fail = loop.fail
        self._is_ended = False
        loop.runtime.start_native_thread(self._run, name="greenq-rabbitmq")

    def _run(self) -> None:
        while not self._is_ended:
            try:
                with pika_log.kept_back:
                    self._loop.start()
            except BaseException as error:
                # Of pika's loop itself, because all that it calls is guarded. It can start again.
                self._fail(error)
                time.sleep(_PAUSE_S)  # what fails each time must not spin; a native thread of its own
        self._loop.close()

    def connect(self, parameters: Any, callbacks: dict[str, Any]) -> Any:
        return ThreadConnection(parameters, custom_ioloop=self.io, on_failure=self._fail, **callbacks)

    def wake(self, call: Callable[[], None]) -> None:
        with pika_log.kept_back:
            self._loop.add_callback_threadsafe(call)

    def end(self) -> None:
        self._is_ended = True
        self._loop.stop()

    def leave_to_parent(self) -> None:
        # The thread is not in the child.
        _leave_files(list(self._loop._poller._fd_handlers))
