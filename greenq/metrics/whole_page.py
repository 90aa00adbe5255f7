"""What a scraper is answered: what the workers have counted, and what the application has.

It only reads the shared file.
"""

from __future__ import annotations

import os
import time

from ..http_listener import Answer
from ..logging import get_logger
from . import shared
from .text import CONTENT_TYPE, page


def whole_page(fd: int) -> Answer:
    """The page, of the shared file of this descriptor."""
    return Answer(200, CONTENT_TYPE, page(shared.read(fd), now_s=time.monotonic()).encode() + users_own())


_told_of_users_own = False


def users_own() -> bytes:
    """The metrics that the application has made with prometheus_client, in its multiprocess mode."""
    global _told_of_users_own
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return b""
    try:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client has no types here
        return bytes(generate_latest(registry))
    except Exception:  # of a library, and of files that others write
        if not _told_of_users_own:
            _told_of_users_own = True
            get_logger(__name__).error(
                "The application's own metrics in %s cannot be read, so that they are left out.",
                os.environ["PROMETHEUS_MULTIPROC_DIR"],
                exc_info=True,
            )
        return b""
