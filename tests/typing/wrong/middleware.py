"""What type checkers complain about in middleware of one's own."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from greenq import Broker, Message, MessageProxy, Middleware
from greenq.middleware import CurrentMessage


class Wrong(Middleware):
    @property
    def actor_options(self) -> str:  # error: override | reportIncompatibleMethodOverride
        return "tenant"

    @override
    def before_procces_message(self, broker: Broker, message: MessageProxy) -> None: ...  # error: misc | reportGeneralTypeIssues

    def before_enqueue(self, broker: Broker, message: Message[Any]) -> None: ...  # error: override | reportIncompatibleMethodOverride

    def before_ack(self, broker: Broker, message: Message[Any]) -> None: ...  # error: override | reportIncompatibleMethodOverride

    def before_nack(self, message: MessageProxy) -> None: ...  # error: override | reportIncompatibleMethodOverride

    def after_process_message(self, broker: Broker, message: MessageProxy) -> None: ...  # error: override | reportIncompatibleMethodOverride

    async def after_ack(self, broker: Broker, message: MessageProxy) -> None: ...  # error: override | reportIncompatibleMethodOverride

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        message.message_id += 1  # error: operator | reportOperatorIssue
        message.fail(3)  # error: arg-type | reportArgumentType
        message.release("later")  # error: arg-type | reportArgumentType
        message.follow_up(message)  # error: arg-type | reportArgumentType


text: str = CurrentMessage.get_current_message()  # error: assignment | reportAssignmentType
CurrentMessage.get_current_message().fail()  # error: union-attr | reportOptionalMemberAccess
