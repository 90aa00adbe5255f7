"""Which keys each script of the Redis broker is given."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import greenq
from greenq.brokers.redis.keys import QueueKeys

SCRIPTS = Path(greenq.__file__).parent / "brokers" / "redis" / "scripts"
VERBS = sorted(file.stem for file in SCRIPTS.glob("*.lua") if file.stem != "shared")


def keys_of_header(verb):
    """The keys at the top of a script, as attributes of QueueKeys; what is reserved as "held"."""
    (keys,) = re.findall(r"^-- Keys(?:, for each queue)?: ([^.;]*)[.;]", (SCRIPTS / f"{verb}.lua").read_text(), re.M)
    names = re.sub(r"\s*\n--\s*", " ", keys).split(", ")
    return ["held" if name.startswith("held") else name.replace(" ", "_") for name in names]


@pytest.mark.parametrize("verb", VERBS)
def test_a_script_is_given_the_keys_of_its_header_in_their_order(verb):
    of = QueueKeys("greenq:default")
    names = {value: name for name in QueueKeys.__slots__ if (value := getattr(of, name)) != of.base}
    names |= {of.base: "ready", of.held("a"): "held", of.held("b"): "held"}
    given = getattr(of, f"for_{verb}")
    holders = ["a", "b"][: len(inspect.signature(given).parameters)]

    assert [names[key] for key in given(*holders)] == keys_of_header(verb)
