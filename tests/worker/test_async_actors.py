"""Async actors: coroutines on one loop that hold slots, and come to verdicts like all others."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import logging
import subprocess
import sys
import threading
import time
import weakref

import pytest

import greenq
from greenq.errors import Shutdown, TimeLimitExceeded
from greenq.middleware import AsyncIO, CurrentMessage
from greenq.results import Results
from greenq.results.backends import StubBackend
from greenq.runtime import is_patched
from greenq.worker import slots
from greenq.worker.async_jobs import AsyncJob
from tests.support.waiting import PATIENCE_S, happens, until

greenlets_only = pytest.mark.skipif("not is_patched()", reason="about greenlets; runs where gevent has patched")


class Noted(greenq.Middleware):
    """What became of each message: its actor's result or exception."""

    def __init__(self):
        self.results = []
        self.exceptions = []

    def after_process_message(self, broker, message, *, result=None, exception=None):
        if exception is None:
            self.results.append(result)
        else:
            # Without what keeps its frames alive.
            self.exceptions.append(type(exception))


@pytest.fixture
def noted(broker):
    noted = Noted()
    broker.add_middleware(noted)
    return noted


def stop_in_background(worker, timeout):
    thread = threading.Thread(target=worker.stop, args=(timeout,))
    thread.start()
    return thread


# -- running


def test_a_coroutine_runs_and_its_result_is_told(broker, start, noted):
    @greenq.actor(broker=broker)
    async def add(x, y=0):
        await asyncio.sleep(0)
        return x + y

    add.send(1, y=2)
    start()
    broker.join("default", timeout=10_000)

    assert noted.results == [3]
    assert not broker.dead_letters


def test_a_worker_runs_coroutines_and_functions_from_one_queue(broker, start):
    ran = []

    @greenq.actor(broker=broker)
    async def awaited(number):
        await asyncio.sleep(0.001)
        ran.append(number)

    @greenq.actor(broker=broker)
    def plain(number):
        time.sleep(0.001)
        ran.append(number)

    for number in range(0, 100, 2):
        awaited.send(number)
        plain.send(number + 1)
    start()
    broker.join("default", timeout=20_000)

    assert sorted(ran) == list(range(100))


def test_an_async_actor_that_is_declared_after_the_start_runs(broker, start):
    start()
    ran = []

    @greenq.actor(broker=broker)
    async def late():
        ran.append(1)

    late.send()
    broker.join("default", timeout=10_000)

    assert ran == [1]


def test_waiting_coroutines_hold_slots_but_no_greenlets(broker, start):
    count = 500 if is_patched() else 60
    running, go_on = set(), None

    @greenq.actor(broker=broker)
    async def wait(number):
        nonlocal go_on
        go_on = go_on or asyncio.Event()
        running.add(number)
        if len(running) == count:
            all_run.set()
        await go_on.wait()

    all_run = threading.Event()
    for number in range(count + 10):
        wait.send(number)
    worker = start(concurrency=count)
    happens(all_run)

    assert worker.slots.in_flight == count
    assert len(running) == count, "as many as there are slots, and no more"
    assert len(worker.slots.threads) < 40
    worker.event_loop.start().call_soon_threadsafe(go_on.set)
    broker.join("default", timeout=20_000)
    assert len(running) == count + 10


def test_no_more_coroutines_run_at_once_than_there_are_slots(broker, start):
    running, most = 0, 0

    @greenq.actor(broker=broker)
    async def work():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1

    for _ in range(60):
        work.send()
    start(concurrency=3)
    broker.join("default", timeout=20_000)

    assert most == 3


def test_a_coroutine_that_raises_is_retried_like_a_function(broker, start):
    attempts = []

    @greenq.actor(broker=broker, min_backoff=1, max_backoff=2, max_retries=2)
    async def work():
        await asyncio.sleep(0)
        attempts.append(1)
        raise KeyError("again")

    work.send()
    start()
    broker.join("default", timeout=20_000)

    assert len(attempts) == 3
    (dead,) = broker.dead_letters
    assert "KeyError" in dead.reason
    assert "in work" in dead.options["traceback"]
    assert "async_jobs" not in dead.options["traceback"], "our own frames tell nobody anything"


def test_wrong_arguments_are_a_failure_of_the_message_alone(broker, start):
    @greenq.actor(broker=broker, max_retries=0)
    async def work(x):
        pass

    work.send(1, 2, 3)
    start()
    broker.join("default", timeout=10_000)

    assert "TypeError" in broker.dead_letters[0].reason


def test_a_skipped_message_runs_no_coroutine(broker, start):
    ran = []

    class Skipping(greenq.Middleware):
        def before_process_message(self, broker, message):
            raise greenq.SkipMessage("not now")

    broker.add_middleware(Skipping())

    @greenq.actor(broker=broker)
    async def work():
        ran.append(1)

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert not ran


def test_a_class_based_actor_may_be_async(broker, start, noted):
    greenq.set_broker(broker)

    class Work(greenq.GenericActor):
        async def perform(self, x):
            await asyncio.sleep(0)
            return x + 1

    Work.send(1)
    start()
    broker.join("default", timeout=10_000)

    assert noted.results == [2]


def test_an_actor_class_with_a_call_of_its_own_is_called(broker, start, noted):
    class Doubling(greenq.Actor):
        def __call__(self, *args, **kwargs):
            return 2 * super().__call__(*args, **kwargs)

    @greenq.actor(broker=broker, actor_class=Doubling)
    async def work(x):
        await asyncio.sleep(0)
        return x

    work.send(21)
    start()
    broker.join("default", timeout=10_000)

    assert noted.results == [42]


def test_arguments_and_duration_are_logged_at_debug(broker, start, caplog):
    @greenq.actor(broker=broker)
    async def work(x):
        await asyncio.sleep(0)

    work.send(7)
    with caplog.at_level(logging.DEBUG, logger=work.logger.name):
        start()
        broker.join("default", timeout=10_000)

    told = [record.getMessage() for record in caplog.records if record.name == work.logger.name]
    assert told[0] == "Received args=(7,) kwargs={}."
    assert told[1].startswith("Completed after ")


def test_neither_a_job_nor_its_exception_is_kept_alive(broker, start):
    class Thing:
        pass

    alive = []
    # Without retries it ends as done; dead letters of the stub broker keep what was raised.
    broker.middleware = [each for each in broker.middleware if not isinstance(each, greenq.middleware.Retries)]

    @greenq.actor(broker=broker)
    async def work():
        thing = Thing()
        alive.append(weakref.ref(thing))
        await asyncio.sleep(0)
        raise ValueError(thing)

    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)  # pytest keeps records, and so exceptions
    try:
        work.send()
        worker = start()
        broker.join("default", timeout=10_000)
        worker.join()

        until(lambda: alive[0]() is None)
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


# -- the context


def test_the_current_message_is_known_in_a_coroutine_and_in_all_it_starts(broker, start):
    broker.add_middleware(CurrentMessage())
    seen = {}

    def here():
        message = CurrentMessage.get_current_message()
        return message and message.message_id

    @greenq.actor(broker=broker)
    async def work(number):
        async def child():
            await asyncio.sleep(0.001)
            return here()

        before = here()
        seen[number] = [before, *await asyncio.gather(child(), child()), await asyncio.to_thread(here), here()]

    sent = [work.send(number) for number in range(20)]
    start(concurrency=20)
    broker.join("default", timeout=10_000)

    for number, message in enumerate(sent):
        assert set(seen[number]) == {message.message_id}
    assert here() is None


def test_hooks_before_and_after_a_coroutine_share_its_context(broker, start):
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    class Setting(greenq.Middleware):
        def before_process_message(self, broker, message):
            message.token = variable.set("inside")

        def after_process_message(self, broker, message, *, result=None, exception=None):
            seen.append(variable.get())
            variable.reset(message.token)  # raises in any other context
            seen.append(variable.get())

    broker.add_middleware(Setting())

    @greenq.actor(broker=broker)
    async def work():
        seen.append(variable.get())
        variable.set("changed for this coroutine")
        await asyncio.sleep(0)

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert seen == ["inside", "inside", "outside"]


@greenlets_only
def test_a_line_of_the_log_names_the_message_whose_coroutine_wrote_it(broker, start):
    from greenq.runtime import current

    assert is_patched()
    seen = []

    @greenq.actor(broker=broker)
    async def work():
        await asyncio.sleep(0)
        seen.append(current().task_name())

    message = work.send()
    start()
    broker.join("default", timeout=10_000)

    assert seen == [message.message_id]


# -- time limits


def test_a_coroutine_is_cancelled_at_its_time_limit_and_cleans_up(broker, start, noted):
    ended = []

    @contextlib.asynccontextmanager
    async def resource():
        try:
            yield
        finally:
            await asyncio.sleep(0.01)
            ended.append("async with")

    @greenq.actor(broker=broker, max_retries=0, time_limit=100)
    async def work():
        async with resource():
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError as told:
                ended.append(time.monotonic() - started)
                ended.append(told.args[0])
                raise

    started = time.monotonic()  # the limit counts from the job's start, which is a little before the coroutine's
    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert 0.1 <= ended[0] < 2
    assert isinstance(ended[1], TimeLimitExceeded)
    assert ended[2] == "async with"
    assert noted.exceptions == [TimeLimitExceeded]
    assert "TimeLimitExceeded" in broker.dead_letters[0].reason
    assert "in work" in broker.dead_letters[0].options["traceback"]


def test_an_interrupt_of_one_coroutine_never_touches_its_neighbours(broker, start, noted):
    @greenq.actor(broker=broker, max_retries=0)
    async def work(number):
        await asyncio.gather(asyncio.sleep(0.05), asyncio.sleep(0.2))
        return number

    for number in range(40):
        work.send_with_options(args=(number,), time_limit=50 if number % 2 else 60_000)
    start(concurrency=40)
    broker.join("default", timeout=20_000)

    assert sorted(noted.results) == list(range(0, 40, 2))
    assert noted.exceptions == [TimeLimitExceeded] * 20


def test_a_time_limit_is_kept_inside_asyncios_own_time_outs(broker, start, noted):
    @greenq.actor(broker=broker, max_retries=0, time_limit=50)
    async def work():
        await asyncio.wait_for(asyncio.sleep(20), 10)

    @greenq.actor(broker=broker, max_retries=0)
    async def impatient():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(20), 0.01)

    work.send()
    impatient.send()
    start()
    broker.join("default", timeout=10_000)

    assert noted.exceptions == [TimeLimitExceeded]
    assert noted.results == [None]


def test_a_coroutine_that_swallows_its_cancellation_succeeds_and_a_warning_tells(broker, start, noted, caplog):
    @greenq.actor(broker=broker, max_retries=0, time_limit=50)
    async def work():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        return "all the same"

    message = work.send()
    with caplog.at_level(logging.WARNING):
        start()
        broker.join("default", timeout=10_000)

    assert noted.results == ["all the same"]
    (warning,) = [record.getMessage() for record in caplog.records if "Time limit" in record.getMessage()]
    assert message.message_id in warning


def test_a_coroutine_that_goes_on_after_its_cancellation_keeps_its_slot_and_is_told(broker, start, noted):
    told = threading.Event()
    texts = []

    class Listening(logging.Handler):
        def emit(self, record):
            if "keeps its slot" in record.getMessage():
                texts.append(record.getMessage())
                told.set()

    go_on = None

    @greenq.actor(broker=broker, max_retries=0, time_limit=50)
    async def stubborn():
        nonlocal go_on
        go_on = asyncio.Event()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        await go_on.wait()
        return "at last"

    logger = logging.getLogger("greenq.worker.async_jobs.AsyncJob")
    listening = Listening()
    logger.addHandler(listening)
    try:
        message = stubborn.send()
        worker = start(concurrency=1)
        happens(told)
    finally:
        logger.removeHandler(listening)

    assert message.message_id in texts[0]
    assert "stubborn" in texts[0]
    assert worker.slots.in_flight == 1
    worker.event_loop.start().call_soon_threadsafe(go_on.set)
    broker.join("default", timeout=10_000)
    assert noted.results == ["at last"]


def test_the_clock_of_a_coroutine_stops_when_it_returns(broker, start, noted):
    class SlowHook(greenq.Middleware):
        def after_process_message(self, broker, message, *, result=None, exception=None):
            time.sleep(0.2)

    broker.add_middleware(SlowHook())

    @greenq.actor(broker=broker, max_retries=0, time_limit=100)
    async def work():
        pass

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert noted.results == [None]
    assert noted.exceptions == []


@greenlets_only
def test_a_thousand_coroutines_are_interrupted_at_once(broker, start):
    # How exactly is a matter of the benchmark; here only that none is forgotten or far off.
    assert is_patched()
    late_by = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=1000)
    async def work():
        begun = time.monotonic()
        try:
            await asyncio.sleep(30)
        finally:
            late_by.append(time.monotonic() - begun - 1)

    for _ in range(1000):
        work.send()
    start(concurrency=1000)
    broker.join("default", timeout=30_000)

    assert len(late_by) == 1000
    assert min(late_by) >= -0.01
    assert sorted(late_by)[989] < 3


# -- what strikes the loop


def test_an_exit_in_a_coroutine_ends_that_message_alone(broker, start, noted):
    @greenq.actor(broker=broker, max_retries=0)
    async def leave():
        sys.exit(3)

    @greenq.actor(broker=broker, max_retries=0)
    async def leave_in_a_child():
        child = asyncio.get_running_loop().create_task(exit_soon())
        await child

    async def exit_soon():
        await asyncio.sleep(0.01)
        sys.exit(3)

    @greenq.actor(broker=broker, max_retries=0)
    async def neighbour():
        await asyncio.sleep(0.1)
        return "still here"

    for _ in range(3):
        neighbour.send()
        leave.send()
    leave_in_a_child.send()
    start()
    broker.join("default", timeout=10_000)

    assert noted.results == ["still here"] * 3
    assert noted.exceptions == [SystemExit] * 4


def test_a_coroutine_that_stops_the_loop_harms_nobody(broker, start, noted, caplog):
    begun, go_on = threading.Event(), None

    @greenq.actor(broker=broker)
    async def wait():
        nonlocal go_on
        go_on = asyncio.Event()
        begun.set()
        await go_on.wait()
        return "waited"

    @greenq.actor(broker=broker)
    async def stop():
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.001)
        go_on.set()
        return "stopped"

    wait.send()
    worker = start()
    happens(begun)
    stop.send()
    broker.join("default", timeout=10_000)
    stop.send()
    broker.join("default", timeout=10_000)
    worker.join()

    assert sorted(noted.results) == ["stopped", "stopped", "waited"]
    assert not worker.slots.running()
    assert len([line for line in caplog.messages if "called stop() of the asyncio loop" in line]) == 2


def test_messages_go_back_while_the_loop_cannot_be_started(broker, start, noted, monkeypatch):
    worker = start()
    start_event_loop, refused = worker.runtime.start_event_loop, []

    def refuse(*args, **kwargs):
        if len(refused) < 3:
            refused.append(1)
            raise OSError(errno.EMFILE, "Too many open files")
        return start_event_loop(*args, **kwargs)

    monkeypatch.setattr(slots, "_NO_LOOP_PAUSE_S", 0.001)
    monkeypatch.setattr(worker.runtime, "start_event_loop", refuse)

    @greenq.actor(broker=broker, max_retries=0)
    async def work():
        return "ran"

    work.send()
    broker.join("default", timeout=10_000)

    assert noted.exceptions == [Shutdown] * 3, "hooks before and after it come in pairs"
    assert noted.results == ["ran"]
    assert not broker.dead_letters


def test_a_job_that_the_loop_does_not_take_costs_no_slot(broker, start, noted, monkeypatch):
    def refuse(*args):
        monkeypatch.undo()
        raise RuntimeError("the loop is closed")

    @greenq.actor(broker=broker, max_retries=0)
    async def work(number):
        return number

    monkeypatch.setattr(AsyncJob, "start", refuse)
    work.send(1)
    worker = start(concurrency=1)
    broker.join("default", timeout=10_000)
    work.send(2)
    broker.join("default", timeout=10_000)

    assert noted.results == [2]
    assert not worker.slots.running()


def test_a_job_that_cancels_all_tasks_loses_no_message(broker, start, noted):
    started = []

    @greenq.actor(broker=broker, max_retries=0)
    async def cancel_all():
        while len(started) < 5:
            await asyncio.sleep(0.001)
        for task in asyncio.all_tasks():
            task.cancel()

    @greenq.actor(broker=broker, max_retries=0)
    async def neighbour():
        started.append(1)
        await asyncio.sleep(30)

    for _ in range(5):
        neighbour.send()
    cancel_all.send()
    start()
    broker.join("default", timeout=10_000)

    # It may end before its own cancellation, which it has no chance to hear of.
    assert noted.exceptions.count(asyncio.CancelledError) >= 5
    assert len(noted.exceptions) + len(noted.results) == 6
    assert len(broker.dead_letters) == len(noted.exceptions)


def test_an_interrupt_that_comes_before_the_first_step_is_not_lost(broker, start, noted):
    ran = []
    blocked, go_on = threading.Event(), threading.Event()

    @greenq.actor(broker=broker)
    async def block():
        blocked.set()
        happens(go_on)

    @greenq.actor(broker=broker, notify_shutdown=True)
    async def work():
        ran.append(1)

    block.send()
    worker = start()
    happens(blocked)
    work.send()
    until(lambda: worker.slots.in_flight == 2 and len(worker.slots.running()) == 2)
    stopping = stop_in_background(worker, 60_000)
    until(lambda: any(job.guard.interrupted_by for job in worker.slots.running()))
    go_on.set()
    stopping.join(PATIENCE_S)

    assert not ran
    assert noted.exceptions == [Shutdown]
    assert broker.queues["default"].qsize() == 1


# -- stopping


def test_a_stop_lets_coroutines_end(broker, start, noted):
    started = threading.Event()

    @greenq.actor(broker=broker)
    async def work():
        nonlocal go_on
        go_on = asyncio.Event()
        started.set()
        await go_on.wait()
        return "ended"

    go_on = None
    work.send()
    worker = start()
    happens(started)
    loop = worker.event_loop.start()
    stopping = stop_in_background(worker, 60_000)
    until(lambda: not worker._is_running)
    loop.call_soon_threadsafe(go_on.set)
    stopping.join(PATIENCE_S)

    assert noted.results == ["ended"]
    assert worker.given_back == 0
    assert loop.is_closed()


def test_coroutines_that_do_not_end_clean_up_and_go_back_uncharged(broker, start, stop_late, noted):
    started, cleaned_up = [], []
    all_started = threading.Event()

    @greenq.actor(broker=broker, max_retries=0)
    async def work():
        started.append(1)
        if len(started) == 5:
            all_started.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError as told:
            cleaned_up.append(type(told.args[0]))
            raise

    for _ in range(5):
        work.send()
    worker = start()
    happens(all_started)
    stop_late(worker)

    assert cleaned_up == [Shutdown] * 5
    assert worker.given_back == 5
    assert noted.exceptions == [Shutdown] * 5
    assert broker.queues["default"].qsize() == 5
    assert not broker.dead_letters


def test_a_coroutine_that_outlasts_the_stop_goes_back_once(broker, start, noted, monkeypatch):
    started = threading.Event()
    ignored = []

    @greenq.actor(broker=broker, max_retries=0)
    async def stubborn():
        started.set()
        while len(ignored) < 2:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                ignored.append(1)

    stubborn.send()
    worker = start()
    happens(started)
    # The time to end is over at once, and all of it when the first interrupt has been ignored.
    ends = iter([lambda: False, lambda: until(lambda: ignored)])
    monkeypatch.setattr(worker.slots, "wait_until_free", lambda left_s: next(ends)())
    worker.stop(60_000)

    assert worker.given_back == 1
    assert broker.queues["default"].qsize() == 1
    # At the end of the loop it is cancelled once more, and its late verdict is dropped.
    until(lambda: len(ignored) == 2 and noted.results == [None])
    assert broker.queues["default"].qsize() == 1
    until(lambda: not worker.slots.threads)


def test_an_async_actor_that_asked_is_told_at_once_and_its_message_goes_back(broker, start):
    started = threading.Event()
    told = []

    @greenq.actor(broker=broker, notify_shutdown=True, max_retries=0)
    async def work():
        started.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError as reason:
            told.append(type(reason.args[0]))
            raise

    work.send()
    worker = start()
    happens(started)
    begun = time.monotonic()
    worker.stop(60_000)

    assert time.monotonic() - begun < 10
    assert told == [Shutdown]
    assert broker.queues["default"].qsize() == 1
    assert not broker.dead_letters


def test_what_jobs_left_running_is_cancelled_with_the_worker(broker, start):
    cancelled = threading.Event()
    left = []

    async def forever():
        try:
            await asyncio.sleep(1000)
        finally:
            cancelled.set()

    @greenq.actor(broker=broker)
    async def work():
        left.append(asyncio.get_running_loop().create_task(forever()))
        await asyncio.sleep(0)

    work.send()
    worker = start()
    broker.join("default", timeout=10_000)
    loop = worker.event_loop.start()
    worker.stop(5000)

    assert cancelled.is_set()
    assert loop.is_closed()


def test_a_worker_without_async_actors_starts_no_loop(broker, start):
    @greenq.actor(broker=broker)
    def plain():
        pass

    plain.send()
    worker = start()
    broker.join("default", timeout=10_000)

    assert worker.event_loop._loop is None


def test_the_middleware_of_the_reference_starts_the_loop_and_hooks_may_use_it(broker, start):
    opened = []

    class Opening(greenq.Middleware):
        def after_worker_boot(self, broker, worker):
            opened.append(worker.event_loop.run(self.open()))

        def after_worker_shutdown(self, broker, worker):
            opened.append(worker.event_loop.run(self.open()))

        async def open(self):
            await asyncio.sleep(0)
            return asyncio.get_running_loop()

    broker.add_middleware(AsyncIO())
    broker.add_middleware(Opening())
    worker = start()
    loop = worker.event_loop.start()
    worker.stop(5000)

    assert opened == [loop, loop]


# -- calling in place


def test_a_function_calls_an_async_actor_in_place(broker, start, noted):
    @greenq.actor(broker=broker)
    async def add(x, y):
        await asyncio.sleep(0)
        return x + y

    @greenq.actor(broker=broker)
    def plain():
        return [add(number, 1) for number in range(3)]

    plain.send()
    start()
    broker.join("default", timeout=10_000)

    assert noted.results == [[1, 2, 3]]


def test_what_an_async_actor_raises_is_raised_where_it_was_called_in_place(broker, start, noted):
    @greenq.actor(broker=broker)
    async def fail():
        raise asyncio.TimeoutError("from inside")

    @greenq.actor(broker=broker)
    def plain():
        with pytest.raises(asyncio.TimeoutError, match="from inside") as raised:
            fail()
        return raised.traceback[-1].name

    plain.send()
    start()
    broker.join("default", timeout=10_000)

    assert noted.results == ["fail"]


def test_an_interrupt_of_the_caller_cancels_a_coroutine_called_in_place(broker, start, noted):
    cleaned_up = []

    @greenq.actor(broker=broker)
    async def inner():
        try:
            await asyncio.sleep(30)
        finally:
            cleaned_up.append(1)

    @greenq.actor(broker=broker, max_retries=0, time_limit=100)
    def outer():
        inner()

    outer.send()
    start()
    broker.join("default", timeout=10_000)

    assert cleaned_up == [1]
    assert noted.exceptions == [TimeLimitExceeded]


def test_a_slow_clean_up_of_a_coroutine_called_in_place_is_a_runtime_error(broker, start, noted):
    @greenq.actor(broker=broker)
    async def inner():
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(30)

    @greenq.actor(broker=broker, max_retries=0, time_limit=100)
    def outer():
        inner()

    outer.send()
    start()
    broker.join("default", timeout=10_000)

    assert noted.exceptions == [RuntimeError]


def test_a_coroutine_cannot_call_an_async_actor_in_place(broker, start, noted):
    @greenq.actor(broker=broker)
    async def inner(x):
        return x

    @greenq.actor(broker=broker)
    async def outer():
        with pytest.raises(RuntimeError, match="await it"):
            inner(1)
        return await inner.fn(2)

    outer.send()
    start()
    broker.join("default", timeout=10_000)

    assert noted.results == [2]


def test_without_a_worker_an_async_actor_is_called_by_asyncio(broker):
    @greenq.actor(broker=broker)
    async def add(x, y):
        return x + y

    with pytest.raises(RuntimeError, match=r"asyncio\.run\(actor\.fn"):
        add(1, 2)
    assert asyncio.run(add.fn(1, 2)) == 3


# -- what asyncio offers


def test_a_coroutine_awaits_the_result_of_another_actor(broker, start, noted):
    broker.add_middleware(Results(backend=StubBackend(), store_results=True))
    greenq.set_broker(broker)

    @greenq.actor(broker=broker)
    async def double(x):
        await asyncio.sleep(0.01)
        return 2 * x

    @greenq.actor(broker=broker)
    async def total():
        sent = [await asyncio.to_thread(double.send, number) for number in range(5)]
        return sum(await asyncio.gather(*(each.aget_result(timeout=10_000) for each in sent)))

    message = total.send()
    start()

    assert message.get_result(block=True, timeout=20_000) == 20


def test_functions_run_beside_the_loop(broker, start, noted):
    together = threading.Barrier(6, timeout=20)

    def meet(number):
        together.wait()  # each blocks until all are there
        return number

    @greenq.actor(broker=broker)
    async def work():
        loop = asyncio.get_running_loop()
        met = await asyncio.gather(*(asyncio.to_thread(meet, number) for number in range(5)), in_turn())
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        return met

    async def in_turn():
        return await asyncio.get_running_loop().run_in_executor(None, meet, 5)

    work.send()
    start()
    broker.join("default", timeout=20_000)

    assert noted.results == [[0, 1, 2, 3, 4, 5]]


def test_an_executor_of_the_applications_own_is_used(broker, start, noted):
    from concurrent.futures import ThreadPoolExecutor

    @greenq.actor(broker=broker)
    async def work():
        with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
            return await asyncio.get_running_loop().run_in_executor(executor, lambda: threading.current_thread().name)

    work.send()
    start()
    broker.join("default", timeout=20_000)

    assert noted.results[0].startswith("mine")


def test_programs_are_run(broker, start, noted):
    @greenq.actor(broker=broker)
    async def work(number):
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", f"print(input() * {number})", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        output, _ = await program.communicate(b"ab\n")
        return program.returncode, output.strip().decode()

    for number in range(1, 4):
        work.send(number)
    start()
    broker.join("default", timeout=30_000)

    assert sorted(noted.results) == [(0, "ab"), (0, "abab"), (0, "ababab")]


def test_connections_are_opened_by_name_and_talk(broker, start, noted):
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    @greenq.actor(broker=broker)
    async def work(count):
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def talk(number):
            reader, writer = await asyncio.open_connection("localhost", port, family=2)
            for turn in range(10):
                writer.write(b"%d %d\n" % (number, turn))
                assert await reader.readline() == b"%d %d\n" % (number, turn)
            writer.close()
            await writer.wait_closed()
            return number

        async with server:
            return sum(await asyncio.gather(*map(talk, range(count))))

    work.send(20)
    start()
    broker.join("default", timeout=30_000)

    assert noted.results == [190]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
def test_groups_of_tasks_and_time_outs_work(broker, start, noted):
    @greenq.actor(broker=broker)
    async def work():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(5)]
        return sum(task.result() for task in tasks)

    @greenq.actor(broker=broker, max_retries=0, time_limit=50)
    async def late():
        async with asyncio.TaskGroup() as group, asyncio.timeout(20):
            group.create_task(asyncio.sleep(30))
            await asyncio.sleep(30)

    work.send()
    late.send()
    start()
    broker.join("default", timeout=20_000)

    assert noted.results == [10]
    assert noted.exceptions == [TimeLimitExceeded]


# -- beside greenlets


@greenlets_only
def test_each_loop_closes_its_own_asynchronous_generators(broker, start):
    assert is_patched()
    closed = []

    async def numbers(loop):
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)  # what only the loop that ran it can do
            closed.append(asyncio.get_running_loop() is loop)

    async def leave_one_open(*, pauses):
        kept = numbers(asyncio.get_running_loop())
        for _ in range(pauses):
            await asyncio.sleep(0.002)
        await kept.__anext__()
        for _ in range(pauses):
            await asyncio.sleep(0.002)
        return kept

    # Kept alive past its loop's end, which closes those that it knows of.
    alive = []

    @greenq.actor(broker=broker, max_retries=0)
    def plain(pauses):
        alive.append(asyncio.run(leave_one_open(pauses=pauses)))

    @greenq.actor(broker=broker, max_retries=0)
    async def awaited(pauses):
        alive.append(await leave_one_open(pauses=pauses))

    for pauses in range(1, 11):
        plain.send(pauses)
        awaited.send(pauses)
    worker = start(concurrency=100)
    broker.join("default", timeout=30_000)
    worker.stop(5000)

    assert not broker.dead_letters
    assert closed == [True] * 20


@greenlets_only
def test_functions_run_loops_of_their_own_beside_the_loop(broker, start, noted):
    assert is_patched()
    strangers = []

    async def own(number):
        await asyncio.sleep(0.01)
        return number, asyncio.get_running_loop()

    @greenq.actor(broker=broker, max_retries=0)
    def plain(number):
        result, loop = asyncio.run(own(number))
        with contextlib.suppress(RuntimeError):
            strangers.append(asyncio.get_running_loop())
        return result, id(loop)

    @greenq.actor(broker=broker, max_retries=0)
    async def awaited(number):
        loop = asyncio.get_running_loop()
        for _ in range(10):
            await asyncio.sleep(0.002)
            assert asyncio.get_running_loop() is loop
        time.sleep(0.001)  # blocks the loop, while others must see none
        assert asyncio.get_running_loop() is loop
        return number, 0

    for number in range(50):
        plain.send(number)
        awaited.send(number)
    start(concurrency=100)
    broker.join("default", timeout=30_000)

    assert not broker.dead_letters
    assert not strangers
    assert sorted(number for number, _ in noted.results) == sorted(list(range(50)) * 2)


@greenlets_only
def test_greenlets_run_while_coroutines_wait_and_the_other_way_round(broker, start):
    assert is_patched()
    ticks = {"greenlet": 0, "coroutine": 0}
    over = threading.Event()

    @greenq.actor(broker=broker)
    def plain():
        while not over.is_set():
            time.sleep(0.001)
            ticks["greenlet"] += 1
            if min(ticks.values()) > 50:
                over.set()

    @greenq.actor(broker=broker)
    async def awaited():
        while not over.is_set():
            await asyncio.sleep(0.001)
            ticks["coroutine"] += 1

    @greenq.actor(broker=broker)
    async def busy():
        while not over.is_set():
            await asyncio.sleep(0)

    busy.send()
    plain.send()
    awaited.send()
    start()

    happens(over)


@greenlets_only
def test_a_coroutine_that_blocks_the_loop_is_told_with_its_line(broker, start, caplog):
    assert is_patched()

    def helper():
        time.sleep(0.2)

    @greenq.actor(broker=broker)
    async def thoughtless():
        helper()

    message = thoughtless.send()
    with caplog.at_level(logging.WARNING):
        start()
        broker.join("default", timeout=10_000)
        until(lambda: any("blocked the asyncio loop" in record.getMessage() for record in caplog.records))

    (told,) = [record.getMessage() for record in caplog.records if "blocked the asyncio loop" in record.getMessage()]
    assert "test_async_actors.py" in told
    assert "in thoughtless" in told
    assert message.message_id in told


@greenlets_only
def test_a_coroutine_that_blocks_the_loop_is_interrupted_at_its_time_limit(broker, start, noted):
    assert is_patched()
    ended = []

    @greenq.actor(broker=broker, max_retries=0, time_limit=100)
    async def block():
        started = time.monotonic()
        try:
            time.sleep(30)
        except TimeLimitExceeded:
            ended.append(time.monotonic() - started)
            raise

    @greenq.actor(broker=broker)
    async def neighbour():
        await asyncio.sleep(0.01)
        return "untouched"

    block.send()
    neighbour.send()
    start()
    broker.join("default", timeout=10_000)

    assert 0.1 <= ended[0] < 2
    assert noted.exceptions == [TimeLimitExceeded]
    assert noted.results == ["untouched"]
