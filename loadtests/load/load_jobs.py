"""What the workers run under load, and what the users send: two actors that wait, as for a network.

A worker imports it as ``load_jobs:broker``, the users import it as well. The broker is the one that
GREENQ_BROKER_URL names; results are kept where LOADTEST_RESULTS_URL says.
"""

from __future__ import annotations

import os
import time
from urllib.parse import unquote, urlsplit

from load_ledger import Ledger, now

import greenq
from greenq.middleware import CurrentMessage
from greenq.results import ResultBackend, Results
from greenq.results.backends import RedisBackend, SqliteBackend

#: ``redis://...``, or ``sqlite:///path``. Default: the URL of the broker, which has to be Redis then.
RESULTS_VARIABLE = "LOADTEST_RESULTS_URL"


def _backend(url: str) -> ResultBackend:
    if url.startswith("sqlite:"):
        return SqliteBackend(unquote(urlsplit(url).path)[1:])
    return RedisBackend(url=url)


broker = greenq.get_broker()
results = _backend(os.environ.get(RESULTS_VARIABLE) or os.environ["GREENQ_BROKER_URL"])
broker.add_middleware(Results(backend=results, store_results=True))
broker.add_middleware(CurrentMessage())
_ledger = Ledger()


def _wait(milliseconds: float) -> None:
    time.sleep(milliseconds / 1000)
    message = CurrentMessage.get_current_message()
    assert message is not None
    _ledger.note("ran", message.message_id, now(), os.getpid())


@greenq.actor
def work(milliseconds: float) -> float:
    """Wait for a moment."""
    _wait(milliseconds)
    return milliseconds


@greenq.actor
def sleep(milliseconds: float) -> float:
    """Wait for long."""
    _wait(milliseconds)
    return milliseconds
