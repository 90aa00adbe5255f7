"""Answers who asks a supervisor what runs: `greenq top`, the health page, and USR1 by way of the log.

    client --control socket--> here --control pipes--> workers
                                 <--report pipes---

An ask goes to every worker that is ready; what they answer is passed on as it comes, until all have
answered or the time is over: a worker that does not answer is one whose hub does not turn. The time begins
anew with each part of an answer, so it need not be longer for many jobs. Which job has the CPU of a worker
is seen in its page, and while somebody wants to know, it is looked at again and again. All of it happens in
the supervisor's loop, which never waits: who does not read, or says nothing, is dropped.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..json_lines import encode
from ..logging import get_logger
from .child import Child

#: Who may ask at the same time, and the seconds in which each has to say what, and to take what it is sent.
_MOST_CLIENTS = 16
_CLIENT_PATIENCE_S = 5.0

#: Errors of a process, and of a system, that has no descriptors left; and seconds after which it is tried again.
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_ACCEPT_AGAIN_S = 1.0

#: Bytes of a request, and of the answers that are kept for a client that reads slowly: of 100,000 jobs.
_LONGEST_REQUEST, _MOST_UNREAD = 65_536, 64 << 20

#: Bytes of a message id that is asked for, as JSON, so that a command is less than a pipe takes whole or not at
#: all (PIPE_BUF): what is left of half of one is told later, and holds up what is to be told after it.
_LONGEST_ID = 2000

#: Seconds in which workers have to answer, by default and at most.
_TIMEOUT_S, _LONGEST_TIMEOUT_S = 5.0, 30.0

#: Seconds between two looks at which jobs have the CPU, and for how long that can be wanted.
_SAMPLE_EVERY_S, _LONGEST_SAMPLE_S = 0.005, 2.0
#: How many of a worker's jobs are named that had it.
_MOST_ON_CPU = 100

#: What is asked, as which command of a worker.
_COMMANDS = {"jobs": "jobs", "stack": "stack", "health": "ping"}


class _Request(NamedTuple):
    """What a client wants to know.

    Attributes:
      what(str): One of _COMMANDS.
      command(dict): For the workers.
      timeout_s(float): Seconds that they have.
      sample_s(float): For how long it is looked at who has the CPU.
    """

    what: str
    command: dict[str, Any]
    timeout_s: float
    sample_s: float


class _Client:
    """A connection. One request, one answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.request = b""
        self.unread = bytearray()
        self.asked = False
        self.is_heard_out = False  # it will say no more, and may still read
        self.is_answered = False
        self.drop_at = time.monotonic() + _CLIENT_PATIENCE_S


class _Ask:
    """A question that workers were asked.

    Parameters:
      asked(Iterable[Child]): Who was.
      timeout_s(float): Seconds for which all that are waited for may be silent.
      on_answer(Callable[[Child, Mapping], None]): Called with each part of an answer.
      on_end(Callable[[_Ask], None]): Called when all have answered, or the time is over.
      sample_s(float): For how long it is looked at who has the CPU.

    Attributes:
      waits_for(dict[int, Child]): Who has not answered yet, by pid.
      samples(dict[int, Counter[str]]): How often which message had the CPU, by the pid of the worker.
    """

    def __init__(
        self,
        asked: Iterable[Child],
        timeout_s: float,
        on_answer: Callable[[Child, Mapping[str, Any]], None],
        on_end: Callable[[_Ask], None],
        sample_s: float,
    ) -> None:
        now = time.monotonic()
        self.asked = list(asked)
        self.waits_for = {child.pid: child for child in self.asked}
        self.samples: dict[int, Counter[str]] = {child.pid: Counter() for child in self.asked}
        self.on_answer = on_answer
        self.on_end = on_end
        self._timeout_s = timeout_s
        self._ends_at = now + timeout_s
        self._ends_at_last = now + _LONGEST_TIMEOUT_S
        self._sampled_at = now + sample_s
        self._sample_at = now if sample_s > 0 else self._sampled_at

    def go_on(self) -> None:
        """Note that a part of an answer has come, and others follow."""
        self._ends_at = min(time.monotonic() + self._timeout_s, self._ends_at_last)

    def is_over(self) -> bool:
        """Whether it is answered, or the time is over."""
        now = time.monotonic()
        return now >= self._ends_at or (not self.waits_for and now >= self._sampled_at)

    def next_due(self) -> float:
        """Monotonic seconds at which there is something to do."""
        now = time.monotonic()
        return self._sample_at if now < self._sampled_at else self._ends_at

    def sample(self) -> None:
        """See who has the CPU, if it is time."""
        now = time.monotonic()
        if now >= self._sampled_at or now < self._sample_at:
            return
        self._sample_at = min(now + _SAMPLE_EVERY_S, self._sampled_at)
        for child in self.asked:
            if child.page is not None and child.page.turns:  # else it shows nothing
                self.samples[child.pid][child.page.message_on_cpu] += 1


class Control:
    """The supervisor's side of its control socket.

    Parameters:
      listener(socket.socket | None): Which listens and never blocks. None: only the supervisor itself asks.
      selector(BaseSelector): Of the supervisor's loop, which calls the ``data`` of what is registered here.
      workers(Callable[[], Iterable[Child]]): All worker processes that live.
      facts(Callable[[], Mapping]): What the supervisor says of itself in the answer about health.
    """

    def __init__(
        self,
        listener: socket.socket | None,
        selector: selectors.BaseSelector,
        workers: Callable[[], Iterable[Child]],
        facts: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.logger = get_logger("greenq", "MainProcess")
        self._listener = listener
        self._selector = selector
        self._workers = workers
        self._facts = facts
        self._clients: set[_Client] = set()
        self._asks: dict[int, _Ask] = {}
        self._last_ask = 0
        #: When connections are taken again, in monotonic seconds; None if they are.
        self._accept_at: float | None = None
        self._listen()

    def close(self) -> None:
        """Let everybody go."""
        for client in list(self._clients):
            self._drop(client)

    # -- clients

    def _listen(self) -> None:
        self._accept_at = None
        if self._listener is not None:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self, events: int) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                # Who asks goes on waiting here, and would wake the loop at once again, without end.
                self._selector.unregister(self._listener)
                self._accept_at = time.monotonic() + _ACCEPT_AGAIN_S
            return  # else it has gone away again
        if len(self._clients) >= _MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.add(client)
        self._wait_for(client, selectors.EVENT_READ)

    def _wait_for(self, client: _Client, events: int) -> None:
        """Have the loop serve this client at these events; 0 for none."""
        key = self._selector.get_map().get(client.connection)
        if key is not None and key.events == events:
            return
        if key is not None:
            self._selector.unregister(client.connection)
        if events:
            self._selector.register(client.connection, events, lambda happened: self._serve(client, happened))

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._read(client)
            if client in self._clients:
                self._send(client)
        except OSError:
            self._drop(client)

    def _read(self, client: _Client) -> None:
        try:
            data = client.connection.recv(65_536)
        except BlockingIOError:
            return
        if not data:
            client.is_heard_out = True
            if not client.asked or _is_gone(client.connection):
                self._drop(client)
            return
        if client.asked:
            return  # nobody listens to more
        client.request += data
        line, newline, _ = client.request.partition(b"\n")
        if newline:
            client.asked = True
            self._answer(client, line)
        elif len(client.request) > _LONGEST_REQUEST:
            self._drop(client)

    def _say(self, client: _Client, document: Mapping[str, Any]) -> None:
        """Send this to a client that may have gone. Does not wait."""
        if client not in self._clients:
            return
        if not client.unread:
            client.drop_at = time.monotonic() + _CLIENT_PATIENCE_S
        client.unread += encode(dict(document))
        client.is_answered = client.is_answered or bool(document.get("end"))
        if len(client.unread) > _MOST_UNREAD:
            self._drop(client)
            return
        try:
            self._send(client)
        except OSError:
            self._drop(client)

    def _send(self, client: _Client) -> None:
        with contextlib.suppress(BlockingIOError):
            while client.unread:
                sent = client.connection.send(client.unread[: 1 << 18])
                del client.unread[:sent]
                client.drop_at = time.monotonic() + _CLIENT_PATIENCE_S
        if not client.unread and client.is_answered:
            self._drop(client)
            return
        self._wait_for(
            client,
            (0 if client.is_heard_out else selectors.EVENT_READ) | (selectors.EVENT_WRITE if client.unread else 0),
        )

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._wait_for(client, 0)
            client.connection.close()

    # -- requests

    def _answer(self, client: _Client, line: bytes) -> None:
        try:
            request = _understood(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            self._say(client, {"end": True, "error": f"A request is one of {', '.join(_COMMANDS)}, as JSON."})
            return

        def pass_on(child: Child, report: Mapping[str, Any]) -> None:
            answer = {name: report[name] for name in ("jobs", "of", "frames") if name in report}
            if answer:
                self._say(client, {**answer, "worker": child.number, "pid": child.pid})

        def end(ask: _Ask) -> None:
            self._say(client, {"end": True, **(self._health(ask) if request.what == "health" else _summary(ask))})

        self.ask(request.command, request.timeout_s, pass_on, end, sample_s=request.sample_s)

    def _health(self, ask: _Ask) -> dict[str, Any]:
        workers = []
        for child in self._workers():
            workers.append(
                {
                    "worker": child.number,
                    "pid": child.pid,
                    "state": child.state,
                    "answers": None if child not in ask.asked else child.pid not in ask.waits_for,
                    "consuming": child.is_consuming,
                    "on_cpu": _on_cpu(child),
                }
            )
        return {**self._facts(), "workers": sorted(workers, key=lambda each: (each["worker"], each["pid"]))}

    # -- asking workers

    def ask(
        self,
        command: Mapping[str, Any],
        timeout_s: float,
        on_answer: Callable[[Child, Mapping[str, Any]], None],
        on_end: Callable[[_Ask], None],
        *,
        sample_s: float = 0.0,
    ) -> None:
        """Ask all workers that are ready. See _Ask for the calls."""
        self._last_ask += 1
        ready = [child for child in self._workers() if child.ready_at is not None]
        ask = _Ask(ready, timeout_s, on_answer, on_end, sample_s)
        self._asks[self._last_ask] = ask
        for child in ready:
            child.ask({**command, "ask": self._last_ask})  # one that cannot be told will not answer
        self._end_if_over(self._last_ask)

    def note(self, child: Child, report: Mapping[str, Any]) -> None:
        """A worker has answered, or a part of it."""
        number = report.get("ask")
        ask = self._asks.get(number) if isinstance(number, int) else None
        if ask is None or child.pid not in ask.waits_for:
            return  # the time was over
        ask.on_answer(child, report)
        if report.get("is_last"):
            self._has_answered(child, number)
        else:
            ask.go_on()

    def forget(self, child: Child) -> None:
        """A worker has died: wait for it no longer."""
        for number in list(self._asks):
            self._has_answered(child, number)

    def _has_answered(self, child: Child, number: Any) -> None:
        self._asks[number].waits_for.pop(child.pid, None)
        self._end_if_over(number)

    def _end_if_over(self, number: int) -> None:
        ask = self._asks[number]
        if ask.is_over():
            del self._asks[number]
            ask.on_end(ask)

    # -- USR1

    def dump(self) -> None:
        """Have each worker log what it runs, with stacks; log who does not answer."""

        def end(ask: _Ask) -> None:
            for child in ask.waits_for.values():
                on_cpu = _on_cpu(child)
                self.logger.warning(
                    "%s does not answer, so what it runs is not logged: its hub has not turned for %g s.%s",
                    child,
                    _TIMEOUT_S,
                    f" Message {on_cpu} has its CPU." if on_cpu else "",
                )

        self.logger.info("SIGUSR1: the workers log their jobs in flight.")
        self.ask({"command": "dump"}, _TIMEOUT_S, lambda child, report: None, end)

    # -- time

    def next_due(self) -> list[float]:
        """Monotonic seconds at which there is something to do."""
        due = [ask.next_due() for ask in self._asks.values()]
        due += [client.drop_at for client in self._clients if client.unread or not client.asked]
        return due if self._accept_at is None else [*due, self._accept_at]

    def do_what_is_due(self) -> None:
        """End asks whose time is over; drop clients that do not speak, or do not read; listen again."""
        now = time.monotonic()
        if self._accept_at is not None and self._accept_at <= now:
            self._listen()
        for number, ask in list(self._asks.items()):
            ask.sample()
            self._end_if_over(number)
        for client in list(self._clients):
            if client.drop_at <= now and (client.unread or not client.asked):
                self._drop(client)


def _understood(line: bytes) -> _Request:
    """What this line asks for.

    Raises:
      ValueError, KeyError, TypeError, RecursionError: It asks for nothing that is known.
    """
    request = json.loads(line)
    what = request["request"]
    command = {"command": _COMMANDS[what]}
    if what == "stack":
        command["message_id"] = request["message_id"]
        if not isinstance(request["message_id"], str) or len(json.dumps(request["message_id"])) > _LONGEST_ID:
            raise ValueError("no id of a message")
    return _Request(
        what,
        command,
        _seconds(request.get("timeout_ms", _TIMEOUT_S * 1000), _LONGEST_TIMEOUT_S),
        _seconds(request.get("sample_ms", 0), _LONGEST_SAMPLE_S),
    )


def _seconds(ms: Any, most_s: float) -> float:
    """Milliseconds that somebody said as seconds; no more than so many."""
    if not ms >= 0:  # nor does JSON's NaN pass, with which nothing would ever be due
        raise ValueError("no time")
    return float(min(ms, most_s * 1000)) / 1000  # before it is divided: an integer may be too large for that


def _is_gone(connection: socket.socket) -> bool:
    """Whether the other side has not only said all, but gone."""
    poll = select.poll()
    poll.register(connection, 0)  # of a hangup alone, which is told always
    return bool(poll.poll(0))


def _on_cpu(child: Child) -> str | None:
    """The message whose job has this worker's CPU; None if none has, or it shows nothing."""
    return (child.page.message_on_cpu or None) if child.page is not None else None


def _summary(ask: _Ask) -> dict[str, Any]:
    return {
        "workers": len(ask.asked),
        "silent": [
            {"worker": child.number, "pid": child.pid, "on_cpu": _on_cpu(child)} for child in ask.waits_for.values()
        ],
        "cpu": [
            {
                "pid": pid,
                "looks": samples.total(),
                "seen": {name: count for name, count in samples.most_common(_MOST_ON_CPU) if name},
            }
            for pid, samples in ask.samples.items()
        ],
    }
