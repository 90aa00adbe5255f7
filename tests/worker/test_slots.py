"""Slots: none is lost, and nothing that was meant for one job reaches another."""

from __future__ import annotations

import threading
import time
import weakref

import pytest

import greenq
from greenq.brokers.stub import StubBroker
from greenq.runtime import is_patched
from tests.support.waiting import PATIENCE_S, until

greenlets_only = pytest.mark.skipif("not is_patched()", reason="about greenlets; runs where gevent has patched")


@greenlets_only
@pytest.mark.parametrize("leftover", ["a time-out that was never closed", "a kill that comes late"])
def test_what_a_job_left_behind_costs_no_slot(broker, start, leftover):
    import gevent

    assert is_patched()

    @greenq.actor(broker=broker)
    def sloppy():
        if leftover == "a time-out that was never closed":
            gevent.Timeout(0.05).start()
        else:
            gevent.spawn_later(0.05, gevent.getcurrent().kill, block=False)

    together = threading.Barrier(4, timeout=10)

    @greenq.actor(broker=broker, max_retries=0)
    def meet():
        together.wait()

    worker = start(concurrency=4)
    for _ in range(4):
        sloppy.send()
    broker.join("default", timeout=10_000)
    ends = time.monotonic() + 10
    while worker.slots.threads and time.monotonic() < ends:
        time.sleep(0.01)  # until the leftovers have struck the idle slots

    for _ in range(4):
        meet.send()
    broker.join("default", timeout=20_000)
    assert not broker.dead_letters


@greenlets_only
def test_a_time_out_of_a_hook_does_not_run_a_finished_job_again(broker, start):
    import gevent

    assert is_patched()
    runs = []

    class Slow(greenq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            with gevent.Timeout(0.02):
                gevent.sleep(10)

    broker.add_middleware(Slow())

    @greenq.actor(broker=broker)
    def transfer():
        runs.append(1)

    transfer.send()
    start()
    broker.join("default", timeout=10_000)

    assert runs == [1]
    assert "Timeout" in broker.dead_letters[0].reason


@pytest.mark.parametrize("strikes", [1, 2])
def test_a_death_outside_of_the_actor_is_told_like_any_other(broker, start, strikes):
    told, stored, struck = [], [], []

    class Struck(greenq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            if message.actor_name == "work":
                message.follow_up(note.message("what follows from its success"))
                self._strike()

        def before_nack(self, broker, message):
            stored.append(message.reason_of_death())
            if strikes == 2:
                self._strike()

        def _strike(self):
            struck.append(1)
            raise SystemExit("cut off")

    broker.add_middleware(Struck())

    @greenq.actor(broker=broker)
    def note(*args):
        told.append(args)

    @greenq.actor(broker=broker, on_dead=note)
    def work(): ...

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert len(struck) == strikes
    assert stored == [broker.dead_letters[0].reason]
    assert "SystemExit: cut off" in stored[0]
    if strikes == 1:
        ((about, outcome),) = told
        assert about["actor_name"] == "work"
        assert outcome == {"reason": stored[0], "type": "SystemExit", "message": "cut off"}
    else:
        assert told == [], "what is struck again is dead all the same"


def test_stopping_in_the_midst_of_thousands_of_short_jobs_never_hangs():
    for pause_ms in range(0, 40, 4):
        broker = StubBroker()

        @greenq.actor(broker=broker)
        def noop():
            pass

        for _ in range(300):
            noop.send()
        worker = greenq.Worker(broker, worker_timeout=100, concurrency=32)
        worker.start()
        time.sleep(pause_ms / 1000)
        stopping = threading.Thread(target=worker.stop, args=(3000,), daemon=True)
        stopping.start()
        stopping.join(PATIENCE_S)

        assert not stopping.is_alive()
        waiting = broker.queues["default"].qsize()
        assert waiting == broker.queues["default"].unfinished_tasks
        broker.close()


@greenlets_only
def test_jobs_that_do_not_wait_need_few_greenlets(broker, start):
    assert is_patched()

    @greenq.actor(broker=broker)
    def noop():
        pass

    for _ in range(2000):
        noop.send()
    worker = start(concurrency=1000)
    broker.join("default", timeout=20_000)

    assert len(worker.slots.threads) < 500  # all 1000 were made at once before


class Starts:
    """Every start of a slot's greenlet, some of which go wrong."""

    def __init__(self, runtime, monkeypatch, happen):
        self._spawn = runtime.spawn
        self._happen = happen
        self.count = 0
        monkeypatch.setattr(runtime, "spawn", self)

    def __call__(self, run, *, name):
        if not name.startswith("slot "):
            return self._spawn(run, name=name)
        self.count += 1
        return self._happen(self.count, lambda: self._spawn(run, name=name))


def fails(*which):
    def happen(number, start):
        if number in which:
            raise RuntimeError("can't start new thread")
        return start()

    return happen


@pytest.mark.parametrize("which", [(1,), (2,), (1, 2, 3), (2, 3, 4)])
def test_a_slot_that_cannot_be_started_is_started_once_that_works(broker, start, monkeypatch, caplog, which):
    together = threading.Barrier(3, timeout=10)

    @greenq.actor(broker=broker, max_retries=0)
    def meet():
        together.wait()

    worker = start(concurrency=3)
    starts = Starts(worker.runtime, monkeypatch, fails(*which))
    for _ in range(3):
        meet.send()
    broker.join("default", timeout=20_000)

    assert not broker.dead_letters
    assert starts.count == len(which) + 3, "a healthy one does not suffer"
    assert len([line for line in caplog.messages if "slots could be started" in line]) == 1


@greenlets_only
def test_a_greenlet_that_is_killed_before_it_begins_costs_no_slot(broker, start, monkeypatch):
    import gevent

    def happen(number, start):
        task = start()
        if number <= 2:
            assert isinstance(task._greenlet, gevent.Greenlet)
            task._greenlet.kill(block=False)
        return task

    together = threading.Barrier(2, timeout=10)

    @greenq.actor(broker=broker, max_retries=0)
    def meet():
        together.wait()

    worker = start(concurrency=2)
    starts = Starts(worker.runtime, monkeypatch, happen)
    for _ in range(2):
        meet.send()
    broker.join("default", timeout=20_000)

    assert not broker.dead_letters
    assert starts.count == 4
    assert len(worker.slots.threads) == 2


def test_an_idle_slot_keeps_nothing_of_its_last_job_alive(broker, start):
    alive = []

    class Watching(greenq.Middleware):
        def before_process_message(self, broker, message):
            alive.append(weakref.ref(message))

    broker.add_middleware(Watching())

    @greenq.actor(broker=broker)
    def work():
        pass

    worker = start()
    for _ in range(20):
        work.send()
    broker.join("default", timeout=10_000)
    worker.join()

    until(lambda: not [each for each in alive if each() is not None])
    assert len(alive) == 20
