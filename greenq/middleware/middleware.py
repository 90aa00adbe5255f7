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
    """Base class of broker middleware."""

    @property
    def actor_options(self) -> set[str]:
        """The options that actors may be declared with because of this middleware."""
        return set()

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        """The types that message options of this middleware may have.

        A message from elsewhere whose option has another type is moved to the dead letters
        before any hook sees it. Options that are not listed are not checked.
        """
        return {}

    @property
    def forks(self) -> list[Callable[[], int]]:
        """Functions to run beside the workers of a command, each once, in a plain process of its own.

        They stand at the top level of a module, take nothing, and return an exit code. One that
        returns 0 or None is done, one that fails is started again, and TERM raises SystemExit in it.
        """
        return []

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Called before a message is acknowledged."""

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Called after a message has been acknowledged."""

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Called before a message is moved to the dead letters."""

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Called after a message has been moved to the dead letters."""

    def before_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        """Called before an actor is declared."""

    def after_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        """Called after an actor has been declared."""

    def before_declare_queue(self, broker: Broker, queue_name: str) -> None:
        """Called before a queue is declared."""

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        """Called after a queue has been declared; on a server it may not exist yet."""

    def after_declare_delay_queue(self, broker: Broker, queue_name: str) -> None:
        """Called after a delay queue has been declared."""

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Called before a message is stored, retries included. MiddlewareError prevents it."""

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Called after a message has been stored, retries included."""

    def before_delay_message(self, broker: Broker, message: MessageProxy) -> None:
        """Called before a message is held in a worker's memory until it is due."""

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Called before the actor. SkipMessage: it does not run."""

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Called after the actor has returned or raised."""

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Called instead of after_process_message if the message was skipped."""

    def after_process_boot(self, broker: Broker) -> None:
        """Called in each worker process once the broker's module has been imported."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Called before a worker starts."""

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Called after a worker has started."""

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Called before a worker stops, while everything still runs."""

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
