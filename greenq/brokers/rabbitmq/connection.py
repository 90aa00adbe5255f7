"""One connection to the server: opened when it is needed, on the first address that answers.

    Link        the connection; opens again after it was lost, when somebody needs it
    Call        one thing to ask of the server, on a channel that is made for it

Everything but ``ask`` and ``close`` is called in the loop (see loop.py) and answers by callbacks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pika
import pika.exceptions

from ...errors import BrokerUnusable, ConnectionClosed, ConnectionError, ConnectionFailed, QueueMismatch
from .loop import Answer, Loop
from .parameters import where, where_all

#: Seconds after which a server that does not answer counts as away.
TIMEOUT_S = 10.0


class Call(NamedTuple):
    """A method of pika's channel and its arguments."""

    method: str
    arguments: dict[str, Any]


class ChannelRefused(ConnectionFailed):
    """The server closed a channel because of what it was asked.

    Attributes:
      code(int): Of AMQP: 404 for what does not exist, 406 for what is different.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ArgumentMismatch(QueueMismatch):
    """A queue exists with another argument.

    Attributes:
      queue(str): Which.
      argument(str): Its name.
      found(str): What the server says of its value.
    """

    def __init__(self, message: str, queue: str, argument: str, found: str) -> None:
        super().__init__(message)
        self.queue = queue
        self.argument = argument
        self.found = found


class Link:
    """A connection.

    Parameters:
      loop(Loop): Where it lives.
      endpoints(list[pika.ConnectionParameters]): The servers, in the order in which to try them.
    """

    def __init__(self, loop: Loop, endpoints: Sequence[pika.ConnectionParameters]) -> None:
        self.loop = loop
        self._endpoints = endpoints
        #: The open connection; None while there is none.
        self.connection: Any = None
        #: Why the server takes no messages at the moment; None if it does.
        self.blocked_by: str | None = None
        #: Called in the loop with an error when an open connection was lost.
        self.on_lost: list[Callable[[ConnectionError], None]] = []
        #: Called in the loop when the server takes no messages for now; and when it does again.
        self.on_blocked: list[Callable[[], None]] = []
        self.on_unblocked: list[Callable[[], None]] = []
        self._waiting: list[tuple[Callable[[Any], None], Callable[[ConnectionError], None]]] = []
        self._opening: Any = None
        self._is_closed = False
        self._closed_callbacks: list[Callable[[], None]] = []
        #: Who waits for the answer to what is asked once for all, by the question.
        self._asking: dict[str, list[Answer]] = {}
        self._address = where_all(endpoints)
        loop.on_failure.append(self._give_up)

    @property
    def address(self) -> str:
        """The server that it is connected to, or all of them; for people."""
        return self._address

    # -- opening

    def ready(self, on_open: Callable[[Any], None], on_failed: Callable[[ConnectionError], None]) -> None:
        """Call one of these: with the open connection, or with the error if there is none."""
        if self._is_closed:
            on_failed(ConnectionClosed("The broker was closed"))
        # pika tells the channels of a lost connection before it tells _on_close: whoever asks for
        # another channel then, because this one is gone, needs the next connection.
        elif self.connection is not None and self.connection.is_open:
            on_open(self.connection)
        else:
            self._waiting.append((on_open, on_failed))
            if self._opening is None:
                self._try(0, [])

    def _try(self, number: int, errors: list[str], *, is_refused: bool = True) -> None:
        if self._is_closed:
            self._fail_waiting(ConnectionClosed("The broker was closed"))
            return
        if number >= len(self._endpoints):
            self._opening = None
            kind = BrokerUnusable if is_refused else ConnectionFailed
            text = "RabbitMQ refuses: " if is_refused else "RabbitMQ cannot be reached: "
            self._fail_waiting(kind(text + "; ".join(errors)))
            return
        endpoint = self._endpoints[number]

        def failed(connection: Any, error: BaseException) -> None:
            if connection is not self._opening:
                return  # given up
            self._opening = None
            refused = is_refused and _is_refusal(_root(error))
            self._try(number + 1, [*errors, f"{where(endpoint)}: {explain(error)}"], is_refused=refused)

        self._opening = self.loop.connect(
            endpoint,
            on_open_callback=self.loop.guard(lambda connection: self._on_open(connection, endpoint)),
            on_open_error_callback=self.loop.guard(failed),
            on_close_callback=self.loop.guard(self._on_close),
        )

    def _fail_waiting(self, error: ConnectionError) -> None:
        waiting, self._waiting = self._waiting, []
        for _, on_failed in waiting:
            self.loop.guard(on_failed)(error)

    def _on_open(self, connection: Any, endpoint: pika.ConnectionParameters) -> None:
        if self._is_closed or connection is not self._opening:
            connection.close()
            return
        self._opening = None
        self.connection = connection
        self._address = where(endpoint)
        self.blocked_by = None
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        waiting, self._waiting = self._waiting, []
        for on_open, on_failed in waiting:
            try:
                on_open(connection)
            except Exception as error:
                self.loop.fail(error)
                self.loop.guard(on_failed)(
                    ConnectionFailed(f"The connection to RabbitMQ at {where(endpoint)} could not be used: {error!r}")
                )

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked_by = frame.method.reason or "an alarm"
        for each in self.on_blocked:
            self.loop.guard(each)()

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked_by = None
        for each in self.on_unblocked:
            self.loop.guard(each)()

    def _on_close(self, connection: Any, error: BaseException) -> None:
        if connection is self.connection:
            self._lose(ConnectionClosed(f"The connection to RabbitMQ at {self._address} is lost: {explain(error)}"))
        callbacks, self._closed_callbacks = self._closed_callbacks, []
        for callback in callbacks:
            callback()

    def _lose(self, error: ConnectionError) -> None:
        self.connection = None
        self.blocked_by = None
        self._address = where_all(self._endpoints)
        for each in list(self.on_lost):
            self.loop.guard(each)(error)

    def _give_up(self, error: ConnectionError) -> None:
        """Let go of the connection, in whatever state it is, and tell all who wait for it."""
        connection, opening = self.connection, self._opening
        self._opening = None
        self._fail_waiting(ConnectionFailed(str(error)))
        if connection is not None:
            self._lose(error)
            if connection._transport is not None:
                connection._terminate_stream(pika.exceptions.StreamLostError(str(error)))
        if opening is not None and not opening.is_closed:
            opening.close()

    # -- asking

    def ask(self, calls: Sequence[Call], timeout_s: float = TIMEOUT_S) -> list[Any]:
        """Ask the server for these things, one after the other, on a channel made for them.

        Returns the frames it answered with.

        Raises:
          ChannelRefused: It refused one; those before it are done.
          QueueMismatch: A queue exists already with other arguments.
          ConnectionError: The server is away.

        Switches.
        """
        answers: list[Any] = self.loop.ask(
            lambda answer: self._begin(calls, answer.give, answer.fail), timeout_s, "answer"
        )
        return answers

    def ask_once(self, name: str, calls: Sequence[Call], timeout_s: float = TIMEOUT_S) -> None:
        """The same, but whoever asks for this name meanwhile waits for the same answer.

        A connection has 2047 channels, and thousands may send first messages at once. Switches.
        """
        self.loop.ask(lambda answer: self._join(name, calls, answer), timeout_s, "answer")

    def _join(self, name: str, calls: Sequence[Call], answer: Answer) -> None:
        waiting = self._asking.get(name)
        if waiting is not None:
            waiting.append(answer)
            return
        self._asking[name] = [answer]

        def give(frames: list[Any]) -> None:
            with self.loop.together():
                for each in self._asking.pop(name, ()):
                    each.give(frames)

        def fail(error: BaseException) -> None:
            with self.loop.together():
                for each in self._asking.pop(name, ()):
                    each.fail(error)

        try:
            self._begin(calls, give, fail)
        except Exception as error:
            fail(error)

    def _begin(
        self, calls: Sequence[Call], give: Callable[[list[Any]], None], fail: Callable[[ConnectionError], None]
    ) -> None:
        # The channel ends after each answer, too; whose question it was may be asked anew by then.
        is_over = False

        def on_open(connection: Any) -> None:
            try:
                channel = connection.channel(on_open_callback=lambda channel: go_on(channel, []))
            except pika.exceptions.NoFreeChannels:
                fail(ConnectionFailed(f"All channels of the connection to RabbitMQ at {self._address} are in use"))
            else:
                channel.add_on_close_callback(self.loop.guard(on_close))

        def on_close(_channel: Any, error: BaseException) -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                fail(refusal(error, self._address))

        def go_on(channel: Any, frames: list[Any]) -> None:
            nonlocal is_over
            if len(frames) == len(calls):
                is_over = True
                give(frames)
                channel.close()
                return
            method, arguments = calls[len(frames)]
            getattr(channel, method)(**arguments, callback=lambda frame: go_on(channel, [*frames, frame]))

        self.ready(on_open, fail)

    def close(self) -> None:
        """Close it in good order, after all that was written. Switches."""

        def begin(answer: Answer) -> None:
            self._is_closed = True
            opening, self._opening = self._opening, None
            self._fail_waiting(ConnectionClosed("The broker was closed"))
            if opening is not None and not opening.is_closed:
                opening.close()
            if self.connection is None:
                answer.give()
                return
            self._closed_callbacks.append(answer.give)
            if self.connection.is_open:
                self.connection.close()

        try:
            self.loop.ask(begin, TIMEOUT_S / 2, "close the connection")
        except ConnectionError:
            with contextlib.suppress(ConnectionClosed):
                self.loop.soon(self._abort)

    def _abort(self) -> None:
        if self.connection is not None and self.connection._transport is not None:
            self.connection._transport.abort()


# -- what errors mean


#: AMQP's code for a user or a password that is wrong. RabbitMQ says so to clients that ask for it
#: (authentication_failure_close), as pika does; it closes without a word to others.
_ACCESS_REFUSED = 403

#: AMQP's code for a virtual host that does not exist, or is not for this user, and for one that has
#: enough connections. One that is not up yet has another.
_NOT_ALLOWED = 530
_LIMIT = re.compile(r"limit \(\d+\) is reached")

#: pika's errors for a connection that ended before it was open, by how far it had come. What they
#: guess the reason to be is as good as the word of the server that they contain, if any: one that
#: is just starting or stopping, and a proxy with nobody behind it, close without one.
_WHILE_OPENING = (
    pika.exceptions.IncompatibleProtocolError,
    pika.exceptions.ProbableAuthenticationError,
    pika.exceptions.ProbableAccessDeniedError,
)
_WORD_OF_THE_SERVER = re.compile(r"ConnectionClosedByBroker: \((\d+)\) (['\"])(.*)\2", re.S)


def _word_of(error: BaseException | None) -> tuple[int, str]:
    """The code and the text with which the server ended a connection while it opened; 0 if it said nothing."""
    said = _WORD_OF_THE_SERVER.match(str(error))
    return (int(said[1]), said[3]) if said else (0, "")


def _is_refusal(error: BaseException | None) -> bool:
    """Whether the server is there and says no, so that waiting for it would not help."""
    if not isinstance(error, _WHILE_OPENING):
        return False
    code, text = _word_of(error)
    return code == _ACCESS_REFUSED or (code == _NOT_ALLOWED and not _LIMIT.search(text))


def _root(error: BaseException | None) -> BaseException | None:
    """What an error of pika's is about, out of those that it is wrapped in."""
    while True:
        inner: Any = error.args[0] if isinstance(error, pika.exceptions.AMQPConnectionError) and error.args else None
        if not isinstance(inner, BaseException):
            inner = getattr(error, "exception", None)
        several = getattr(error, "exceptions", None)  # of a connection workflow: one for each address
        if several:
            inner = several[-1]
        if not isinstance(inner, BaseException):
            return error
        error = inner


def explain(error: BaseException | None) -> str:
    """An error of pika's in a few words. Contains no password."""
    error = _root(error)
    if isinstance(error, pika.exceptions.ConnectionClosed):
        return f"{error.reply_text} ({error.reply_code})"
    if isinstance(error, _WHILE_OPENING):
        code, text = _word_of(error)
        if not code:
            return (
                "the connection was closed while it opened, without a word why: the server may be starting or stopping"
            )
        if not _is_refusal(error):
            return f"{text} ({code})"
        if code == _ACCESS_REFUSED:
            return "it does not accept the user or the password"
        return "there is no such virtual host, or the user may not use it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


_DIFFERENT = re.compile(r"inequivalent arg '([^']+)' for queue '([^']+)' in vhost '[^']*': (.*)", re.S)


def refusal(error: BaseException, address: str) -> ConnectionError:
    """What the end of a channel means for who asked for something on it."""
    if not isinstance(error, pika.exceptions.ChannelClosedByBroker):
        return ConnectionClosed(f"The connection to RabbitMQ at {address} is lost: {explain(error)}")
    different = _DIFFERENT.search(error.reply_text)
    if different:
        argument, queue, values = different.groups()
        return ArgumentMismatch(
            f"Queue {queue!r} exists on RabbitMQ at {address} with another {argument}: {values}. Give the broker the "
            "arguments that the queue was made with, or delete the queue once it is empty.",
            *(queue, argument, values),
        )
    return ChannelRefused(f"RabbitMQ at {address} refused: {error.reply_text}", error.reply_code)
