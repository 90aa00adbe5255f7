"""What every test gets: the global broker and encoder as they were before it."""

from __future__ import annotations

import os
import threading

import pytest

import greenq.broker
import greenq.message
from greenq.encoder import JSONEncoder
from tests.support.waiting import PATIENCE_S

# Nothing here is signed by an authority that the system trusts, and each connection over TLS would read them all, which
# takes more CPU than the test. What a test trusts it names.
os.environ["SSL_CERT_FILE"] = os.environ["SSL_CERT_DIR"] = os.devnull


@pytest.fixture(autouse=True)
def global_state():
    """No test sees the global broker or encoder of another one."""
    greenq.broker._global_broker = None
    yield
    greenq.broker._global_broker = None
    greenq.message.set_encoder(JSONEncoder())


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    """A test that starts a thread which would keep the process alive also ends it."""
    before = set(threading.enumerate())
    yield
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer) and not thread.daemon and thread not in before:
            thread.join(PATIENCE_S)  # what it did ended the test, a moment before the thread ends
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    assert not left, f"the test left threads behind: {left}"
