"""Durations and sizes as people write them: 500ms 30s 5m 2h, 64MB.

Standard library only.
"""

from __future__ import annotations

import re

_MILLISECONDS = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

# Powers of 1024 under either spelling: these are sizes of memory.
_BYTES = {"": 1, "b": 1}
_BYTES |= {
    unit: 1024**power for power, units in enumerate(("k kb kib", "m mb mib", "g gb gib"), 1) for unit in units.split()
}

_QUANTITY = re.compile(r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def duration_ms(text: str) -> int:
    """The milliseconds that a duration stands for; a number without a unit is milliseconds.

    Raises:
      ValueError: It is no duration; the text says what one looks like.
    """
    return _quantity(text, _MILLISECONDS, "a duration, such as 500ms, 30s, 5m or 2h; a plain number is milliseconds")


def size_bytes(text: str) -> int:
    """The bytes that a size stands for; a number without a unit is bytes, 1KB is 1024.

    Raises:
      ValueError: It is no size; the text says what one looks like.
    """
    return _quantity(text, _BYTES, "a size, such as 512KB, 64MB or 2GB; a plain number is bytes")


def _quantity(text: str, units: dict[str, int], expected: str) -> int:
    match = _QUANTITY.fullmatch(text)
    factor = units.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is not {expected}")
    return round(float(match[1].replace("_", "")) * factor)
