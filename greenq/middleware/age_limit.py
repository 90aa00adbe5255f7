"""Messages that are too old are not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..clock import now_ms
from ..errors import SkipMessage
from ..logging import get_logger
from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy


class AgeLimit(Middleware):
    """Moves messages that have become too old to the dead letters.

    The age counts from when the message was built: delays and the time between retries
    are part of it.

    Parameters:
      max_age(int): Milliseconds. Default: no limit. A message's option ``max_age`` comes
        first, then the actor's.
    """

    def __init__(self, *, max_age: int | None = None) -> None:
        self.logger = get_logger(__name__, type(self))
        self.max_age = max_age

    @property
    def actor_options(self) -> set[str]:
        return {"max_age"}

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return {"max_age": (int, float, type(None))}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        options = message._message.options
        max_age = options.get("max_age") or broker.actors[message._message.actor_name].options.get("max_age")
        max_age = max_age or self.max_age
        if not max_age:
            return
        if now_ms() - message._message.message_timestamp >= max_age:
            self.logger.warning("Message %s has exceeded its age limit.", message.message_id)
            message.fail("Message age limit exceeded")
            raise SkipMessage("Message age limit exceeded")
