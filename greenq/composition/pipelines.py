"""Messages one after the other, each with the result of the one before."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from ..broker import get_broker
from ..errors import ResultMissing
from ..message import Message
from .chain import Step, head_of, launch, renewed, steps_of
from .sending import check, send

if TYPE_CHECKING:
    from ..broker import Broker
    from .groups import group

R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class pipeline(Generic[R_co]):
    """A chain of actors, each of which gets the result of the one before as its last argument.

        pipeline([fetch.message(url), count_words.message()]).run()
        (fetch.message(url) | count_words.message()).run()

    A step that fails is retried, and the pipeline goes on when it succeeds. If it is dead, those who
    wait for results of later steps are told at once. A group is a step as well: each of its members
    gets the result of the step before, and the step after it the list of their results.

    Parameters:
      children(Iterable[Message | pipeline | group]): The steps; pipelines among them become steps of
        this one.
      broker(Broker): Where it runs. Default: the global broker.

    Attributes:
      messages(list[Message | group]): The steps. Messages are copies that know what comes next.

    Raises:
      TypeError: A child is something else.
      ValueError: There is no child, or a group without members.
    """

    def __init__(
        self: pipeline[Any],
        children: Iterable[Message[Any] | pipeline[Any] | group[Any]],
        *,
        broker: Broker | None = None,
    ) -> None:
        self._broker = broker
        self.messages: list[Any] = []
        head: Step | None = None
        for child in reversed(_flat(children)):
            links = {} if head is None else {"pipe_target": head}
            if isinstance(child, Message):
                child = child._replace(options={**_unlinked(child), **links})
                head = child.asdict()
            else:
                head = {**child.step(), **links}
            self.messages.insert(0, child)
        if head is None:
            raise ValueError("A pipeline needs at least one message.")
        self._head = head

    @property
    def broker(self) -> Broker:
        """The broker it runs on."""
        return self._broker or get_broker()

    def __len__(self) -> int:
        return len(self.messages)

    def __repr__(self) -> str:
        return f"pipeline([{', '.join(map(str, self.messages))}])"

    @overload
    def __or__(self, other: Message[S]) -> pipeline[S]: ...
    @overload
    def __or__(self, other: pipeline[S]) -> pipeline[S]: ...
    @overload
    def __or__(self, other: group[S]) -> pipeline[list[S]]: ...
    def __or__(self, other: Any) -> Any:
        """This one and then the other."""
        return pipeline([self, other], broker=self._broker)

    def steps(self) -> list[Step]:
        """The steps in the form that they have inside messages; see chain.py."""
        return steps_of(self._head)

    def head(self) -> Step:
        """The same as one step with all that comes after it."""
        return head_of(self.steps())

    def run(self, *, delay: int | None = None) -> pipeline[R_co]:
        """Send the first step. It may be run again, with the same message ids. May switch.

        Parameters:
          delay(int): Milliseconds from now before which it must not begin. If the first message has
            an option ``delay`` that is more, that counts. Later ones wait for their own.

        Returns:
          This pipeline.

        Raises:
          RuntimeError: It has a group in it, and the broker lacks the middleware that groups need.
          ConnectionError: The broker did not confirm.
        """
        steps = [renewed(step) for step in self.steps()]
        check(self.broker, steps)
        send(self.broker, launch(steps, delay=delay))
        return self

    # -- its results

    def get_result(self, *, block: bool = False, timeout: float | None = None) -> R_co:
        """What the last step returned; of a group, the list of its members' results. May switch.

        Parameters:
          block(bool): Whether to wait for it. Default: False.
          timeout(int): Milliseconds to wait. Default: 10 seconds.

        Raises:
          RuntimeError: The broker has no result backend.
          ResultMissing: There is no result, and block is False.
          ResultTimeout: None came in time.
          ResultFailure: A step failed for good; says which and why.
        """
        return cast(R_co, self._result_of(self.messages[-1], block, timeout))

    async def aget_result(self, *, timeout: float | None = None) -> R_co:
        """``get_result(block=True)`` for code that runs on an asyncio loop, which nothing blocks meanwhile."""
        last = self.messages[-1]
        if isinstance(last, Message):
            return cast(R_co, await last.aget_result(backend=self.broker.get_results_backend(), timeout=timeout))
        return cast(R_co, await last._on(self.broker).aget_results(timeout=timeout))

    def get_results(self, *, block: bool = False, timeout: float | None = None) -> Iterator[Any]:
        """The results of all steps, first to last, each when it is asked for. May switch. Raises like ``get_result``.

        Parameters:
          block(bool): Whether to wait for them. Default: False.
          timeout(int): Milliseconds to wait for all of them. Default: 10 seconds for each.
        """
        self.broker.get_results_backend()
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        return (self._result_of(step, block, _left_ms(deadline)) for step in self.messages)

    @property
    def completed(self) -> bool:
        """Whether the last step is done. Never, if its actor stores no results. May switch.

        Raises:
          RuntimeError: The broker has no result backend.
          ResultFailure: A step failed for good.
        """
        try:
            self.get_result()
        except ResultMissing:
            return False
        return True

    @property
    def completed_count(self) -> int:
        """How many jobs are done, up to the first one that is not. Raises like ``completed``. May switch.

        Those whose actors store no results are not counted, nor what comes after them.
        """
        count = 0
        for step in self.messages:
            if isinstance(step, Message):
                try:
                    self._result_of(step, False, None)
                except ResultMissing:
                    break
                count += 1
            else:
                members = step._on(self.broker)
                count += members.completed_count
                if not members.completed:
                    break
        return count

    def _result_of(self, step: Any, block: bool, timeout: float | None) -> Any:
        if isinstance(step, Message):
            return self.broker.get_results_backend().get_result(step, block=block, timeout=timeout)
        return list(step._on(self.broker).get_results(block=block, timeout=timeout))


def _flat(children: Iterable[Any]) -> list[Any]:
    from .groups import group

    flat: list[Any] = []
    for child in children:
        if isinstance(child, pipeline):
            flat += child.messages
        elif isinstance(child, (Message, group)):
            flat.append(child)
        else:
            raise TypeError(f"A pipeline is made of messages, groups and pipelines, not of {child!r:.80}.")
    return flat


def _unlinked(message: Message[Any]) -> dict[str, Any]:
    """The options of a message that nothing comes after yet."""
    return {
        name: value
        for name, value in message.options.items()
        if name not in ("pipe_target", "pipe_rest", "group_member")
    }


def _left_ms(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)
