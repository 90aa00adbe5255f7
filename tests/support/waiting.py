"""Bounded waits: a test that waits for something says so, and fails when it does not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Much longer than anything here takes, so that a busy machine fails no test.
PATIENCE_S = 60


def happens(event: Any) -> None:
    """Wait for an event."""
    assert event.wait(PATIENCE_S), "it did not happen"


@contextmanager
def beside(run: Any, *args: Any) -> Iterator[None]:
    """Run a function in another thread, at the same time as the block; it has ended after it.

    If both fail, the failure of the block has the other one for its cause.
    """
    errors: list[BaseException] = []

    def run_and_note() -> None:
        try:
            run(*args)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run_and_note)
    thread.start()
    try:
        yield
    except BaseException as error:
        thread.join(PATIENCE_S)
        if errors:
            raise error from errors[0]
        raise
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it did not end"
    assert not errors, errors


def until(happened: Any) -> None:
    """Wait until this is so, for what no event tells."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
