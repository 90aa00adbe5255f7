"""Every example of the API's documents is in a test that runs it: tests/integration/test_reference_examples.py.

The examples are in reference_examples.txt, line by line, as the documents write them.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).resolve().parents[1] / "integration/test_reference_examples.py"
LIST = Path(__file__).parent / "reference_examples.txt"


class Example(NamedTuple):
    """A paragraph of the list.

    Attributes:
      runs(list[str]): Its lines as they are run.
    """

    name: str
    runs: list[str]


def _examples() -> list[Example]:
    found = []
    for paragraph in re.split(r"\n\n+", LIST.read_text().strip()):
        heading, *lines = [line for line in paragraph.splitlines() if not line.startswith("#")] or [""]
        if heading:
            found.append(Example(heading.strip("[]"), [line[2:] for line in lines if not line.startswith("- ")]))
    return found


def _line(text: str) -> str:
    """A line of code without what stands for nothing: the prompt, the indentation, a comment."""
    return re.sub(r"^(>>>|\.\.\.)", "", text.strip()).partition("  #")[0].strip()


def _run_by_tests() -> dict[str, list[str]]:
    """The lines of all examples that each test has in its text."""
    found = {}
    for test in ast.parse(TESTS.read_text()).body:
        if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
            texts = [node for node in ast.walk(test) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            texts.sort(key=lambda node: (node.lineno, node.col_offset))
            found[test.name] = [_line(line) for text in texts for line in str(text.value).splitlines()]
    return found


EXAMPLES = _examples()
RUN = _run_by_tests()


def _has(lines: list[str], wanted: list[str]) -> bool:
    """Whether the wanted lines are there in their order, others between them or not."""
    rest = iter(lines)
    return all(line in rest for line in wanted)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_of_the_documents_is_run(example):
    assert example.runs
    assert any(_has(lines, example.runs) for lines in RUN.values()), (
        f"no test in {TESTS.name} runs the example {example.name!r}, whole and in one test; a line that has to be "
        f"different is in {LIST.name} twice: '- ' as the document has it, '+ ' as it is run"
    )


def test_an_example_that_lacks_a_line_is_not_taken_for_run():
    (example,) = [each for each in EXAMPLES if each.name.endswith("Barrier")]
    (lines,) = [lines for lines in RUN.values() if _has(lines, example.runs)]

    for line in set(example.runs):
        assert not _has([each for each in lines if each != line], example.runs)


def test_the_list_has_the_examples_of_both_documents():
    documents = Counter(example.name.partition(": ")[0] for example in EXAMPLES)

    assert documents == {"reference": 13, "page on brokers": 17}
    assert len({example.name for example in EXAMPLES}) == len(EXAMPLES)
