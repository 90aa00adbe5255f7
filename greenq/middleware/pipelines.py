"""The next step of a pipeline follows from the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..composition.chain import launch, steps_after
from ..composition.sending import counts_groups
from ..errors import describe
from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy


_OPTION_TYPES: Mapping[str, tuple[type, ...]] = {
    "pipe_target": (dict, type(None)),
    "pipe_rest": (list, type(None)),
    "pipe_ignore": (bool, int, type(None)),
}


class Pipelines(Middleware):
    """Sends what comes next in a pipeline, with the result of the actor as its last positional argument.

    It is stored in the same step in which the message is settled. A step whose next one cannot be
    sent (its result cannot be encoded, or is too large) is moved to the dead letters.

    Options of messages:
      pipe_target(dict): What comes next; a message as a dict. ``pipe_rest``, what comes after that.
      pipe_ignore(bool): Of the next message: it does not take the result. As an option of an actor:
        its result is not passed on.
    """

    @property
    def actor_options(self) -> set[str]:
        return {"pipe_ignore"}

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
        options = message._message.options
        if exception is not None or message.failed or not options.get("pipe_target"):
            return
        ignores = broker.actors[message._message.actor_name].options.get("pipe_ignore")
        try:
            following = launch(steps_after(options), options.get("group_member"), () if ignores else (result,))
        except Exception as error:  # whatever another program put there: never a silent end
            message.fail(f"The next step of its pipeline is not one: {describe(error)}")
            return
        if any("group_member" in each.options for each, _ in following) and not counts_groups(broker):
            message.fail("A group follows it, but its worker's broker has no GroupCallbacks middleware")
            return
        for each, delay in following:
            message.follow_up(each, delay)
