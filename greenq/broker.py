"""The broker: what producers, middleware and workers may ask of one.

What a broker hands out is in consumer.py, how many messages are enqueued in bulk.py. Concrete
brokers live in brokers/ and are never imported here, but for the default broker, which is looked
for only when it is needed (see default_broker.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .bulk import enqueue_each, enqueue_portions
from .clock import now_ms
from .consumer import Consumer, MessageProxy, read_eta
from .errors import (
    ActorNotFound,
    MiddlewareError,
    QueueJoinTimeout,
)
from .inspection import DeadLetters, QueueCounts
from .logging import get_logger
from .message import Message
from .names import canonical_queue_name, delay_queue_name
from .runtime import current
from .verdict import Envelope

if TYPE_CHECKING:
    from .actor import Actor
    from .middleware import Middleware
    from .results import ResultBackend

R = TypeVar("R")

__all__ = [
    "Broker",
    "Consumer",
    "MessageProxy",
    "get_broker",
    "set_broker",
]

#: A lease is renewed three times in its length, by a thread that must get its turn in time.
SHORTEST_LEASE_MS = 100

#: Before-hooks of what has happened already.
_NOT_REFUSABLE = ("ack", "nack")

_global_broker: Broker | None = None
_global_broker_lock = threading.Lock()


def get_broker() -> Broker:
    """The global broker; the default one is made if none was set.

    The default is what the environment variable GREENQ_BROKER_URL names. If it is not set it is
    RabbitMQ on this machine where the package pika is installed, else Redis on this machine where
    redis is, else the embedded broker with its file greenq.db in the current directory. Nothing is
    connected by it.

    Raises:
      ValueError: GREENQ_BROKER_URL names no broker.
    """
    global _global_broker
    if _global_broker is None:
        with _global_broker_lock:
            if _global_broker is None:
                from .default_broker import make_default_broker

                _global_broker = make_default_broker()
    return _global_broker


def set_broker(broker: Broker) -> None:
    """Make this the global broker: of actors declared from now on, not of earlier ones.

    Parameters:
      broker(Broker): The broker. Call it before the modules with actors are imported.
    """
    global _global_broker
    _global_broker = broker


class Broker:
    """Base class of brokers.

    A subclass stores envelopes (``write``) and hands them out (``consume``); enqueueing, its
    hooks and its limits are here. A broker that implements ``enqueue`` itself, as the API
    reference has it, works as well.

    Parameters:
      middleware(list[Middleware]): All the middleware, in order. Default: ``default_middleware``.

    Attributes:
      actors(dict[str, Actor]): By name.
      queues(dict[str, Any]): By canonical name.
      delay_queues(set[str]): Names of the delay queues.
      actor_options(set[str]): The options that actors may be declared with.
      middleware(list[Middleware]): In the order in which before-hooks run.

    Options of messages, of all brokers:
      broker_priority(int): Higher runs first, in place of the actor's priority (of which lower runs
        first). RabbitMQ needs ``max_priority``, and has nothing below its 0.
      eta(int): Unix milliseconds before which it must not run; set by a delay.
    """

    #: Whether delayed messages wait inside the broker. Where they do not, the worker
    #: consumes the delay queues and holds what is not due.
    holds_delays: ClassVar[bool] = False

    #: The types of the message options that brokers themselves look at; see
    #: Middleware.message_option_types.
    message_option_types: ClassVar[Mapping[str, tuple[type, ...]]] = {"broker_priority": (int, type(None))}

    #: Whether other processes can consume what this one enqueues.
    shared: ClassVar[bool] = True

    #: Milliseconds after which the messages of a process that died, or stopped, are given to
    #: others. None where there are no leases, because the broker notices deaths itself.
    lease_ms: int | None = None

    #: How many workers a message may kill before it is moved to the dead letters; None for no limit,
    #: and where the broker does not count.
    max_deliveries: int | None = None

    def __init__(self, middleware: list[Middleware] | None = None) -> None:
        self.logger: logging.Logger = get_logger(__name__, type(self))
        self.actors: dict[str, Actor[Any, Any]] = {}
        self.queues: dict[str, Any] = {}
        self.delay_queues: set[str] = set()
        self.actor_options: set[str] = set()
        self.middleware: list[Middleware] = []
        self._hooks = _Hooks([])
        if middleware is None:
            from .middleware import default_middleware

            middleware = [make() for make in default_middleware]
        for each in middleware:
            self.add_middleware(each)

    # -- middleware and hooks

    def add_middleware(
        self,
        middleware: Middleware,
        *,
        before: type[Middleware] | None = None,
        after: type[Middleware] | None = None,
    ) -> None:
        """Add a middleware at the end, or before or after the one of a given class.

        It is told at once of every actor and queue that is already declared. A second one of a class
        is added as well, with a warning.

        Parameters:
          middleware(Middleware): The middleware.
          before(type): The class of the one before which it is to stand. Default: at the end.
          after(type): The class of the one after which it is to stand. Default: at the end.

        Raises:
          ValueError: There is none of the class given as before or after.
          AssertionError: Both are given.
        """
        assert not (before and after), "give add_middleware() either before or after, not both"
        for present in self.middleware:
            if isinstance(middleware, type(present)) or isinstance(present, type(middleware)):
                self.logger.warning("A second middleware of class %s was added.", type(middleware).__name__)
                break
        self.middleware.insert(self._position(before, after), middleware)
        self.actor_options |= set(middleware.actor_options)
        for actor in list(self.actors.values()):
            middleware.after_declare_actor(self, actor)
        for queue_name in sorted(self.get_declared_queues()):
            middleware.after_declare_queue(self, queue_name)
        for queue_name in sorted(self.delay_queues):
            middleware.after_declare_delay_queue(self, queue_name)

    def _position(self, before: type[Middleware] | None, after: type[Middleware] | None) -> int:
        wanted = before or after
        if wanted is None:
            return len(self.middleware)
        for index, present in enumerate(self.middleware):
            if isinstance(present, wanted):
                return index if before else index + 1
        raise ValueError(
            f"There is no {wanted.__name__} among the broker's middleware to place another one next to: "
            f"it has {', '.join(type(each).__name__ for each in self.middleware) or 'none'}."
        )

    def hooks(self, name: str) -> tuple[Callable[..., Any], ...]:
        """The middleware's own implementations of a hook, in calling order.

        Resolved once for each state of the middleware list: calling a dozen hooks that do
        nothing was a fifth of the time of a short job.
        """
        return self.hooks_by_name()[name]

    def hooks_by_name(self) -> Mapping[str, tuple[Callable[..., Any], ...]]:
        """The same for every hook: one look at the list instead of one each."""
        if self._hooks.middleware != self.middleware:
            self._hooks = _Hooks(self.middleware)
        return self._hooks

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks ``before_<signal>``, first to last. May switch, if one of them does.

        Raises:
          MiddlewareError: From the first hook that raises one; the rest is not called. Not from those of
            ack and nack: what is done cannot be refused, and every middleware has to learn of it. Other
            exceptions are logged, and the next hook is called.
        """
        for hook in self.hooks("before_" + signal):
            try:
                hook(self, *args, **kwargs)
            except Exception as error:
                if isinstance(error, MiddlewareError) and signal not in _NOT_REFUSABLE:
                    raise
                self.log_failed_hook(hook)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks ``after_<signal>``, last to first. Exceptions are logged. May switch, if one does."""
        for hook in self.hooks("after_" + signal):
            try:
                hook(self, *args, **kwargs)
            except Exception:
                self.log_failed_hook(hook)

    def log_failed_hook(self, hook: Callable[..., Any]) -> None:
        """Log the exception that a hook has raised and is being handled, where it stops nothing."""
        name = getattr(hook, "__qualname__", repr(hook))
        self.logger.critical("Middleware hook %s raised an exception.", name, exc_info=True)

    # -- actors and queues

    def declare_actor(self, actor: Actor[Any, Any]) -> None:
        """Declare an actor and its queue. One of the same name is replaced; ``actor()`` refuses that.

        Declaring is local: nothing is created on a server by it.

        Parameters:
          actor(Actor): The actor.

        Raises:
          MiddlewareError: A hook refused it.
        """
        self.emit_before("declare_actor", actor)
        self.declare_queue(actor.queue_name)
        self.actors[actor.actor_name] = actor
        self.emit_after("declare_actor", actor)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue and its delay queue. A second time it does nothing.

        Declaring is local: nothing is created on a server by it.

        Parameters:
          queue_name(str): The queue; that of a delay queue or of dead letters stands for their queue.

        Raises:
          MiddlewareError: A hook refused it.
        """
        queue_name = canonical_queue_name(queue_name)
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self._add_queue(queue_name)
        self.emit_after("declare_queue", queue_name)
        self.delay_queues.add(delay_queue_name(queue_name))
        self.emit_after("declare_delay_queue", delay_queue_name(queue_name))

    def _add_queue(self, queue_name: str) -> None:
        self.queues[queue_name] = None

    def get_actor(self, actor_name: str) -> Actor[Any, Any]:
        """The actor of this name.

        Parameters:
          actor_name(str): The name.

        Raises:
          ActorNotFound: It was never declared.
        """
        try:
            return self.actors[actor_name]
        except KeyError:
            raise ActorNotFound(
                f"No actor named {actor_name!r} is declared. A worker knows the actors of the modules "
                f"given on its command line: add the module that declares {actor_name!r}, or check its name."
            ) from None

    def get_declared_actors(self) -> set[str]:
        """The names of all actors declared so far."""
        return set(self.actors)

    def get_declared_queues(self) -> set[str]:
        """The names of all queues declared so far."""
        return set(self.queues) - self.delay_queues

    def get_declared_delay_queues(self) -> set[str]:
        """The names of all delay queues declared so far."""
        return set(self.delay_queues)

    def get_results_backend(self) -> ResultBackend:
        """The backend of the broker's first Results middleware.

        Raises:
          RuntimeError: The broker has none.
        """
        from .results import Results

        for middleware in self.middleware:
            if isinstance(middleware, Results):
                return middleware.backend
        raise RuntimeError(
            f"{type(self).__name__} has no results backend: none of its middleware stores results. Add one with "
            "broker.add_middleware(Results(backend=...)), before the actors are declared."
        )

    # -- the producer's side

    def enqueue(self, message: Message[R], *, delay: int | None = None) -> Message[R]:
        """Store a message; return it as it was stored (a delayed one is a copy).

        Parameters:
          message(Message): The message.
          delay(int): Milliseconds from now before which it must not run, any number of them. Default:
            none.

        Raises:
          MiddlewareError: A hook refused it; nothing was stored.
          TypeError: An argument is of a kind that the encoder cannot write; nothing was stored.
          MessageTooLarge: It passes the limits; nothing was stored.
          ConnectionError: The broker did not confirm; see the broker for what that means.

        May switch: waits for the broker's answer.
        """
        envelope = self.prepare(message, delay=delay)
        self.write([envelope])
        self.emit_after("enqueue", envelope.message, envelope.delay)
        return envelope.message

    def enqueue_many(self, messages: Iterable[Message[R]], *, delay: int | None = None) -> list[Message[R]]:
        """Store many messages, of any queues and actors; return them as they were stored.

        All hooks run for each of them. They are written in portions (of 1000, or of 8 MiB),
        in their order, each portion as ``write`` does it: one round trip instead of a thousand.

        Parameters:
          messages(Iterable[Message]): The messages.
          delay(int): Milliseconds from now before which they must not run. Default: none.

        Raises:
          MiddlewareError: A hook refused one; none was stored.
          MessageTooLarge: One passes the limits; none was stored.
          EnqueueManyFailed: The broker did not confirm. Says which are stored, which may be
            and which are not.

        May switch: waits for the broker's answers.
        """
        if type(self).write is Broker.write:
            return enqueue_each(self, list(messages), delay)
        return enqueue_portions(self, messages, delay)

    def prepare(self, message: Message[Any], *, delay: int | None = None) -> Envelope:
        """Make a message ready to be stored, calling the hooks ``before_enqueue``.

        Raises:
          MiddlewareError: A hook refused it.
          MessageTooLarge: It passes the limits.
        """
        queue_name = canonical_queue_name(message.queue_name)
        due_ms = None
        if delay is not None:
            delay = _milliseconds(delay)
            due_ms = now_ms() + delay
            message = message.copy(queue_name=delay_queue_name(queue_name), options={"eta": due_ms})
        elif "eta" in message.options:
            due_ms = read_eta(message, self.logger)
        self.emit_before("enqueue", message, delay)
        return Envelope(message, message.encode(), queue_name, self._priority(message), delay, due_ms)

    def _priority(self, message: Message[Any]) -> int:
        # One meaning on every broker: lower first. An actor's priority has it that way
        # already; the message's own broker_priority counts the other way, as RabbitMQ does.
        own = message.options.get("broker_priority")
        if own is not None:
            if not isinstance(own, int):
                raise ValueError(f"broker_priority has to be an integer (higher runs first), not {own!r:.80}.")
            return -max(-_MOST_PRIORITY, min(own, _MOST_PRIORITY))
        actor = self.actors.get(message.actor_name)
        return 0 if actor is None else actor.priority

    def write(self, envelopes: Sequence[Envelope]) -> None:
        """Store these messages, all of them or none. Calls no hooks.

        Raises:
          ConnectionError: The broker did not confirm.

        May switch.
        """
        raise NotImplementedError

    # -- the worker's side

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:
        """A consumer of a queue.

        Parameters:
          queue_name(str): The queue.
          prefetch(int): The most messages that it may hold unacknowledged.
          timeout(int): Milliseconds after which an idle ``next()`` answers None.

        Raises:
          QueueNotFound: The queue was never declared.
          ConnectionError: The broker is away.

        May switch.
        """
        raise NotImplementedError

    def connect(self) -> None:
        """Open what consuming needs, so that a worker fails at its start and not later.

        Raises:
          BrokerUnusable: It cannot be opened, and trying again would not help; says what to do.
          ConnectionError: It cannot be opened now; says where and why.

        May switch.
        """

    def set_lease(self, lease_ms: int) -> None:
        """Give this process another lease than the one that the broker was made with.

        To be called before ``connect``, and before anything is consumed. All processes that consume should have the
        same: one with a short lease may take back from one with a long lease too early after an
        outage.

        Parameters:
          lease_ms(int): Milliseconds, 100 or more.

        Raises:
          ValueError: It is too short, or this broker has no leases.
          RuntimeError: It is connected as a worker already: by ``connect``, or because something is consumed.

        May switch.
        """
        if self.lease_ms is None:
            raise ValueError(f"{type(self).__name__} has no leases: it notices by other means that a process died.")
        lease_ms = checked_lease("lease", lease_ms)
        if self.worker_id is not None:
            raise RuntimeError(
                f"{self} is connected as a worker already, with a lease of {self.lease_ms} ms. Set it before "
                "connect() and consume()."
            )
        if lease_ms != self.lease_ms:
            self.lease_ms = lease_ms
            self.close()  # what is open, because something was enqueued, has the other lease; it opens again

    @property
    def worker_id(self) -> str | None:
        """The id under which this process holds messages now; None before it is connected as a worker."""
        return None

    def take_back(self, worker_id: str, *, charge: Collection[str] = (), cause: str | None = None) -> int:
        """Return what a dead worker holds to its queues; answer how many messages that were.

        Parameters:
          worker_id(str): Of a worker that is known to be dead.
          charge(Collection[str]): Ids of the messages whose run there is evidence against: they had the
            CPU at its death, say. Nothing is noted against the others then. Default: none, and all that
            it held may have been the cause.
          cause(str): How it died, kept with those that are charged for the reason of a dead letter: "was
            killed by SIGSEGV; 512 MiB". One line of 300 characters at most is kept. Default: not told.

        May switch. Brokers that notice deaths themselves do nothing here.
        """
        return 0

    def close(self) -> None:
        """Close connections and end what runs in the background. A second time it does nothing. May switch."""

    # -- for tests and operators

    def queue_counts(self, queue_name: str) -> QueueCounts:
        """How many messages of a queue are ready, reserved, delayed and dead.

        Parameters:
          queue_name(str): The queue.

        Raises:
          ConnectionError: The broker is away.

        May switch.
        """
        raise NotImplementedError(f"{type(self).__name__} does not count messages.")

    def get_queue_message_counts(self, queue_name: str) -> tuple[int, int, int]:
        """How many messages are in a queue (ready or reserved), in its delay queue, and dead. May switch.

        Parameters:
          queue_name(str): The queue.

        Raises:
          ConnectionError: The broker is away.
        """
        ready, reserved, delayed, dead = self.queue_counts(queue_name)
        return ready + (reserved or 0), delayed, dead

    def oldest_message_age(self, queue_name: str) -> int | None:
        """Milliseconds for which the first ready message of a queue has waited.

        Of a delayed one from its due time. 0 if none is ready; None if this broker cannot tell.

        Parameters:
          queue_name(str): The queue.

        Raises:
          ConnectionError: The broker is away.

        May switch.
        """
        return None

    def dead_letters_of(self, queue_name: str) -> DeadLetters:
        """The dead letters of a queue: to look at, to send back, to delete. See inspection.py.

        Parameters:
          queue_name(str): The queue. Nothing is asked of the broker yet.
        """
        raise NotImplementedError(f"{type(self).__name__} does not show its dead letters.")

    def flush(self, queue_name: str) -> None:
        """Drop all messages of a queue: waiting, delayed and dead ones. May switch.

        Parameters:
          queue_name(str): The queue.

        Raises:
          ConnectionError: The broker is away.
        """
        raise NotImplementedError

    def flush_all(self) -> None:
        """Drop all messages of all declared queues, one after the other. May switch. Raises like ``flush``."""
        for queue_name in list(self.queues):
            self.flush(queue_name)

    def join(self, queue_name: str, *, interval: int = 100, timeout: int | None = None) -> None:
        """Wait until nothing of a queue is ready, delayed or reserved. Meant for tests.

        Parameters:
          queue_name(str): The queue.
          interval(int): Milliseconds between two looks. Default: 100.
          timeout(int): Milliseconds. Default: no limit.

        Raises:
          QueueJoinTimeout: There still was something.

        May switch.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            waiting, delayed, _ = self.get_queue_message_counts(queue_name)
            if waiting + delayed == 0:
                return
            pause_s = interval / 1000
            if deadline is not None:
                pause_s = min(pause_s, deadline - time.monotonic())
                if pause_s <= 0:
                    raise QueueJoinTimeout(
                        f"Queue {queue_name!r} still had {waiting} messages that were ready or running and {delayed} "
                        f"delayed ones after {timeout} ms. Is a worker running on it?"
                    )
            current().sleep(pause_s)


class _Hooks(dict[str, tuple[Callable[..., Any], ...]]):
    """The middleware's own implementations of each hook, looked up when it is first asked for."""

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        super().__init__()
        self.middleware = list(middleware)

    def __missing__(self, name: str) -> tuple[Callable[..., Any], ...]:
        from .middleware import Middleware

        inherited = getattr(Middleware, name)
        hooks = [getattr(each, name, inherited) for each in self.middleware]
        own = [hook for hook in hooks if getattr(hook, "__func__", hook) is not inherited]
        found = self[name] = tuple(own if name.startswith("before_") else reversed(own))
        return found


def checked_lease(name: str, lease_ms: int) -> int:
    """The length of a lease as it was given under this name.

    Raises:
      ValueError: It is too short to be kept.
    """
    if lease_ms < SHORTEST_LEASE_MS:
        raise ValueError(f"A {name} of {lease_ms} ms is too short: give {SHORTEST_LEASE_MS} or more.")
    return lease_ms


def _milliseconds(delay: Any) -> int:
    if isinstance(delay, timedelta):
        delay = delay.total_seconds() * 1000
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or delay < 0 or delay != delay:
        raise ValueError(f"A delay is a number of milliseconds, 0 or more, not {delay!r}.")
    if delay > _LONGEST_DELAY_MS:
        raise ValueError(f"A delay of {delay!r} ms is more than a thousand years. Delays are in milliseconds.")
    return int(delay)


#: Priorities beyond this are cut: brokers store them in 32 bits or fewer.
_MOST_PRIORITY = 2**31 - 1

_LONGEST_DELAY_MS = 1000 * 366 * 24 * 3600 * 1000
