"""Jobs that block run beside the hub: in native threads, or in processes of their own."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import multiprocessing
import os
import queue
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

import greenq
from greenq.errors import LaneDied, ResultFailure, Shutdown, TimeLimitExceeded
from greenq.middleware import CurrentMessage, Middleware
from greenq.results import Results
from greenq.results.backends import StubBackend
from greenq.runtime import is_patched
from tests.support import lane_actors
from tests.support.waiting import PATIENCE_S, beside, happens, until

only_patched = pytest.mark.skipif("not greenq.runtime.is_patched()", reason="every job has a native thread here")


def result_of(message):
    backend = lane_actors.broker.get_results_backend()
    return message.get_result(backend=backend, block=True, timeout=1000 * PATIENCE_S)


# -- threads


@pytest.fixture
def pipe():
    """A pipe, of which os.read() blocks its whole thread, whatever gevent has patched."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_job_that_blocks_its_thread_does_not_stop_its_neighbours(broker, start, pipe):
    reader, writer = pipe
    blocks, neighbour_ran, ended = threading.Event(), threading.Event(), threading.Event()

    @greenq.actor(broker=broker, lane="thread")
    def block():
        blocks.set()
        os.read(reader, 1)
        ended.set()

    @greenq.actor(broker=broker)
    def neighbour():
        neighbour_ran.set()

    start()
    block.send()
    happens(blocks)
    neighbour.send()
    happens(neighbour_ran)
    assert not ended.is_set()
    os.write(writer, b"x")
    happens(ended)
    broker.join("default", timeout=10_000)
    assert not broker.dead_letters


def test_what_gevent_has_patched_works_in_a_lanes_thread(broker, start, caplog):
    lock, told = threading.Lock(), []
    lock.acquire()

    @greenq.actor(broker=broker, lane="thread", max_retries=0)
    def work():
        told.append("began")
        time.sleep(0.01)
        with lock:
            told.append("locked")
        ours, other = socket.socketpair()
        with ours, other:
            threading.Thread(target=other.sendall, args=(b"hello",)).start()
            told.append(ours.recv(5))
        with socket.create_connection(server.getsockname()) as client:
            told.append(client.recv(2))
        box = queue.Queue()  # gevent's are of the thread that makes them
        threading.Timer(0.01, box.put, args=["queued"]).start()
        told.append(box.get())
        logging.getLogger("lanes").warning("logged")

    with caplog.at_level(logging.WARNING, "lanes"), socket.create_server(("127.0.0.1", 0)) as server:
        work.send()
        start()
        until(lambda: told == ["began"])
        lock.release()
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hi")
        broker.join("default", timeout=10_000)

    assert told == ["began", "locked", b"hello", b"hi", "queued"]
    assert "logged" in caplog.text
    assert not broker.dead_letters


@pytest.mark.parametrize("attempt", range(3))
def test_a_process_ends_well_whose_worker_had_jobs_in_threads(attempt):
    # It crashed more often than not.
    program = """
        import gevent.monkey; gevent.monkey.patch_all()
        import greenq
        from greenq.brokers.stub import StubBroker

        broker = StubBroker()

        @greenq.actor(broker=broker, lane="thread")
        def work():
            pass

        worker = greenq.Worker(broker)
        worker.start()
        work.send()
        broker.join("default")
        worker.stop()
        """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_lanes_thread_sees_the_context_of_its_job(broker, start):
    broker.add_middleware(CurrentMessage())
    user = contextvars.ContextVar("user", default="nobody")
    seen = []

    class Users(Middleware):
        def before_process_message(self, broker, message):
            user.set("ann")

        def after_process_message(self, broker, message, *, result=None, exception=None):
            seen.append(("after", user.get()))

    broker.add_middleware(Users())

    @greenq.actor(broker=broker, lane="thread")
    def work():
        message = CurrentMessage.get_current_message()
        seen.append((message.message_id, user.get()))
        user.set("ben")

    sent = work.send()
    start()
    broker.join("default", timeout=10_000)

    assert seen == [(sent.message_id, "ann"), ("after", "ben")]


def test_a_job_in_a_thread_knows_how_long_it_has_left(broker, start):
    left = []

    @greenq.actor(broker=broker, lane="thread")
    def work():
        left.append(greenq.remaining_ms())

    work.send_with_options(time_limit=60_000)
    work.send_with_options(time_limit=float("inf"))
    start(concurrency=1)
    broker.join("default", timeout=10_000)

    assert 0 < left[0] <= 60_000
    assert left[1] is None


def test_results_exceptions_and_sends_of_a_lanes_thread_are_those_of_any_job(broker, start):
    backend = StubBackend()
    broker.add_middleware(Results(backend=backend, store_results=True))
    ran = threading.Event()

    @greenq.actor(broker=broker, lane="thread", max_retries=0, throws=KeyError)
    def work(x):
        if x is None:
            raise KeyError("x")
        follow.send()
        return x + 1

    @greenq.actor(broker=broker)
    def follow():
        ran.set()

    good, bad = work.send(1), work.send(None)
    start()

    assert good.get_result(backend=backend, block=True) == 2
    with pytest.raises(ResultFailure, match="KeyError"):
        bad.get_result(backend=backend, block=True)
    happens(ran)


@pytest.mark.parametrize("how", ["spins", "waits"])
def test_a_job_in_a_thread_is_interrupted_at_its_time_limit_and_cleans_up(broker, start, how):
    cleaned_up, after = threading.Event(), threading.Event()

    @greenq.actor(broker=broker, lane="thread", max_retries=0, time_limit=100)
    def work():
        try:
            x = 0
            while True:
                x += 1
                if how == "waits":
                    time.sleep(0.05 if not is_patched() else 60)
        finally:
            time.sleep(0.05)  # an interrupt comes once
            cleaned_up.set()

    @greenq.actor(broker=broker, lane="thread")
    def another():
        after.set()

    work.send()
    start(lane_threads=1)
    happens(cleaned_up)
    another.send()
    happens(after)
    broker.join("default", timeout=10_000)

    assert [dead.actor_name for dead in broker.dead_letters] == ["work"]
    assert "TimeLimitExceeded" in broker.dead_letters[0].reason


def test_interrupts_strike_in_the_actors_own_code_alone(broker, start):
    strays = []
    ends = []

    class Watch(Middleware):
        def before_process_message(self, broker, message):
            self._look()

        def after_process_message(self, broker, message, *, result=None, exception=None):
            self._look()
            ends.append(exception)

        def _look(self):
            try:
                for _ in range(200):
                    len(strays)
            except BaseException as error:
                strays.append(error)
                raise

    broker.add_middleware(Watch())

    @greenq.actor(broker=broker, lane="thread", max_retries=0, time_limit=20)
    def straddle(number):
        ends_at = time.monotonic() + 0.015 + number % 10 * 0.001
        while time.monotonic() < ends_at:
            pass

    straddle.send_many([(number,) for number in range(200)])
    start(lane_threads=4)
    broker.join("default", timeout=60_000)

    assert not strays
    assert len(ends) == 200
    assert {type(each) for each in ends} <= {type(None), TimeLimitExceeded}


def test_a_lock_that_jobs_in_threads_share_goes_from_one_to_the_next(broker, start):
    lock, count = threading.Lock(), []

    def use():
        for _ in range(50):
            with lock:
                count.append(sum(range(3000)))  # long enough that the others come and wait

    @greenq.actor(broker=broker, lane="thread")
    def in_a_thread():
        use()

    @greenq.actor(broker=broker)
    def in_a_slot():
        use()

    in_a_thread.send_many([()] * 4)
    in_a_slot.send_many([()] * 4)
    start(lane_threads=4)
    broker.join("default", timeout=1000 * PATIENCE_S)

    assert len(count) == 400


@only_patched
@pytest.mark.parametrize("how", ["subprocess", "os.fork", "os.posix_spawn", "multiprocessing"])
def test_a_job_in_a_thread_that_would_start_a_program_or_a_child_is_told_before_it_has_started(
    broker, start, tmp_path, how
):
    @greenq.actor(broker=broker, lane="thread", max_retries=0)
    def work():
        if how == "subprocess":
            subprocess.run(["touch", str(tmp_path / "it began")], check=True)
        elif how == "os.posix_spawn":
            os.posix_spawn("/bin/touch", ["touch", str(tmp_path / "it began")], {})
        elif how == "os.fork":
            if os.fork() == 0:
                (tmp_path / "it began").touch()
                os._exit(0)
        else:
            multiprocessing.get_context("fork").Process(target=(tmp_path / "it began").touch).start()

    work.send()
    start()
    broker.join("default", timeout=10_000)

    assert "no native thread can start a program or fork a child" in broker.dead_letters[0].reason
    assert not psutil.Process().children()
    assert not (tmp_path / "it began").exists()


@only_patched
def test_a_full_lane_keeps_its_jobs_waiting_and_their_clocks_stand_still(broker, start):
    go, begun, ran = threading.Event(), threading.Event(), []

    @greenq.actor(broker=broker, lane="thread", max_retries=0)
    def first():
        begun.set()
        happens(go)

    @greenq.actor(broker=broker, lane="thread", max_retries=0, time_limit=1000)
    def second(number):
        ran.append(number)

    worker = start(lane_threads=1)
    first.send()
    happens(begun)
    second.send_many([(0,), (1,), (2,)])
    until(lambda: worker.slots.in_flight == 4)
    time.sleep(1.1)  # longer than their limit, which has not begun
    assert not ran
    go.set()
    broker.join("default", timeout=10_000)

    assert ran == [0, 1, 2]
    assert not broker.dead_letters


@only_patched
def test_jobs_of_a_lane_share_its_threads_and_leave_nothing_behind(broker, start):
    names, all_there = set(), threading.Barrier(3)

    @greenq.actor(broker=broker, lane="thread")
    def meet():
        names.add(greenq.runtime.current().task_name())
        all_there.wait(PATIENCE_S)

    @greenq.actor(broker=broker, lane="thread")
    def work():
        names.add(greenq.runtime.current().task_name())
        time.sleep(0.001)

    process = psutil.Process()
    before = process.num_threads(), process.num_fds()
    worker = start(lane_threads=3)
    meet.send_many([()] * 3)
    broker.join("default", timeout=10_000)
    warm = process.num_threads(), process.num_fds()
    work.send_many([()] * 100)
    broker.join("default", timeout=10_000)

    assert names == {"lane 1", "lane 2", "lane 3"}
    assert (process.num_threads(), process.num_fds()) == warm
    worker.stop(2000)
    until(lambda: (process.num_threads(), process.num_fds()) <= before)


@only_patched
def test_a_job_that_waits_for_its_lane_goes_back_when_its_worker_stops(broker, start):
    begun, told = threading.Event(), []

    @greenq.actor(broker=broker, lane="thread", notify_shutdown=True)
    def work(number):
        begun.set()
        try:
            time.sleep(60)
        except Shutdown:
            told.append(number)
            raise

    worker = start(lane_threads=1)
    work.send_many([(0,), (1,)])
    happens(begun)
    until(lambda: worker.slots.in_flight == 2)
    worker.stop(5000)

    assert told == [0]
    assert broker.queue_counts("default").ready == 2
    assert worker.given_back == 0


# -- processes


@pytest.fixture
def lanes():
    """A worker of the actors that other processes can find; what it was given options for is made anew."""
    broker = lane_actors.broker
    workers = []

    def start(**options):
        worker = greenq.Worker(broker, worker_timeout=100, concurrency=8, **{"lane_processes": 2, **options})
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.stop(2000)
    broker.flush_all()
    until(lambda: not children())


def children():
    """The processes of lanes that this one has."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "greenq-lane" in child.cmdline():
                found.append(child)
    return found


def reason_of(message):
    """Why a message died."""
    dead = []

    def look():
        dead[:] = [each for each in lane_actors.broker.dead_letters if each.message_id == message.message_id]
        return dead

    until(look)
    return dead[0].reason


def warm_up():
    """Have the next job's process find the actors imported: its first job does that, on its own clock."""
    result_of(lane_actors.add.send(1, 1))


def test_a_job_in_a_process_brings_its_result_back(lanes):
    lanes()

    assert result_of(lane_actors.add.send(1, 2)) == 3
    assert result_of(lane_actors.add.send("a" * 100_000, "b")) == "a" * 100_000 + "b"
    pid, message_id, is_main = result_of(sent := lane_actors.whoami.send())
    assert pid in {child.pid for child in children()}
    assert (message_id, is_main) == (sent.message_id, True)


def test_a_job_in_a_process_knows_how_long_it_has_left(lanes):
    lanes()
    remaining = lane_actors.remaining

    assert 0 < result_of(remaining.send_with_options(time_limit=60_000)) <= 60_000
    assert result_of(remaining.send_with_options(time_limit=float("inf"))) is None


def test_a_job_in_a_process_may_tell_its_progress(lanes):
    lanes()

    assert result_of(lane_actors.tell_progress.send()) == "told"


def test_an_actor_that_is_a_class_runs_in_a_process_too(lanes):
    lanes()

    doubled, pid = result_of(lane_actors.Crunch.send(4))

    assert doubled == 8
    assert pid != os.getpid()


def test_processes_are_made_on_demand_and_used_again(lanes):
    lanes()

    assert not children()
    pids = {result_of(lane_actors.whoami.send())[0] for _ in range(5)}
    assert len(pids) == 1


def test_a_full_lane_has_its_jobs_wait_for_a_process(lanes, tmp_path):
    lanes(lane_processes=1)
    first = lane_actors.wait_for_go.send(str(tmp_path / "first"))
    until((tmp_path / "first").exists)
    second = lane_actors.wait_for_go.send(str(tmp_path / "second"))
    assert len(children()) == 1
    assert not (tmp_path / "second").exists()
    (tmp_path / "go").touch()

    assert result_of(first) == result_of(second)


def test_a_job_that_spins_in_a_process_does_not_stop_its_neighbours(lanes, tmp_path):
    lanes()
    held = lane_actors.wait_for_go.send(str(tmp_path / "held"))
    until((tmp_path / "held").exists)
    ran = threading.Event()

    @greenq.actor(broker=lane_actors.broker, actor_name=f"neighbour of {held.message_id}")
    def neighbour():
        ran.set()

    try:
        neighbour.send()
        happens(ran)
        assert result_of(lane_actors.add.send(1, 1)) == 2
    finally:
        (tmp_path / "go").touch()
    result_of(held)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("plain", "Plain: as expected"),
        ("refused", "Refused: the cake was refused with 418"),
        ("local", "Local: nearby"),
    ],
)
def test_exceptions_keep_their_class_for_throws_and_their_text(lanes, caplog, how, told):
    lanes()
    with caplog.at_level(logging.INFO):
        sent = lane_actors.expect.send(how)

        assert reason_of(sent) == told
    assert "raised an expected exception" in caplog.text


def test_the_traceback_of_another_process_is_logged_and_kept(lanes, caplog):
    worker = lanes()
    with caplog.at_level(logging.ERROR):
        sent = lane_actors.add.send(1, "one")
        reason_of(sent)
    worker.join()

    (record,) = [each for each in caplog.records if sent.message_id in each.getMessage()]
    text = logging.Formatter().formatException(record.exc_info)
    assert "unsupported operand type(s) for +" in text
    assert "lane_actors.py" in text
    assert "return x + y" in text
    (letter,) = lane_actors.broker.dead_letters_of("default").page().letters
    assert "return x + y" in letter.failures[-1].traceback


def test_retry_when_and_retry_behave_as_in_any_lane(lanes, tmp_path):
    lanes()

    assert result_of(lane_actors.fail_twice.send(str(tmp_path / "tries"))) == "at last"
    assert result_of(lane_actors.ask_for_retry.send(str(tmp_path / "asked"))) == "again"


def test_a_result_that_cannot_travel_fails_its_job_and_tells_what_to_do(lanes):
    lanes()

    told = reason_of(lane_actors.return_what_cannot_travel.send())

    assert "of type lock, cannot be brought out of its process" in told
    assert "Return plain data" in told
    assert result_of(lane_actors.add.send(1, 2)) == 3


def test_a_result_that_does_not_arrive_fails_its_job_and_leaves_nothing_of_its_process(lanes):
    lanes(lane_processes=1)
    pid = result_of(lane_actors.whoami.send())[0]

    assert "it was sealed elsewhere" in reason_of(lane_actors.return_what_does_not_arrive.send())
    until(lambda: not psutil.pid_exists(pid))
    assert result_of(lane_actors.add.send(1, 2)) == 3


def test_what_a_job_would_enqueue_in_the_memory_of_its_process_is_refused(lanes):
    lanes()

    assert "cannot enqueue on a StubBroker" in reason_of(lane_actors.send_another.send())


def test_an_actor_that_other_processes_cannot_find_is_refused_with_the_reason(lanes):
    lanes()

    @greenq.actor(broker=lane_actors.broker, lane="process", actor_name=f"local {time.monotonic()}")
    def local():
        pass

    told = reason_of(local.send())

    assert "another process cannot import" in told
    assert "top level of a module" in told
    assert not children()


@pytest.mark.parametrize("how", ["python", "regex", "sleep"])
def test_a_job_in_a_process_is_interrupted_at_its_time_limit_and_cleans_up(lanes, tmp_path, how):
    lanes(lane_processes=1)
    warm_up()

    assert "TimeLimitExceeded" in reason_of(lane_actors.spin.send(str(tmp_path / "end"), how))
    assert (tmp_path / "end").read_text() == "cleaned up"


def test_a_job_that_swallows_its_interrupt_is_killed_at_the_hard_limit_and_nobody_else(lanes, tmp_path, caplog):
    worker = lanes()
    worker.lanes.hard_limit_ms = 200
    held = lane_actors.wait_for_go.send(str(tmp_path / "held"))
    until((tmp_path / "held").exists)
    warm_up()

    sent = lane_actors.swallow.send(str(tmp_path / "pid"))
    assert "TimeLimitExceeded" in reason_of(sent)

    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert f"Message {sent.message_id} of actor swallow went on for 0.2 s after its time limit" in caplog.text
    (tmp_path / "go").touch()
    assert result_of(held) == int((tmp_path / "held").read_text())


def test_a_process_that_is_stuck_in_c_is_killed_at_the_hard_limit(lanes, tmp_path):
    worker = lanes()
    worker.lanes.hard_limit_ms = 200
    warm_up()

    sent = lane_actors.hold_the_interpreter.send_with_options(args=(str(tmp_path / "pid"),), time_limit=100)
    assert "TimeLimitExceeded" in reason_of(sent)
    assert result_of(lane_actors.add.send(1, 2)) == 3


@pytest.mark.parametrize(
    ("how", "told"),
    [("segfault", "was killed by SIGSEGV"), ("exit", "ended with code 3"), ("kill", "was killed by SIGKILL")],
)
def test_the_death_of_a_process_fails_its_job_and_nobody_elses(lanes, tmp_path, how, told):
    lanes()
    held = lane_actors.wait_for_go.send(str(tmp_path / "held"))
    until((tmp_path / "held").exists)

    sent = lane_actors.die.send(how)
    reason = reason_of(sent)
    assert reason.startswith("LaneDied: The process of a lane (PID ")
    assert f"{told} while it ran message {sent.message_id} of actor die." in reason

    (tmp_path / "go").touch()
    result_of(held)
    assert result_of(lane_actors.add.send(1, 2)) == 3


def test_a_job_whose_process_died_is_tried_again(lanes, tmp_path):
    lanes()

    assert result_of(lane_actors.die_once.send(str(tmp_path / "died"))) == "alive"


def test_a_time_limit_that_passes_at_the_death_of_a_process_harms_no_other_job(lanes, tmp_path):
    lanes()
    began, ended = threading.Event(), threading.Event()

    @greenq.actor(broker=lane_actors.broker, actor_name=f"neighbour {time.monotonic()}", time_limit=2000, max_retries=0)
    def neighbour():
        began.set()
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.set()

    dies = lane_actors.wait_for_go.send_with_options(args=(str(tmp_path / "held"),), time_limit=2000)
    until(lambda: (tmp_path / "held").exists() and (tmp_path / "held").read_text())
    neighbour.send()
    happens(began)
    os.kill(int((tmp_path / "held").read_text()), signal.SIGKILL)
    # Under gevent's patch the hub hears of the death and of both limits in one turn.
    limits_end_at = time.monotonic() + 2.1
    while time.monotonic() < limits_end_at:
        pass

    assert "was killed by SIGKILL while it ran" in reason_of(dies)
    happens(ended)


def test_a_process_that_died_while_it_was_idle_costs_no_job_an_attempt_nor_its_time(lanes, monkeypatch):
    worker = lanes(lane_processes=1)
    deadlines, where = worker.deadlines, []
    start = deadlines.start
    monkeypatch.setattr(deadlines, "start", lambda job, *limits: where.append(job.pid) or start(job, *limits))
    first = result_of(lane_actors.whoami.send())[0]
    os.kill(first, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # gevent's hub has reaped it
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)

    second = result_of(lane_actors.whoami.send())[0]

    assert second != first
    assert where == [first, second], "where each was when its clock started"
    until(lambda: not psutil.pid_exists(first))


def test_lane_died_tells_the_signal_and_survives_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(LaneDied("gone", signal=11)))

    assert (str(error), error.signal, error.exit_code) == ("gone", 11, None)


def test_an_idle_process_is_ended_after_a_while(lanes):
    worker = lanes()
    worker.lanes.idle_s = 0.05
    pid = result_of(lane_actors.whoami.send())[0]

    until(lambda: not psutil.pid_exists(pid))
    assert result_of(lane_actors.add.send(1, 2)) == 3


def test_a_job_that_waits_for_a_process_goes_back_at_once_when_its_worker_stops(lanes, tmp_path):
    queue = lane_actors.broker.queue_counts
    worker = lanes(lane_processes=1)
    lane_actors.wait_for_go.send(str(tmp_path / "first"))
    until((tmp_path / "first").exists)
    lane_actors.wait_for_go.send(str(tmp_path / "second"))
    until(lambda: worker.slots.in_flight == 2)

    with beside(worker.stop, 1000 * PATIENCE_S):
        until(lambda: queue("default").ready == 1)
        assert worker.slots.in_flight == 1
        (tmp_path / "go").touch()

    assert not (tmp_path / "second").exists()
    assert (queue("default").ready, worker.given_back) == (1, 0)


def test_a_stop_interrupts_the_job_in_a_process_and_its_message_goes_back(lanes, stop_late, tmp_path):
    worker = lanes()
    lane_actors.clean_up.send(str(tmp_path / "begun"))
    until((tmp_path / "begun").exists)

    stop_late(worker)

    assert (tmp_path / "cleaned up").exists()
    assert lane_actors.broker.queue_counts("default").ready == 1
    assert worker.given_back == 1


def test_a_stop_kills_what_ignores_it_at_the_deadline_and_its_message_goes_back(lanes, tmp_path):
    worker = lanes()
    lane_actors.swallow_shutdown.send(str(tmp_path / "pid"))
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())

    worker.stop(500)

    pid = int((tmp_path / "pid").read_text())
    until(lambda: not psutil.pid_exists(pid))
    assert lane_actors.broker.queue_counts("default").ready == 1
    assert worker.given_back == 1


def test_what_an_interrupted_job_has_started_ends_with_it(lanes, tmp_path):
    worker = lanes()
    lane_actors.start_a_program.send(str(tmp_path / "pid"))
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    program = psutil.Process(int((tmp_path / "pid").read_text()))

    worker.stop(2000)

    until(lambda: not program.is_running() or program.status() == psutil.STATUS_ZOMBIE)


@only_patched
def test_a_killed_slot_takes_its_process_with_it_and_its_message_goes_back(lanes, tmp_path):
    worker = lanes(lane_processes=1)
    held = lane_actors.wait_for_go.send(str(tmp_path / "held"))
    until(lambda: (tmp_path / "held").exists() and (tmp_path / "held").read_text())
    pid = int((tmp_path / "held").read_text())
    (slot,) = [thread for thread in worker.slots.threads if thread.message is not None]

    slot.task._greenlet.kill(block=False)

    until(lambda: not psutil.pid_exists(pid))
    (tmp_path / "go").touch()
    assert result_of(held) != pid


def test_stopped_workers_leave_no_process_and_no_descriptor_behind(lanes):
    process = psutil.Process()
    lanes().stop(2000)  # what is made once is made
    before = process.num_fds()
    for _ in range(3):
        worker = lanes()
        assert result_of(lane_actors.add.send(1, 2)) == 3
        result_of(lane_actors.whoami.send())
        worker.stop(2000)
        until(lambda: not children())

    until(lambda: process.num_fds() <= before)


@pytest.mark.parametrize("option", ["lane_threads", "lane_processes"])
def test_a_lane_without_room_is_refused(broker, option):
    if option == "lane_threads" and not is_patched():
        option = "lane_processes"
    with pytest.raises(ValueError, match="1 or more"):
        greenq.Worker(broker, **{option: 0})


def test_a_child_that_a_job_forks_in_its_process_can_be_terminated(lanes):
    lanes()

    assert result_of(lane_actors.fork_and_end.send("terminate")) == -signal.SIGTERM


def test_the_death_of_a_process_is_seen_while_a_child_of_it_lives(lanes):
    lanes()

    assert "ended with code 5" in reason_of(lane_actors.fork_and_end.send("die"))
    assert result_of(lane_actors.add.send(1, 2)) == 3


def test_a_job_that_writes_to_its_process_own_socket_fails_alone(lanes):
    lanes(lane_processes=1)

    reason_of(lane_actors.babble.send())
    assert result_of(lane_actors.add.send(1, 2)) == 3
    until(lambda: len(children()) == 1)


def test_a_process_that_stands_still_is_killed_beyond_the_hard_limit(lanes, tmp_path):
    worker = lanes(lane_processes=1)
    worker.lanes.hard_limit_ms = 200
    warm_up()

    reason = reason_of(lane_actors.stand_still.send_with_options(args=(str(tmp_path / "pid"),), time_limit=100))

    assert "TimeLimitExceeded" in reason
    assert result_of(lane_actors.add.send(1, 2)) == 3
