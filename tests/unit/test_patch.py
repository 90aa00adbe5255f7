"""The first act of a worker process: gevent's patch, without reading the installed packages over and over."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from greenq.__main__ import PATCH

PLUG_IN = """
seen = []

def begins(event):
    seen.append("begins")

def ends(event):
    seen.append("ends")
"""

ENTRY_POINTS = """
[gevent.plugins.monkey.will_patch_all]
mine = a_plug_in:begins

[gevent.plugins.monkey.did_patch_all]
mine = a_plug_in:ends
"""


@pytest.fixture
def folder(tmp_path):
    """Where a package with a plug-in for gevent is installed."""
    (tmp_path / "a_plug_in.py").write_text(PLUG_IN)
    installed = tmp_path / "a_plug_in-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plug-in\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    return tmp_path


def after_the_patch(expression, folder):
    program = f"{PATCH}\nimport json\nprint(json.dumps({expression}))"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_process_is_patched_and_what_reads_the_installed_packages_is_as_it_was(folder):
    names = "sorted(name for name in globals() if not name.startswith('__'))"
    module = "__import__('importlib.metadata').metadata.entry_points.__module__"
    patched = "__import__('gevent.monkey').monkey.is_module_patched('socket')"

    assert after_the_patch(f"[{patched}, {module}, {names}]", folder) == [
        True,
        "importlib.metadata",
        ["gevent", "json"],
    ]


def test_plug_ins_of_gevent_are_called_at_their_steps(folder):
    assert after_the_patch("__import__('a_plug_in').seen", folder) == ["begins", "ends"]
