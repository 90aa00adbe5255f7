"""The actor: fetches a page, sends a job for each link that is not known yet.

What a job does, in this order:

    1 claim    the record makes this message the page's owner, unless another one is
    2 fetch    over a real socket
    3 send     a job for each link that the record does not know
    4 add      these pages, with their messages' ids; with many links, 3 and 4 in turns
    5 settle   this page is done
    6          the job returns, and greenq removes its message

A process may be killed at any point, because greenq delivers its messages again, with the
same ids, and

  before 1     nothing has happened yet.
  after 1, 2   the page is this message's own and not done: the next delivery fetches it again.
  after 3      some links have been sent and are not recorded. The next delivery sends them a
               second time, unless their first job has begun and recorded itself. The first of
               two such messages to be recorded owns the page, the other one is dropped at 1.
  after 4      the next delivery fetches the page again and finds its links known.
  after 5      the page is done: the next delivery is refused at 1.

So a page that is recorded has been sent, and one that is done has had all its links
recorded: once every recorded page is done, there is no other. A page whose tries are spent
is recorded by another job, give_up: greenq stores its message in the step that gives up the
page's own, so there is no death between the two.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import ssl
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import greenq
from greenq.middleware import CurrentMessage

from .group_commit import SharedRecord
from .record import BROKEN, CHECKED, FAILED, TIMED_OUT, WAITING, Claim, Settlement

# The application's own settings, next to greenq's GREENQ_BROKER_URL.
QUEUE = os.environ["LINKCHECK_QUEUE"]
RECORD_FILE = Path(os.environ["LINKCHECK_RECORD"])
TIME_LIMIT_MS = int(os.environ["LINKCHECK_TIME_LIMIT_MS"])

#: A page that fails is mostly fine soon; one that hangs costs a slot for the whole limit.
RETRIES_OF_FAILING = 5
RETRIES_OF_HANGING = 1
#: How many jobs are sent at once.
SENT_AT_ONCE = 500

broker = greenq.get_broker()
broker.add_middleware(CurrentMessage())  # before the actors


def is_worth_another_try(failures: int, error: BaseException) -> bool:
    """Whether a page that failed so often before, and now with this error, is tried again."""
    is_hanging = isinstance(error, greenq.TimeLimitExceeded)
    return failures < (RETRIES_OF_HANGING if is_hanging else RETRIES_OF_FAILING)


@greenq.actor(
    queue_name=QUEUE,
    time_limit=TIME_LIMIT_MS,
    min_backoff=200,
    max_backoff=3_000,
    retry_when=is_worth_another_try,
    on_retry_exhausted="give_up",
)
def check(url: str, found_on: str | None) -> None:
    """Check the page at this URL, to which another one links, and send jobs for its own links."""
    message = CurrentMessage.get_current_message()
    assert message is not None, "check runs in a worker"
    owner = message.message_id
    record = shared_record()
    try:
        if not record.claim(Claim(url, owner, found_on)):
            return
        answer = fetch(url)
        if answer.status >= 500:
            raise greenq.Retry(f"{url} answered {answer.status}.")
        links = links_of(answer)
        follow(links, url, record)
        state = BROKEN if answer.status >= 400 else CHECKED
        record.settle(Settlement(url, owner, state, answer.status, len(links)))
    except (Exception, greenq.TimeLimitExceeded):
        record.settle(Settlement(url, owner, WAITING))  # so that it does not count as in flight
        raise  # for Retries, whose word on what comes next is the only one: see give_up


@greenq.actor(queue_name=QUEUE)
def give_up(message: dict[str, Any], _retries: dict[str, int]) -> None:
    """Record that there is no other try for a page. Retries sends this as it gives one up."""
    is_hanging = "TimeLimitExceeded" in message["options"]["traceback"]
    state = TIMED_OUT if is_hanging else FAILED
    shared_record().settle(Settlement(message["args"][0], message["message_id"], state))


class Answer(NamedTuple):
    """What a site answered. ``body`` is empty unless it is HTML."""

    url: str
    status: int
    location: str | None
    body: str


def fetch(url: str) -> Answer:
    """Get a page. Has no time limit of its own: the actor has one."""
    parts = urlsplit(url)
    assert parts.hostname, "links_of lets nothing else through"
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=tls_context())
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
    with contextlib.closing(connection):
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", quote(target, safe="/?&=%+;:@!$'()*,~"), headers={"User-Agent": "greenq-linkcheck"})
        response = connection.getresponse()
        body = response.read()
        is_html = response.headers.get_content_type() == "text/html"
        text = body.decode(errors="replace") if is_html else ""
        return Answer(url, response.status, response.headers["Location"], text)


def links_of(answer: Answer) -> list[str]:
    """The pages of the same site that an answer leads to, each of them once."""
    finder = LinkFinder()
    if answer.status >= 300:
        targets = [answer.location] if answer.location else []
    else:
        finder.feed(answer.body)
        targets = finder.targets
    site = urlsplit(answer.url)[:2]
    links: dict[str, None] = {}
    # Long pages link a thousand times to places in themselves, and joining URLs is slow.
    for target in dict.fromkeys(target.strip().partition("#")[0] for target in targets):
        with contextlib.suppress(ValueError):  # not a URL at all
            link = urljoin(answer.url, target)
            if urlsplit(link)[:2] == site and link != answer.url:
                links[link] = None
    return list(links)


class LinkFinder(HTMLParser):
    """Collects what a page's ``href`` and ``src`` attributes say."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if name in ("href", "src") and value]


def follow(links: Sequence[str], found_on: str, record: SharedRecord) -> None:
    """Send jobs for those of a page's links that are new. Switches."""
    known = record.known(links)
    new = [link for link in links if link not in known]
    # In steps, so that a page with more links than fit into the time limit gets further with
    # each try.
    for first in range(0, len(new), SENT_AT_ONCE):
        record.add(send(new[first : first + SENT_AT_ONCE], found_on=found_on))


def send(urls: Sequence[str], *, found_on: str | None) -> list[Claim]:
    """Send a job for each of these pages; tell each page's message. Switches."""
    messages = check.send_many([(url, found_on) for url in urls])
    return [Claim(url, message.message_id, found_on) for url, message in zip(urls, messages, strict=True)]


@functools.cache
def shared_record() -> SharedRecord:
    """This worker's way to the record."""
    return SharedRecord(RECORD_FILE)


@functools.cache
def tls_context() -> ssl.SSLContext:
    """One for all connections: loading the certificates takes longer than a fetch."""
    return ssl.create_default_context()
