"""The worker command in a directory of its own, ended with the test."""

from __future__ import annotations

import pytest

from tests.support.command import Command, waiting, write_module


@pytest.fixture
def folder(tmp_path, request):
    """A directory with the module ``app``, which is the APP of the test's own module, and the file of its queue."""
    write_module(tmp_path, "app", request.module.APP)
    assert waiting(tmp_path) == 0
    return tmp_path


@pytest.fixture
def run(folder):
    """Starts the command in that directory; ends all of its processes after the test."""
    commands = []

    def start(*arguments, **options):
        command = Command(folder, *arguments, **options)
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()
