"""Failed messages are tried again, later each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..backoff import LONGEST_BACKOFF_MS, backoff_ms
from ..clock import now_ms
from ..errors import Retry, Shutdown, describe
from ..failures import note_failure, traceback_of
from ..logging import get_logger
from .middleware import Middleware

if TYPE_CHECKING:
    from ..actor import Actor
    from ..broker import Broker
    from ..consumer import MessageProxy
    from ..message import Message

DEFAULT_MAX_RETRIES = 20
DEFAULT_MIN_BACKOFF_MS = 15_000

RetryWhen = Callable[[int, BaseException], bool]


class Retries(Middleware):
    """Tries failed messages again with exponential backoff.

    Without it a message whose actor raises is simply done. A message that was interrupted
    because its worker stops is not a failure: it goes back without spending a retry, unless
    retry_shutdown says otherwise.

    Parameters:
      max_retries(int): Retries after the first attempt; None for no end. Default: 20.
      min_backoff(int): Milliseconds. Default: 15 seconds.
      max_backoff(int): Milliseconds. Default: 7 days, which is also the most.
      retry_when(Callable[[int, BaseException], bool]): Decides from the number of earlier
        failures and the exception; then max_retries does not count.
      retry_shutdown(bool): Whether an interrupt by Shutdown is a failure like any other, as in
        Dramatiq: it spends a retry, the message waits for its backoff, and becomes a dead letter
        once its retries are used up. What has not ended when the time of the stop is over goes back
        all the same. Default: False.

    Actors may set all of these but retry_shutdown, and also:
      throws: An exception class or a tuple of them that is not tried again.
      on_retry_exhausted(str): The name of an actor that is sent the message, as a dict, and
        ``{"retries": n, "max_retries": m}`` when it is given up.

    Messages may set max_retries, min_backoff, max_backoff and on_retry_exhausted. The
    message's value comes first, then the actor's; there 0 means 0, and None no limit.
    """

    def __init__(
        self,
        *,
        max_retries: int | None = DEFAULT_MAX_RETRIES,
        min_backoff: int | None = None,
        max_backoff: int | None = None,
        retry_when: RetryWhen | None = None,
        retry_shutdown: bool = False,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.max_retries = max_retries
        self.min_backoff = min_backoff or DEFAULT_MIN_BACKOFF_MS
        self.max_backoff = max_backoff or LONGEST_BACKOFF_MS
        self.retry_when = retry_when
        self.retry_shutdown = retry_shutdown

    @property
    def actor_options(self) -> set[str]:
        return {"max_retries", "min_backoff", "max_backoff", "retry_when", "throws", "on_retry_exhausted"}

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return {
            "retries": (int,),
            "max_retries": (int, type(None)),
            "min_backoff": (int, float, type(None)),
            "max_backoff": (int, float, type(None)),
            "on_retry_exhausted": (str, type(None)),
        }

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is None:
            return
        if isinstance(exception, Shutdown) and not self.retry_shutdown:
            return  # the worker gives what it interrupted back to the queue
        inner = message._message
        actor = broker.actors[inner.actor_name]
        if isinstance(exception, expected_exceptions(inner, actor)):
            self.logger.info("Aborting message %s: its actor raised an expected exception.", inner.message_id)
            message.fail(describe(exception))
            return

        failures = inner.options.get("retries", 0)
        traceback = traceback_of(exception)
        note_failure(message, exception, traceback)
        inner.options.update(retries=failures + 1, traceback=traceback, requeue_timestamp=now_ms())
        try:
            is_exhausted = self._is_exhausted(failures, exception, inner, actor)
            delay_ms = 0 if is_exhausted else self._delay_ms(failures, exception, inner, actor)
        except Exception:
            # In retry_when, or of options that make no sense. Left to itself it would be logged
            # as a failed hook, and the message would end as done.
            self.logger.critical("Whether to retry message %s cannot be decided.", inner.message_id, exc_info=True)
            is_exhausted = True
        if is_exhausted:
            self._give_up(message, failures, exception, actor)
            return
        self.logger.info("Retrying message %s in %s milliseconds.", inner.message_id, delay_ms)
        message.release(delay_ms)

    def _is_exhausted(
        self, failures: int, exception: BaseException, message: Message[Any], actor: Actor[Any, Any]
    ) -> bool:
        retry_when: RetryWhen | None = actor.options.get("retry_when", self.retry_when)
        if retry_when is not None:
            return not retry_when(failures, exception)
        max_retries = self._option("max_retries", message, actor)
        return max_retries is not None and failures >= max_retries

    def _give_up(self, message: MessageProxy, failures: int, exception: BaseException, actor: Actor[Any, Any]) -> None:
        inner = message._message
        self.logger.warning(
            "Retries exceeded for message %s of actor %s: it goes to the dead letters.",
            inner.message_id,
            inner.actor_name,
        )
        message.fail(describe(exception))
        name = inner.options.get("on_retry_exhausted") or actor.options.get("on_retry_exhausted")
        if name:
            told = actor.broker.get_actor(name).message(
                inner.asdict(), {"retries": failures, "max_retries": self._option("max_retries", inner, actor)}
            )
            message.follow_up(told, required=False)

    def _delay_ms(self, failures: int, exception: BaseException, message: Message[Any], actor: Actor[Any, Any]) -> int:
        if isinstance(exception, Retry) and exception.delay is not None:
            return exception.delay
        shortest = self._option("min_backoff", message, actor)
        longest = self._option("max_backoff", message, actor)
        return backoff_ms(
            failures,
            min_backoff_ms=self.min_backoff if shortest is None else shortest,
            max_backoff_ms=self.max_backoff if longest is None else longest,
        )

    def _option(self, name: str, message: Message[Any], actor: Actor[Any, Any]) -> Any:
        if name in message.options:
            return message.options[name]
        if name in actor.options:
            return actor.options[name]
        return getattr(self, name)


def expected_exceptions(message: Message[Any], actor: Actor[Any, Any]) -> tuple[type[BaseException], ...]:
    """The exceptions that the option ``throws`` declares, of the message or else of its actor."""
    throws = message.options.get("throws") or actor.options.get("throws") or ()
    classes = throws if isinstance(throws, (tuple, list, set, frozenset)) else (throws,)
    # A message option that came as JSON cannot hold a class; it is ignored.
    return tuple(each for each in classes if isinstance(each, type) and issubclass(each, BaseException))
