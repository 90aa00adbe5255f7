"""Class-based actors: a class whose ``perform`` is the function, and whose ``Meta`` its options."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from .actor import Actor, actor
from .message import Message

if TYPE_CHECKING:
    from .broker import Broker

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class _Performs(Protocol[P, R_co]):
    def perform(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        raise NotImplementedError


class _Declares(type):
    """Makes an actor of each class that is not abstract."""

    def __new__(metacls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        made: Any = super().__new__(metacls, name, bases, namespace)
        meta = namespace.get("Meta")
        # The first of all is abstract; and of a Meta only what it says itself counts, so that
        # what is derived from an abstract one's is not abstract again.
        if not any(isinstance(base, _Declares) for base in bases) or _own(meta).get("abstract", False):
            return made
        given = {key: value for key, value in _own(getattr(made, "Meta", None)).items() if not key.startswith("_")}
        given.pop("abstract", None)
        declare = given.pop("actor", actor)
        instance = made()
        instance.__dict__["__actor__"] = declare(instance, **given)
        return instance

    if TYPE_CHECKING:
        # What the name of a class-based actor has as well: it is bound to an instance, which
        # forwards these to its actor.
        __actor__: Actor[Any, Any]

        @overload
        def send(cls: type[_Performs[P, Awaitable[R]]], *args: P.args, **kwargs: P.kwargs) -> Message[R]: ...
        @overload
        def send(cls: type[_Performs[P, R]], *args: P.args, **kwargs: P.kwargs) -> Message[R]: ...
        def send(cls: Any, *args: Any, **kwargs: Any) -> Any: ...

        @overload
        def message(cls: type[_Performs[P, Awaitable[R]]], *args: P.args, **kwargs: P.kwargs) -> Message[R]: ...
        @overload
        def message(cls: type[_Performs[P, R]], *args: P.args, **kwargs: P.kwargs) -> Message[R]: ...
        def message(cls: Any, *args: Any, **kwargs: Any) -> Any: ...

        @overload
        def send_with_options(
            cls: type[_Performs[P, Awaitable[R]]],
            *,
            args: tuple[Any, ...] = ...,
            kwargs: dict[str, Any] | None = ...,
            delay: timedelta | int | None = ...,
            **options: Any,
        ) -> Message[R]: ...
        @overload
        def send_with_options(
            cls: type[_Performs[P, R]],
            *,
            args: tuple[Any, ...] = ...,
            kwargs: dict[str, Any] | None = ...,
            delay: timedelta | int | None = ...,
            **options: Any,
        ) -> Message[R]: ...
        def send_with_options(cls: Any, **options: Any) -> Any: ...

        @overload
        def message_with_options(
            cls: type[_Performs[P, Awaitable[R]]],
            *,
            args: tuple[Any, ...] = ...,
            kwargs: dict[str, Any] | None = ...,
            **options: Any,
        ) -> Message[R]: ...
        @overload
        def message_with_options(
            cls: type[_Performs[P, R]],
            *,
            args: tuple[Any, ...] = ...,
            kwargs: dict[str, Any] | None = ...,
            **options: Any,
        ) -> Message[R]: ...
        def message_with_options(cls: Any, **options: Any) -> Any: ...

        def send_many(
            cls,
            calls: Iterable[tuple[Any, ...] | Mapping[str, Any]],
            *,
            delay: timedelta | int | None = ...,
            **options: Any,
        ) -> list[Message[Any]]: ...


def _own(meta: type | None) -> Mapping[str, Any]:
    return {} if meta is None else vars(meta)


class GenericActor(metaclass=_Declares):
    """Base class of class-based actors.

        class Resize(GenericActor):
            class Meta:
                queue_name = "images"
                max_retries = 3

            def perform(self, path):
                ...

        Resize.send("a.png")

    The class statement declares the actor, and binds the name to the one instance of the class,
    made without arguments. The instance has ``perform`` and whatever else the class gives it; what
    it lacks (``send``, ``logger``, ``options``) is that of its actor, which is ``__actor__``.

    ``Meta`` holds the arguments of ``actor()``, except names that begin with an underscore, and
    those that it only inherits from another class. ``abstract = True`` there: no actor, a class to
    derive from. ``actor = function`` there: what declares it instead, called with the instance and
    the rest as keywords. A class without a Meta has that of the class it is derived from. An actor
    may be derived from, too.
    """

    if TYPE_CHECKING:
        logger: logging.Logger
        broker: Broker
        actor_name: str
        queue_name: str
        priority: int
        options: dict[str, Any]

        def __new__(cls, *args: Any, **kwargs: Any) -> Any: ...

    if not TYPE_CHECKING:
        # Unknown to type checkers, as its arguments are those of the class that has one.
        def perform(self, *args, **kwargs):
            """What the actor does."""
            raise NotImplementedError(f"{type(self).__name__} does not implement perform()")

        def __call__(self, *args, **kwargs):
            return self.perform(*args, **kwargs)

        @property
        def __name__(self):
            return type(self).__name__

        def __mro_entries__(self, bases):
            return (type(self),)

    def __getattr__(self, name: str) -> Any:
        # Only for what the class does not have; there is no actor yet while it is declared.
        declared = self.__dict__.get("__actor__")
        if declared is None:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(declared, name)
