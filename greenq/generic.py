"""Class-based actors: a class whose ``perform`` is the function, and whose ``Meta`` its options."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from .actor import Actor, actor

if TYPE_CHECKING:
    from .broker import Broker
    from .message import Message
    from .options import of_message, of_send, of_send_many, takes

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class _Performs(Protocol[P, R_co]):
    def perform(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        raise NotImplementedError


if TYPE_CHECKING:
    # What a class-based actor has of its actor: by the arguments and the result of its perform(),
    # which may be async. Descriptors, because only they are told the class that they are asked of.

    class _ItsActor:
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, Awaitable[R]]]) -> Actor[P, R]: ...
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, R]]) -> Actor[P, R]: ...
        def __get__(self, instance: object, owner: Any) -> Any: ...

    class _ItsCall:
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, Awaitable[R]]]) -> Callable[P, Message[R]]: ...
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, R]]) -> Callable[P, Message[R]]: ...
        def __get__(self, instance: object, owner: Any) -> Any: ...

    class _SendsWithOptions(Protocol[R_co]):
        @takes(of_send)
        def __call__(self, **options: Any) -> Message[R_co]: ...

    class _ItsSendWithOptions:
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, Awaitable[R]]]) -> _SendsWithOptions[R]: ...
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, R]]) -> _SendsWithOptions[R]: ...
        def __get__(self, instance: object, owner: Any) -> Any: ...

    class _MakesWithOptions(Protocol[R_co]):
        @takes(of_message)
        def __call__(self, **options: Any) -> Message[R_co]: ...

    class _ItsMessageWithOptions:
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, Awaitable[R]]]) -> _MakesWithOptions[R]: ...
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, R]]) -> _MakesWithOptions[R]: ...
        def __get__(self, instance: object, owner: Any) -> Any: ...

    class _SendsMany(Protocol[R]):
        @takes(of_send_many)
        def __call__(self, *args: Any, **options: Any) -> list[Message[R]]: ...

    class _ItsSendMany:
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, Awaitable[R]]]) -> _SendsMany[R]: ...
        @overload
        def __get__(self, instance: object, owner: type[_Performs[P, R]]) -> _SendsMany[R]: ...
        def __get__(self, instance: object, owner: Any) -> Any: ...


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
        # The name of a class-based actor is bound to an instance, and calling that runs perform().
        @overload
        def __call__(cls: type[_Performs[P, Awaitable[R]]], *args: P.args, **kwargs: P.kwargs) -> R: ...
        @overload
        def __call__(cls: type[_Performs[P, R]], *args: P.args, **kwargs: P.kwargs) -> R: ...
        def __call__(cls: Any, *args: Any, **kwargs: Any) -> Any: ...


def _own(meta: type | None) -> Mapping[str, Any]:
    return {} if meta is None else vars(meta)


class GenericActor(metaclass=_Declares):
    """Base class of class-based actors.

        class Resize(GenericActor):
            class Meta:
                queue_name = "images"
                max_retries = 3

            def perform(self, path): ...

        Resize.send("a.png")

    The class statement declares the actor, and binds the name to the one instance of the class,
    made without arguments. The instance has ``perform`` and whatever else the class gives it; what
    it lacks (``send``, ``logger``, ``options``) is that of its actor, which is ``__actor__``.

    ``Meta`` holds the arguments of ``actor()``, except names that begin with an underscore, and
    those that it only inherits from another class. ``abstract = True`` there: no actor, a class to
    derive from. ``actor = function`` there: what declares it instead, called with the instance and
    the rest as keywords. A class without a Meta has that of the class it is derived from. An actor
    may be derived from, too.

    Attributes:
      logger(Logger): The actor's own.
      broker(Broker): The broker it is bound to.
      actor_name(str): By which messages find it. Default: the class's name.
      queue_name(str): Its queue. Default: "default".
      priority(int): Lower runs first. Default: 0.
      options(dict): Options for the broker and the middleware.

    Raises:
      ValueError: In the class statement, for what ``actor()`` does not accept.
    """

    if TYPE_CHECKING:
        logger: logging.Logger
        broker: Broker
        actor_name: str
        queue_name: str
        priority: int
        options: dict[str, Any]
        __actor__ = _ItsActor()
        send = _ItsCall()
        message = _ItsCall()
        send_with_options = _ItsSendWithOptions()
        message_with_options = _ItsMessageWithOptions()
        send_many = _ItsSendMany()

        def __new__(cls, *args: Any, **kwargs: Any) -> Any: ...

    if not TYPE_CHECKING:
        # Unknown to type checkers, as its arguments are those of the class that has one, and what
        # is forwarded is declared above: so they see what neither the class nor its actor has.
        def perform(self, *args, **kwargs):
            """What the actor does, with whatever parameters it has. To be written by every class that is not abstract.

            Raises:
              NotImplementedError: It was not.
            """
            raise NotImplementedError(f"{type(self).__name__} does not implement perform()")

        def __call__(self, *args, **kwargs):
            return self.perform(*args, **kwargs)

        @property
        def __name__(self):
            return type(self).__name__

        def __mro_entries__(self, bases):
            return (type(self),)

        def __getattr__(self, name):
            # Only for what the class does not have; there is no actor yet while it is declared.
            declared = self.__dict__.get("__actor__")
            if declared is None:
                raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
            return getattr(declared, name)
