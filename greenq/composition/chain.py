"""What comes after a message, in the form that it has inside that message.

A *step* is a message, as a dict of its fields, or a group: ``{"group": [head, ...], "id": ...,
"callbacks": [...]}``. A *head* is a step with the steps after it: the next one is its option
``pipe_target`` (of a group: its key), nested in the same way, as the API reference has it. Chains
that would nest too deeply, or have groups in them, go on flat, in ``pipe_rest`` beside
``pipe_target``.

A member of a group carries its *frame*, the option ``group_member``: a dict of the run's ``id``,
the member's ``index``, how many there are (``of``), the ``callbacks``, the steps that come after
the group (``then``) and the frame of the group around it (``up``). So a message has with it all
that is to happen later, and whoever runs it needs to ask nobody.

Values only: what is sent, when and by whom is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..message import Message, generate_unique_id

Step = dict[str, Any]
Frame = dict[str, Any]

#: Steps that are nested. Each is two levels deep, of the 64 that a message may have.
MOST_NESTED = 8

_LINKS = ("pipe_target", "pipe_rest")


def is_group(step: Step) -> bool:
    return "group" in step


def _links_of(step: Step) -> dict[str, Any]:
    """Where a step says what is next: a message among its options."""
    links: dict[str, Any] = step if is_group(step) else step["options"]
    return links


def _linked(step: Step, links: dict[str, Any]) -> Step:
    """A copy of a step with these links and no others."""
    kept = {name: value for name, value in _links_of(step).items() if name not in _LINKS}
    return {**kept, **links} if is_group(step) else {**step, "options": {**kept, **links}}


def steps_after(links: dict[str, Any]) -> list[Step]:
    """The steps that these options name, first to last, none of them linked to the next."""
    target, rest = links.get("pipe_target"), links.get("pipe_rest") or ()
    return [*(steps_of(target) if target else ()), *rest]


def steps_of(head: Step) -> list[Step]:
    """The steps of a whole chain."""
    steps: list[Step] = []
    rests: list[Step] = []
    following: Step | None = head
    while following is not None:
        steps.append(_linked(following, {}))
        links = _links_of(following)
        rests = [*(links.get("pipe_rest") or ()), *rests]
        following = links.get("pipe_target")
    return steps + rests


def links_to(steps: list[Step]) -> dict[str, Any]:
    """Options that name these steps."""
    if not steps:
        return {}
    if len(steps) > MOST_NESTED or any(map(is_group, steps)):
        return {"pipe_target": steps[0], **({"pipe_rest": steps[1:]} if steps[1:] else {})}
    return {"pipe_target": head_of(steps)}


def head_of(steps: list[Step]) -> Step:
    """The first of these steps, with all the others after it."""
    return _linked(steps[0], links_to(steps[1:]))


def launch(
    steps: list[Step], frame: Frame | None = None, results: tuple[Any, ...] = (), *, delay: int | None = None
) -> list[tuple[Message[Any], int | None]]:
    """The messages with which a chain begins, each with its delay in milliseconds.

    Parameters:
      steps(list[Step]): The chain, with at least one step.
      frame(Frame): Of the group that the chain is a member of.
      results(tuple): What comes as the last arguments, unless a message has pipe_ignore.
      delay(int): Milliseconds; if a message has an option ``delay`` that is more, that counts.

    Raises:
      DecodeError, LookupError, TypeError, ValueError: It is no chain.
    """
    first, rest = steps[0], steps[1:]
    if is_group(first):
        launched = []
        for member, head in zip(members_of(first, rest, frame), first["group"], strict=True):
            launched += launch(steps_of(head), member, results, delay=delay)
        return launched
    message: Message[Any] = Message._from_fields(dict(first), b"")
    options = {**message.options, **links_to(rest), **({"group_member": frame} if frame else {})}
    args = message.args if options.get("pipe_ignore") else (*message.args, *results)
    delay_ms = max(delay or 0, options.get("delay") or 0) or None
    return [(message._replace(args=args, options=options), delay_ms)]


def members_of(step: Step, rest: list[Step], up: Frame | None) -> Iterator[Frame | None]:
    """The frames of a group's members; None if nothing comes of them all being done."""
    heads, callbacks = step["group"], step.get("callbacks") or []
    keeps = takes_results(rest[0]) if rest else bool(up and up["keep"])
    ends = bool(up and up["ends"]) or any(each["on"] == "always" for each in callbacks)
    for index in range(len(heads)):
        if not (callbacks or rest or up):
            yield None
            continue
        frame: Frame = {"id": step["id"], "index": index, "of": len(heads), "keep": keeps, "ends": ends}
        if callbacks:
            frame["callbacks"] = callbacks
        if rest:
            frame["then"] = rest
        if up:
            frame["up"] = up
        yield frame


def takes_results(step: Step) -> bool:
    """Whether a step takes the result of the one before."""
    if is_group(step):
        return any(takes_results(steps_of(head)[0]) for head in step["group"])
    return not step["options"].get("pipe_ignore")


def renewed(step: Step) -> Step:
    """The same step for another run: its groups are counted anew."""
    if not is_group(step):
        return step
    heads = [head_of([renewed(each) for each in steps_of(head)]) for head in step["group"]]
    return {**step, "group": heads, "id": generate_unique_id()}


def followers(options: dict[str, Any]) -> Iterator[Step]:
    """All messages, as dicts, that come after the one with these options and wait for it."""
    yield from messages_in(steps_after(options))
    frame = options.get("group_member")
    while frame:
        yield from messages_in(frame.get("then") or ())
        frame = frame.get("up")


def messages_in(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        if is_group(step):
            for head in step["group"]:
                yield from messages_in(steps_of(head))
        else:
            yield step
