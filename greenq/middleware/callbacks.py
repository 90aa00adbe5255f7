"""Actors that are told how a message went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ActorNotFound, Shutdown, text_of
from ..logging import get_logger
from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy


_OPTION_TYPES = dict.fromkeys(("on_success", "on_failure", "on_dead"), (str, type(None)))


class Callbacks(Middleware):
    """Sends messages to other actors when a message succeeds, fails or is dead.

    They are stored in the same step in which the message is settled, so none is lost between. A
    message's own option comes before its actor's. Each is an actor of the same broker, or its name:

      on_success: Is sent the message, as a dict, and what its actor returned.
      on_failure: Is sent the message and ``{"type": class name, "message": text}`` of the exception,
        after every failed attempt, also of those that are followed by a retry.
      on_dead: Is sent the message and ``{"reason": text, "type": ..., "message": ...}``, once, when
        it moves to the dead letters, for whatever reason: retries exhausted, an exception of
        ``throws``, its age, an actor that the worker does not know... ``type`` and ``message`` are
        those of the exception; None if there was none.

    A message whose on_success cannot be sent (no such actor, a result that cannot be encoded) is
    moved to the dead letters. The other two are passed over then, with an ERROR or a WARNING.
    """

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))

    @property
    def actor_options(self) -> set[str]:
        return set(_OPTION_TYPES)

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return _OPTION_TYPES

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is None:
            name = None if message.failed else self._wanted("on_success", broker, message)
            if name is not None:
                try:
                    self._tell(name, broker, message, result, required=True)
                except ActorNotFound as error:
                    message.fail(f"Its on_success cannot be sent: {error}")
        elif not isinstance(exception, Shutdown):
            self._tell_of_failure("on_failure", broker, message, _told(exception))

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        exception = message._exception
        told = {"type": None, "message": None} if exception is None else _told(exception)
        self._tell_of_failure("on_dead", broker, message, {"reason": message.reason_of_death(), **told})

    def _wanted(self, option: str, broker: Broker, message: MessageProxy) -> str | None:
        inner = message._message
        name = inner.options.get(option)
        if not name:
            actor = broker.actors.get(inner.actor_name)
            name = None if actor is None else actor.options.get(option)
        # A message may be dead just because its option is of another type.
        return name if isinstance(name, str) and name else None

    def _tell_of_failure(self, option: str, broker: Broker, message: MessageProxy, told: dict[str, Any]) -> None:
        name = self._wanted(option, broker, message)
        if name is not None:
            try:
                self._tell(name, broker, message, told, required=False)
            except ActorNotFound as error:
                self.logger.error("The %s of message %s cannot be sent: %s", option, message.message_id, error)

    def _tell(self, name: str, broker: Broker, message: MessageProxy, told: Any, *, required: bool) -> None:
        inner = message._message
        # As it is now: its options change until it is settled.
        about = {**inner.asdict(), "options": dict(inner.options)}
        message.follow_up(broker.get_actor(name).message(about, told), required=required)


def _told(exception: BaseException) -> dict[str, Any]:
    return {"type": type(exception).__name__, "message": text_of(exception)}
