"""Durations as people write them."""

from __future__ import annotations

import pytest

from greenq.units import duration_ms, host_and_port


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1.5s", 1500),
        ("0", 0),
        ("600000", 600_000),
        ("600_000", 600_000),
        (" 30 S ", 30_000),
    ],
)
def test_a_duration_is_milliseconds_unless_it_says_otherwise(text, expected):
    assert duration_ms(text) == expected


@pytest.mark.parametrize("text", ["", "s", "-5s", "5x", "5 5", "1e3", "nan", "inf", "1__0", "_1", "64MB"])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="30s, 5m or 2h") as error:
        duration_ms(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["36526d", "9" * 400, "9" * 400 + "d"])
def test_what_no_clock_can_count_is_too_long(text):
    assert duration_ms("36525d") == 36_525 * 86_400_000
    with pytest.raises(ValueError, match=f"^'{text[:20]}.*too long: 36525d"):
        duration_ms(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_an_address_without_a_host_is_one_of_loopback(text, address):
    assert host_and_port(text) == address
