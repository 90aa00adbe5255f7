"""The hooks of a message's way through a worker: which, in which order, and when they fail."""

from __future__ import annotations

import pytest

import greenq
from tests.support.recorder import MESSAGE_HOOKS, Recorder

# Of the worker and the server, and of nothing that is different in each world.
pytestmark = pytest.mark.shared_out

JOIN = {"timeout": 20_000}


@pytest.fixture
def recorder(broker):
    recorder = Recorder(*MESSAGE_HOOKS)
    broker.add_middleware(recorder)
    return recorder


def test_a_message_that_succeeds(broker, start, recorder):
    @greenq.actor(broker=broker)
    def work():
        return "done"

    work.send()
    start()
    recorder.wait_for("after_ack")

    assert recorder.names == [
        "before_enqueue",
        "after_enqueue",
        "before_process_message",
        "after_process_message",
        "before_ack",
        "after_ack",
    ]
    assert recorder.named("after_process_message")[0].kwargs == {"result": "done"}


def test_a_message_that_fails_for_good(broker, start, recorder):
    @greenq.actor(broker=broker, max_retries=0)
    def work():
        raise RuntimeError("no")

    work.send()
    start()
    recorder.wait_for("after_nack")

    assert recorder.names[2:] == [
        "before_process_message",
        "after_process_message",
        "before_nack",
        "after_nack",
    ]
    assert isinstance(recorder.named("after_process_message")[0].kwargs["exception"], RuntimeError)


def test_a_message_that_is_tried_again(broker, start, recorder):
    attempts = []

    @greenq.actor(broker=broker, min_backoff=20)
    def work():
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("once")

    work.send()
    start()
    recorder.wait_for("after_ack", 2)

    told = recorder.names[2:]
    assert [name for name in told if name not in ("after_enqueue", "after_ack")] == [
        "before_process_message",
        "after_process_message",
        "before_enqueue",
        "before_ack",
        "before_process_message",
        "after_process_message",
        "before_ack",
    ]
    # The broker has the retry before it is told, so that may be under way already.
    assert [name for name in told if name in ("after_enqueue", "after_ack")] == [
        "after_enqueue",
        "after_ack",
        "after_ack",
    ]
    assert told.index("before_ack") < told.index("after_enqueue")
    retry, delay = recorder.named("before_enqueue")[1].args
    assert retry.options["retries"] == 1
    assert 20 <= delay <= 40


def test_a_message_that_is_skipped(broker, start, recorder):
    class Skipping(greenq.Middleware):
        def before_process_message(self, broker, message):
            raise greenq.SkipMessage("not this one")

    broker.add_middleware(Skipping())

    @greenq.actor(broker=broker)
    def work():
        raise AssertionError("it must not run")

    work.send()
    start()
    recorder.wait_for("after_ack")

    assert recorder.names[2:] == ["before_process_message", "after_skip_message", "before_ack", "after_ack"]


def test_a_message_that_a_hook_fails_does_not_run_but_is_processed(broker, start, recorder, dead):
    class Failing(greenq.Middleware):
        def before_process_message(self, broker, message):
            message.fail()

    broker.add_middleware(Failing())

    @greenq.actor(broker=broker)
    def work():
        raise AssertionError("it must not run")

    work.send()
    start()
    recorder.wait_for("after_nack")

    assert recorder.names[2:] == ["before_process_message", "after_process_message", "before_nack", "after_nack"]
    assert recorder.named("after_process_message")[0].kwargs == {"result": None}
    assert len(dead()) == 1


def test_a_message_for_an_unknown_actor_is_rejected_without_being_processed(broker, start, recorder):
    broker.enqueue(greenq.Message("default", "nobody", (), {}, {}))
    start()
    recorder.wait_for("after_nack")

    assert recorder.names[2:] == ["before_nack", "after_nack"]


def test_before_hooks_run_first_to_last_and_after_hooks_last_to_first(broker, start):
    order = []

    class Named(greenq.Middleware):
        def __init__(self, name):
            self.name = name

        def before_process_message(self, broker, message):
            order.append(f"before {self.name}")

        def after_process_message(self, broker, message, *, result=None, exception=None):
            order.append(f"after {self.name}")

    broker.add_middleware(Named("first"))
    broker.add_middleware(Named("second"))
    done = Recorder("after_ack")
    broker.add_middleware(done)

    @greenq.actor(broker=broker)
    def work():
        order.append("actor")

    work.send()
    start()
    done.wait_for("after_ack")

    assert order == ["before first", "before second", "actor", "after second", "after first"]


@pytest.mark.parametrize("name", ["before_process_message", "after_process_message", "before_ack", "after_ack"])
def test_a_hook_that_raises_is_logged_and_the_message_is_done(broker, start, recorder, dead, caplog, name):
    def failing(self, *args, **kwargs):
        raise RuntimeError("a mistake in a hook")

    # Added before the actor, and in front of the recorder, which must hear of everything.
    broker.add_middleware(type("Failing", (greenq.Middleware,), {name: failing})(), before=Recorder)
    ran = []

    @greenq.actor(broker=broker)
    def work():
        ran.append(1)

    work.send()
    start()
    recorder.wait_for("after_ack")
    broker.join("default", **JOIN)

    assert ran == [1]
    assert dead() == []


def test_what_before_ack_raises_does_not_prevent_the_ack(broker, start, recorder, dead):
    class Refusing(greenq.Middleware):
        def before_ack(self, broker, message):
            raise greenq.MiddlewareError("no ack")

    broker.add_middleware(Refusing())

    @greenq.actor(broker=broker)
    def work():
        pass

    work.send()
    start()
    recorder.wait_for("after_ack")

    broker.join("default", **JOIN)
    assert dead() == []


def test_a_retry_that_a_hook_refuses_makes_a_dead_letter(broker, start, dead):
    class Refusing(greenq.Middleware):
        def before_enqueue(self, broker, message, delay):
            if "retries" in message.options:
                raise greenq.MiddlewareError("no retries here")

    broker.add_middleware(Refusing())

    @greenq.actor(broker=broker)
    def work():
        raise RuntimeError("no")

    work.send()
    start()
    broker.join("default", **JOIN)

    ((_, reason),) = dead()
    assert "no retries here" in reason


def test_hooks_of_a_workers_life(broker):
    recorder = Recorder(
        "before_worker_boot",
        "after_worker_boot",
        "after_consumer_thread_boot",
        "after_worker_thread_boot",
        "before_worker_shutdown",
        "before_worker_thread_shutdown",
        "before_consumer_thread_shutdown",
        "after_worker_shutdown",
    )
    broker.add_middleware(recorder)

    @greenq.actor(broker=broker)
    def work():
        pass

    worker = greenq.Worker(broker, worker_timeout=100, worker_threads=1)
    worker.start()
    work.send()
    recorder.wait_for("after_worker_thread_boot")
    worker.stop(5000)
    recorder.wait_for("after_worker_shutdown")

    names = recorder.names
    assert names[0] == "before_worker_boot"
    assert names[-1] == "after_worker_shutdown"
    assert names.index("before_worker_shutdown") < names.index("before_consumer_thread_shutdown")
    assert names.index("before_worker_shutdown") < names.index("before_worker_thread_shutdown")
    assert sorted(names) == sorted(set(names))


def test_the_current_message_is_known_inside_its_actor(broker, start):
    from greenq.middleware import CurrentMessage

    seen = []
    broker.add_middleware(CurrentMessage())

    @greenq.actor(broker=broker)
    def work():
        seen.append(CurrentMessage.get_current_message())

    sent = work.send()
    start()
    broker.join("default", **JOIN)

    assert seen == [sent]
    assert CurrentMessage.get_current_message() is None
