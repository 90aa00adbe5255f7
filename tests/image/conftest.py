"""greenq's image and one that is derived from it, built once for all tests that ask."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.support.containers import BASE, PROGRAMS, STANDS_IN_FOR, Engine, is_root
from tests.support.processes import ROOT


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    missing = [each for each in PROGRAMS if shutil.which(each) is None]
    if missing:
        pytest.skip(f"no image can be built here: {', '.join(missing)} could not be installed")
    if not is_root():
        pytest.skip("no image can be built here: the stand-in for its base is made by root")
    engine = Engine()
    try:
        engine.make_base()
        why_not = engine.why_not()
        if why_not:
            pytest.skip(f"no container can be run here: {why_not}")
        yield engine
    finally:
        engine.end()


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The name of greenq's image."""
    assert f"ARG BASE={STANDS_IN_FOR}" in (ROOT / "Dockerfile").read_text()
    engine.build(ROOT, "greenq", BASE=BASE)
    return "localhost/greenq"


@pytest.fixture(scope="session")
def shop(engine: Engine, image: str) -> str:
    """The name of the image of examples/container, which is derived from greenq's."""
    engine.build(ROOT / "examples/container", "shop")
    return "localhost/shop"
