"""Messages beside each other, and what happens when all of them are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ..broker import get_broker
from ..errors import ResultFailure, ResultMissing
from ..message import Message, generate_unique_id
from .chain import Step, launch, renewed
from .pipelines import _unlinked, pipeline
from .sending import check, send

if TYPE_CHECKING:
    from ..broker import Broker

R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class group(Generic[R_co]):
    """Actors that run at the same time.

        group([fetch.message(url) for url in urls]).run()

    Parameters:
      children(Iterable[Message | group | pipeline]): Its members. A member counts once, however often
        it is delivered.
      broker(Broker): Where it runs. Default: the global broker.

    Attributes:
      children(list): The same.

    Raises:
      TypeError: A child is something else.
    """

    @overload
    def __init__(self, children: Iterable[Message[R_co] | pipeline[R_co]], *, broker: Broker | None = None) -> None: ...
    @overload
    def __init__(self: group[list[S]], children: Iterable[group[S]], *, broker: Broker | None = None) -> None: ...
    @overload
    def __init__(
        self: group[Any],
        children: Iterable[Message[Any] | pipeline[Any] | group[Any]],
        *,
        broker: Broker | None = None,
    ) -> None: ...
    def __init__(self, children: Iterable[Any], *, broker: Broker | None = None) -> None:
        self._broker = broker
        self.children: list[Any] = list(children)
        self._callbacks: list[dict[str, Any]] = []
        for child in self.children:
            if not isinstance(child, (Message, group, pipeline)):
                raise TypeError(f"A group is made of messages, groups and pipelines, not of {child!r:.80}.")

    @property
    def broker(self) -> Broker:
        """The broker it runs on."""
        return self._broker or get_broker()

    def __len__(self) -> int:
        return len(self.children)

    def __repr__(self) -> str:
        return f"group([{', '.join(map(str, self.children))}])"

    @overload
    def __or__(self, other: Message[S]) -> pipeline[S]: ...
    @overload
    def __or__(self, other: pipeline[S]) -> pipeline[S]: ...
    @overload
    def __or__(self, other: group[S]) -> pipeline[list[S]]: ...
    def __or__(self, other: Any) -> Any:
        """This group, and then the other with the list of its results."""
        return pipeline([self, other], broker=self._broker)

    def add_completion_callback(self, message: Message[Any], *, on: Literal["success", "always"] = "success") -> None:
        """Have a message sent, as it is, when all members are done.

        Needs the middleware GroupCallbacks. A group may have several, and so may one inside another
        group or a pipeline.

        Parameters:
          message(Message): The message.
          on(str): "success": when every member has succeeded; never, if one is dead, unless that
            one is sent back and succeeds. "always": when every member has ended, in whichever way.
            Default: "success".

        Raises:
          ValueError: ``on`` is something else.
        """
        if on not in ("success", "always"):
            raise ValueError(f"A completion callback is sent on 'success' or 'always', not {on!r}.")
        self._callbacks.append({"on": on, "message": message.asdict()})

    def step(self) -> Step:
        """The group in the form that it has inside messages; see chain.py.

        Raises:
          ValueError: It has no members, so nothing would ever complete it.
        """
        if not self.children:
            raise ValueError("A group inside a pipeline or a group needs at least one member: leave an empty one out.")
        return {"group": [_head(child) for child in self.children], "id": generate_unique_id(), **self._to_be_told()}

    def _to_be_told(self) -> dict[str, Any]:
        return {"callbacks": list(self._callbacks)} if self._callbacks else {}

    def run(self, *, delay: int | None = None) -> group[R_co]:
        """Send all members, many in one round trip. It may be run again, and is counted anew. May switch.

        Without members its completion callbacks are sent at once.

        Parameters:
          delay(int): Milliseconds from now before which no member must begin. If a message has an
            option ``delay`` that is more, that counts.

        Returns:
          This group.

        Raises:
          RuntimeError: The broker lacks the middleware that its callbacks need.
          EnqueueManyFailed: The broker did not confirm. Says which are stored, which may be and which
            are not.
        """
        if self.children:
            steps = [renewed(self.step())]
            check(self.broker, steps)
            send(self.broker, launch(steps, delay=delay))
        else:
            callbacks = [launch([each["message"]])[0] for each in self._callbacks]
            send(self.broker, [(message, delay) for message, _ in callbacks])
        return self

    # -- its results

    def get_results(self, *, block: bool = False, timeout: float | None = None) -> Iterator[R_co]:
        """The results of the members, in their order, each when it is asked for.

        That of a pipeline is its last step's, that of a group the list of its members'. May switch.

        Parameters:
          block(bool): Whether to wait for them. Default: False.
          timeout(int): Milliseconds to wait for all of them. Default: 10 seconds for each.

        Raises:
          RuntimeError: The broker has no result backend.
          ResultMissing: There is no result of one, and block is False.
          ResultTimeout: That of one did not come in time.
          ResultFailure: A member failed for good; says which and why. Whoever waits is told at once,
            whichever member it waits for.
        """
        backend = self.broker.get_results_backend()
        messages = list(_results_of(self.children))
        if block:
            results = backend.get_each(messages, timeout=timeout)
        else:
            results = (backend.get_result(message) for message in messages)
        return self._arranged(results)

    def _arranged(self, results: Iterator[Any]) -> Iterator[Any]:
        try:
            for child in self.children:
                yield _arranged(child, results)
        except ResultFailure as error:
            raise self._with_member(error) from error

    def _with_member(self, error: ResultFailure) -> ResultFailure:
        for index, child in enumerate(self.children):
            if any(message.message_id == error.message_id for message in _results_of([child])):
                text = f"member {index + 1} of {len(self)}, {child}, failed: {error.message}"
                return ResultFailure(text, error.orig_exc_type, error.orig_exc_msg, error.message_id)
        return error

    async def aget_results(self, *, timeout: float | None = None) -> list[R_co]:
        """All of ``get_results(block=True)`` for code that runs on an asyncio loop, which nothing blocks meanwhile."""
        import asyncio

        results = self.get_results(block=True, timeout=timeout)
        return await asyncio.get_running_loop().run_in_executor(None, list, results)

    def wait(self, *, timeout: float | None = None) -> None:
        """Wait until all members are done. Raises like ``get_results``. Switches.

        Parameters:
          timeout(int): Milliseconds to wait for all of them. Default: 10 seconds for each.
        """
        for _ in self.get_results(block=True, timeout=timeout):
            pass

    @property
    def completed(self) -> bool:
        """Whether all members are done. Never, if an actor stores no results. May switch.

        Raises:
          RuntimeError: The broker has no result backend.
          ResultFailure: A member failed for good.
        """
        return all([_is_completed(self.broker, child) for child in self.children])

    @property
    def completed_count(self) -> int:
        """How many members are done, those of groups inside it included; a pipeline is one. May switch.

        Those whose actors store no results are not counted. Raises like ``completed``.
        """
        return sum(
            child._on(self.broker).completed_count
            if isinstance(child, group)
            else int(_is_completed(self.broker, child))
            for child in self.children
        )

    def _on(self, broker: Broker) -> group[R_co]:
        """The same group, read on the broker of what it is part of."""
        return group(self.children, broker=broker)


def _head(child: Any) -> Step:
    if isinstance(child, Message):
        return child._replace(options=_unlinked(child)).asdict()
    return child.step() if isinstance(child, group) else child.head()


def _results_of(children: Iterable[Any]) -> Iterator[Message[Any]]:
    """The messages whose results are those of these members."""
    for child in children:
        if isinstance(child, Message):
            yield child
        else:
            yield from _results_of(child.children if isinstance(child, group) else child.messages[-1:])


def _arranged(child: Any, results: Iterator[Any]) -> Any:
    """The result of a member, from those of its messages."""
    if isinstance(child, pipeline):
        return _arranged(child.messages[-1], results)
    if isinstance(child, group):
        return [_arranged(each, results) for each in child.children]
    return next(results)


def _is_completed(broker: Broker, child: Any) -> bool:
    if isinstance(child, pipeline):
        child = child.messages[-1]
    if isinstance(child, group):
        return child._on(broker).completed
    try:
        broker.get_results_backend().get_result(child)
    except ResultMissing:
        return False
    return True
