"""The names of all that is stored, which of them each script is given, and the ids of messages.

    greenq:default                  list: ids that are ready, priority 0, the next one left
    greenq:default.msgs             hash: id -> payload, of all that is not dead
    greenq:default~ready.-5         list: ids that are ready with priority -5
    greenq:default~priorities       sorted set: the priorities other than 0 that have a list
    greenq:default~delayed          sorted set: ids by the time (ms) at which they are due
    greenq:default~held.4f2a9c.1    set: ids that this holder has reserved
    greenq:default~workers          sorted set: holders by the time (ms) until which their lease lasts
    greenq:default~deliveries       hash: id -> how often it was taken back from a lost worker
    greenq:default~evidence         hash: id -> "2 1 was killed by SIGSEGV; 512 MiB": of those times, how
                                    often its run was seen to be the cause, how often nobody saw any,
                                    and how the worker died when it was last seen; of those with any
    greenq:default~dead             sorted set: ids by the time (ms) at which they died
    greenq:default~dead.msgs        hash: id -> payload of the dead
    greenq:default~dead.reasons     hash: id -> why
    greenq:default~dead.deliveries  hash: id -> how often it was taken back, of those that were

The first two are for programs in other languages as well, see docs/wire-format.md. The
others have a "~", which no queue's name can have. On a cluster the first part stands in
braces, {greenq:default}, so that all keys of a queue are in one slot.

A holder is a worker and the number of its lease on this queue: a lease that was lost is
never taken up again. An id is used once: a retry, and what a worker returns, get a new one, so
that a verdict that is written a second time, after its answer was lost, never meets the
message's next delivery.

    3f9a1c2b44e0~0000002a           12 digits of its process, "~", the number in the process
    3f9a1c2b44e0~0000002b!-5        the same with priority -5; without one it is 0
    x3f9a1c2b44e0~0000002b          of a message with somebody else's id, sent back from the dead letters
"""

from __future__ import annotations

import itertools
import os
import re
import secrets

from ...names import check_queue_name

#: The end of a payload hash's name, which a queue's name must not have.
_PAYLOADS = ".msgs"
_FORBIDDEN_IN_NAMESPACE = "{}\0\r\n"

Keys = tuple[str, ...]


class QueueKeys:
    """The keys of one queue, and which of them each script is given, in the order of its header.

    Parameters:
      base(str): The ready list's key, which the others begin with.
    """

    __slots__ = (
        *("base", "dead", "dead_deliveries", "dead_messages", "dead_reasons", "delayed"),
        *("deliveries", "evidence", "messages", "priorities", "ready", "workers"),
    )

    def __init__(self, base: str) -> None:
        self.base = base
        self.ready = base
        self.messages = base + _PAYLOADS
        self.priorities = base + "~priorities"
        self.delayed = base + "~delayed"
        self.workers = base + "~workers"
        self.deliveries = base + "~deliveries"
        self.evidence = base + "~evidence"
        self.dead = base + "~dead"
        self.dead_messages = base + "~dead.msgs"
        self.dead_reasons = base + "~dead.reasons"
        self.dead_deliveries = base + "~dead.deliveries"

    def held(self, holder: str) -> str:
        """The set of what a holder has reserved."""
        return f"{self.base}~held.{holder}"

    # -- of each script; those that work on several queues are given these of each

    def for_enqueue(self) -> Keys:
        return (self.ready, self.messages, self.priorities, self.delayed)

    def for_fetch(self, holder: str) -> Keys:
        return (*self.for_enqueue(), self.held(holder), self.deliveries, self.evidence, self.workers)

    def for_settle(self, holder: str) -> Keys:
        """Followed by ``for_enqueue`` of each other queue that something follows on."""
        taken_back = (self.deliveries, self.evidence)
        return (*self.for_enqueue(), self.held(holder), *taken_back, *self._dead_letters(), self.workers)

    def for_renew(self) -> Keys:
        return (self.workers, self.dead)

    def for_hand_over(self, old: str, new: str) -> Keys:
        return (self.ready, self.priorities, self.workers, self.held(old), self.held(new))

    def for_held(self) -> Keys:
        return (self.ready, self.messages, self.workers)

    def for_take_back(self) -> Keys:
        return (self.ready, self.priorities, self.deliveries, self.evidence, self.workers)

    def for_flush(self) -> Keys:
        return (*self.for_enqueue(), self.deliveries, self.evidence, self.workers, *self._dead_letters())

    def for_count(self) -> Keys:
        return (self.ready, self.priorities, self.delayed, self.workers, self.dead)

    def for_oldest(self) -> Keys:
        return self.for_enqueue()

    def for_purge(self) -> Keys:
        return self._dead_letters()

    def for_look(self) -> Keys:
        return self._dead_letters()

    def for_send_back(self) -> Keys:
        return (self.ready, self.messages, self.priorities, *self._dead_letters())

    def for_delete_dead(self) -> Keys:
        return self._dead_letters()

    def _dead_letters(self) -> Keys:
        return (self.dead, self.dead_messages, self.dead_reasons, self.dead_deliveries)


class Layout:
    """Where everything is.

    Parameters:
      namespace(str): The first part of all keys.
      is_cluster(bool): Whether all keys of a queue have to be in one slot.

    Raises:
      ValueError: The namespace cannot be one.
    """

    def __init__(self, namespace: str, *, is_cluster: bool) -> None:
        if not namespace or any(character in namespace for character in _FORBIDDEN_IN_NAMESPACE):
            raise ValueError(
                f"{namespace!r} cannot be a namespace: it must not be empty, nor hold braces, line ends or a NUL. "
                "Redis Cluster reads braces in keys."
            )
        self._format = "{%s:%s}" if is_cluster else "%s:%s"
        self._namespace = namespace
        self._known: dict[str, QueueKeys] = {}

    def of(self, queue_name: str) -> QueueKeys:
        """The keys of a queue.

        Parameters:
          queue_name(str): Its canonical name.

        Raises:
          ValueError: No queue can have this name.
        """
        keys = self._known.get(queue_name)
        if keys is None:
            check_queue_name(queue_name)
            if queue_name.endswith(_PAYLOADS):
                raise ValueError(
                    f"A queue on Redis cannot be named {queue_name!r}: its list would be where the payloads of "
                    f"queue {queue_name[: -len(_PAYLOADS)]!r} are. Choose a name that does not end with {_PAYLOADS!r}."
                )
            keys = self._known[queue_name] = QueueKeys(self._format % (self._namespace, queue_name))
        return keys


class _Ids:
    def __init__(self) -> None:
        self.prefix = secrets.token_hex(6) + "~"
        self.numbers = itertools.count()


_ids = _Ids()


def new_id(priority: int) -> str:
    """An id that was never used before, for a message of this priority."""
    number = f"{_ids.prefix}{next(_ids.numbers):08x}"
    return f"{number}!{priority}" if priority else number


#: As the scripts read it: priority_of() in shared.lua.
_PRIORITY = re.compile(rb"!-?[0-9]+$")
#: Where a "~" says that an id is one of ours, and its payload was measured when it was enqueued.
_MARK = slice(12, 13)


def is_own(id: bytes) -> bool:
    """Whether greenq gave this id, and wrote what is stored under it."""
    return id[_MARK] == b"~"


def next_id(id: bytes) -> str:
    """A new id for a message that had this one: with the same priority."""
    found = _PRIORITY.search(id)
    number = new_id(0) + (found[0].decode() if found else "")
    return number if is_own(id) else "x" + number


def _start_anew() -> None:
    global _ids
    _ids = _Ids()


os.register_at_fork(after_in_child=_start_anew)
