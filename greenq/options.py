"""The options that messages may be sent with, and their types, for type checkers and editors.

What a call does not take is complained about where it is written. Names that are not listed are
let pass, because an application's own middleware may know them. Says nothing of what options
mean: that is in the middleware, and in docs/actors.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from datetime import timedelta

    from .actor import Actor
    from .generic import GenericActor

    #: An actor, or the name of one.
    ActorOrName: TypeAlias = Actor[..., Any] | type[GenericActor] | str

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")


def takes(declared: Callable[P, None]) -> Callable[[Callable[Concatenate[S, ...], T]], Callable[Concatenate[S, P], T]]:
    """For type checkers: a method that has the parameters of this function after its ``self``."""
    return lambda method: method


# Three lists of the same options, as there is no way to say "these keywords, and any others" once.


def of_message(
    *,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    broker_priority: int | None = None,
    max_age: float | None = None,
    max_backoff: float | None = None,
    max_retries: int | None = ...,
    min_backoff: float | None = None,
    notify_shutdown: bool | None = None,
    on_dead: ActorOrName = ...,
    on_failure: ActorOrName = ...,
    on_retry_exhausted: str | None = None,
    on_success: ActorOrName = ...,
    pipe_ignore: bool = False,
    result_ttl: float | None = None,
    soft_time_limit: float | None = None,
    store_results: bool | None = None,
    time_limit: float | None = None,
    **options: Any,
) -> None:
    """What ``message_with_options`` takes."""


def of_send(
    *,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    delay: timedelta | int | None = None,
    broker_priority: int | None = None,
    max_age: float | None = None,
    max_backoff: float | None = None,
    max_retries: int | None = ...,
    min_backoff: float | None = None,
    notify_shutdown: bool | None = None,
    on_dead: ActorOrName = ...,
    on_failure: ActorOrName = ...,
    on_retry_exhausted: str | None = None,
    on_success: ActorOrName = ...,
    pipe_ignore: bool = False,
    result_ttl: float | None = None,
    soft_time_limit: float | None = None,
    store_results: bool | None = None,
    time_limit: float | None = None,
    **options: Any,
) -> None:
    """What ``send_with_options`` takes."""


def of_send_many(
    calls: Iterable[tuple[Any, ...] | Mapping[str, Any]],
    *,
    delay: timedelta | int | None = None,
    broker_priority: int | None = None,
    max_age: float | None = None,
    max_backoff: float | None = None,
    max_retries: int | None = ...,
    min_backoff: float | None = None,
    notify_shutdown: bool | None = None,
    on_dead: ActorOrName = ...,
    on_failure: ActorOrName = ...,
    on_retry_exhausted: str | None = None,
    on_success: ActorOrName = ...,
    pipe_ignore: bool = False,
    result_ttl: float | None = None,
    soft_time_limit: float | None = None,
    store_results: bool | None = None,
    time_limit: float | None = None,
    **options: Any,
) -> None:
    """What ``send_many`` takes."""
