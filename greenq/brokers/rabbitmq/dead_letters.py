"""The dead letters of one queue, taken in hand to be looked at, and given back.

A queue of RabbitMQ's has no index: the only way to see a message is to take it from the front,
and the only way to see the next one is to hold the first. So each call takes letters on a channel
of its own, and gives back what it does not remove when it closes that channel:

    default.XQ --take--> [Hand] --look--> page
                           |
                           +--publish, confirm, ack--> default      send back
                           +--ack--------------------> nothing      delete
                           +--the rest, or its end---> default.XQ   at the front

Whatever becomes of the process, the server has every letter: an ack is written only after the
message is confirmed in its queue. What is in one process's hand is not seen by another.

Measured on 3.10.8: basic.get takes 1,500 letters a second from a classic queue and 500 from a
quorum queue, a consumer 25,000 of either. What is given back goes to its place in a classic
queue; in a quorum queue to the front, and more than 32 are shuffled (to the end, if the queue has
no delivery limit). Therefore a look takes all within its reach, and puts them in order itself.
"""

from __future__ import annotations

import calendar
import contextlib
import datetime
import hashlib
import itertools
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pika.exceptions

from ...clock import now_ms
from ...errors import ConnectionClosed, ConnectionError
from ...inspection import (
    PAGE_BYTES,
    Condition,
    DeadLetter,
    DeadLetters,
    Page,
    bounded,
    fresh_payload,
    not_a_cursor,
)
from ...message import MAX_MESSAGE_BYTES
from ...names import dead_letter_queue_name
from .connection import ChannelRefused, Link, refusal
from .loop import Answer
from .losses import HEADER as LOSSES_HEADER
from .losses import losses
from .publisher import Outgoing
from .wire import Delivery, DeliveryTaker, ack, write

if TYPE_CHECKING:
    from .attachment import Attachment
    from .broker import RabbitmqBroker

#: What greenq notes on a letter: why and when (Unix milliseconds) it died, and the letter's id.
REASON_HEADER = "x-greenq-reason"
DIED_AT_HEADER = "x-greenq-died-at"
ID_HEADER = "x-greenq-letter"

#: In bytes. Headers have to fit into one frame, of which the shortest that there can be has 4096.
_LONGEST_REASON = 3800

#: Letters, and bytes of them, that a call holds at most, besides the batch that it acts on.
REACH = 10_000
_REACH_BYTES = 256 * 1024 * 1024

#: Letters taken at once: few until their size is known, because the server sends them unasked.
_FIRST_STEP = 16
_MOST_A_STEP = 500

#: Seconds in which the server sends what it says it has, and answers; and between two questions
#: whether more is to come.
_PATIENCE_S = 60.0
_ASK_EVERY_S = 0.005

#: Seconds in which what was given back is seen again. A quorum queue takes a moment for it.
_RETURN_S = 1.0

#: AMQP's code for a queue that does not exist.
_NOT_FOUND = 404

_LONGEST_TIME_MS = 2**53


# -- what is stored


def letter(queue_name: str, delivery: Delivery, body: bytes, reason: str, lost: int = 0) -> Outgoing:
    """A message as it is put to the dead letters of its queue.

    Parameters:
      lost(int): How often it was lost with a worker. Default: never.
    """
    # Without half characters: those that JSON allows and UTF-8 does not, and one at the cut.
    text = reason[:_LONGEST_REASON].encode("utf-8", "replace")[:_LONGEST_REASON].decode("utf-8", "ignore")
    headers: dict[str, Any] = {REASON_HEADER: text, DIED_AT_HEADER: now_ms(), ID_HEADER: _ids.next()}
    if lost:
        headers[LOSSES_HEADER] = lost
    return Outgoing(dead_letter_queue_name(queue_name), body, delivery.properties.priority, headers)


class _Ids:
    """Ids of one process, each after the one before."""

    def __init__(self) -> None:
        self._process = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)

    def next(self) -> str:
        return f"{self._process}-{next(self._numbers):010x}"


_ids = _Ids()
_ID = re.compile(r"[0-9a-f]{12}-[0-9a-f]{10}", re.ASCII)


def _start_anew() -> None:
    global _ids
    _ids = _Ids()


os.register_at_fork(after_in_child=_start_anew)


# -- what is read


class Death(NamedTuple):
    """When which letter died. In this order they are shown."""

    died_at_ms: int
    id: str

    def __str__(self) -> str:
        return f"{self.died_at_ms}:{self.id}"


_CURSOR = re.compile(r"([0-9]{1,16}):([0-9a-fx-]{1,40})", re.ASCII)


def death_of(delivery: Delivery) -> Death:
    """When it died and its id: as greenq noted it, or else as RabbitMQ did, of a letter that others put there.

    Such a letter has an id made of its bytes; of several that are the same in everything, each
    call acts on one.
    """
    headers = delivery.properties.headers
    noted, id = headers.get(DIED_AT_HEADER), headers.get(ID_HEADER)
    died_at = noted if noted is not None and _is_time(noted) else _noted_by_the_server(headers)[0]
    if not (isinstance(id, str) and _ID.fullmatch(id)):
        # The server counts in x-delivery-count how often a letter was looked at.
        stable = sorted((str(name), repr(value)) for name, value in headers.items() if name != "x-delivery-count")
        id = "x" + hashlib.sha256(repr(stable).encode("utf-8", "replace") + delivery.body).hexdigest()[:32]
    return Death(died_at, id)


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LONGEST_TIME_MS


def _noted_by_the_server(headers: dict[str, Any]) -> tuple[int, str | None]:
    """When and why the server itself put a message to the dead letters; 0 and None if it did not."""
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(last, dict):
        return 0, None
    at, queue, reason = last.get("time"), last.get("queue"), last.get("reason")
    died_at = 0
    if isinstance(at, datetime.datetime):
        died_at = max(0, calendar.timegm(at.utctimetuple()) * 1000)
    return died_at, f"RabbitMQ put it to the dead letters of {queue!r:.300}: {reason!s:.100}."


def read_letter(queue_name: str, delivery: Delivery, death: Death) -> DeadLetter:
    headers, body = delivery.properties.headers, delivery.body
    is_ours = ID_HEADER in headers or REASON_HEADER in headers
    reason = headers.get(REASON_HEADER) if is_ours else _noted_by_the_server(headers)[1]
    if isinstance(reason, bytes):
        reason = reason.decode("utf-8", "replace")
    return DeadLetter(
        id=death.id,
        queue_name=queue_name,
        died_at_ms=death.died_at_ms,
        reason=reason if isinstance(reason, str) and reason else None,
        payload=body if len(body) <= MAX_MESSAGE_BYTES else None,
        size=len(body),
        deliveries=losses(delivery) if is_ours else None,
    )


# -- for operators


class RabbitmqDeadLetters(DeadLetters):
    """See DeadLetters; what RabbitMQ cannot do is in docs/rabbitmq.md.

    Calls of one process on one queue take turns. What another process looks at is not seen until
    it has given it back, which takes it up to a second.

    Parameters:
      broker(RabbitmqBroker): Where the queue is.
      queue_name(str): The queue.

    Raises:
      ValueError: No queue can have this name.
    """

    reach: ClassVar[int | None] = REACH

    def __init__(self, broker: RabbitmqBroker, queue_name: str) -> None:
        super().__init__(queue_name)
        self._broker = broker

    def count(self) -> int:
        return self._broker.queue_counts(self.queue_name).dead

    # -- looking

    def _page(self, after: str | None, limit: int, oldest_first: bool) -> Page:
        start = None if after is None else _place(after)
        best: list[tuple[Death, DeadLetter]] = []
        has_more = False
        with self._holding() as hand:
            for deliveries in hand.walk():
                for each in deliveries:
                    death = death_of(each)
                    if start is None or (death > start if oldest_first else death < start):
                        best.append((death, read_letter(self.queue_name, each, death)))
                # What does not fit now never will: those that come can only push others out.
                best.sort(key=_death, reverse=not oldest_first)
                count = _fitting([letter for _, letter in best], limit)
                has_more = has_more or count < len(best)
                del best[count:]
        return Page([letter for _, letter in best], str(best[-1][0]) if has_more else None)

    def _find(self, ids: list[str]) -> list[DeadLetter]:
        wanted, found = set(ids), []
        with self._holding() as hand:
            for each, death in self._search(hand, wanted):
                found.append(read_letter(self.queue_name, each, death))
        return found

    def _search(self, hand: Hand, wanted: set[str]) -> Iterator[tuple[Delivery, Death]]:
        """Those with these ids, each of which it takes out of the set; ends when there are none left."""
        if not wanted:
            return
        for deliveries in hand.walk():
            for each in deliveries:
                death = death_of(each)
                if death.id in wanted:
                    wanted.discard(death.id)
                    yield each, death
            if not wanted:
                return

    # -- acting on some

    def send_back(self, ids: str | Iterable[str]) -> int:
        """See DeadLetters. A crash between the confirmed send and the ack leaves both."""
        return self._act_on_some(ids, self._send)

    def delete(self, ids: str | Iterable[str]) -> int:
        """See DeadLetters."""
        return self._act_on_some(ids, self._drop)

    def _act_on_some(self, ids: str | Iterable[str], act: Callable[[Hand, list[Delivery]], int]) -> int:
        wanted = {ids} if isinstance(ids, str) else set(ids)
        if not wanted:
            return 0
        total = 0
        with self._holding() as hand:
            for deliveries in hand.walk():
                chosen = []
                for each in deliveries:
                    id = death_of(each).id
                    if id in wanted:
                        wanted.discard(id)
                        chosen.append(each)
                total += act(hand, chosen)
                if not wanted:
                    break
        return total

    # -- acting on all

    def send_back_all(
        self,
        *,
        where: Condition | None = None,
        batch_size: int = 500,
        on_batch: Callable[[int], Any] | None = None,
    ) -> int:
        """See DeadLetters. With ``where`` it ends, with a warning, when it holds 10,000 that stay."""
        return self._act_on_all(self._send, where, bounded("batch_size", batch_size), on_batch)

    def delete_all(
        self,
        *,
        where: Condition | None = None,
        batch_size: int = 500,
        on_batch: Callable[[int], Any] | None = None,
    ) -> int:
        """See DeadLetters. With ``where`` it ends, with a warning, when it holds 10,000 that stay."""
        return self._act_on_all(self._drop, where, bounded("batch_size", batch_size), on_batch)

    def _act_on_all(
        self,
        act: Callable[[Hand, list[Delivery]], int],
        where: Condition | None,
        batch_size: int,
        on_batch: Callable[[int], Any] | None,
    ) -> int:
        total = 0
        with self._holding() as hand:
            # What dies from now on is behind these. Their times would not do: clocks differ.
            left = hand.count()
            while left > 0:
                if hand.is_full:
                    self._broker.logger.warning(
                        "%d dead letters of queue %s do not meet the condition and are in front of others, which "
                        "RabbitMQ cannot show: %d were left out. Send back or delete some of the first.",
                        *(hand.size, self.queue_name, left),
                    )
                    break
                deliveries = hand.take(min(batch_size, left))
                if not deliveries:
                    break  # somebody else has them
                left -= len(deliveries)
                chosen = sorted(deliveries, key=death_of)
                if where is not None:
                    chosen = [each for each in chosen if where(self._read(each))]
                if chosen:
                    total += act(hand, chosen)
                    if on_batch is not None:
                        on_batch(total)
        return total

    def _read(self, delivery: Delivery) -> DeadLetter:
        return read_letter(self.queue_name, delivery, death_of(delivery))

    # -- acts

    def _send(self, hand: Hand, deliveries: list[Delivery]) -> int:
        groups = []
        for each in deliveries:
            payload = fresh_payload(self._read(each))
            body = each.body if payload is None else payload
            groups.append([Outgoing(self.queue_name, body, each.properties.priority)])
        errors = hand.attachment.store(groups)
        stored = [each for each, error in zip(deliveries, errors, strict=True) if error is None]
        hand.acknowledge(stored)
        for error in errors:
            if error is not None:
                raise error
        return len(stored)

    def _drop(self, hand: Hand, deliveries: list[Delivery]) -> int:
        hand.acknowledge(deliveries)
        return len(deliveries)

    @contextlib.contextmanager
    def _holding(self) -> Iterator[Hand]:
        attachment = self._broker._attach()
        with attachment.turn_at(self.queue_name):
            hand = Hand(attachment, self.queue_name)
            try:
                hand.open()
                yield hand
            except BaseException:
                # The error tells more than what may come of this. A lost channel returns everything.
                with contextlib.suppress(ConnectionError):
                    hand.close()
                raise
            hand.close()


def _place(after: str) -> Death:
    found = _CURSOR.fullmatch(after)
    if found is None:
        raise not_a_cursor(after)
    return Death(int(found[1]), found[2])


def _death(pair: tuple[Death, DeadLetter]) -> Death:
    return pair[0]


def _fitting(letters: list[DeadLetter], limit: int) -> int:
    """How many of these make a page; at least one."""
    size = 0
    for number, each in enumerate(letters[:limit]):
        size += len(each.payload or b"")
        if size > PAGE_BYTES and number:
            return number
    return min(limit, len(letters))


# -- on the server


class Hand:
    """Letters that are held on a channel of its own, at most so many as REACH and a batch.

    Parameters:
      attachment(Attachment): To the server.
      queue_name(str): Whose dead letters.
    """

    def __init__(self, attachment: Attachment, queue_name: str) -> None:
        self.attachment = attachment
        self._queue_name = queue_name
        self._queue = dead_letter_queue_name(queue_name)
        self._link: Link = attachment.consuming
        self._loop = self._link.loop
        #: Sizes by tag, in the order in which they came.
        self._held: dict[int, int] = {}
        self._bytes = 0
        self._taken = 0
        self._taken_bytes = 0
        self._came: list[Delivery] = []
        self._on_came: Callable[[], None] | None = None
        self._consumers = 0
        self._channel: Any = None
        self._lost: ConnectionError | None = None
        self._is_closing = False
        self._answer: Answer | None = None

    def open(self) -> None:
        """Open the channel, and see that the queue is there. Switches.

        Raises:
          ConnectionError: The server is away.
        """
        self.attachment.ensure(self._queue_name, link=self._link)
        self._ask(lambda answer: self._link.ready(lambda c: self._open(c, answer), answer.fail))
        try:
            self.count()
        except ChannelRefused as error:
            if error.code != _NOT_FOUND:
                raise
            self._lost = None
            self.attachment.ensure(self._queue_name, again=True, link=self._link)
            self._ask(lambda answer: self._link.ready(lambda c: self._open(c, answer), answer.fail))

    def _open(self, connection: Any, answer: Answer) -> None:
        def on_channel(channel: Any) -> None:
            if answer.is_given:  # nobody waits any more
                channel.close()
                return
            self._channel = channel
            connection.takers[channel.channel_number] = DeliveryTaker(self._on_deliveries)
            channel.add_on_cancel_callback(lambda _frame: self._on_cancelled())
            answer.give()

        def on_close(channel: Any, error: BaseException) -> None:
            connection.takers.pop(channel.channel_number, None)
            answer.fail(refusal(error, self._link.address))
            self._lose(refusal(error, self._link.address))

        connection.channel(on_open_callback=on_channel).add_on_close_callback(self._loop.guard(on_close))

    def _on_cancelled(self) -> None:
        self._lose(ConnectionClosed(f"RabbitMQ ended the look at queue {self._queue!r}: was it deleted?"))
        if self._channel.is_open:
            self._channel.close()

    def _lose(self, error: ConnectionError) -> None:
        if self._lost is None:
            self._lost = error
        if self._answer is not None:
            self._answer.fail(error)

    def _ask(self, call: Callable[[Answer], None]) -> Any:
        def begin(answer: Answer) -> None:
            if self._lost is not None:
                raise self._lost
            self._answer = answer  # it fails with the channel
            call(answer)

        return self._loop.ask(begin, _PATIENCE_S, "answer")

    def count(self) -> int:
        """How many letters nobody holds. Switches."""
        count: int = self._ask(
            lambda answer: self._ask_count(lambda frame: answer.give(frame.method.message_count)),
        )
        return count

    def _ask_count(self, on_count: Callable[[Any], None]) -> None:
        self._channel.queue_declare(self._queue, passive=True, callback=on_count)

    # -- taking

    @property
    def size(self) -> int:
        """How many it holds."""
        return len(self._held)

    @property
    def is_full(self) -> bool:
        return len(self._held) >= REACH or self._bytes >= _REACH_BYTES

    def walk(self) -> Iterator[list[Delivery]]:
        """All letters within reach, some at a time. Switches."""
        while not self.is_full:
            deliveries = self.take(min(_MOST_A_STEP, REACH - len(self._held)))
            if not deliveries:
                return
            yield deliveries

    def take(self, count: int) -> list[Delivery]:
        """The next letters: so many, or 8 MiB of them; none if the queue is empty. Switches."""
        taken: list[Delivery] = []
        size = 0
        while len(taken) < count and size < PAGE_BYTES:
            step = min(count - len(taken), self._fitting_step())
            some: list[Delivery] = self._ask(partial(self._take, step))
            for each in some:
                self._held[each.tag] = len(each.body)
                size += len(each.body)
            taken += some
            self._taken += len(some)
            self._taken_bytes += sum(len(each.body) for each in some)
            if len(some) < step:
                break
        self._bytes += size
        return taken

    def _fitting_step(self) -> int:
        if not self._taken:
            return _FIRST_STEP
        mean = max(1, self._taken_bytes // self._taken)
        return max(1, min(_MOST_A_STEP, PAGE_BYTES // mean))

    def _take(self, count: int, answer: Answer) -> None:
        """Have a consumer bring so many, then end it: the server never sends more unasked."""
        channel = self._channel
        self._consumers += 1
        tag = f"look-{self._consumers}"
        moved = empty = 0
        is_ending = False

        def on_consuming(_frame: Any) -> None:
            self._on_came = on_came
            self._ask_count(on_count)
            on_came()

        def on_came() -> None:
            nonlocal is_ending
            if len(self._came) >= count and not is_ending:
                end()

        def on_count(frame: Any) -> None:
            nonlocal moved, empty
            if is_ending or self._lost is not None:
                return
            # The answer may overtake letters that the channel has before it, but not twice.
            empty = empty + 1 if frame.method.message_count == 0 else 0
            if empty == 2:
                end()
            elif empty or len(self._came) > moved:
                moved = len(self._came)
                self._ask_count(on_count)
            else:
                self._loop.later(_ASK_EVERY_S, ask_again)

        def ask_again() -> None:
            if not is_ending and self._lost is None and not answer.is_given and self._channel.is_open:
                self._ask_count(on_count)

        def end() -> None:
            nonlocal is_ending
            is_ending = True
            self._on_came = None
            channel.basic_cancel(tag, callback=on_ended)

        def on_ended(_frame: Any) -> None:
            came, self._came = self._came, []
            answer.give(came)

        def begin(_frame: Any) -> None:
            channel.basic_consume(self._queue, _never_called, consumer_tag=tag, callback=on_consuming)

        channel.basic_qos(prefetch_count=count, callback=begin)

    def _on_deliveries(self, deliveries: list[Delivery]) -> None:
        self._came += deliveries
        if self._on_came is not None:
            self._on_came()

    # -- letting go

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Remove these from the queue. Does not wait: what ``close`` returns from is done."""
        tags = sorted(each.tag for each in deliveries)
        if not tags:
            return
        for tag in tags:
            self._bytes -= self._held.pop(tag)
        first_held = next(iter(self._held), None)
        is_prefix = first_held is None or first_held > tags[-1]

        def begin() -> None:
            if self._lost is not None:
                return  # the next call, close at the latest, says so
            number = self._channel.channel_number
            if is_prefix:
                frames = ack(number, tags[-1], multiple=True)
            else:
                frames = b"".join([ack(number, tag) for tag in tags])
            write(self._channel.connection, frames)

        self._loop.soon(begin)

    def close(self) -> None:
        """Give back what is held, and end. Afterwards whoever looks sees it. Switches.

        Raises:
          ConnectionError: The channel was lost before: what was acknowledged may not be.
        """
        if self._channel is None:
            return  # it was never open
        try:
            if self._held:
                self._ask(self._give_back)
        except ConnectionError:
            # No answer in time: the end of the channel returns them as well, whenever it comes.
            self._loop.soon(self._drop)
            raise
        self._ask(self._close)

    def _drop(self) -> None:
        if self._channel.is_open:
            self._channel.close()

    def _give_back(self, answer: Answer) -> None:
        deadline: Any = None
        expected = 0

        def give_back(frame: Any) -> None:
            nonlocal deadline, expected
            expected = frame.method.message_count + len(self._held)
            deadline = self._loop.later(_RETURN_S, answer.give)
            self._channel.basic_nack(0, multiple=True, requeue=True)
            ask()

        def ask() -> None:
            if not answer.is_given and self._lost is None and self._channel.is_open:
                self._ask_count(on_count)

        def on_count(frame: Any) -> None:
            if answer.is_given or self._lost is not None:
                return
            # Fewer, for good, if others take some meanwhile.
            if frame.method.message_count >= expected:
                deadline.cancel()
                answer.give()
            else:
                self._loop.later(_ASK_EVERY_S, ask)

        self._ask_count(give_back)

    def _close(self, answer: Answer) -> None:
        self._answer = None
        self._channel.add_on_close_callback(lambda _channel, error: self._on_closed(error, answer))
        self._channel.close()

    def _on_closed(self, error: BaseException, answer: Answer) -> None:
        if isinstance(error, pika.exceptions.ChannelClosedByClient):
            answer.give()
        else:
            answer.fail(refusal(error, self._link.address))


def _never_called(*_: Any) -> None:
    raise AssertionError("deliveries are taken before pika sees them")
