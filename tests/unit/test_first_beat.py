"""A worker shows that it lives before its first job, which may be the one that stops it."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

from greenq import shared_page
from greenq.shared_page import SharedPage
from greenq.worker import watch
from greenq.worker.watch import Watch


def test_a_worker_has_beaten_once_before_its_native_thread_looks_around(monkeypatch):
    monkeypatch.setattr(watch, "alarm", SimpleNamespace(start=lambda: False))
    monkeypatch.setattr(watch, "cpu", SimpleNamespace())
    runtime = SimpleNamespace(
        native_lock=threading.Lock,
        watch_switches=lambda every_s, tick: lambda: None,
        start_native_thread=lambda run, name: None,
    )
    fd = shared_page.make()
    watching = Watch(runtime, SimpleNamespace())
    watching.page = SharedPage(fd)
    os.close(fd)

    watching.start()

    assert watching.page.beats == 1
    watching.page.close()
