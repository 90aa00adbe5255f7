"""How a composition is sent, and what a broker needs for it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from .chain import Frame, Step, is_group, members_of, steps_of

if TYPE_CHECKING:
    from ..broker import Broker
    from ..message import Message


def check(broker: Broker, steps: list[Step]) -> None:
    """Make sure that a broker has the middleware that a chain needs.

    Raises:
      RuntimeError: It lacks one; says which, and how to add it.
    """
    frames = list(_frames_in(steps, None))
    if frames and not counts_groups(broker):
        raise RuntimeError(
            "A group with completion callbacks, or with a step after it, is counted by the middleware GroupCallbacks, "
            f"which this {type(broker).__name__} does not have. Add it with broker.add_middleware("
            "GroupCallbacks(rate_limiter_backend)), here and where the workers run."
        )
    if any(frame["keep"] for frame in frames):
        broker.get_results_backend()  # says what to do itself


def counts_groups(broker: Broker) -> bool:
    """Whether a broker has the middleware that tells when a group is complete."""
    return any(getattr(each, "counts_groups", False) for each in broker.middleware)


def _frames_in(steps: list[Step], up: Frame | None) -> list[Frame]:
    """The frames of all members of counted groups, one for each group."""
    found: list[Frame] = []
    for position, step in enumerate(steps):
        if is_group(step):
            for frame, head in zip(members_of(step, steps[position + 1 :], up), step["group"], strict=True):
                if frame is not None and frame["index"] == 0:
                    found.append(frame)
                found += _frames_in(steps_of(head), frame)
    return found


def send(broker: Broker, launched: list[tuple[Message[Any], int | None]]) -> None:
    """Enqueue messages, each with its delay; many in few round trips. May switch."""
    for delay, together in groupby(launched, key=lambda each: each[1]):
        messages = [message for message, _ in together]
        if len(messages) == 1:
            broker.enqueue(messages[0], delay=delay)
        else:
            broker.enqueue_many(messages, delay=delay)
