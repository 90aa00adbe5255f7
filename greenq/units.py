"""Durations, sizes and addresses as people write them: 500ms 30s 5m 2h 1d, 512M 2G, 8080 0.0.0.0:8080 [::1]:8080.

Standard library only.
"""

from __future__ import annotations

import re

_MILLISECONDS = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

#: A hundred years. Clocks and waits of the system end at three times that.
_LONGEST_MS = 36_525 * _MILLISECONDS["d"]

_QUANTITY = re.compile(r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def duration_ms(text: str) -> int:
    """The milliseconds that a duration stands for; a number without a unit is milliseconds.

    Raises:
      ValueError: It is no duration, or longer than 100 years; the text says what one looks like.
    """
    match = _QUANTITY.fullmatch(text)
    factor = _MILLISECONDS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(
            f"{text!r:.80} is not a duration, such as 500ms, 30s, 5m or 2h; a plain number is milliseconds"
        )
    duration = float(match[1].replace("_", "")) * factor
    if duration > _LONGEST_MS:
        raise ValueError(f"{text!r:.80} is too long: 36525d, a hundred years, is the most")
    return round(duration)


_BYTES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def size_bytes(text: str) -> int:
    """The bytes that a size stands for; a number without a unit is bytes, and K, M and G are powers of 1024.

    Raises:
      ValueError: It is no size; the text says what one looks like.
    """
    match = _QUANTITY.fullmatch(text)
    unit = match[2].lower() if match else ""
    factor = _BYTES.get(unit.removesuffix("ib") or unit) or _BYTES.get(unit.removesuffix("b"))
    if match is None or factor is None:
        raise ValueError(f"{text!r:.80} is not a size, such as 512M or 2G; a plain number is bytes")
    return round(float(match[1].replace("_", "")) * factor)


def host_and_port(text: str) -> tuple[str, int]:
    """The host and the port of ``8080``, ``:8080``, ``localhost:8080`` or ``[::1]:8080``; 127.0.0.1 if no host is said.

    Raises:
      ValueError: It is no such thing; the text says what one looks like.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = port = ""
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"{text!r:.80} is no address, such as 8080, 0.0.0.0:8080 or [::]:8080; ports are 0 to 65535")
    return host or "127.0.0.1", int(port)
