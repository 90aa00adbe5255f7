"""Which actors are told at once that their worker stops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy
    from ..worker import Worker


class ShutdownNotifications(Middleware):
    """Raises Shutdown, once, in actors that asked for it when their worker starts to stop.

    A message that is interrupted so goes back to its queue, and no retry is spent. An actor that has not begun by
    then does not begin.

    Parameters:
      notify_shutdown(bool): Whether actors are told. Default: False. A message's option
        ``notify_shutdown`` comes first, then the actor's.
    """

    def __init__(self, notify_shutdown: bool = False) -> None:
        self.notify_shutdown = notify_shutdown

    @property
    def actor_options(self) -> set[str]:
        return {"notify_shutdown"}

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return {"notify_shutdown": (bool, int, type(None))}

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        inner = message._message
        wanted = inner.options.get("notify_shutdown")
        if wanted is None:
            wanted = broker.actors[inner.actor_name].options.get("notify_shutdown")
        if self.notify_shutdown if wanted is None else wanted:
            message.notify_shutdown = True

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        worker.notify_shutdown()
