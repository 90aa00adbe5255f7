"""The message whose actor runs here."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy

_current: ContextVar[MessageProxy | None] = ContextVar("greenq_current_message", default=None)


class CurrentMessage(Middleware):
    """Makes the current message available inside actors.

    It is local to the job's context: greenlets that an actor spawns do not see it, unless
    they are started in a copy of that context.
    """

    @classmethod
    def get_current_message(cls) -> MessageProxy | None:
        """The message of the actor that runs here; None outside of actors."""
        return _current.get()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        _current.set(message)

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        _current.set(None)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        _current.set(None)
