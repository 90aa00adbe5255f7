"""What a broker hands out: consumers, and messages as they were handed out.

Knows messages and verdicts. Does not know how messages are stored, nor the other side,
which enqueues: see broker.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import describe
from .message import Message
from .names import canonical_queue_name
from .verdict import ACK, NACK, REQUEUE, Verdict

if TYPE_CHECKING:
    from .failures import Failure


class Consumer:
    """Hands out the messages of one queue and takes back what became of them.

    A consumer written to the API reference implements ``__next__``, ``ack``, ``nack``,
    ``requeue`` and ``close``. One that can do better overrides ``wait``, ``fetch`` and
    ``complete``: they are what the worker calls.

    Made by ``broker.consume()``. One consumer is for one thread or greenlet.
    """

    #: The most messages that one fetch is asked for.
    batch_size: ClassVar[int] = 1

    #: Whether ``complete`` stores a verdict's follow-ups in the same step. Where it does
    #: not, they are enqueued before the verdict is handed over.
    writes_follow_ups: ClassVar[bool] = False

    #: What ``wait`` has taken itself, because it can wait in no other way or is quicker so; None
    #: if nothing. The next ``fetch`` returns it.
    taken_by_wait: MessageProxy | None = None

    def __iter__(self) -> Iterator[MessageProxy | None]:
        """The consumer itself. It never ends: it gives None when nothing came in time."""
        return self

    def __next__(self) -> MessageProxy | None:
        """The next message, or None if none came within the consumer's timeout. May switch.

        Raises:
          ConnectionError: The broker is away.
        """
        raise NotImplementedError

    def ack(self, message: MessageProxy) -> None:
        """Remove a message that has been processed. May switch.

        Parameters:
          message(MessageProxy): As this consumer handed it out.

        Raises:
          ConnectionError: It is not known to be removed; try again.
        """
        raise NotImplementedError

    def nack(self, message: MessageProxy) -> None:
        """Move a message to the dead letters. May switch. Raises like ``ack``.

        Parameters:
          message(MessageProxy): As this consumer handed it out.
        """
        raise NotImplementedError

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Return unacknowledged messages to the queue. May switch. Raises like ``ack``. Default: nothing is done.

        Parameters:
          messages(Iterable[MessageProxy]): As this consumer handed them out.
        """

    def close(self) -> None:
        """Let go of what the consumer uses. May switch."""

    # -- in batches

    def wait(self) -> bool:
        """Wait, holding nothing, until there may be something to fetch.

        Returns False if the consumer's timeout passed, or ``wake`` was called. May switch.
        """
        # A consumer of the reference can only wait by taking: it keeps that one message. To
        # wait in fetch() would hold a slot, and idle queues would hold all of them.
        if self.taken_by_wait is None:
            self.taken_by_wait = next(self)
        return self.taken_by_wait is not None

    def wake(self) -> None:
        """End a ``wait`` that is under way. May be called from any thread."""

    def rest(self) -> None:
        """Reserve nothing until the next ``wait``: return what came ahead, end what is under way.

        Called when nothing will be fetched for a while: at a pause, and at a stop, when jobs may
        still run for long. Brokers that send nothing ahead do nothing here. May switch.
        """

    def fetch(self, count: int) -> list[MessageProxy]:
        """Fetch up to ``count`` messages, without waiting where the broker can tell.

        Bytes that are no message come as an Undecodable. A message that comes failed, because the
        broker has given it up, is not run: it is moved to the dead letters, as every failed one is,
        with what follows from its death. May switch.
        """
        message = self.hand_over_taken()
        return [] if message is None else [message]

    def hand_over_taken(self) -> MessageProxy | None:
        """What ``wait`` has taken, which is the caller's now: to be run, or to be returned. None if nothing."""
        message, self.taken_by_wait = self.taken_by_wait, None
        return message

    def complete(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        """Write what became of these messages; return the verdicts that were refused.

        A verdict is refused if the broker has given the message to somebody else in the
        meantime. A verdict that was already written may be written again.

        Raises:
          ConnectionError: Nothing is known of any of them; try again.

        May switch.
        """
        requeued = []
        for verdict in verdicts:
            if verdict.action is ACK:
                self.ack(verdict.message)
            elif verdict.action is NACK:
                self.nack(verdict.message)
            else:
                requeued.append(verdict.message)
        if requeued:
            self.requeue(requeued)
        return ()

    def unwritten(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict] | None:
        """Of verdicts for which ``complete`` raised a ConnectionError, those that are still to be written.

        None, the default: nobody knows, and no others should be written meanwhile. Who answers
        has the others of them count as written, and is given new verdicts between two tries.
        """
        return None


class BatchConsumer(Consumer):
    """Base class of consumers that do everything in batches: wait, fetch and complete.

    The one-by-one calls of the API are made of these. Such a consumer's ``complete`` writes
    follow-ups in the same step.
    """

    writes_follow_ups: ClassVar[bool] = True

    #: Whether ``wait`` may take a message itself, if that is quicker than to fetch it. Set by
    #: whoever has room for one; the next ``fetch`` returns it.
    claims_ahead: bool = False

    def __next__(self) -> MessageProxy | None:
        """The next message; None if none came in time, or ``wake`` was called. May switch."""
        # Again and again, because another consumer may be quicker.
        while self.wait():
            messages = self.fetch(1)
            if messages:
                return messages[0]
        return None

    def wait(self) -> bool:
        raise NotImplementedError

    def fetch(self, count: int) -> list[MessageProxy]:
        raise NotImplementedError

    def complete(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        raise NotImplementedError

    def ack(self, message: MessageProxy) -> None:
        """Remove a message that has been processed. May switch."""
        self.complete([Verdict(ACK, message)])

    def nack(self, message: MessageProxy) -> None:
        """Move a message to the dead letters. May switch."""
        self.complete([Verdict(NACK, message)])

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Return messages to their places in the queue. May switch."""
        self.complete([Verdict(REQUEUE, message) for message in messages])


class MessageProxy:
    """A message as a consumer handed it out. Unknown attributes are the message's own.

    Parameters:
      message(Message): The message.

    Attributes:
      failed(bool): Whether it is to be moved to the dead letters.
      deliveries(int): How often it was taken back from a worker that was lost; 0 where the broker does
        not tell.
      charges(int): How often there was evidence that its run was what ended the worker.
      is_suspect(bool): Whether it is to run alone, because it may end its worker; see suspicion.py.
    """

    #: Milliseconds that the actor may run; None for no limit. Set by TimeLimit.
    time_limit_ms: float | None = None
    #: Milliseconds after which a warning tells that it still runs; None for never. Set by TimeLimit.
    soft_time_limit_ms: float | None = None
    #: Whether the actor is told when its worker stops. Set by ShutdownNotifications.
    notify_shutdown: bool = False
    #: Why the message failed, if a middleware said so.
    reason: str | None = None
    # The worker's notes: whether a verdict on it has been handed over, and whether its
    # actor was cut short because the worker stops.
    _is_settled: bool = False
    _is_interrupted: bool = False
    # Whether its actor ran and returned; it may have been failed after that all the same.
    _has_succeeded: bool = False
    # Whether a hook could not do its part, so that all of it is to be done again.
    _is_given_back: bool = False
    # What is to be done once an ack or nack of it is written. No hook, which would be called for all.
    _closings: list[Callable[[], object]] | None = None
    # Of GroupCallbacks: the frames of the groups of which it was the last to succeed, the inner ones last.
    _completed: list[dict[str, Any]] | None = None
    # Who handed it out.
    _consumer: Consumer | None = None
    # Of Prometheus: where this run is counted, and when it began on the monotonic clock.
    _counting: tuple[memoryview[float], float] | None = None
    # When its job began on the monotonic clock, and how far it says that it has come: of how much.
    _began_at: float = 0.0
    _progress: tuple[float, float | None] | None = None

    #: How often it was taken back from a worker that was lost, where the broker tells.
    deliveries: int = 0
    #: How often there was evidence that its run was what ended the worker; see suspicion.py.
    charges: int = 0
    #: Whether it is to run alone.
    is_suspect: bool = False

    # On the class, because most messages keep most of these defaults, and a proxy is made
    # for every message.
    failed: bool = False
    _exception: BaseException | None = None
    _failure: Failure | None = None
    _released: int | None = None
    _follow_ups: list[tuple[Message[Any], int | None, bool]] | None = None

    if TYPE_CHECKING:
        # The message's own, see __getattr__.
        queue_name: str
        actor_name: str
        args: tuple[Any, ...]
        kwargs: dict[str, Any]
        options: dict[str, Any]
        message_id: str
        message_timestamp: int

    def __init__(self, message: Message[Any]) -> None:
        self._message = message

    @property
    def message(self) -> Message[Any]:
        """The message itself."""
        return self._message

    def fail(self, reason: str | None = None) -> None:
        """Mark the message for the dead letters.

        Parameters:
          reason(str): For whoever reads them. Default: the exception's type and text.
        """
        self.failed = True
        if reason is not None:
            self.reason = reason

    def release(self, delay: int, options: dict[str, Any] | None = None) -> None:
        """Ask for another attempt instead of an ack: the message is replaced by itself.

        Parameters:
          delay(int): Milliseconds until then.
          options(dict): Message options to set on it.
        """
        self._message.options.update(options or {})
        self._released = delay

    def follow_up(self, message: Message[Any], delay: int | None = None, *, required: bool = True) -> None:
        """Have this message enqueued in the same step in which this one is settled.

        To be called in ``after_process_message``, ``after_skip_message``, ``before_ack`` or
        ``before_nack``.

        Parameters:
          message(Message): What comes next.
          delay(int): Milliseconds. Default: none.
          required(bool): Whether this one is moved to the dead letters if the other is refused (too
            large, say): with it goes all that was to follow. If not, a WARNING tells of it. Default:
            True.
        """
        if self._follow_ups is None:
            self._follow_ups = []
        self._follow_ups.append((message, delay, required))

    def give_back(self) -> None:
        """Return the message to its queue instead of settling it: it runs again.

        For a hook after the actor (as for ``follow_up``) that cannot do what must not be left undone.
        """
        self._is_given_back = True

    def reason_of_death(self) -> str:
        """Why it failed: what a middleware said, else the exception's type and text."""
        return self.reason or (describe(self._exception) if self._exception else "failed")

    def stuff_exception(self, exception: BaseException) -> None:
        """Keep the exception that the actor raised, while the message is processed.

        Parameters:
          exception(BaseException): What it raised.
        """
        self._exception = exception

    def clear_exception(self) -> None:
        """Forget the exception again: it would keep every frame that it passed alive."""
        self._exception = None

    def __getattr__(self, name: str) -> Any:
        # Only for what is not found on the proxy. Underscored names are never the
        # message's, and looking _message up here would recurse while unpickling.
        if name.startswith("__") or name == "_message":
            raise AttributeError(name)
        return getattr(self._message, name)

    def __str__(self) -> str:
        return str(self._message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._message!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MessageProxy):
            return self._message == other._message
        return self._message == other

    def __lt__(self, other: Any) -> bool:
        return bool(self._message < getattr(other, "_message", other))

    # Identity, so that proxies can be kept in sets although messages cannot.
    __hash__ = object.__hash__


class Undecodable(MessageProxy):
    """Bytes from a queue that are no message. They go to the dead letters as they are.

    Parameters:
      queue_name(str): Where they were.
      payload(bytes): The bytes.
      error(BaseException): Why they are no message.
    """

    def __init__(self, queue_name: str, payload: bytes, error: BaseException) -> None:
        super().__init__(Message(queue_name, "", (), {}, {}, message_id=""))
        self.payload = payload
        self.stuff_exception(error)
        self.fail(str(error))


def read_eta(message: Message[Any], logger: logging.Logger) -> int | None:
    """When a message that carries an ``eta`` is due, in Unix milliseconds; None if at once.

    An eta that is no number (from another language, say) means at once, with a warning.
    """
    eta = message.options.get("eta")
    if isinstance(eta, (int, float)) and not isinstance(eta, bool) and abs(eta) < 2**53:
        return int(eta)
    if eta is not None:
        logger.warning("The eta of message %s is %.80r instead of a number: it is due now.", message.message_id, eta)
    return None


def without_eta(message: Message[Any]) -> Message[Any]:
    """A message that is due: on its real queue, and without its eta; its options remember that."""
    options = DueOptions(message.options)
    eta = options.pop("eta", None)
    if isinstance(eta, (int, float)) and abs(eta) < 2**53:
        options.due_ms = eta
    return message._replace(queue_name=canonical_queue_name(message.queue_name), options=options)


class DueOptions(dict[str, Any]):
    """Options of a message that was delayed.

    A dict like any other, so that nobody else sees a difference; what is made of it does not
    remember.

    Attributes:
      due_ms(float | None): When the message fell due, in Unix milliseconds; None if it was not said.
    """

    due_ms: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # To others it is a dict, also where messages are pickled.
        return dict, (dict(self),)
