"""Messages as they were delivered: what a consumer hands out.

Know their delivery and what is written already of their verdict. Do not know how they came, nor how
they are settled: see inbox.py and consumer.py.
"""

from __future__ import annotations

from typing import Any

from ...consumer import MessageProxy, Undecodable
from ...message import Message
from ...verdict import Envelope
from .losses import losses
from .publisher import Batch
from .subscription import Subscription
from .wire import Delivery


class RabbitmqMessage(MessageProxy):
    """A message from the server.

    Attributes:
      delivery(Delivery): As it came.
      subscription(Subscription): Where it came from, and where its tag means something.
      deliveries(int): How often it was lost with a worker.
    """

    #: What follows from it and is not stored yet, None for its dead letter; and whether it is settled.
    #: Both are done once.
    left_to_store: list[Envelope | None] | None = None
    is_written = False
    #: Those of them that were sent, and may be stored though nobody waited for it any more: an alarm began.
    under_way: tuple[tuple[Envelope | None, Batch], ...] = ()
    #: Whether it was lost too often to be run once more. The last loss is not in its header then.
    is_given_up = False

    def __init__(self, message: Message[Any], delivery: Delivery, subscription: Subscription) -> None:
        self._message = message
        self.delivery = delivery
        self.subscription = subscription

    @property
    def deliveries(self) -> int:  # type: ignore[override] # the base has a plain attribute; here it is read from a header, when asked
        return losses(self.delivery) + self.is_given_up

    def give_up(self) -> None:
        """Have it moved to the dead letters instead of being run."""
        self.is_given_up = True
        self.fail(f"Its worker, or that one's connection, was lost {self.deliveries} times while it had this message.")


class RabbitmqUndecodable(Undecodable):
    """Bytes from the server that are no message; attributes as of RabbitmqMessage."""

    left_to_store: list[Envelope | None] | None = None
    is_written = False
    under_way: tuple[tuple[Envelope | None, Batch], ...] = ()

    def __init__(self, queue_name: str, error: BaseException, delivery: Delivery, subscription: Subscription) -> None:
        super().__init__(queue_name, delivery.body, error)
        self.delivery = delivery
        self.subscription = subscription

    @property
    def deliveries(self) -> int:  # type: ignore[override] # the base has a plain attribute; here it is read from a header, when asked
        return losses(self.delivery)
