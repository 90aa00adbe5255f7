"""What result backends promise, in one process and in several."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import greenq
from greenq.encoder import PickleEncoder
from greenq.results import ResultFailure, ResultMissing, ResultTimeout
from greenq.stores.values import Watch
from tests.support.processes import both_worlds, running
from tests.support.waiting import PATIENCE_S, until

from .backends import NAMES, OPEN_RESULTS, SHARED, open_results, place_of

#: Longer than any test takes, in milliseconds.
LONG = 600_000
PATIENCE_MS = PATIENCE_S * 1000


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def place(name, tmp_path):
    return place_of(name, tmp_path)


@pytest.fixture
def backend(name, place):
    backend = open_results(name, place)
    yield backend
    backend.close()


only_shared = pytest.mark.parametrize("name", SHARED, indirect=True)
#: Those who tell who waits, so that nobody has to look again and again.
telling = pytest.mark.parametrize("name", ["sqlite", "redis"], indirect=True)


def message(**fields):
    return greenq.Message("default", "actor", (), {}, {})._replace(**fields)


def after(seconds, run, *args):
    timer = threading.Timer(seconds, run, args)
    timer.start()
    return timer


# -- storing and reading


@pytest.mark.parametrize("result", [None, 0, "", "text", 1.5, True, [1, [2]], {"a": {"b": None}}, 2**70])
def test_a_result_is_read_as_it_was_stored(backend, result):
    sent = message()

    backend.store_result(sent, result, LONG)

    assert backend.get_result(sent) == result
    assert backend.get_result(sent, block=True, timeout=0) == result


def test_reading_a_result_does_not_remove_it(backend):
    sent = message()
    backend.store_result(sent, 42, LONG)

    assert [sent.get_result(backend=backend) for _ in range(3)] == [42] * 3


def test_a_result_is_read_by_whoever_knows_the_messages_id(backend):
    sent = message()
    backend.store_result(sent, 42, LONG)

    assert backend.get_result(sent.message_id) == 42
    assert message(message_id=sent.message_id).get_result(backend=backend) == 42


def test_a_missing_result_raises_and_names_the_message(backend):
    sent = message()

    with pytest.raises(ResultMissing, match=sent.message_id):
        sent.get_result(backend=backend)


def test_a_failure_raises_with_the_exceptions_type_and_text(backend):
    sent = message()
    backend.store_exception(sent, ValueError("what was wrong"), LONG)

    with pytest.raises(ResultFailure) as caught:
        sent.get_result(backend=backend)

    assert str(caught.value) == "actor raised ValueError: what was wrong"
    assert (caught.value.orig_exc_type, caught.value.orig_exc_msg) == ("ValueError", "what was wrong")


def test_a_dict_is_a_result_like_any_other(backend):
    sent = message()
    backend.store_result(sent, {"type": "ValueError", "text": "no failure"}, LONG)

    assert sent.get_result(backend=backend) == {"type": "ValueError", "text": "no failure"}


def test_the_last_stored_result_counts(backend):
    sent = message()

    backend.store_exception(sent, ValueError(), LONG)
    backend.store_result(sent, "second", LONG)

    assert sent.get_result(backend=backend) == "second"


def test_a_result_is_gone_after_its_ttl(backend):
    sent = message()
    backend.store_result(sent, 42, 1000)
    assert sent.get_result(backend=backend) == 42

    def is_gone():
        try:
            sent.get_result(backend=backend)
        except ResultMissing:
            return True

    until(is_gone)


def test_a_result_can_be_kept_for_months(backend):
    sent = message()
    backend.store_result(sent, 42, 100 * 24 * 3600 * 1000)

    assert sent.get_result(backend=backend) == 42


def test_a_result_can_be_forgotten(backend):
    sent = message()
    backend.store_result(sent, 42, LONG)

    sent.forget_result(backend=backend)
    sent.forget_result(backend=backend)

    with pytest.raises(ResultMissing):
        sent.get_result(backend=backend)


def test_namespaces_are_apart(name, place, backend):
    other = open_results(name, place, namespace="other")
    sent = message()
    backend.store_result(sent, 42, LONG)

    with pytest.raises(ResultMissing):
        sent.get_result(backend=other)
    other.close()


def test_an_encoder_of_ones_own_is_used(name, place):
    backend = open_results(name, place, encoder=PickleEncoder())
    sent = message()

    backend.store_result(sent, {1, 2}, LONG)

    assert sent.get_result(backend=backend) == {1, 2}
    backend.close()


def test_a_result_that_the_encoder_cannot_write_raises(backend):
    with pytest.raises(TypeError):
        backend.store_result(message(), object(), LONG)


def test_ids_of_any_characters_have_results(backend):
    for message_id in ("with space", "ü" * 50, "x" * 400, "half \ud800", ""):
        sent = message(message_id=message_id)
        backend.store_result(sent, message_id[:1], LONG)
        assert sent.get_result(backend=backend, block=True, timeout=0) == message_id[:1]


# -- waiting


def test_a_wait_ends_when_the_result_is_stored(backend):
    sent = message()
    started = time.monotonic()
    after(0.1, backend.store_result, sent, 42, LONG)

    assert sent.get_result(backend=backend, block=True, timeout=PATIENCE_MS) == 42
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("timeout", [0, 1, 150, 1234])
def test_a_wait_ends_when_its_time_is_over(backend, timeout):
    sent = message()
    started = time.monotonic()

    with pytest.raises(ResultTimeout, match=sent.message_id):
        sent.get_result(backend=backend, block=True, timeout=timeout)

    assert timeout / 1000 <= time.monotonic() - started < timeout / 1000 + 3


def test_a_wait_may_be_allowed_to_last_longer_than_anybody_lives(backend):
    sent = message()
    after(0.05, backend.store_result, sent, 42, LONG)

    assert sent.get_result(backend=backend, block=True, timeout=10**14) == 42


def test_many_may_wait_for_the_same_result(backend):
    sent = message()
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(sent.get_result, backend=backend, block=True, timeout=PATIENCE_MS) for _ in range(20)]
        time.sleep(0.05)  # some wait by now, some do not; all have to get it
        backend.store_result(sent, 42, LONG)

        assert [each.result() for each in waiting] == [42] * 20


def test_many_may_wait_for_results_of_their_own(backend):
    sent = [message() for _ in range(50)]
    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(each.get_result, backend=backend, block=True, timeout=PATIENCE_MS) for each in sent]
        for number, each in enumerate(sent):
            backend.store_result(each, number, LONG)

        assert [each.result() for each in waiting] == list(range(50))


def test_a_failure_ends_a_wait(backend):
    sent = message()
    after(0.05, backend.store_exception, sent, KeyError("it"), LONG)

    with pytest.raises(ResultFailure, match="KeyError"):
        sent.get_result(backend=backend, block=True, timeout=PATIENCE_MS)


def test_a_closed_backend_opens_again(backend):
    first, second = message(), message()
    backend.store_result(first, 1, LONG)
    backend.close()
    backend.store_result(second, 2, LONG)
    after(0.05, backend.store_result, third := message(), 3, LONG)

    assert third.get_result(backend=backend, block=True, timeout=PATIENCE_MS) == 3
    backend.close()
    after(0.05, backend.store_result, fourth := message(), 4, LONG)
    assert fourth.get_result(backend=backend, block=True, timeout=PATIENCE_MS) == 4
    assert second.get_result(backend=backend) == 2


# -- asyncio


def test_an_asyncio_host_waits_for_many_results_without_blocking_its_loop(backend):
    sent = [message() for _ in range(50)]

    async def main():
        turns = 0

        async def turn():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        turning = asyncio.ensure_future(turn())
        waiting = [asyncio.ensure_future(each.aget_result(backend=backend, timeout=PATIENCE_MS)) for each in sent]
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        for number, each in enumerate(sent):
            await loop.run_in_executor(None, backend.store_result, each, number, LONG)
        results = await asyncio.gather(*waiting)
        turning.cancel()
        assert turns > 10
        return results

    assert asyncio.run(main()) == list(range(50))


def test_an_asyncio_host_gets_failures_and_timeouts(backend):
    failed = message()
    backend.store_exception(failed, ValueError("bad"), LONG)

    async def main():
        with pytest.raises(ResultFailure, match="bad"):
            await failed.aget_result(backend=backend)
        with pytest.raises(ResultTimeout):
            await message().aget_result(backend=backend, timeout=20)

    asyncio.run(main())


def test_a_task_that_is_cancelled_waits_no_more(backend):
    async def main():
        task = asyncio.ensure_future(message().aget_result(backend=backend, timeout=PATIENCE_MS))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = time.monotonic()
    asyncio.run(main())

    assert time.monotonic() - started < 5


@pytest.mark.parametrize("turns", range(6))
def test_a_task_that_is_cancelled_as_it_is_told_waits_no_more(turns, monkeypatch):
    backend = greenq.results.backends.StubBackend()
    sent, bells, closed = message(), [], []

    class Watched(Watch):
        def look(self):
            bells.append(True)

        def pause_s(self):
            return PATIENCE_S

        def close(self):
            closed.append(True)

    def watch(key, bell):
        ring.append(bell)
        return Watched(backend.values, key)

    ring = []
    monkeypatch.setattr(backend.values, "watch", watch)

    async def main():
        task = asyncio.ensure_future(sent.aget_result(backend=backend, timeout=PATIENCE_MS))
        while not bells:
            await asyncio.sleep(0.001)
        ring[0]()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert closed


# -- several processes

# Nobody looks by himself, so whoever gets a result was told.
WAIT = (
    OPEN_RESULTS
    + """
greenq.stores.redis.values.LOOK_EVERY_S = greenq.stores.sqlite.values.LOOK_SELDOM_EVERY_S = 3600
ids = sys.argv[3:]
results = {}
def wait(each):
    results[each] = backend.get_result(each, block=True, timeout=60_000)
threads = [threading.Thread(target=wait, args=(each,)) for each in ids]
for each in threads: each.start()
print("waits")
for each in threads: each.join()
print(*(results[each] for each in ids))
"""
)


@both_worlds
@only_shared
def test_a_process_that_waits_is_told_by_another_one(name, place, backend, patched):
    sent = [message() for _ in range(30)]
    with running(WAIT, name, place, *(each.message_id for each in sent), patched=patched) as waiting:
        waiting.line()

        for number, each in enumerate(sent):
            backend.store_result(each, number, LONG)

        assert waiting.line() == " ".join(map(str, range(30)))


@telling
def test_waiting_costs_no_polling(name, place, backend):
    looks = []
    if name == "redis":
        client = backend.client

        def count():
            return int(client.info("stats")["total_commands_processed"])
    else:
        do = backend.values.do
        backend.values.do = lambda operation: (looks.append(operation), do(operation))[1]

        def count():
            return len(looks)

    sent = [message() for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(each.get_result, backend=backend, block=True, timeout=PATIENCE_MS) for each in sent]
        until(lambda: _is_quiet(count))
        before = count()
        time.sleep(1)  # in which nobody asks, apart from these counts
        asked = count() - before
        for each in sent:
            backend.store_result(each, 42, LONG)
        assert [each.result() for each in waiting] == [42] * 20

    assert asked <= 5


def _is_quiet(count):
    before = count()
    time.sleep(0.1)
    return count() - before <= 2
