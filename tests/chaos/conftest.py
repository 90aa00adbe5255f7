"""The worker command on each broker, in a directory of its own, ended with the test."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support import rabbitmq_server
from tests.support.command import Command, write_module
from tests.support.redis_server import shared_server

from .ledger import APP, Place


@pytest.fixture(params=["sqlite", "redis", "rabbitmq"])
def place(request, tmp_path):
    """Where the jobs are: a directory with the module ``app`` and its ledger, and the URL of a broker."""
    write_module(tmp_path, "app", APP)
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/queue.db"
        elif request.param == "redis":
            shared_server().client().flushall()
            url = shared_server().url
        else:
            url = stack.enter_context(rabbitmq_server.shared_server().vhost()).url
        yield Place(request.param, url, tmp_path)


@pytest.fixture
def run(place):
    """Starts the command there; ends all of its processes after the test."""
    commands = []

    def start(*arguments):
        command = Command(place.folder, "app", *arguments, GREENQ_BROKER_URL=place.url)
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()
