"""The base class of middleware: every hook there is, doing nothing.

The order: ``before_*`` hooks run from the first middleware to the last, ``after_*`` hooks
from the last to the first. A before-hook that raises MiddlewareError refuses what is
under way, but for ``before_ack`` and ``before_nack``: what is done cannot be refused. Any other
exception in a hook is logged, and the next hook runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..actor import Actor
    from ..broker import Broker
    from ..consumer import MessageProxy
    from ..message import Message
    from ..worker import ConsumerThread, Worker, WorkerThread


class Middleware:
    """Base class of broker middleware. Its hooks do nothing; a subclass has those that it needs.

    The order: ``before_*`` hooks run from the first middleware to the last, ``after_*`` hooks from the
    last to the first. A before-hook that raises MiddlewareError refuses what is under way, the rest of
    the list is not called, and whoever asked for it gets the error; but for ``before_ack`` and
    ``before_nack``, because what is done cannot be refused. Any other exception in a hook is logged as
    CRITICAL, and the next hook runs.

    Of a job, in this order: ``before_process_message``, the actor, ``after_process_message`` (or
    ``after_skip_message``), ``before_ack`` or ``before_nack``, the write, ``after_ack`` or ``after_nack``.
    A retry is an ack: ``before_enqueue``, ``before_ack``, one write, ``after_enqueue``, ``after_ack``. An
    exception alone fails no message: a hook that calls ``message.fail()`` does. Time limits run for the
    actor alone, not in hooks.

    Hooks may switch. A slow one keeps the slot of its job, or the caller of ``send()``; those after a
    write keep nobody.
    """

    @property
    def actor_options(self) -> set[str]:
        """The options that actors may be declared with because of this middleware. Default: none."""
        return set()

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        """The types that message options of this middleware may have.

        A message from elsewhere whose option has another type is moved to the dead letters
        before any hook sees it. Options that are not listed are not checked. Default: none.
        """
        return {}

    @property
    def forks(self) -> list[Callable[[], int]]:
        """Functions to run beside the workers of a command, each once, in a plain process of its own.

        They stand at the top level of a module, take nothing, and return an exit code. One that
        returns 0 or None is done, one that fails is started again, and TERM raises SystemExit in it.
        Default: none.
        """
        return []

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Called before a message is acknowledged, in its job's slot. ``message.fail()`` makes a dead letter of it."""

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Called once the broker has acknowledged a message, in a task of its own."""

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Called before a message is moved to the dead letters, in its job's slot.

        Not for bytes that are no message.
        """

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Called once the broker has moved a message to the dead letters, in a task of its own."""

    def before_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        """Called before an actor is declared. MiddlewareError prevents it."""

    def after_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        """Called after an actor has been declared; for those that are, when the middleware is added."""

    def before_declare_queue(self, broker: Broker, queue_name: str) -> None:
        """Called before a queue is declared for the first time. MiddlewareError prevents it."""

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        """Called after a queue has been declared; for those that are, when the middleware is added.

        On a server it may not exist yet.
        """

    def after_declare_delay_queue(self, broker: Broker, queue_name: str) -> None:
        """Called after a delay queue (``"default.DQ"``) has been declared, right after its queue."""

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Called before a message is stored, retries and what follows from a job included.

        Parameters:
          message(Message): As it will be stored: if delayed, on its delay queue, with its ``eta``.
          delay(int | None): Milliseconds; None if it is not delayed.

        Raises:
          MiddlewareError: Prevents it; the caller of ``send()`` gets the error, and a retry that is
            prevented is a dead letter.
        """

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Called after a message has been stored, retries and what follows from a job included.

        Parameters:
          message(Message): As it is stored.
          delay(int | None): Milliseconds; None if it is not delayed.
        """

    def before_delay_message(self, broker: Broker, message: MessageProxy) -> None:
        """Called before a message is held in a worker's memory until it is due.

        Only for brokers of one's own that cannot hold delays themselves: greenq's can.
        """

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Called before the actor, in its greenlet and context.

        If a hook has called ``message.fail()``, the actor does not run.

        Raises:
          SkipMessage: The actor does not run, and ``after_skip_message`` is called instead of
            ``after_process_message``: on all middleware, also on what was not asked before.
        """

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Called once, after the actor has returned or raised.

        Parameters:
          result(Any): What it returned.
          exception(BaseException): What it raised, an Interrupt perhaps; None if it returned.
        """

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Called instead of after_process_message if the message was skipped."""

    def after_process_boot(self, broker: Broker) -> None:
        """Called in each worker process once the broker's module has been imported, before further modules are.

        Not for a Worker that was made by hand; tests call ``broker.emit_after("process_boot")``.
        """

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Called before a worker starts."""

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Called after a worker has started."""

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Called before a worker stops, while everything still runs. What it takes counts for the time to stop."""

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Called after a worker has stopped."""

    def after_consumer_thread_boot(self, broker: Broker, thread: ConsumerThread) -> None:
        """Called in a consumer's greenlet before it starts to consume."""

    def before_consumer_thread_shutdown(self, broker: Broker, thread: ConsumerThread) -> None:
        """Called in a consumer's greenlet before it ends."""

    def after_worker_thread_boot(self, broker: Broker, thread: WorkerThread) -> None:
        """Called in a slot's greenlet before it takes its first message."""

    def before_worker_thread_shutdown(self, broker: Broker, thread: WorkerThread) -> None:
        """Called in a slot's greenlet before it ends: the place to close what is local to it."""
