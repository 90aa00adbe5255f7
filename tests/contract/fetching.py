"""Takes messages from a consumer, the way the worker does."""

from __future__ import annotations

from greenq.consumer import Consumer, MessageProxy
from greenq.message import Message
from greenq.verdict import Action, Verdict


def message(*args, actor_name="work", queue_name="default", **options):
    """A message with these arguments and options."""
    return Message(queue_name, actor_name, args, {}, options)


def take(consumer: Consumer, count: int = 1) -> list[MessageProxy]:
    """The next messages; fails if so many do not come."""
    messages: list[MessageProxy] = []
    while len(messages) < count:
        assert consumer.wait(), f"{len(messages)} of {count} messages came"
        messages += consumer.fetch(count - len(messages))
    return messages


def take_one(consumer: Consumer) -> MessageProxy:
    return take(consumer)[0]


def names(messages) -> list:
    """The first argument of each message."""
    return [each.args[0] for each in messages]


def acks(messages) -> list[Verdict]:
    return [Verdict(Action.ACK, each) for each in messages]


def nacks(messages, reason=None) -> list[Verdict]:
    for each in messages:
        each.fail()
    return [Verdict(Action.NACK, each, reason=reason) for each in messages]


def requeues(messages) -> list[Verdict]:
    return [Verdict(Action.REQUEUE, each) for each in messages]
