"""How long to wait before another attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from greenq.backoff import LONGEST_BACKOFF_MS, backoff_ms

waits = st.integers(min_value=1, max_value=10 * LONGEST_BACKOFF_MS)
failures = st.integers(min_value=0, max_value=10_000)


def least(low, high):
    return low


def most(low, high):
    return high


@given(failures, waits, waits)
def test_it_is_never_negative_nor_longer_than_the_longest(failures, shortest, longest):
    wait = backoff_ms(failures, min_backoff_ms=shortest, max_backoff_ms=longest)

    assert isinstance(wait, int)
    assert 0 <= wait <= min(longest, LONGEST_BACKOFF_MS)


@given(st.integers(min_value=0, max_value=20), st.integers(min_value=1, max_value=500))
def test_it_is_between_one_and_two_times_the_exponential_below_the_longest(failures, shortest):
    base = shortest * 2**failures
    if base * 2 > LONGEST_BACKOFF_MS:
        return

    assert base <= backoff_ms(failures, min_backoff_ms=shortest, max_backoff_ms=LONGEST_BACKOFF_MS) <= 2 * base


@given(failures, waits, waits)
def test_it_is_at_least_half_the_longest_where_the_exponential_passes_it(failures, shortest, longest):
    longest = min(longest, LONGEST_BACKOFF_MS)
    if shortest * 2 ** min(failures, 32) <= longest:
        return

    assert int(longest * 0.5) <= backoff_ms(failures, min_backoff_ms=shortest, max_backoff_ms=longest) <= longest


def test_the_first_retry_comes_after_one_to_two_times_the_shortest():
    limits = {"min_backoff_ms": 15_000, "max_backoff_ms": LONGEST_BACKOFF_MS}

    assert backoff_ms(0, **limits, uniform=least) == 15_000
    assert backoff_ms(0, **limits, uniform=most) == 30_000


def test_the_exponent_stops_growing_at_32():
    limits = {"min_backoff_ms": 1, "max_backoff_ms": LONGEST_BACKOFF_MS, "uniform": least}

    assert backoff_ms(32, **limits) == backoff_ms(10**9, **limits)


def test_twenty_retries_by_default_take_about_a_month():
    total = sum(
        backoff_ms(n, min_backoff_ms=15_000, max_backoff_ms=LONGEST_BACKOFF_MS, uniform=most) for n in range(20)
    )

    assert 20 < total / (24 * 3600 * 1000) < 60


def test_a_shortest_of_zero_is_at_once():
    assert backoff_ms(5, min_backoff_ms=0, max_backoff_ms=1000) == 0
