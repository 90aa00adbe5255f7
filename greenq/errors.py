"""Every exception greenq raises, in one tree.

    Exception
    +-- GreenqError
    |   +-- DecodeError                 bytes that are no message
    |   +-- HubBlocked                  a job kept all others waiting, in a test suite
    |   +-- LaneDied                    the process of a job with lane="process" ended in the midst of it
    |   +-- MessageTooLarge             too many bytes, or nested too deeply
    |   +-- QueueJoinTimeout
    |   +-- RateLimitExceeded
    |   +-- RateLimiterBusy             too many changed the same limit at once
    |   +-- Retry                       raised by an actor that wants another try
    |   +-- BrokerError
    |   |   +-- ActorNotFound
    |   |   +-- QueueNotFound
    |   |   +-- ConnectionError         also named BrokerConnectionError
    |   |       +-- ConnectionClosed    a connection broke while it was in use
    |   |       +-- ConnectionFailed    a connection could not be opened
    |   |       |   +-- BrokerUnusable  and trying again would not help
    |   |       |       +-- QueueMismatch   a queue exists with other arguments
    |   |       +-- EnqueueManyFailed   some of many messages were stored
    |   |       +-- StorageError        the embedded broker's file failed
    |   +-- ResultError
    |       +-- ResultMissing
    |       +-- ResultTimeout
    |       +-- ResultFailure
    +-- MiddlewareError                 raised by a hook to veto what is under way
        +-- SkipMessage

    BaseException
    +-- Interrupt                       raised inside a running actor from outside
        +-- TimeLimitExceeded
        +-- Shutdown

Imports nothing of greenq (but for types), so that every room may import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .message import Message

__all__ = [
    "ActorNotFound",
    "BrokerConnectionError",
    "BrokerError",
    "BrokerUnusable",
    "ConnectionClosed",
    "ConnectionError",
    "ConnectionFailed",
    "DecodeError",
    "DramatiqError",
    "EnqueueManyFailed",
    "GreenqError",
    "HubBlocked",
    "Interrupt",
    "LaneDied",
    "MessageTooLarge",
    "MiddlewareError",
    "QueueJoinTimeout",
    "QueueMismatch",
    "QueueNotFound",
    "RateLimitExceeded",
    "RateLimiterBusy",
    "ResultError",
    "ResultFailure",
    "ResultMissing",
    "ResultTimeout",
    "Retry",
    "Shutdown",
    "SkipMessage",
    "StorageError",
    "TimeLimitExceeded",
]


class GreenqError(Exception):
    """Base class of greenq's errors.

    Parameters:
      message(str): What happened, to what, and what to do next.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return str(self.message) or repr(self.message)


#: What Dramatiq calls it, for modules that `import greenq as dramatiq`.
DramatiqError = GreenqError


class DecodeError(GreenqError):
    """Bytes could not be read as a message.

    Attributes:
      data(bytes): The bytes as they came.
      error(BaseException | None): The cause.
    """

    def __init__(self, message: str, data: Any, error: BaseException | None) -> None:
        super().__init__(message)
        self.data = data
        self.error = error


class LaneDied(GreenqError):
    """The process in which a job of an actor with ``lane="process"`` ran has ended, or could not start.

    Attributes:
      signal(int | None): The number of the signal that killed it, if one did.
      exit_code(int | None): With which it ended, if it did so by itself.
    """

    def __init__(self, message: str, signal: int | None = None, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.signal, self.exit_code)


class HubBlocked(GreenqError):
    """A job kept the CPU for longer than ``--block-warn`` allows, while GREENQ_BLOCK_ERROR is set."""


class MessageTooLarge(GreenqError):
    """A message is larger, or nested more deeply, than brokers accept."""


class QueueJoinTimeout(GreenqError):
    """A queue did not become empty in the time given to ``join``."""


class RateLimitExceeded(GreenqError):
    """A rate limiter refused."""


class RateLimiterBusy(GreenqError):
    """So many changed the same limit at the same time that one did not come to it; nothing was done."""


class Retry(GreenqError):
    """Raised by an actor that wants to be run again; not logged as an error.

    Parameters:
      message(str): Why. Default: empty.
      delay(int): Milliseconds until the next attempt. Default: the usual backoff.
    """

    def __init__(self, message: str = "", delay: int | None = None) -> None:
        super().__init__(message)
        self.delay = delay


class BrokerError(GreenqError):
    """Base class of what a broker may raise."""


class ActorNotFound(BrokerError):
    """No actor of that name is declared on the broker."""


class QueueNotFound(BrokerError):
    """No queue of that name is declared on the broker."""


class ConnectionError(BrokerError):
    """Base class of troubles with the connection to a broker, or to another server or file."""


#: The later name of the same class; both are part of the reference.
BrokerConnectionError = ConnectionError


class ConnectionClosed(ConnectionError):
    """A connection broke while it was in use."""


class ConnectionFailed(ConnectionError):
    """A connection could not be opened."""


class BrokerUnusable(ConnectionFailed):
    """A connection could not be opened, and trying again would not help.

    The broker is there, but refuses this password, is too old, is something else... Somebody
    has to change that: `greenq-worker` does not wait for it.
    """


class QueueMismatch(BrokerUnusable):
    """A queue exists on the server with other arguments than the broker was given."""


class EnqueueManyFailed(ConnectionError):
    """The connection failed while many messages were enqueued.

    Attributes:
      enqueued(list[Message]): Those that are stored.
      in_doubt(list[Message]): Those that may be stored or not: enqueueing them again can run
        them twice.
      not_enqueued(list[Message]): Those that are not stored.
    """

    def __init__(
        self, message: str, enqueued: list[Message[Any]], in_doubt: list[Message[Any]], not_enqueued: list[Message[Any]]
    ) -> None:
        super().__init__(message)
        self.enqueued = enqueued
        self.in_doubt = in_doubt
        self.not_enqueued = not_enqueued


class StorageError(ConnectionError):
    """A file, of the embedded broker or of a backend, could not be read or written."""


class ResultError(GreenqError):
    """Base class of what reading a result may raise."""


class ResultMissing(ResultError):
    """There is no result yet, or not any more."""


class ResultTimeout(ResultError):
    """No result came in the time given."""


class ResultFailure(ResultError):
    """The result is a failure: the actor raised.

    Attributes:
      orig_exc_type(str): Class name of the exception that the actor raised.
      orig_exc_msg(str): Its text.
      message_id(str | None): Of the message whose result was asked for.
    """

    def __init__(
        self, message: str = "", orig_exc_type: str = "", orig_exc_msg: str = "", message_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.orig_exc_type = orig_exc_type
        self.orig_exc_msg = orig_exc_msg
        self.message_id = message_id


class MiddlewareError(Exception):
    """Raised by a before-hook to refuse what is under way (an enqueue, a message)."""


class SkipMessage(MiddlewareError):
    """Raised by a ``before_process_message`` hook: the actor does not run."""


class Interrupt(BaseException):
    """Base class of what is raised inside a running actor from outside.

    Not an Exception, so that ``except Exception`` in an actor does not swallow it.
    """


class TimeLimitExceeded(Interrupt):
    """The actor ran longer than its time limit."""


class Shutdown(Interrupt):
    """The worker is stopping."""


def describe(exception: BaseException) -> str:
    """An exception's type and text, 500 characters at most. Never raises."""
    return f"{type(exception).__name__}: {text_of(exception)}"[:500]


def text_of(exception: BaseException) -> str:
    """An exception's text. Never raises."""
    try:
        return str(exception)
    except Exception as error:  # of the application's own class; it must not cost the message
        return f"its text cannot be read: {type(error).__name__}"
