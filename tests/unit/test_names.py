"""Names of queues."""

from __future__ import annotations

import pytest

from greenq.names import canonical_queue_name, check_queue_name, dead_letter_queue_name, delay_queue_name


@pytest.mark.parametrize("name", ["default", "_", "a1", "with.dots-and_lines", "UPPER", "a" * 300, "q.DQ"])
def test_names_that_are_allowed(name):
    assert check_queue_name(name) == name


@pytest.mark.parametrize("name", ["", "1", "-a", ".a", "a b", "a\n", "a/b", "ä", "a:b", None, 5, b"a"], ids=repr)
def test_names_that_are_not_allowed(name):
    with pytest.raises(ValueError, match="cannot be the name of a queue"):
        check_queue_name(name)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [("q", "q"), ("q.DQ", "q"), ("q.XQ", "q"), ("q.DQ.XQ", "q.DQ"), ("q.dq", "q.dq"), ("qDQ", "qDQ")],
)
def test_the_canonical_name_is_without_one_suffix(name, canonical):
    assert canonical_queue_name(name) == canonical


def test_names_that_belong_to_a_queue():
    assert delay_queue_name("q") == "q.DQ"
    assert delay_queue_name("q.DQ") == "q.DQ"
    assert delay_queue_name("q.XQ") == "q.DQ"
    assert dead_letter_queue_name("q") == "q.XQ"
    assert dead_letter_queue_name("q.DQ") == "q.XQ"
