"""Actors: functions that can be called now, or sent as messages and run by a worker."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
    overload,
)

from .broker import get_broker
from .event_loop import run_in_place
from .logging import get_logger
from .message import Message
from .names import check_queue_name, nearest_name
from .options import of_message, of_send, of_send_many, takes

if TYPE_CHECKING:
    from .broker import Broker
    from .options import ActorOrName

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

#: Where workers run an actor; see docs/lanes.md.
Lane: TypeAlias = Literal["greenlet", "thread", "process"]


class Actor(Generic[P, R_co]):
    """A function together with how it is to be run. Calling it runs the function in place.

    Parameters:
      fn(Callable): The function.
      broker(Broker): The broker it is bound to.
      actor_name(str): Its name, by which messages find it.
      queue_name(str): Its queue.
      priority(int): Lower runs first.
      options(dict): Options for the broker and the middleware.

    Attributes:
      logger(Logger): The actor's own, named after its module and itself.
      is_async(bool): Whether the function is an async one. Called in place, its result is returned,
        not a coroutine; see docs/async-actors.md for where that is possible.
      lane(str): Where workers run it: "greenlet", "thread" or "process".

    All parameters are attributes, too.
    """

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        broker: Broker,
        actor_name: str,
        queue_name: str,
        priority: int,
        options: dict[str, Any],
    ) -> None:
        self.logger = get_logger(fn.__module__ or "_", actor_name)
        self.fn = fn
        self.broker = broker
        self.actor_name = actor_name
        self.queue_name = queue_name
        self.priority = priority
        self.options = options
        self.is_async = _is_async(fn)
        self.lane: Lane = options.get("lane", "greenlet")
        self.__name__ = getattr(fn, "__name__", actor_name)
        self.__qualname__ = getattr(fn, "__qualname__", actor_name)
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__
        self.__wrapped__ = fn
        broker.declare_actor(self)

    def message(self, *args: P.args, **kwargs: P.kwargs) -> Message[R_co]:
        """A message that calls this actor with these arguments, not yet sent.

        Parameters:
          *args: Positional arguments of the function.
          **kwargs: Keyword arguments of the function.
        """
        return self.message_with_options(args=args, kwargs=kwargs)

    @takes(of_message)
    def message_with_options(
        self, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **options: Any
    ) -> Message[R_co]:
        """A message with options for the broker and the middleware, not yet sent.

        Parameters:
          args(tuple): Positional arguments. Default: none.
          kwargs(dict): Keyword arguments. Default: none.
          **options: Options of this message, which come before those of the actor; their names are not
            checked. ``delay`` is one that counts in pipelines and groups only.

        Raises:
          TypeError: on_success, on_failure or on_dead is neither an actor nor the name of one.
        """
        _name_actors(options)
        if isinstance(options.get("pipe_target"), Message):
            options["pipe_target"] = options["pipe_target"].asdict()
        return Message(
            queue_name=self.queue_name,
            actor_name=self.actor_name,
            args=tuple(args),
            kwargs=kwargs or {},
            options=options,
        )

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Message[R_co]:
        """Enqueue a call of this actor; return the message as it was stored.

        Parameters:
          *args: Positional arguments of the function.
          **kwargs: Keyword arguments of the function.

        Raises:
          TypeError: An argument is of a kind that the encoder cannot write.
          ConnectionError: The broker did not confirm; see Broker.enqueue for this and more.

        May switch: waits for the broker's answer.
        """
        return self.send_with_options(args=args, kwargs=kwargs)

    @takes(of_send)
    def send_with_options(
        self,
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        delay: timedelta | int | None = None,
        **options: Any,
    ) -> Message[R_co]:
        """Enqueue a call of this actor with options; return the message as it was stored. May switch.

        Parameters:
          args(tuple): Positional arguments. Default: none.
          kwargs(dict): Keyword arguments. Default: none.
          delay(int | timedelta): Milliseconds from now before which it must not run. Default: none.
          **options: As of message_with_options.

        Raises:
          TypeError: As of message_with_options, or an argument is of a kind that the encoder cannot write.
          ConnectionError: The broker did not confirm; see Broker.enqueue for this and more.
        """
        if isinstance(delay, timedelta):
            delay = int(delay.total_seconds() * 1000)
        message = self.message_with_options(args=args, kwargs=kwargs, **options)
        return self.broker.enqueue(message, delay=delay)

    @takes(of_send_many)
    def send_many(
        self,
        calls: Iterable[tuple[Any, ...] | Mapping[str, Any]],
        *,
        delay: timedelta | int | None = None,
        **options: Any,
    ) -> list[Message[R_co]]:
        """Enqueue many calls of this actor, thousands in one round trip. May switch.

            resize.send_many([("a.png", 100), ("b.png", 100)])
            resize.send_many({"path": path, "width": 100} for path in paths)

        Parameters:
          calls(Iterable): For each call a tuple of its positional arguments, or a dict of its
            keyword arguments.
          delay(int | timedelta): Milliseconds from now before which they must not run.
          **options: Of each message, for the broker and the middleware; not checked.

        Raises:
          TypeError: A call is neither a tuple nor a dict; nothing was stored.
          EnqueueManyFailed: The broker did not confirm; see Broker.enqueue_many for this and more.
        """
        if isinstance(delay, timedelta):
            delay = int(delay.total_seconds() * 1000)
        return self.broker.enqueue_many([self._message_of(call, options) for call in calls], delay=delay)

    def _message_of(self, call: object, options: dict[str, Any]) -> Message[R_co]:
        if isinstance(call, tuple):
            return self.message_with_options(args=call, **options)
        if isinstance(call, Mapping):
            return self.message_with_options(kwargs=dict(call), **options)
        raise TypeError(
            f"send_many() of {self.actor_name!r} takes a tuple or a dict for each call, not {call!r:.80}: for one "
            "positional argument write (value,)."
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        # An async function too is run in place: its result is returned.
        return cast(R_co, self._logged(run_in_place if self.is_async else _call, self.fn, args, kwargs))

    @property
    def is_coroutine(self) -> bool:
        """Whether workers await ``coroutine(...)`` on their asyncio loop instead of calling the actor."""
        return self.is_async and type(self).__call__ is Actor.__call__

    def coroutine(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """A call of an async actor, to be awaited."""
        if not self.logger.isEnabledFor(logging.DEBUG):
            return cast(Awaitable[Any], self.fn(*args, **kwargs))
        return self._logged_coroutine(args, kwargs)

    async def _logged_coroutine(self, args: Any, kwargs: Any) -> Any:
        self.logger.debug("Received args=%r kwargs=%r.", args, kwargs)
        start = time.perf_counter()
        try:
            return await cast(Awaitable[Any], self.fn(*args, **kwargs))
        finally:
            self.logger.debug("Completed after %.02fms.", (time.perf_counter() - start) * 1000)

    def run_guarded(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have ``run(call, args, kwargs)`` call the actor. Used by workers, to interrupt it.

        What is logged is logged outside: an interrupt must not strike a logger's lock.
        """
        if type(self).__call__ is not Actor.__call__:
            return run(self, args, kwargs)
        return self._logged(run, self.fn, args, kwargs)

    def _logged(self, run: Callable[..., Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if not self.logger.isEnabledFor(logging.DEBUG):  # the common case, at full speed
            return run(fn, args, kwargs)
        self.logger.debug("Received args=%r kwargs=%r.", args, kwargs)
        start = time.perf_counter()
        try:
            return run(fn, args, kwargs)
        finally:
            self.logger.debug("Completed after %.02fms.", (time.perf_counter() - start) * 1000)

    def __repr__(self) -> str:
        return f"Actor({self.fn!r}, queue_name={self.queue_name!r}, actor_name={self.actor_name!r})"

    def __str__(self) -> str:
        return f"Actor({self.actor_name})"


def _is_async(fn: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(fn):
        return True
    if inspect.isroutine(fn):
        return False
    # An object is called by its class's __call__, and a class-based actor by its perform().
    return inspect.iscoroutinefunction(getattr(fn, "perform", None) or type(fn).__call__)


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


class ActorDecorator(Protocol):
    """What ``actor(...)`` with options gives."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]]) -> Actor[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> Actor[P, R]: ...
    def __call__(self, fn: Any) -> Any: ...


@overload
def actor(fn: Callable[P, Awaitable[R]]) -> Actor[P, R]: ...
@overload
def actor(fn: Callable[P, R]) -> Actor[P, R]: ...
@overload
def actor(
    *,
    actor_class: Callable[..., Actor[Any, Any]] = ...,
    actor_name: str | None = ...,
    queue_name: str = ...,
    priority: int = ...,
    broker: Broker | None = ...,
    lane: Lane = ...,
    max_age: float | None = ...,
    max_backoff: float | None = ...,
    max_retries: int | None = ...,
    min_backoff: float | None = ...,
    notify_shutdown: bool | None = ...,
    on_dead: ActorOrName = ...,
    on_failure: ActorOrName = ...,
    on_retry_exhausted: str | None = ...,
    on_success: ActorOrName = ...,
    pipe_ignore: bool = ...,
    result_ttl: float | None = ...,
    retry_when: Callable[[int, BaseException], bool] | None = ...,
    soft_time_limit: float | None = ...,
    store_results: bool | None = ...,
    throws: type[BaseException] | Collection[type[BaseException]] = ...,
    time_limit: float | None = ...,
    **options: Any,  # of an application's own middleware
) -> ActorDecorator: ...
def actor(
    fn: Callable[..., Any] | None = None,
    *,
    actor_class: Callable[..., Any] = Actor,
    actor_name: str | None = None,
    queue_name: str = "default",
    priority: int = 0,
    broker: Broker | None = None,
    lane: Lane = "greenlet",
    **options: Any,
) -> Any:
    """Declare an actor: ``@actor`` or ``@actor(queue_name="mail", max_retries=3)``.

    Parameters:
      fn(Callable): The function.
      actor_class(Callable): What makes the actor. Default: Actor.
      actor_name(str): Default: the function's name, without its module.
      queue_name(str): Default: "default".
      priority(int): Lower runs first. Default: 0.
      broker(Broker): Default: the global broker as it is now; set_broker() later does not move it.
      lane(str): Where workers run it: "greenlet", "thread" for one of a few native threads, "process" for one of
        a few processes; see docs/lanes.md. Default: "greenlet".
      **options: What the broker's middleware knows; see ``broker.actor_options``.

    Raises:
      ValueError: The queue's name is none, an actor of this name is declared, or no middleware knows
        an option, or the lane is none, or the function async and has a lane; says which.
      TypeError: on_success, on_failure or on_dead is neither an actor nor the name of one.
    """

    def decorate(fn: Callable[..., Any]) -> Any:
        name = actor_name or fn.__name__
        check_queue_name(queue_name)
        chosen = broker or get_broker()
        if name in chosen.actors:
            raise ValueError(
                f"An actor named {name!r} is already declared (in module {chosen.actors[name].fn.__module__}). "
                "Give one of them another actor_name."
            )
        _check_options(name, options, chosen)
        _check_lane(name, lane, fn)
        _name_actors(options)
        given = dict(options) if lane == "greenlet" else {**options, "lane": lane}
        return actor_class(fn, actor_name=name, queue_name=queue_name, priority=priority, broker=chosen, options=given)

    return decorate if fn is None else decorate(fn)


def _check_options(name: str, options: dict[str, Any], broker: Broker) -> None:
    unknown = sorted(options.keys() - broker.actor_options)
    if unknown:
        raise ValueError(
            f"Actor {name!r} has options that no middleware of its broker knows: "
            f"{', '.join(_with_nearest(each, broker.actor_options) for each in unknown)}. Is a "
            "middleware missing? It has to be added to the broker before the actors are declared. "
            f"Known are: {', '.join(sorted(broker.actor_options)) or 'none'}."
        )


def _check_lane(name: str, lane: object, fn: Callable[..., Any]) -> None:
    if lane not in get_args(Lane):
        raise ValueError(
            f"Actor {name!r} has lane={lane!r}, which is no lane. Known are: {', '.join(map(repr, get_args(Lane)))}."
        )
    if lane != "greenlet" and _is_async(fn):
        raise ValueError(
            f"Actor {name!r} is async and has lane={lane!r}: coroutines run on the worker's asyncio loop, in no lane. "
            "Make it a plain function that calls asyncio.run(), or have it await asyncio.to_thread() for what blocks."
        )


def _with_nearest(name: str, known: set[str]) -> str:
    nearest = nearest_name(name, known)
    return f"{name} (did you mean {nearest}?)" if nearest else name


def _name_actors(options: dict[str, Any]) -> None:
    """Put names in the place of actors, in those options that take either."""
    for option in ("on_success", "on_failure", "on_dead"):
        if option in options:
            options[option] = _actor_name(option, options[option])


def _actor_name(option: str, value: object) -> str:
    """The name in an option that takes an actor or its name."""
    if isinstance(value, str):
        return value
    value = getattr(value, "__actor__", value)  # of a class-based one
    if isinstance(value, Actor):
        return value.actor_name
    raise TypeError(f"{option} has to be an actor or the name of one, not {type(value).__name__}.")
