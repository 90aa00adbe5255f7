"""A broker in the memory of one process, for tests.

Holds encoded bytes as the other brokers do, so that what cannot be encoded fails in
tests too. One lock guards all queues of a broker: a message that moves from one to
another is never seen in neither, and ``join`` sees all queues at one moment.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from queue import Empty
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..broker import Broker
from ..clock import now_ms
from ..consumer import BatchConsumer, MessageProxy, Undecodable, read_eta, without_eta
from ..errors import DecodeError, QueueJoinTimeout, QueueNotFound
from ..failures import dead_payload
from ..inspection import PAGE_BYTES, DeadLetter, DeadLetters, Page, QueueCounts, not_a_cursor
from ..message import MAX_MESSAGE_BYTES, Message
from ..names import canonical_queue_name, delay_queue_name
from ..runtime import Event, current
from ..verdict import Action, Envelope, Verdict

if TYPE_CHECKING:
    from ..middleware import Middleware


class StubBroker(Broker):
    """A broker for tests: its messages live and die with the process.

    Parameters:
      middleware(list[Middleware]): See Broker.
      fail_fast_default(bool): What ``join`` does if it is not told. Default: True.

    Attributes:
      queues(dict[str, StubQueue]): By name, delay queues ("name.DQ") included.
      dead_letters_by_queue(dict[str, list[MessageProxy]]): By canonical name.
    """

    holds_delays: ClassVar[bool] = True
    shared: ClassVar[bool] = False

    def __init__(self, middleware: list[Middleware] | None = None, *, fail_fast_default: bool = True) -> None:
        self.fail_fast_default = fail_fast_default
        self.dead_letters_by_queue: defaultdict[str, list[MessageProxy]] = defaultdict(list)
        # Of the operating system, because producers may be in any thread. Nothing is waited
        # for while it is held, so it does not stop the hub of a patched process.
        self._lock = current().native_lock()
        super().__init__(middleware)

    def __str__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def dead_letters(self) -> list[MessageProxy]:
        """The dead letters of all queues."""
        return [message for messages in self.dead_letters_by_queue.values() for message in messages]

    def _add_queue(self, queue_name: str) -> None:
        self.queues[queue_name] = StubQueue(self._lock, self._place)
        self.queues[delay_queue_name(queue_name)] = StubQueue(self._lock, self._place, is_ordered_by_due=True)

    def _queue(self, queue_name: str) -> StubQueue:
        try:
            queue: StubQueue = self.queues[queue_name]
        except KeyError:
            raise QueueNotFound(
                f"No queue named {queue_name!r} is declared. Declare an actor with that queue_name, or "
                f"call declare_queue({queue_name!r}), before using it."
            ) from None
        return queue

    def _place(self, payload: bytes) -> tuple[int, int | None]:
        """The priority and the due time of bytes that somebody put in directly."""
        try:
            message = Message.decode(payload)
        except DecodeError:
            return 0, None
        try:
            priority = self._priority(message)
        except ValueError:  # the worker moves it to the dead letters and says why
            priority = 0
        return priority, read_eta(message, self.logger)

    def prepare(self, message: Message[Any], *, delay: int | None = None) -> Envelope:
        self._queue(canonical_queue_name(message.queue_name))
        return super().prepare(message, delay=delay)

    def write(self, envelopes: Sequence[Envelope]) -> None:
        places = [self._place_of(envelope) for envelope in envelopes]
        with self._lock:
            for queue, envelope in zip(places, envelopes, strict=True):
                queue.add(envelope.payload, envelope.priority, envelope.due_ms)

    def _place_of(self, envelope: Envelope) -> StubQueue:
        name = envelope.queue_name
        return self._queue(name if envelope.due_ms is None else delay_queue_name(name))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> StubConsumer:
        """A consumer of a queue; see Broker.

        Raises:
          QueueNotFound: The queue was never declared.
        """
        self._queue(queue_name)
        return StubConsumer(self, queue_name, prefetch, timeout)

    def queue_counts(self, queue_name: str) -> QueueCounts:
        """How many messages of a queue are ready, reserved, delayed and dead; see Broker.

        Raises:
          QueueNotFound: The queue was never declared.
        """
        name = canonical_queue_name(queue_name)
        queue, delayed = self._queue(name), self._queue(delay_queue_name(name))
        with self._lock:
            reserved = queue.unfinished_tasks - queue.qsize()
            return QueueCounts(queue.qsize(), reserved, delayed.qsize(), len(self.dead_letters_by_queue.get(name, ())))

    def dead_letters_of(self, queue_name: str) -> StubDeadLetters:
        """The dead letters of a queue; see Broker."""
        return StubDeadLetters(self, queue_name)

    def flush(self, queue_name: str) -> None:
        """Drop all messages of a queue: waiting, delayed and dead ones.

        Those that are being processed stay; ``join`` waits for them.
        """
        queues = self._with_delay_queue(queue_name)
        with self._lock:
            for queue in queues:
                queue.empty()
            # The list stays the same object: consumers and tests may hold it.
            if queue_name in self.dead_letters_by_queue:
                self.dead_letters_by_queue[queue_name].clear()

    def join(
        self, queue_name: str, *, interval: int = 100, timeout: int | None = None, fail_fast: bool | None = None
    ) -> None:
        """Wait until all messages of a queue, delayed ones and retries included, are done.

        Parameters:
          queue_name(str): The queue.
          interval(int): Accepted and of no meaning: it need not look, because it is told.
          timeout(int): Milliseconds. Default: no limit.
          fail_fast(bool): Whether to raise what the first dead letter of this queue raised.
            Dead letters of earlier joins count until they are flushed. Default: the broker's
            fail_fast_default.

        Raises:
          QueueNotFound: The queue was never declared.
          QueueJoinTimeout: The messages were not done in time.

        Switches.
        """
        queues = self._with_delay_queue(queue_name)
        deadline = math.inf if timeout is None else time.monotonic() + timeout / 1000

        def unfinished() -> int:
            with self._lock:
                return sum(queue.unfinished_tasks for queue in queues)

        _wait(queues, current().event(), lambda: deadline - time.monotonic() if unfinished() else 0)
        count = unfinished()
        if count:
            raise QueueJoinTimeout(f"{count} messages of queue {queue_name!r} were not done within {timeout} ms.")
        if self.fail_fast_default if fail_fast is None else fail_fast:
            for message in self.dead_letters_by_queue.get(queue_name, ()):
                if message._exception is not None:
                    raise message._exception

    def _with_delay_queue(self, queue_name: str) -> list[StubQueue]:
        names = {queue_name, delay_queue_name(queue_name)}
        return [self._queue(name) for name in sorted(names)]


class Entry(NamedTuple):
    """A message in a queue. Compares as it is to be handed out."""

    rank: int
    number: int
    priority: int
    payload: bytes


class StubQueue:
    """Encoded messages, lowest rank first, and first come, first served among equals.

    The rank is the priority or, in a delay queue, the time when the message is due. To
    tests it looks like a queue.Queue of bytes.

    Attributes:
      unfinished_tasks(int): Messages that were put in and are not done.
    """

    def __init__(
        self, lock: Any, place: Callable[[bytes], tuple[int, int | None]], *, is_ordered_by_due: bool = False
    ) -> None:
        self.unfinished_tasks = 0
        self._lock = lock
        self._place = place
        self._is_ordered_by_due = is_ordered_by_due
        self._numbers = itertools.count()
        self._heap: list[Entry] = []
        self._taken = 0
        self._watchers: set[Event] = set()

    def put(self, payload: bytes) -> None:
        """Put encoded bytes in, as a producer in another language would."""
        priority, due_ms = self._place(payload)
        with self._lock:
            self.add(payload, priority, due_ms)

    def get(self, block: bool = True, timeout: float | None = None) -> bytes:
        """Take the next message out; it stays unfinished until ``task_done``. May switch.

        Parameters:
          block(bool): Whether to wait for one.
          timeout(float): Seconds, as for a queue.Queue. Default: no limit.

        Raises:
          queue.Empty: There is none.
        """
        wait_s = 0 if not block else math.inf if timeout is None else timeout
        deadline = time.monotonic() + wait_s
        event = current().event()
        while True:
            with self._lock:
                if self._heap:
                    return heapq.heappop(self._heap).payload
            if time.monotonic() >= deadline:
                raise Empty
            _wait([self], event, lambda: 0 if self._heap else deadline - time.monotonic())

    def qsize(self) -> int:
        """How many messages wait here."""
        return len(self._heap)

    def task_done(self) -> None:
        """Note that a message which was taken out with ``get`` is done."""
        with self._lock:
            if self.unfinished_tasks <= self._taken:
                raise ValueError("task_done() was called more often than messages were taken out.")
            self.unfinished_tasks -= 1
            self._changed()

    # -- for the broker and its consumers, who hold the lock

    def add(self, payload: bytes, priority: int, due_ms: int | None) -> None:
        """Add a message at the end of its equals."""
        rank = (due_ms or 0) if self._is_ordered_by_due else priority
        heapq.heappush(self._heap, Entry(rank, next(self._numbers), priority, payload))
        self.unfinished_tasks += 1
        self._changed()

    def first(self) -> Entry | None:
        """The next message, left where it is."""
        return self._heap[0] if self._heap else None

    def take(self) -> Entry:
        """Take the next message out; it stays unfinished until ``done`` or ``put_back``."""
        self._taken += 1
        return heapq.heappop(self._heap)

    def done(self) -> None:
        """A message that was taken is done."""
        self._taken -= 1
        self.unfinished_tasks -= 1
        self._changed()

    def put_back(self, entry: Entry) -> None:
        """A message that was taken goes back to its place."""
        self._taken -= 1
        heapq.heappush(self._heap, entry)
        self._changed()

    def empty(self) -> None:
        """Drop what waits here."""
        self._heap.clear()
        self.unfinished_tasks = self._taken
        self._changed()

    def _changed(self) -> None:
        for event in self._watchers:
            event.set()

    @contextmanager
    def watched_by(self, event: Event) -> Iterator[None]:
        """Set the event at each change of the queue. Takes the lock itself."""
        with self._lock:
            self._watchers.add(event)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.discard(event)


class StubConsumer(BatchConsumer):
    """Hands out the messages of one queue, and moves those that are due into it.

    Parameters:
      broker(StubBroker): Whose queue it is.
      queue_name(str): The queue. A delay queue's messages are handed out as they are, due or not.
      prefetch(int): The most messages that it holds unsettled.
      timeout(int): Milliseconds that it waits.
    """

    batch_size: ClassVar[int] = 100

    def __init__(self, broker: StubBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self._broker = broker
        self._lock = broker._lock
        self._queue_name = queue_name
        self._queue = broker._queue(queue_name)
        self._delayed = broker._queue(delay_queue_name(queue_name))
        self._prefetch = prefetch
        self._timeout_s = timeout / 1000
        self._held: set[int] = set()
        self._event = current().event()
        self._is_woken = False

    def wait(self) -> bool:
        return self._wait_until(time.monotonic() + self._timeout_s)

    def wake(self) -> None:
        self._is_woken = True
        self._event.set()

    def fetch(self, count: int) -> list[MessageProxy]:
        with self._lock:
            self._move_due()
            count = min(count, self._prefetch - len(self._held), self._queue.qsize())
            entries = [self._queue.take() for _ in range(count)]
            self._held.update(entry.number for entry in entries)
        messages = [self._hand_out(entry) for entry in entries]
        return [message for message in messages if message is not None]

    def complete(self, verdicts: Sequence[Verdict]) -> Sequence[Verdict]:
        followed = [(verdict, self._places_of(verdict)) for verdict in verdicts]
        with self._lock:
            for verdict, places in followed:
                self._settle(verdict, places)
        return ()

    # -- steps of waiting

    def _wait_until(self, deadline: float) -> bool:
        _wait([self._queue, self._delayed], self._event, lambda: self._idle_s(deadline))
        is_woken, self._is_woken = self._is_woken, False
        return not is_woken and self._idle_s(deadline) == 0

    def _idle_s(self, deadline: float) -> float:
        """How long there is nothing to do, as far as is known; 0 if there is something."""
        if self._is_woken:
            return 0
        left_s = deadline - time.monotonic()
        with self._lock:
            self._move_due()
            if self._queue.qsize() and len(self._held) < self._prefetch:
                return 0
            first = self._delayed.first()
        if first is not None and self._delayed is not self._queue:
            left_s = min(left_s, (first.rank - now_ms()) / 1000)
        return left_s

    def _move_due(self) -> None:
        if self._delayed is self._queue:
            return
        now = now_ms()
        while (first := self._delayed.first()) is not None and first.rank <= now:
            self._delayed.take()
            self._queue.add(first.payload, first.priority, None)
            self._delayed.done()  # last, so that join never sees the message in neither queue

    # -- steps of fetching

    def _hand_out(self, entry: Entry) -> MessageProxy | None:
        """What is in these bytes; None if it is not due yet and was moved to the delay queue."""
        try:
            message = Message.decode(entry.payload)
        except DecodeError as error:
            return StubUndecodable(self._queue_name, entry, error)
        if self._delayed is not self._queue:
            due_ms = read_eta(message, self._broker.logger)
            if due_ms is not None and due_ms > now_ms():
                with self._lock:
                    self._delayed.add(entry.payload, entry.priority, due_ms)
                    self._held.discard(entry.number)
                    self._queue.done()
                return None
            message = without_eta(message)
        return StubMessage(message, entry)

    # -- steps of settling

    def _places_of(self, verdict: Verdict) -> list[StubQueue]:
        return [self._broker._place_of(envelope) for envelope in verdict.follow_ups or ()]

    def _settle(self, verdict: Verdict, places: list[StubQueue]) -> None:
        message = verdict.message
        entry: Entry | None = message.entry
        if entry is None:
            return  # it was settled before
        message.entry = None  # type: ignore[attr-defined] # it is one of ours
        self._held.discard(entry.number)
        if verdict.action is Action.REQUEUE:
            self._queue.put_back(entry)
            return
        for queue, envelope in zip(places, verdict.follow_ups or (), strict=True):
            queue.add(envelope.payload, envelope.priority, envelope.due_ms)
        if verdict.action is Action.NACK:
            message.reason = message.reason or verdict.reason
            message.death = Death(next(_deaths), now_ms(), entry)  # type: ignore[attr-defined]
            self._broker.dead_letters_by_queue[self._queue_name].append(message)
        self._queue.done()


class StubMessage(MessageProxy):
    """A message as it was handed out. A failed one keeps its exception, for ``join`` to raise."""

    def __init__(self, message: Message[Any], entry: Entry) -> None:
        super().__init__(message)
        #: Its place in the queue; None once it is settled.
        self.entry: Entry | None = entry

    def clear_exception(self) -> None:
        # Of all others it is forgotten: its traceback leads back here, round in a circle.
        if not self.failed:
            super().clear_exception()


class StubUndecodable(Undecodable):
    """Bytes that are no message, as they were handed out. They keep their exception too."""

    def __init__(self, queue_name: str, entry: Entry, error: BaseException) -> None:
        super().__init__(queue_name, entry.payload, error)
        self.entry: Entry | None = entry

    def clear_exception(self) -> None:
        pass


class Death(NamedTuple):
    """What a dead letter's proxy remembers. The numbers grow."""

    number: int
    at_ms: int
    entry: Entry


_deaths = itertools.count(1)


class StubDeadLetters(DeadLetters):
    """See DeadLetters. What a test itself put into ``dead_letters_by_queue`` is among them.

    Parameters:
      broker(StubBroker): Whose queue it is.
      queue_name(str): The queue.
    """

    def __init__(self, broker: StubBroker, queue_name: str) -> None:
        super().__init__(queue_name)
        self._broker = broker
        self._lock = broker._lock

    def count(self) -> int:
        return len(self._broker.dead_letters_by_queue.get(self.queue_name, ()))

    def _page(self, after: str | None, limit: int, oldest_first: bool, until: str | None) -> Page:
        place = (0 if oldest_first else math.inf) if after is None else _number(after)
        if place is None:
            raise not_a_cursor(after or "")
        last = math.inf if until is None else int(until)
        with self._lock:
            numbered = self._numbered()
        if oldest_first:
            chosen = [number for number in numbered if place < number <= last]
        else:
            chosen = [number for number in reversed(numbered) if number < place and number <= last]
        letters: list[DeadLetter] = []
        size = 0
        for number in chosen[:limit]:
            letter = self._letter(numbered[number])
            size += len(letter.payload or b"")
            if letters and size > PAGE_BYTES:
                break
            letters.append(letter)
        return Page(letters, letters[-1].id if len(chosen) > len(letters) else None)

    def _find(self, ids: list[str]) -> list[DeadLetter]:
        with self._lock:
            numbered = self._numbered()
        found = (numbered.get(_number(id) or 0) for id in ids)
        return [self._letter(proxy) for proxy in found if proxy is not None]

    def _now(self) -> str | None:
        with self._lock:
            return str(max(self._numbered(), default=0)) if self.count() else None

    def _send_back(self, letters: list[tuple[str, bytes | None]]) -> int:
        queue = self._broker._queue(self.queue_name)
        payloads = {_number(id): payload for id, payload in letters}
        with self._lock:
            taken = self._take(payloads.keys())
            for proxy in taken:
                number, _, entry = proxy.death
                payload = payloads[number]
                queue.add(entry.payload if payload is None else payload, entry.priority, None)
        return len(taken)

    def _delete(self, ids: list[str]) -> int:
        with self._lock:
            return len(self._take({_number(id) for id in ids}))

    def _delete_oldest(self, count: int, until: str) -> int:
        with self._lock:
            numbers = [number for number in self._numbered() if number <= int(until)]
            return len(self._take(set(numbers[:count])))

    # -- with the lock held

    def _numbered(self) -> dict[int, Any]:
        """The proxies of the dead by number, the first to die first."""
        proxies: list[Any] = self._broker.dead_letters_by_queue.get(self.queue_name, [])
        for proxy in proxies:
            if getattr(proxy, "death", None) is None:
                payload = getattr(proxy, "payload", None) or proxy.message.encode()
                proxy.death = Death(next(_deaths), now_ms(), Entry(0, 0, 0, payload))
        return {proxy.death.number: proxy for proxy in sorted(proxies, key=lambda proxy: proxy.death.number)}

    def _take(self, numbers: Collection[int | None]) -> list[Any]:
        """Take those with these numbers out of the list, which stays the same object."""
        numbered = self._numbered()
        taken = [proxy for number, proxy in numbered.items() if number in numbers]
        if taken:
            left = [proxy for number, proxy in numbered.items() if number not in numbers]
            self._broker.dead_letters_by_queue[self.queue_name][:] = left
        return taken

    # -- without it

    def _letter(self, proxy: Any) -> DeadLetter:
        number, at_ms, entry = proxy.death
        payload: bytes = dead_payload(proxy) or entry.payload
        size = len(payload)
        shown = payload if size <= MAX_MESSAGE_BYTES else None
        return DeadLetter(str(number), self.queue_name, at_ms, proxy.reason, shown, size)


def _number(id: str) -> int | None:
    """The number that an id stands for; None if it is no id of ours."""
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else None


def _wait(queues: Iterable[StubQueue], event: Event, left_s: Callable[[], float]) -> None:
    """Wait, asking at each change of these queues, until no more seconds are left. Switches."""
    with ExitStack() as watches:
        for queue in queues:
            watches.enter_context(queue.watched_by(event))
        while True:
            event.clear()
            wait_s = left_s()
            if wait_s <= 0:
                return
            event.wait(None if wait_s == math.inf else wait_s)
