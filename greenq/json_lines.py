"""JSON documents, one a line: what the supervisor and its workers say to each other.

Standard library only. Knows no pipe and no word of what is said.
"""

from __future__ import annotations

import json
from typing import Any


def encode(document: dict[str, Any]) -> bytes:
    """One document as one line."""
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


#: Bytes of a line that is read. What is said is much shorter.
LONGEST_LINE = 1 << 20


class Decoder:
    """Makes documents of bytes that arrive in any portions."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The documents that are complete now. Lines that are no JSON object, or too long, are left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            # Somebody else writes there. No document begins so: its end, when it comes, is left out, too.
            self._rest = b"?"
        documents = []
        for line in lines:
            try:
                document = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict):
                documents.append(document)
        return documents
