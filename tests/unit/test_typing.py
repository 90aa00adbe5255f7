"""Actors are typed: calls and sends are checked, options are not."""

from __future__ import annotations

import re
import textwrap

import pytest
from mypy import api

HEAD = """
    from __future__ import annotations
    from datetime import timedelta
    from typing import Any, TypeVar
    import greenq
    from greenq import Actor, Message

    @greenq.actor
    def add(x: int, y: int = 0) -> str:
        return str(x + y)

    @greenq.actor(queue_name="q", priority=3, max_retries=2)
    def configured(x: int) -> str:
        return str(x)

    @greenq.actor
    async def awaited(x: int) -> str:
        return str(x)

    class Base(greenq.GenericActor):
        class Meta:
            abstract = True
            queue_name = "q"

        def title(self) -> str:
            raise NotImplementedError

        def perform(self, x: int, *, loud: bool = False) -> str:
            return self.title() * x

    class Derived(Base):
        def title(self) -> str:
            return self.queue_name

    class Awaited(greenq.GenericActor):
        async def perform(self, x: int) -> str:
            return str(x)
"""


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Runs mypy on lines that follow HEAD; answers its complaints about them."""
    folder = tmp_path_factory.mktemp("mypy")
    head = textwrap.dedent(HEAD)
    offset = head.count("\n")

    def check(lines):
        program = folder / "program.py"
        program.write_text(head + textwrap.dedent(lines).lstrip("\n"))
        report, failure, _ = api.run(
            ["--strict", "--no-error-summary", "--follow-imports=silent", f"--cache-dir={folder}", str(program)]
        )
        assert not failure, failure
        complaints = []
        for line in report.splitlines():
            number, kind, text = re.match(r".*program\.py:(\d+): (\w+): (.*)", line).groups()
            if kind in ("error", "note"):
                complaints.append((int(number) - offset, text))
        return complaints

    return check


def test_right_programs_are_accepted(check):
    assert (
        check("""
        text: str = add(1, y=2)
        one: Message[str] = add.send(1)
        two: Message[str] = add.message(1, 2)
        three: Message[str] = configured.send(1)
        four: Message[str] = awaited.send(1)
        five: Message[str] = add.send_with_options(args=(1,), delay=timedelta(seconds=1), anything="goes")
        six: Message[str] = add.message_with_options(kwargs={"x": 1}, max_retries=None)
        seven: Message[str] = Derived.send(1, loud=True)
        eight: Message[str] = Awaited.message(1)
        nine: Message[str] = Derived.send_with_options(args=(1,), delay=10, anything="goes")
        ten: Message[str] = Awaited.message_with_options(args=(1,))
        eleven: list[Message[Any]] = Derived.send_many([(1,), {"x": 2}])
        called: Any = Derived(1)
        actor: Actor[Any, Any] = Derived.__actor__
        queue: str = Derived.queue_name
        """)
        == []
    )


@pytest.mark.parametrize(
    "line",
    [
        'add("one")',
        "add()",
        "add(1, 2, 3)",
        "add(1, z=2)",
        'add.send("one")',
        "add.send()",
        "add.message(1, z=2)",
        'configured("one")',
        "configured.send(1, 2)",
        'awaited.send("one")',
        'add.send_with_options(args=(1,), delay="soon")',
        "number: int = add(1)",
        "wrong: Message[int] = add.send(1)",
        'Derived.send("one")',
        "Derived.send()",
        "Derived.message(1, quiet=True)",
        'Awaited.send("one")',
        "wrong: Message[int] = Awaited.send(1)",
    ],
)
def test_wrong_programs_are_refused(check, line):
    assert {number for number, _ in check(line)} == {1}


def test_types_are_told_as_they_were_declared(check):
    told = check("""
        reveal_type(add)
        reveal_type(configured)
        reveal_type(awaited)
    """)

    actors = [text.replace("greenq.actor.", "").replace("builtins.", "") for _, text in told]
    assert "Actor[[x: int, y: int =], str]" in actors[0]
    assert "Actor[[x: int], str]" in actors[1]
    assert "Actor[[x: int], str]" in actors[2]


def test_actors_and_messages_can_be_subclassed(check):
    assert (
        check("""
        from typing_extensions import ParamSpec

        P = ParamSpec("P")
        R = TypeVar("R")

        class Mine(Actor[P, R]):
            pass

        class Letter(Message[R]):
            pass

        @greenq.actor(actor_class=Mine)
        def work(x: int) -> str:
            return ""

        text: str = work(1)
        """)
        == []
    )


def test_the_result_of_a_message_is_what_its_actor_returns(check):
    assert (
        check("""
        text: str = add.send(1).get_result(block=True, timeout=1000)
        async def main() -> str:
            return await add.send(1).aget_result()
        """)
        == []
    )
    ((line, complaint),) = check("number: int = add.send(1).get_result()")
    assert line == 1
    assert '"str"' in complaint
    assert '"int"' in complaint


def test_compositions_are_typed_by_what_comes_last(check):
    assert (
        check("""
        from greenq import group, pipeline
        one: pipeline[str] = configured.message(1) | add.message(2)
        two: pipeline[str] = one | add.message(2)
        text: str = (one | two).run(delay=5).get_result(block=True)
        async def main() -> str:
            return await one.aget_result()
        members = group([add.message(1), one, group([awaited.message(1)])])
        listed: pipeline[list[Any]] = add.message(1) | members
        after: pipeline[str] = members | add.message(1)
        built = pipeline([add.message(1), members, one])
        built.run().get_result()
        for result in members.run().get_results(block=True):
            print(result)
        """)
        == []
    )


@pytest.mark.parametrize(
    "line",
    [
        "add.message(1) | 5",
        "number: int = (add.message(1) | add.message(2)).get_result()",
        'greenq.group(["text"])',
        "greenq.pipeline([add])",
    ],
)
def test_wrong_compositions_are_refused(check, line):
    assert {number for number, _ in check(line)} == {1}
