"""The words of the runtime mean the same in both worlds."""

from __future__ import annotations

import gc
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from greenq.errors import Interrupt, TimeLimitExceeded
from greenq.runtime import current
from greenq.worker import deadlines as deadlines_module
from greenq.worker.deadlines import Deadlines
from tests.support.waiting import PATIENCE_S, happens


@pytest.fixture
def runtime():
    return current()


@pytest.fixture
def no_garbage():
    """Nothing is collected during the test: what strikes a weakref's callback is raised nowhere, and only told."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_an_interrupt_is_raised_inside_the_guard_or_not_at_all(runtime, no_garbage):
    strays, raised, over = [], [], threading.Event()
    guards = []

    def job():
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            runtime.sleep(0)

    def slot():
        while not over.is_set():
            guard = runtime.guard()
            guards.append(guard)
            try:
                try:
                    guard.run(job, (), {})
                except TimeLimitExceeded:
                    raised.append(1)
                runtime.sleep(0)
            except Interrupt:
                strays.append(1)

    slots = [runtime.spawn(slot, name="slot") for _ in range(4)]
    for _ in range(500):
        for guard in guards[-4:]:
            guard.interrupt(TimeLimitExceeded)
        runtime.sleep(0.001)
    over.set()

    assert all(slot.join(PATIENCE_S) for slot in slots)
    assert raised
    assert not strays


def test_a_guard_refuses_interrupts_outside_of_run(runtime):
    answers = []

    def slot():
        guard = runtime.guard()
        answers.append(guard.interrupt(TimeLimitExceeded))
        guard.run(lambda: None, (), {})
        answers.append(guard.interrupt(TimeLimitExceeded))
        answers.append(guard.interrupted_by)

    assert runtime.spawn(slot, name="slot").join(PATIENCE_S)
    assert answers == [False, False, None]


def test_an_event_may_be_set_by_a_native_thread(runtime):
    event = runtime.event()

    runtime.start_native_thread(event.set, name="setter")

    happens(event)


def test_requests_are_answered_by_a_native_thread(runtime):
    answered = []

    def ask():
        request = runtime.request()
        runtime.start_native_thread(lambda: runtime.answer([request]), name="answerer")
        request.wait()
        answered.append(1)

    asking = [runtime.spawn(ask, name="asker") for _ in range(20)]

    assert all(task.join(PATIENCE_S) for task in asking)
    assert len(answered) == 20


def test_a_request_that_was_answered_before_the_wait_does_not_wait(runtime):
    request = runtime.request()
    done = runtime.native_lock()
    done.acquire()

    def answer():
        runtime.answer([request])
        done.release()

    runtime.start_native_thread(answer, name="answerer")
    while not done.acquire(False):
        runtime.sleep(0.001)

    request.wait()


class RecordingGuard:
    interrupted_by = None

    def __init__(self):
        self.interrupted_at = None
        self.interrupted = threading.Event()

    def run(self, call, args, kwargs):
        return call(*args, **kwargs)

    def interrupt(self, exception):
        self.interrupted_at = time.monotonic()
        self.interrupted.set()
        return True


@pytest.fixture
def no_time_passes(monkeypatch):
    """For deadlines, in the block: what is started in it has begun at once, and is not late at its end."""

    @contextmanager
    def standing_still():
        now = time.monotonic()
        with monkeypatch.context() as clock:
            clock.setattr(deadlines_module, "time", SimpleNamespace(monotonic=lambda: now))
            yield

    return standing_still


def test_deadlines_interrupt_the_nearest_first_whatever_the_order_of_their_starts(runtime, no_time_passes):
    deadlines = Deadlines(runtime)
    guards = [RecordingGuard() for _ in range(3)]

    with no_time_passes():
        for guard, limit_ms in zip(guards, (90, 30, 60), strict=True):
            deadlines.start(guard, limit_ms)

    for guard in guards:
        happens(guard.interrupted)
    late, early, middle = (guard.interrupted_at for guard in guards)
    assert early < middle < late


def test_a_job_that_ended_in_time_is_not_interrupted(runtime, no_time_passes):
    deadlines = Deadlines(runtime)
    in_time, late = RecordingGuard(), RecordingGuard()

    with no_time_passes():
        deadline = deadlines.start(in_time, 30)
        deadlines.start(late, 60)
        deadlines.stop(deadline)

    happens(late.interrupted)
    assert not in_time.interrupted.is_set()


@pytest.mark.parametrize("limit_ms", [float("nan"), float("inf"), 10**15, 10**400, sys.maxsize])
def test_a_limit_that_no_timer_takes_is_none_and_the_others_are_kept(runtime, limit_ms):
    deadlines = Deadlines(runtime)
    armed = []
    deadlines.arm_alarm = armed.append
    guard = RecordingGuard()

    assert deadlines.start(RecordingGuard(), limit_ms, limit_ms) is None
    deadlines.start(guard, 20)

    happens(guard.interrupted)
    assert len(armed) == 2  # for the one that has a limit, and off
    deadlines.close()


def test_an_interrupt_that_fails_costs_nobody_else_its_own(runtime):
    deadlines = Deadlines(runtime)
    broken, others = RecordingGuard(), [RecordingGuard(), RecordingGuard()]
    broken.interrupt = lambda exception: 1 / 0

    for guard in (others[0], broken, others[1]):
        deadlines.start(guard, 20)

    assert all(guard.interrupted.wait(PATIENCE_S) for guard in others)
    deadlines.close()


def test_a_job_that_never_comes_to_its_actor_is_told_at_the_hard_limit(runtime):
    deadlines = Deadlines(runtime)
    deadlines.hard_ms = 50
    overdue = runtime.event()
    deadlines.on_overdue = lambda guard: overdue.set()
    guard = RecordingGuard()
    guard.interrupt = lambda exception: False

    deadlines.start(guard, 20)

    happens(overdue)
    deadlines.close()


def test_deadlines_that_could_not_be_armed_leave_nothing_behind(runtime, monkeypatch):
    deadlines = Deadlines(runtime)

    def fail(seconds, call):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as no_threads:
        no_threads.setattr(runtime, "call_later", fail, raising=False)
        with pytest.raises(RuntimeError):
            deadlines.start(RecordingGuard(), 20)

    assert deadlines.guards() == []
    guard = RecordingGuard()
    deadlines.start(guard, 20)
    happens(guard.interrupted)
    deadlines.close()


def test_deadlines_of_ended_jobs_do_not_pile_up(runtime):
    deadlines = Deadlines(runtime)

    for _ in range(20_000):
        deadlines.stop(deadlines.start(RecordingGuard(), 600_000))

    assert len(deadlines._heap) < 3000
    deadlines.close()
