"""What operators may see of a queue, and do about its dead letters: the same on every broker.

The command line and a dashboard stand on this. Here are the values, and what does not depend
on how letters are stored: pages, batches, and what a message that is sent back looks like.

    DeadLetters             what ``broker.dead_letters_of("default")`` answers
      IndexedDeadLetters    where letters can be read and moved by id: the broker adds how to read
                            a few of them, and how to move a few in one step

One that cannot look without fetching (RabbitMQ) has its own way of acting on what it has fetched.

Looking changes nothing, and no call walks all letters but those that act on all of them.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from .errors import DecodeError
from .failures import Failure, read_failures
from .message import Message
from .names import canonical_queue_name
from .settings import DEAD_MESSAGE_TTL

#: Letters of one page, at most.
MOST_LETTERS = 1000
#: Bytes of payload after which a page ends early.
PAGE_BYTES = 8 * 1024 * 1024
#: Ids looked up at once: each may have a message of 1 MiB.
_IDS_AT_ONCE = 50

#: Options that speak of attempts, or of a due time, that a message sent back starts without.
_FORGOTTEN = frozenset({"retries", "requeue_timestamp", "eta"})


class QueueCounts(NamedTuple):
    """How many messages a queue has.

    Attributes:
      ready(int): Waiting for a worker.
      reserved(int | None): In workers' hands; None if the broker cannot tell.
      delayed(int): Not due yet.
      dead(int): Dead letters.
    """

    ready: int
    reserved: int | None
    delayed: int
    dead: int


@dataclasses.dataclass(frozen=True)
class DeadLetter:
    """A message, or what was in its place, that failed for good.

    Attributes:
      id(str): The broker's, in letters that need no quoting in a shell or a URL. A message that is sent
        back and dies again is a new letter with a new id.
      queue_name(str): The queue it died in.
      died_at_ms(int): When, in Unix milliseconds.
      reason(str | None): Why, in one line if its author kept to one.
      payload(bytes | None): As it is stored; None if it is gone (size 0), or longer than a message
        may be (size says how long).
      size(int): Of the payload, in bytes.
      deliveries(int | None): How often it was taken back from a lost worker; None if the broker
        does not count.
    """

    id: str
    queue_name: str
    died_at_ms: int
    reason: str | None
    payload: bytes | None
    size: int
    deliveries: int | None = None

    @cached_property
    def message(self) -> Message[Any] | None:
        """The message; None if the payload is none."""
        if self.payload is None:
            return None
        try:
            return Message.decode(self.payload)
        except DecodeError:
            return None

    @property
    def failures(self) -> list[Failure]:
        """What the attempts raised, the first one first; empty if the message was never run.

        Ten at most: the first one and the latest. Attempts before the letter was sent back count.
        """
        return [] if self.message is None else read_failures(self.message.options)


class Page(NamedTuple):
    """Some dead letters.

    Attributes:
      letters(list[DeadLetter]): In the order that was asked for.
      after(str | None): What to give as ``after`` for the next page; None if this was the last.
    """

    letters: list[DeadLetter]
    after: str | None


Condition = Callable[[DeadLetter], bool]


class DeadLetters(abc.ABC):
    """The dead letters of one queue.

    Acting on a letter that is gone by then (sent back, deleted or expired) does nothing, and is
    not counted: of two operators who press the same button one wins. A call whose connection
    broke may have acted or not, and may be repeated.

    Every method may raise ConnectionError, and may switch: it waits for the broker.

    Parameters:
      queue_name(str): The queue. It need not be declared.

    Attributes:
      reach(int | None): How many letters, from the first to die, can be looked at and found; those
        behind come within reach when some of these go. None: all.
    """

    reach: ClassVar[int | None] = None

    def __init__(self, queue_name: str) -> None:
        self.queue_name = canonical_queue_name(queue_name)

    # -- looking

    @abc.abstractmethod
    def count(self) -> int:
        """How many there are. As quick for a million as for one."""

    def page(self, after: str | None = None, limit: int = 100, *, oldest_first: bool = False) -> Page:
        """Some of the letters, the last to die first.

        Parameters:
          after(str): The ``after`` of the page before. Letters that went or came since shift
            nothing. Default: begin.
          limit(int): How many letters at most, from 1 to 1000. There are fewer if they are large:
            a page ends after 8 MiB. Default: 100.
          oldest_first(bool): Begin with the first to die. Default: False.

        Raises:
          ValueError: after is not from a page of this broker, or the limit is out of bounds.
        """
        return self._page(after, bounded("limit", limit), oldest_first)

    def each(self, *, oldest_first: bool = False) -> Iterator[DeadLetter]:
        """All letters, read page by page.

        Parameters:
          oldest_first(bool): As of ``page``.
        """
        after: str | None = None
        while True:
            letters, after = self._page(after, MOST_LETTERS, oldest_first)
            yield from letters
            if after is None:
                return

    def get(self, id: str) -> DeadLetter | None:
        """The letter with this id; None if there is none, or not any more."""
        return next(iter(self._find([id])), None)

    # -- acting on some

    @abc.abstractmethod
    def send_back(self, ids: str | Iterable[str]) -> int:
        """Put the messages of these letters at the end of their queue; return how many went.

        The message keeps its id, its priority and the history of its failures, and begins with
        a fresh count of retries; no hooks run. Bytes that are no message go back as they are. A
        letter whose payload is gone stays.

        Parameters:
          ids(str | Iterable[str]): One or many. Each 50 of them go in one step.
        """

    @abc.abstractmethod
    def delete(self, ids: str | Iterable[str]) -> int:
        """Delete these letters with their messages; return how many there were.

        Parameters:
          ids(str | Iterable[str]): One or many. Each 50 of them go in one step.
        """

    # -- acting on all

    @abc.abstractmethod
    def send_back_all(
        self,
        *,
        where: Condition | None = None,
        batch_size: int = 500,
        on_batch: Callable[[int], Any] | None = None,
    ) -> int:
        """Send back, oldest first, the letters that died before this call; return how many went.

        One that fails again meanwhile is not sent back again.

        Parameters:
          where(Callable[[DeadLetter], bool]): Only those for which this is true. Default: all.
          batch_size(int): How many go in one step, from 1 to 1000. Default: 500.
          on_batch(Callable[[int], Any]): Told after each step how many went so far. What it
            raises ends the call between two steps.
        """

    @abc.abstractmethod
    def delete_all(
        self,
        *,
        where: Condition | None = None,
        batch_size: int = 500,
        on_batch: Callable[[int], Any] | None = None,
    ) -> int:
        """Delete, oldest first, the letters that died before this call; return how many there were.

        Parameters:
          where, batch_size, on_batch: As of ``send_back_all``.
        """

    # -- what a broker has to know

    @abc.abstractmethod
    def _page(self, after: str | None, limit: int, oldest_first: bool) -> Page:
        """A page as of ``page``."""

    @abc.abstractmethod
    def _find(self, ids: list[str]) -> list[DeadLetter]:
        """The letters with these ids that are there. Ids may be any text."""


class IndexedDeadLetters(DeadLetters):
    """Dead letters that can be read and moved by id, a few in one step of the broker's."""

    def send_back(self, ids: str | Iterable[str]) -> int:
        """See DeadLetters."""
        sent = 0
        for some in _portions(ids):
            sent += self._send_back([(letter.id, fresh_payload(letter)) for letter in self._find(some)])
        return sent

    def delete(self, ids: str | Iterable[str]) -> int:
        """See DeadLetters."""
        return sum(self._delete(some) for some in _portions(ids))

    def send_back_all(
        self,
        *,
        where: Condition | None = None,
        batch_size: int = 500,
        on_batch: Callable[[int], Any] | None = None,
    ) -> int:
        """See DeadLetters."""

        def send_back(letters: list[DeadLetter]) -> int:
            return self._send_back([(letter.id, fresh_payload(letter)) for letter in letters])

        return self._act_on_all(send_back, where, bounded("batch_size", batch_size), on_batch)

    def delete_all(
        self,
        *,
        where: Condition | None = None,
        batch_size: int = 500,
        on_batch: Callable[[int], Any] | None = None,
    ) -> int:
        """See DeadLetters."""
        batch_size = bounded("batch_size", batch_size)
        if where is not None:
            return self._act_on_all(
                lambda letters: self._delete([letter.id for letter in letters]), where, batch_size, on_batch
            )
        until, total = self._now(), 0
        while until is not None:
            deleted = self._delete_oldest(batch_size, until)
            total += deleted
            if on_batch is not None and deleted:
                on_batch(total)
            if deleted < batch_size:
                break
        return total

    def _act_on_all(
        self,
        act: Callable[[list[DeadLetter]], int],
        where: Condition | None,
        batch_size: int,
        on_batch: Callable[[int], Any] | None,
    ) -> int:
        until, after, total = self._now(), None, 0
        while until is not None:
            # Each page begins after the one before, so that a letter which stays is met once.
            letters, after = self._page(after, batch_size, True, until)
            if where is not None:
                letters = [letter for letter in letters if where(letter)]
            if letters:
                total += act(letters)
                if on_batch is not None:
                    on_batch(total)
            if after is None:
                break
        return total

    # -- what a broker has to know

    @abc.abstractmethod
    def _page(self, after: str | None, limit: int, oldest_first: bool, until: str | None = None) -> Page:
        """A page as of ``page``, of what died no later than ``until``, a mark of ``_now``."""

    @abc.abstractmethod
    def _now(self) -> str | None:
        """A mark that stands for now: what was sent back later dies after it. None if nothing is dead."""

    @abc.abstractmethod
    def _send_back(self, letters: list[tuple[str, bytes | None]]) -> int:
        """In one step, move what is still there of these, with their new payloads (None: as stored), to the queue."""

    @abc.abstractmethod
    def _delete(self, ids: list[str]) -> int:
        """In one step, delete what is still there of these."""

    @abc.abstractmethod
    def _delete_oldest(self, count: int, until: str) -> int:
        """In one step, delete the first ``count`` to die, no later than ``until``."""


def fresh_payload(letter: DeadLetter) -> bytes | None:
    """A letter's message as it is sent back; None for as it is stored."""
    message = letter.message
    if message is None:
        return None
    options = {name: value for name, value in message.options.items() if name not in _FORGOTTEN}
    queue_name = canonical_queue_name(message.queue_name)
    if len(options) == len(message.options) and queue_name == message.queue_name:
        return None
    try:
        return message._replace(options=options, queue_name=queue_name).encode()
    except Exception:  # another encoder wrote it more shortly: better with its count than not at all
        return None


def dead_message_ttl_ms(given: int | None) -> int:
    """For how long dead letters are kept: as given, else GREENQ_DEAD_MESSAGE_TTL, else 7 days; milliseconds.

    Raises:
      ValueError: It is no such time.
    """
    if given is None:
        return DEAD_MESSAGE_TTL.get()
    if given < 0:
        raise ValueError(f"A dead_message_ttl is a number of milliseconds, 0 or more, not {given!r:.80}.")
    return given


def not_a_cursor(after: str) -> ValueError:
    """What ``page`` raises for an ``after`` that it did not make."""
    return ValueError(f"{after!r:.80} does not say after which letter to go on. Give the after of the page before.")


def bounded(name: str, value: int) -> int:
    """The value, if a page or batch may have so many letters."""
    if not 1 <= value <= MOST_LETTERS:
        raise ValueError(f"{name} is a number from 1 to {MOST_LETTERS}, not {value!r:.80}.")
    return value


def _portions(ids: str | Iterable[str]) -> Iterator[list[str]]:
    # Each once: a letter can be sent back once.
    unique = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
    for start in range(0, len(unique), _IDS_AT_ONCE):
        yield unique[start : start + _IDS_AT_ONCE]
