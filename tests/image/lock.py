"""The lock file, read."""

from __future__ import annotations

import re
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.processes import ROOT


class Locked(NamedTuple):
    """A line of the lock file.

    Attributes:
      name(str): Of the package, as indexes have it.
      version(str): The only one.
      requirement(Requirement): The line itself.
      hashes(int): How many files it may be.
    """

    name: str
    version: str
    requirement: Requirement
    hashes: int


def locked() -> list[Locked]:
    text = (ROOT / "requirements.lock").read_text()
    lines = re.sub(r"#.*", "", text).replace("\\\n", " ").splitlines()
    found = []
    for line in filter(str.strip, lines):
        given, *hashes = line.split(" --hash=")
        requirement = Requirement(given)
        (version,) = requirement.specifier
        assert version.operator == "==", line
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each.strip()) for each in hashes), line
        found.append(Locked(canonicalize_name(requirement.name), version.version, requirement, len(hashes)))
    return found
