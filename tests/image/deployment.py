"""What the files of examples/ say about a worker: its command, its environment, and the times."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import yaml

from greenq import settings
from greenq.cli.options import Options, parse_options, variables
from greenq.units import duration_ms
from tests.support.processes import ROOT

COMPOSE = ROOT / "examples/container/compose.yaml"
KUBERNETES = ROOT / "examples/deploy/kubernetes/worker.yaml"
SYSTEMD = ROOT / "examples/deploy/systemd"


def compose() -> dict[str, Any]:
    """The services of the compose file."""
    return yaml.safe_load(COMPOSE.read_text())["services"]


def kubernetes() -> dict[str, Any]:
    """The documents of the manifest, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(KUBERNETES.read_text())}


def asked_for(command: list[str], environment: Mapping[str, str]) -> Options:
    """What greenq-worker makes of a command line and its variables; fails for those that it does not have."""
    program, *arguments = command
    assert os.path.basename(program) == "greenq-worker"
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith(settings.PREFIX)}
    with patch.dict(os.environ, {**others, **environment}, clear=True):
        options = parse_options(arguments)
        for each in settings.SETTINGS:
            each.get()
        assert not settings.unknown_variables(variables())
    assert not options.warnings
    return options


def milliseconds(text: str) -> int:
    """Of a duration as systemd and compose have them."""
    total = 0
    for number, unit in re.findall(r"(\d+)\s*([a-z]*)", str(text)):
        total += duration_ms(number + {"": "s", "min": "m"}.get(unit, unit))
    return total
