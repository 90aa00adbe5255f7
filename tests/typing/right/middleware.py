"""Middleware of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_type, override

import greenq
from greenq import Actor, Broker, Message, MessageProxy, Middleware, Worker
from greenq.brokers.stub import StubBroker
from greenq.middleware import CurrentMessage, SkipMessage


class Tenants(Middleware):
    """Adds an option of actors and messages."""

    @property
    def actor_options(self) -> set[str]:
        return {"tenant"}

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return {"tenant": (str,)}

    @override
    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        message.options.setdefault("tenant", broker.get_actor(message.actor_name).options.get("tenant"))

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        assert_type(message.message_id, str)
        assert_type(message.message, Message[Any])
        if message.options.get("tenant") is None:
            message.fail("it has no tenant")
            raise SkipMessage("it has no tenant")

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        print(message.queue_name, message.actor_name, message.args, message.kwargs, result, exception)

    def after_declare_actor(self, broker: Broker, actor: Actor[Any, Any]) -> None:
        print(actor.actor_name, actor.options)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        worker.notify_shutdown()


greenq.set_broker(StubBroker())
greenq.get_broker().add_middleware(Tenants())
greenq.get_broker().add_middleware(CurrentMessage())


@greenq.actor(tenant="acme")
def greet(name: str) -> None:
    current = CurrentMessage.get_current_message()
    assert_type(current, "MessageProxy | None")
    print(name, current)


assert_type(greet.send("ann"), Message[None])
assert_type(greet.send_with_options(args=("ann",), tenant="acme"), Message[None])
