"""A worker stores what actors return: with every broker, and with every backend."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import pytest

import greenq
from greenq.middleware import Middleware
from greenq.results import ResultFailure, ResultMissing, Results
from greenq.results.backends import StubBackend
from tests.support.waiting import PATIENCE_S, happens, until

from .backends import NAMES, open_results, place_of
from .fetching import take

# Of the server, and of nothing that is different in each world.
pytestmark = pytest.mark.shared_out

JOIN = {"timeout": PATIENCE_S * 1000}
WAIT = {"block": True, "timeout": PATIENCE_S * 1000}


@pytest.fixture
def backend(broker):
    backend = StubBackend()
    broker.add_middleware(Results(backend=backend))
    greenq.set_broker(broker)
    return backend


@pytest.fixture(params=NAMES)
def any_backend(request, broker, tmp_path):
    backend = open_results(request.param, place_of(request.param, tmp_path))
    broker.add_middleware(Results(backend=backend, store_results=True))
    greenq.set_broker(broker)
    yield backend
    backend.close()


# -- with every backend


def test_what_an_actor_returns_is_read_from_its_message(broker, any_backend, start):
    @greenq.actor(broker=broker)
    def add(x, y):
        return x + y

    start()
    sent = [add.send(number, 1) for number in range(20)]

    assert [each.get_result(**WAIT) for each in sent] == list(range(1, 21))


def test_what_an_actor_raises_in_the_end_is_read_from_its_message(broker, any_backend, start):
    @greenq.actor(broker=broker, max_retries=1, min_backoff=10)
    def fail():
        raise ValueError("on purpose")

    start()
    sent = fail.send()

    with pytest.raises(ResultFailure, match="actor raised ValueError: on purpose"):
        sent.get_result(**WAIT)


def test_an_actor_waits_for_the_result_of_another_one(broker, any_backend, start):
    @greenq.actor(broker=broker)
    def inner(number):
        return number * 2

    @greenq.actor(broker=broker)
    def outer(number):
        return inner.send(number).get_result(**WAIT) + 1

    start(threads=4)

    assert outer.send(20).get_result(**WAIT) == 41


def test_an_async_actor_awaits_the_results_of_many_others(broker, any_backend, start):
    @greenq.actor(broker=broker)
    async def inner(number):
        await asyncio.sleep(0.001)
        return number * 2

    @greenq.actor(broker=broker)
    async def outer(count):
        sent = await asyncio.to_thread(inner.send_many, [(number,) for number in range(count)])
        return sum(await asyncio.gather(*(each.aget_result(timeout=WAIT["timeout"]) for each in sent)))

    start()

    assert outer.send(20).get_result(**WAIT) == 380


# -- what is stored


def test_without_a_results_middleware_reading_a_result_says_what_to_add(broker):
    greenq.set_broker(broker)
    sent = greenq.Message("default", "actor", (), {}, {})

    with pytest.raises(RuntimeError, match="add_middleware"):
        sent.get_result()


def test_the_broker_gives_its_results_backend(broker, backend):
    assert broker.get_results_backend() is backend


def test_nothing_is_stored_unless_it_is_asked_for(broker, backend, start):
    @greenq.actor(broker=broker)
    def work():
        return 42

    sent = work.send()
    start()
    broker.join("default", **JOIN)

    with pytest.raises(ResultMissing):
        sent.get_result()


@pytest.mark.parametrize(
    ("middleware", "actor", "message", "stored"),
    [
        (False, True, None, True),
        (True, None, None, True),
        (True, False, None, False),
        (False, False, True, True),
        (True, True, False, False),
    ],
)
def test_messages_come_before_actors_and_actors_before_the_middleware(
    broker, start, middleware, actor, message, stored
):
    backend = StubBackend()
    broker.add_middleware(Results(backend=backend, store_results=middleware))

    @greenq.actor(broker=broker, **({} if actor is None else {"store_results": actor}))
    def work():
        return 42

    sent = work.send_with_options(**({} if message is None else {"store_results": message}))
    start()
    broker.join("default", **JOIN)

    if stored:
        assert sent.get_result(backend=backend) == 42
    else:
        with pytest.raises(ResultMissing):
            sent.get_result(backend=backend)


def test_the_time_to_live_is_the_messages_or_the_actors_or_the_middlewares(broker, start):
    ttls = []

    class Notes(StubBackend):
        def store_result(self, message, result, ttl):
            ttls.append(ttl)

    broker.add_middleware(Results(backend=Notes(), store_results=True, result_ttl=3000))

    @greenq.actor(broker=broker)
    def plain():
        pass

    @greenq.actor(broker=broker, result_ttl=2000)
    def own():
        pass

    start(threads=1)
    for send in (plain.send, own.send, lambda: own.send_with_options(result_ttl=1000)):
        send()
        broker.join("default", **JOIN)

    assert ttls == [3000, 2000, 1000]
    assert Results(backend=Notes(), result_ttl=0).result_ttl == 600_000


def test_none_is_a_result(broker, backend, start):
    @greenq.actor(broker=broker, store_results=True)
    def work():
        pass

    start()

    assert work.send().get_result(**WAIT) is None


def test_a_failure_is_stored_only_when_there_are_no_more_retries(broker, backend, start):
    tries, go_on = [], threading.Event()

    @greenq.actor(broker=broker, store_results=True, max_retries=1, min_backoff=10)
    def work():
        tries.append(1)
        if len(tries) > 1:
            happens(go_on)
        raise ValueError("again")

    start()
    sent = work.send()
    while len(tries) < 2:
        time.sleep(0.005)
    with pytest.raises(ResultMissing):
        sent.get_result()
    go_on.set()

    with pytest.raises(ResultFailure, match="again"):
        sent.get_result(**WAIT)


def test_a_job_that_succeeds_at_last_has_a_result(broker, backend, start):
    tries = []

    @greenq.actor(broker=broker, store_results=True, max_retries=3, min_backoff=10)
    def work():
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return len(tries)

    start()

    assert work.send().get_result(**WAIT) == 3


def test_an_expected_exception_is_a_failure_at_once(broker, backend, start):
    @greenq.actor(broker=broker, store_results=True, throws=KeyError)
    def work():
        raise KeyError("expected")

    start()

    with pytest.raises(ResultFailure, match="KeyError"):
        work.send().get_result(**WAIT)


def test_a_message_that_is_too_old_has_a_failure_that_says_so(broker, backend, start):
    @greenq.actor(broker=broker, store_results=True, max_age=1)
    def work():
        pass

    sent = work.send_with_options(delay=20)
    start()

    with pytest.raises(ResultFailure) as caught:
        sent.get_result(**WAIT)
    assert caught.value.orig_exc_type == "SkipMessage"
    assert caught.value.orig_exc_msg == "Message age limit exceeded"


def test_a_skipped_message_has_none_for_a_result(broker, backend, start):
    class Skip(Middleware):
        def before_process_message(self, broker, message):
            raise greenq.SkipMessage("not today")

    broker.add_middleware(Skip())

    @greenq.actor(broker=broker, store_results=True)
    def work():
        return 42

    start()

    assert work.send().get_result(**WAIT) is None


def test_a_message_that_a_middleware_fails_has_a_failure_with_its_reason(broker, backend, start):
    class Fail(Middleware):
        def before_process_message(self, broker, message):
            message.fail("because of a middleware")

    broker.add_middleware(Fail())

    @greenq.actor(broker=broker, store_results=True)
    def work():
        pass

    start()

    with pytest.raises(ResultFailure, match="because of a middleware"):
        work.send().get_result(**WAIT)


def test_a_message_for_an_unknown_actor_is_a_dead_letter_without_a_result(broker, backend, start, dead):
    sent = greenq.Message("default", "nobody", (), {}, {"store_results": True})
    broker.enqueue(sent)
    start()
    broker.join("default", **JOIN)

    assert len(dead()) == 1
    with pytest.raises(ResultMissing):
        sent.get_result()


def test_options_of_a_wrong_type_are_a_failure_that_says_which(broker, backend, start):
    @greenq.actor(broker=broker, store_results=True)
    def work():
        pass

    start()

    with pytest.raises(ResultFailure, match="result_ttl"):
        work.send_with_options(result_ttl="long").get_result(**WAIT)


def test_a_result_that_cannot_be_written_is_a_failure_and_the_job_is_done(broker, backend, start, dead):
    ran = []

    @greenq.actor(broker=broker, store_results=True)
    def work():
        ran.append(1)
        return object()

    start()
    sent = work.send()

    with pytest.raises(ResultFailure, match="TypeError"):
        sent.get_result(**WAIT)
    broker.join("default", **JOIN)
    assert (ran, dead()) == ([1], [])


def test_hooks_may_be_called_with_plain_messages(broker, backend):
    @greenq.actor(broker=broker, store_results=True)
    def work():
        pass

    results = next(each for each in broker.middleware if isinstance(each, Results))
    sent = work.message()

    results.before_nack(broker, sent)
    results.after_nack(broker, sent)
    results.before_nack(broker, greenq.Message("default", "nobody", (), {}, {}))

    with pytest.raises(ResultFailure):
        sent.get_result()


def test_a_value_that_is_not_kept_is_warned_of_once(broker, backend, start, caplog):
    @greenq.actor(broker=broker)
    def forgetful():
        return 42

    for _ in range(3):
        forgetful.send()
    forgetful.send_with_options(pipe_target={})
    start()
    broker.join("default", **JOIN)

    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len([each for each in warnings if "forgetful" in each and "store_results" in each]) == 1


# -- when it is stored


class Looks(Middleware):
    """Reads the result when the verdict is about to be handed over."""

    def __init__(self, backend):
        self.backend, self.seen = backend, []

    def before_ack(self, broker, message):
        self.look("ack", message)

    def before_nack(self, broker, message):
        self.look("nack", message)

    def look(self, hook, message):
        try:
            self.seen.append((hook, message.get_result(backend=self.backend)))
        except ResultFailure as error:
            self.seen.append((hook, error.orig_exc_msg))


def test_a_result_is_stored_before_the_verdict_is_handed_over(broker, backend, start):
    looks = Looks(backend)
    broker.add_middleware(looks)

    @greenq.actor(broker=broker, store_results=True, max_retries=0)
    def work(text):
        if text == "bad":
            raise ValueError(text)
        return text

    start(threads=1)
    for text in ("good", "bad"):
        work.send(text)
        broker.join("default", **JOIN)

    assert looks.seen == [("ack", "good"), ("nack", "bad")]


# -- when the backend is away


class Unreliable(StubBackend):
    """Is away for some calls."""

    def __init__(self, failures):
        super().__init__()
        self.left, self.calls = failures, 0

    def _write(self, *args):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise greenq.ConnectionClosed("The backend is away.")
        super()._write(*args)


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_a_job_that_is_done_waits_for_a_backend_that_is_away(broker, start, caplog, fails):
    caplog.set_level(logging.INFO)
    backend = Unreliable(failures=3)
    broker.add_middleware(Results(backend=backend, store_results=True))
    ran = []

    @greenq.actor(broker=broker, max_retries=0)
    def work():
        ran.append(1)
        if fails:
            raise ValueError("bad")
        return 42

    start()
    sent = work.send()

    if fails:
        with pytest.raises(ResultFailure, match="bad"):
            sent.get_result(backend=backend, **WAIT)
    else:
        assert sent.get_result(backend=backend, **WAIT) == 42
    broker.join("default", **JOIN)
    assert ran == [1]
    told = [each.levelname for each in caplog.records if each.name == "greenq.results.middleware.Results"]
    assert told == ["WARNING", "INFO"]


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_a_job_whose_result_cannot_be_stored_in_time_is_settled_and_its_result_lost(broker, start, dead, caplog, fails):
    backend = Unreliable(failures=10**6)
    broker.add_middleware(Results(backend=backend, store_results=True, store_timeout=200))
    ran = []

    @greenq.actor(broker=broker, max_retries=0)
    def work():
        ran.append(1)
        if fails:
            raise ValueError("bad")

    start()
    sent = work.send()
    broker.join("default", **JOIN)

    assert ran == [1]
    assert len(dead()) == (1 if fails else 0)
    assert 1 < backend.calls < 10
    told = [each.getMessage() for each in caplog.records]
    assert len([text for text in told if "is lost" in text and sent.message_id in text]) == 1


def test_a_worker_that_stops_gives_back_what_still_waits_for_its_backend(broker, start, consume):
    backend = Unreliable(failures=10**6)
    broker.add_middleware(Results(backend=backend, store_results=True, store_timeout=3_600_000))

    @greenq.actor(broker=broker, max_retries=0)
    def work():
        return 42

    sent = work.send()
    worker = start()
    until(lambda: backend.calls > 1)
    worker.stop(300)

    (returned,) = take(consume())
    assert returned.message_id == sent.message_id
    assert "retries" not in returned.options
    backend.left = 0  # what still waits ends
    until(lambda: is_stored(backend, sent))


def is_stored(backend, sent):
    try:
        return sent.get_result(backend=backend) == 42
    except ResultMissing:
        return False
