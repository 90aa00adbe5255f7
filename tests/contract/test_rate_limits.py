"""What rate limiters and barriers promise, with every backend, in one process and in several."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

import greenq
from greenq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter, window
from tests.support.processes import running
from tests.support.waiting import beside, happens, until

from .backends import NAMES, OPEN_LIMITS, SHARED, open_limits, place_of

#: Longer than any test takes, in milliseconds.
LONG = 600_000
#: As long as a bucket can be, so that no test runs over the end of one.
EVER = 10**12


@pytest.fixture
def key():
    return f"key-{uuid.uuid4()}"


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def place(name, tmp_path):
    return place_of(name, tmp_path)


@pytest.fixture
def backend(name, place):
    backend = open_limits(name, place)
    yield backend
    backend.close()


only_shared = pytest.mark.parametrize("name", SHARED, indirect=True)


def tries(limiter, count):
    """Whether each of so many acquires, one after the other, was allowed."""

    def once():
        with limiter.acquire(raise_on_failure=False) as acquired:
            return acquired

    return [once() for _ in range(count)]


def at_once(count, run):
    """The answers of a function that many threads call at the same time."""
    start = threading.Barrier(count)

    def begin(number):
        start.wait()
        return run(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


# -- what a backend does


def test_add_sets_what_is_not_there_and_nothing_else(backend, key):
    assert backend.add(key, 5, LONG)

    assert not backend.add(key, 1, LONG)
    assert not backend.incr(key, 1, 5, LONG), "it was 5"


def test_what_was_added_is_gone_after_its_ttl(backend, key):
    assert backend.add(key, 5, 50)

    until(lambda: backend.add(key, 1, LONG))


def test_incr_counts_up_to_its_maximum(backend, key):
    assert [backend.incr(key, 2, 5, LONG) for _ in range(4)] == [True, True, False, False]


def test_a_refused_incr_changes_nothing(backend, key):
    assert backend.incr(key, 3, 4, LONG)

    assert not backend.incr(key, 2, 4, LONG)
    assert backend.incr(key, 1, 4, LONG)
    assert not backend.incr(key, 1, 4, LONG)


def test_a_refused_incr_does_not_make_a_counter_live_longer(backend, key):
    assert backend.incr(key, 1, 1, 100)

    until(lambda: backend.incr(key, 1, 1, 100))


def test_decr_counts_down_to_its_minimum(backend, key):
    backend.add(key, 5, LONG)

    assert [backend.decr(key, 2, 1, LONG) for _ in range(3)] == [True, True, False]
    assert backend.incr(key, 4, 5, LONG), "it was 1"


def test_decr_refuses_a_key_that_does_not_exist_and_does_not_make_it(backend, key):
    assert not backend.decr(key, 1, 0, LONG)

    assert backend.add(key, 1, LONG)


def test_incr_and_sum_refuses_what_would_pass_the_maximum_by_the_sum(backend, key):
    others = [key, key + "-1", key + "-2"]
    backend.add(key + "-1", 2, LONG)
    backend.add(key + "-2", 1, LONG)

    assert backend.incr_and_sum(key, lambda: others, 1, 5, LONG)
    assert not backend.incr_and_sum(key, lambda: others, 2, 5, LONG)
    assert backend.incr_and_sum(key, lambda: others, 1, 5, LONG)
    assert not backend.incr_and_sum(key, lambda: others, 1, 5, LONG)


def test_incr_and_sum_refuses_what_would_pass_the_maximum_by_the_key(backend, key):
    backend.add(key, 5, LONG)

    assert not backend.incr_and_sum(key, lambda: [key + "-1"], 1, 5, LONG)
    assert backend.incr(key, 1, 6, LONG), "it was still 5"


def test_incr_counts_every_one_of_many_at_once(backend, key):
    taken = at_once(16, lambda number: sum(backend.incr(key, 1, 50, LONG) for _ in range(6)))

    assert sum(taken) == 50


def test_incr_and_sum_never_passes_the_maximum_with_many_at_once(backend, key):
    keys = [f"{key}-{number}" for number in range(4)]

    taken = at_once(
        16, lambda number: sum(backend.incr_and_sum(keys[number % 4], lambda: keys, 1, 20, LONG) for _ in range(6))
    )

    assert sum(taken) <= 20
    # On memcached two may refuse each other, never all of them for long.
    until(lambda: not backend.incr_and_sum(keys[0], lambda: keys, 1, 20, LONG))
    assert all(not backend.incr(each, 20, 20, LONG) for each in keys if backend.decr(each, 0, 1, LONG))


def test_take_gives_out_as_many_slots_as_there_are(backend, key):
    taken = at_once(16, lambda number: backend.take(key, f"holder-{number}", 5, LONG))

    assert sum(taken) == 5


def test_a_holder_that_takes_twice_has_one_slot(backend, key):
    assert backend.take(key, "one", 2, LONG)
    assert backend.take(key, "one", 2, LONG)

    assert backend.take(key, "two", 2, LONG)
    backend.give_back(key, "one", LONG)
    assert backend.take(key, "three", 2, LONG)


def test_only_the_holder_gives_a_slot_back(backend, key):
    backend.take(key, "one", 1, LONG)

    backend.give_back(key, "another", LONG)

    assert not backend.take(key, "two", 1, LONG)


def test_a_slot_whose_lease_is_over_is_free_however_busy_the_others_are(backend, key):
    assert backend.take(key, "killed", 2, 300)

    def others_keep_it_busy():
        backend.take(key, "busy", 2, LONG)
        took_the_killed_ones = backend.take(key, "next", 2, LONG)
        backend.give_back(key, "busy", LONG)
        return took_the_killed_ones

    until(others_keep_it_busy)


def test_a_holder_whose_lease_was_lost_gives_nothing_back(backend, key):
    backend.take(key, "late", 1, 50)
    until(lambda: backend.take(key, "next", 1, LONG))

    backend.give_back(key, "late", LONG)

    assert not backend.take(key, "third", 1, LONG)


# -- who has arrived


def test_the_last_of_several_to_arrive_is_told(backend, key):
    assert [backend.arrive(key, member, 3, LONG) for member in "abc"] == [False, False, True]


def test_one_party_alone_is_the_last(backend, key):
    assert backend.arrive(key, "a", 1, LONG)


def test_a_member_that_arrives_again_counts_once(backend, key):
    assert [backend.arrive(key, member, 3, LONG) for member in "aaaba"] == [False] * 5
    assert backend.arrive(key, "c", 3, LONG)


def test_the_last_one_gets_its_answer_each_time_and_nobody_else_does(backend, key):
    for member in "abc":
        backend.arrive(key, member, 3, LONG)

    assert [backend.arrive(key, member, 3, LONG) for member in "abcc"] == [False, False, True, True]


def test_nobody_is_the_last_beyond_the_number_of_parties(backend, key):
    assert [backend.arrive(key, member, 2, LONG) for member in "abcd"] == [False, True, False, False]


def test_of_many_that_arrive_at_once_each_twice_exactly_one_is_the_last(backend, key):
    told = at_once(20, lambda number: backend.arrive(key, str(number % 10), 10, LONG))

    lasts = {number % 10 for number, is_last in enumerate(told) if is_last}
    assert len(lasts) == 1


def test_arrivals_are_forgotten_after_their_ttl(backend, key):
    assert [backend.arrive(key, member, 1, 1000) for member in "ab"] == [True, False]

    until(lambda: backend.arrive(key, "b", 1, 1000))


def test_arrivals_of_one_key_are_none_of_another(backend, key):
    assert not backend.arrive(key, "a", 2, LONG)
    assert not backend.arrive(key + "@other", "b", 2, LONG)
    assert backend.arrive(key, "b", 2, LONG)


# -- limiters


def test_a_concurrent_limiter_lets_as_many_in_as_its_limit(backend, key):
    limiter = ConcurrentRateLimiter(backend, key, limit=2)

    with limiter.acquire() as first, limiter.acquire() as second, limiter.acquire(raise_on_failure=False) as third:
        assert (first, second, third) == (True, True, False)
    with limiter.acquire() as again:
        assert again


def test_a_limiter_that_refuses_raises_with_its_key(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)

    with limiter.acquire(), pytest.raises(greenq.RateLimitExceeded, match=key), limiter.acquire():
        pytest.fail("it was let in")


def test_a_refused_block_takes_no_slot_from_those_that_are_in(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)

    with limiter.acquire():
        assert tries(limiter, 5) == [False] * 5
    assert tries(limiter, 2) == [True] * 2


def test_a_block_that_raises_gives_its_slot_back(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)

    with pytest.raises(KeyError), limiter.acquire():
        raise KeyError("inside")

    assert tries(limiter, 1) == [True]


def test_a_slot_is_free_again_when_its_lease_is_over(backend, key):
    limiter = ConcurrentRateLimiter(backend, key, ttl=100)

    with limiter.acquire():
        until(lambda: tries(limiter, 1) == [True])


def test_a_bucket_limiter_lets_in_as_many_as_its_limit_in_one_bucket(backend, key):
    limiter = BucketRateLimiter(backend, key, limit=3, bucket=EVER)

    assert tries(limiter, 5) == [True, True, True, False, False]


def test_a_bucket_limiter_lets_in_again_in_the_next_bucket(backend, key):
    limiter = BucketRateLimiter(backend, key, limit=1, bucket=100)

    until(lambda: tries(limiter, 2) == [True, False])
    until(lambda: tries(limiter, 2) == [True, False])


def test_a_window_limiter_lets_in_as_many_as_its_limit_in_its_window(backend, key):
    limiter = WindowRateLimiter(backend, key, limit=3, window=600)

    assert tries(limiter, 5) == [True, True, True, False, False]


def test_a_window_limiter_counts_earlier_seconds_until_its_window_is_over(backend, key):
    limiter = WindowRateLimiter(backend, key, limit=2, window=2)
    until(lambda: time.time() % 1 < 0.1)
    first = time.time()
    assert tries(limiter, 3) == [True, True, False]

    with limiter.acquire(wait=20_000):
        waited_s = time.time() - first

    assert 1.8 < waited_s < 5


@pytest.mark.parametrize(
    "make",
    [
        lambda backend: ConcurrentRateLimiter(backend, "key", limit=0),
        lambda backend: BucketRateLimiter(backend, "key", limit=0),
        lambda backend: WindowRateLimiter(backend, "key", limit=0),
        lambda backend: WindowRateLimiter(backend, "key", window=0),
        lambda backend: Barrier(backend, "key").create(0),
    ],
)
def test_limits_that_make_no_sense_are_refused(make):
    with pytest.raises(AssertionError):
        make(open_limits("stub", ""))


# -- waiting


def test_a_limiter_waits_until_there_is_room(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)
    is_in, leave = threading.Event(), threading.Event()

    def hold():
        with limiter.acquire():
            is_in.set()
            happens(leave)

    with beside(hold):
        happens(is_in)
        threading.Timer(0.05, leave.set).start()
        with limiter.acquire(wait=20_000) as acquired:
            assert acquired
            assert leave.is_set()


def test_a_limiter_waits_for_as_long_as_it_was_told(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)
    with limiter.acquire():
        started = time.monotonic()

        with limiter.acquire(wait=150, raise_on_failure=False) as acquired:
            waited_s = time.monotonic() - started

    assert not acquired
    assert 0.15 <= waited_s < 5


def test_many_that_wait_are_all_let_in_and_never_more_than_the_limit(backend, key):
    limiter = ConcurrentRateLimiter(backend, key, limit=3)
    inside, most = [], []

    def work(number):
        with limiter.acquire(wait=20_000):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.001)
            inside.remove(number)
        return True

    assert all(at_once(40, work))
    assert max(most) <= 3


def test_those_who_wait_in_one_process_are_let_in_in_their_order(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)
    order, threads = [], []

    def work(number):
        with limiter.acquire(wait=20_000):
            order.append(number)

    with limiter.acquire():
        for number in range(8):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            until(lambda: len(_line_of(backend, key)) == len(threads))
    for thread in threads:
        thread.join()

    assert order == list(range(8))


def _line_of(backend, key):
    from greenq.rate_limits.line import _lines

    return _lines.get(backend, {}).get(key, ())


def test_only_the_first_of_those_who_wait_in_one_process_asks(key):
    backend = open_limits("stub", "")
    asked = []
    take = backend.take
    backend.take = lambda key, holder, *rest: (asked.append(holder), take(key, holder, *rest))[1]
    limiter = ConcurrentRateLimiter(backend, key)

    def wait(number):
        with limiter.acquire(wait=20_000):
            return True

    with ThreadPoolExecutor(20) as pool:
        with limiter.acquire():
            waiting = [pool.submit(wait, number) for number in range(20)]
            until(lambda: len(_line_of(backend, key)) == 20 and len(asked) > 5)
            assert len(set(asked)) == 2, "the one inside, and the first who waits"
        assert all(each.result() for each in waiting)


def test_a_bucket_limiter_waits_for_the_next_bucket(backend, key, monkeypatch):
    limiter = BucketRateLimiter(backend, key, limit=1, bucket=200)
    count, counted = backend.incr, []

    def incr(bucket, *args):
        is_granted = count(bucket, *args)
        if is_granted:
            counted.append(bucket)
        return is_granted

    monkeypatch.setattr(backend, "incr", incr)

    for _ in range(3):
        with limiter.acquire(wait=20_000):
            pass

    assert len(counted) == len(set(counted)) == 3


def test_waiting_leaves_nobody_in_line(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)

    with limiter.acquire(), limiter.acquire(wait=20, raise_on_failure=False):
        pass

    assert not _line_of(backend, key)


# -- asyncio


def test_an_asyncio_host_waits_without_blocking_its_loop(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)

    async def main():
        order = []

        async def work(number):
            async with limiter.aacquire(wait=20_000):
                order.append(number)
                await asyncio.sleep(0.001)

        async with limiter.aacquire():
            tasks = [asyncio.ensure_future(work(number)) for number in range(10)]
            await asyncio.sleep(0.01)
            assert order == []
            async with limiter.aacquire(raise_on_failure=False) as acquired:
                assert not acquired
            with pytest.raises(greenq.RateLimitExceeded):
                async with limiter.aacquire():
                    pytest.fail("it was let in")
        await asyncio.wait_for(asyncio.gather(*tasks), 20)
        return order

    assert sorted(asyncio.run(main())) == list(range(10))
    assert tries(limiter, 1) == [True]


def test_a_task_that_is_cancelled_holds_no_slot(backend, key):
    limiter = ConcurrentRateLimiter(backend, key)

    async def main():
        async def work():
            async with limiter.aacquire(wait=20_000):
                await asyncio.sleep(20)

        for steps in range(12):
            task = asyncio.ensure_future(work())
            for _ in range(steps):
                await asyncio.sleep(0.0005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert tries(limiter, 1) == [True]


# -- barriers


def test_a_barrier_is_reached_when_all_have_come(backend, key):
    barrier = Barrier(backend, key)

    assert barrier.create(parties=3)
    assert [barrier.wait(block=False) for _ in range(5)] == [False, False, True, True, True]


def test_a_barrier_is_created_once(backend, key):
    barrier = Barrier(backend, key)

    assert barrier.create(parties=2)
    assert not barrier.create(parties=5)
    assert [barrier.wait(block=False) for _ in range(2)] == [False, True]


def test_a_barrier_that_was_never_created_holds_nobody_up(backend, key):
    assert Barrier(backend, key).wait()


def test_a_barrier_lets_those_who_wait_go_when_the_last_one_has_come(backend, key):
    barrier = Barrier(backend, key)
    barrier.create(parties=5)

    assert at_once(5, lambda number: barrier.wait(timeout=20_000)) == [True] * 5


def test_of_many_who_arrive_at_once_exactly_one_is_the_last(backend, key):
    barrier = Barrier(backend, key)
    barrier.create(parties=20)

    assert sum(at_once(20, lambda number: barrier.wait(block=False))) == 1


@pytest.mark.parametrize("timeout", [1, 150])
def test_a_wait_at_a_barrier_ends_when_its_time_is_over(backend, key, timeout):
    barrier = Barrier(backend, key)
    barrier.create(parties=2)
    started = time.monotonic()

    assert not barrier.wait(timeout=timeout)

    assert timeout / 1000 <= time.monotonic() - started < timeout / 1000 + 3


def test_a_wait_at_a_barrier_without_a_time_ends_with_the_barrier(backend, key):
    barrier = Barrier(backend, key, ttl=100)
    barrier.create(parties=2)

    assert not barrier.wait()


def test_an_asyncio_host_waits_at_a_barrier_without_blocking_its_loop(backend, key):
    barrier = Barrier(backend, key)
    barrier.create(parties=3)

    async def main():
        return await asyncio.gather(*(barrier.async_wait(timeout=20_000) for _ in range(3)))

    assert asyncio.run(main()) == [True] * 3


# -- several processes

ACQUIRE_ALL = (
    OPEN_LIMITS
    + """
limiter = %s
print("ready")
sys.stdin.readline()
count = 0
for _ in range(60):
    with limiter.acquire(raise_on_failure=False) as acquired:
        count += acquired
print(count)
"""
)


LIMITERS = {
    "bucket": "BucketRateLimiter(backend, key, limit=50, bucket=10**12)",
    "window": "WindowRateLimiter(backend, key, limit=50, window=600)",
}


def test_a_window_counts_what_others_did_whose_clocks_are_ahead(backend, key, monkeypatch):
    limiter = WindowRateLimiter(backend, key, limit=1, window=600)
    now = time.time()
    monkeypatch.setattr(window, "time", SimpleNamespace(time=lambda: now + 1))
    with limiter.acquire():
        pass

    monkeypatch.setattr(window, "time", SimpleNamespace(time=lambda: now))

    with limiter.acquire(raise_on_failure=False) as acquired:
        assert not acquired


@only_shared
@pytest.mark.parametrize("limiter", list(LIMITERS.values()), ids=list(LIMITERS))
def test_several_processes_share_a_limit(name, place, key, limiter):
    with (
        running(ACQUIRE_ALL % limiter, name, place, key) as one,
        running(ACQUIRE_ALL % limiter, name, place, key, patched=True) as two,
        running(ACQUIRE_ALL % limiter, name, place, key) as three,
    ):
        scripts = (one, two, three)
        assert [each.line() for each in scripts] == ["ready"] * 3
        for each in scripts:
            each.say()
        counts = [int(each.line()) for each in scripts]

    assert sum(counts) == 50


OVERLAP = (
    OPEN_LIMITS
    + """
import threading
limiter = ConcurrentRateLimiter(backend, key, limit=2)
print("ready")
sys.stdin.readline()
stays = []
def work():
    for _ in range(5):
        with limiter.acquire(wait=60_000):
            entered = time.monotonic()
            time.sleep(0.002)
            stays.append((entered, time.monotonic()))
threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
print(*(f"{a}:{b}" for a, b in stays))
"""
)


@only_shared
def test_several_processes_are_never_more_at_once_than_the_limit(name, place, key):
    with (
        running(OVERLAP, name, place, key) as one,
        running(OVERLAP, name, place, key, patched=True) as two,
        running(OVERLAP, name, place, key) as three,
    ):
        scripts = (one, two, three)
        assert [each.line() for each in scripts] == ["ready"] * 3
        for each in scripts:
            each.say()
        stays = [tuple(map(float, stay.split(":"))) for each in scripts for stay in each.line().split()]

    assert len(stays) == 60
    assert max(sum(a <= entered < b for a, b in stays) for entered, _ in stays) <= 2


HOLD = (
    OPEN_LIMITS
    + """
with ConcurrentRateLimiter(backend, key, ttl=3000).acquire():
    print("inside")
    time.sleep(3600)
"""
)


@only_shared
def test_the_slot_of_a_killed_process_comes_free_with_its_lease(name, place, backend, key):
    limiter = ConcurrentRateLimiter(backend, key, ttl=3000)
    with running(HOLD, name, place, key) as holder:
        holder.line()
        assert tries(limiter, 1) == [False]
        holder.kill()

    with limiter.acquire(wait=20_000) as acquired:
        assert acquired


WAIT_AT_BARRIER = (
    OPEN_LIMITS
    + """
print("waits")
print(Barrier(backend, key).wait(timeout=60_000))
"""
)


@only_shared
def test_processes_that_wait_at_a_barrier_go_on_when_the_last_one_has_come(name, place, backend, key):
    barrier = Barrier(backend, key)
    barrier.create(parties=3)
    with (
        running(WAIT_AT_BARRIER, name, place, key) as one,
        running(WAIT_AT_BARRIER, name, place, key, patched=True) as two,
    ):
        for each in (one, two):
            each.line()

        assert barrier.wait(timeout=20_000)
        assert [one.line(), two.line()] == ["True", "True"]
