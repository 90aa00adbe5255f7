"""The lock file: one version of each package that greenq may need, each with hashes, as setup.cfg has it."""

from __future__ import annotations

import configparser

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.image.lock import locked
from tests.support.processes import ROOT

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def needed():
    """What greenq asks for, with all that it can do, and what it is built with; its own extras resolved."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    build = configparser.ConfigParser()
    build.read(ROOT / "pyproject.toml")
    (own,) = map(Requirement, lines(extras["all"]))
    assert own.name == "greenq"
    wanted = lines(config["options"]["install_requires"]) + [
        each for name in own.extras for each in lines(extras[name])
    ]
    return [Requirement(each) for each in wanted + eval(build["build-system"]["requires"])]


def lines(text):
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def environment(python):
    return {
        "python_version": python,
        "python_full_version": f"{python}.99",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }


def on(python, requirements):
    """What of these counts there."""
    return [each for each in requirements if each.marker is None or each.marker.evaluate(environment(python))]


@pytest.mark.parametrize("python", PYTHONS)
def test_what_setup_cfg_asks_for_is_locked_in_a_version_that_it_allows(python):
    lines = on(python, [each.requirement for each in locked()])
    versions = {canonicalize_name(each.name): each.specifier for each in lines}

    assert len(versions) == len(lines), "a package is locked twice"
    for requirement in on(python, needed()):
        (version,) = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version.version), f"{requirement} is locked as {version}"


def test_each_package_is_locked_with_the_hashes_of_its_files():
    assert all(each.hashes for each in locked())


def test_no_address_of_an_index_is_in_the_lock_file():
    assert "://" not in (ROOT / "requirements.lock").read_text()
