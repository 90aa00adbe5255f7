"""Has a process killed at a call to its broker: for each kind of broker a table of the calls there are.

What is wrapped here is private to the brokers, and deliberately so: between two calls to a server
is where a crash hurts, and nothing in greenq has to know that somebody looks.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from greenq.broker import Broker

from .ledger import Ledger

#: The moments of a call: it has not begun; a transaction has written and not committed; the broker
#: has done it, and nobody here knows.
BEFORE, AMID, AFTER = "before", "amid", "after"


class Point(NamedTuple):
    """Where a process is killed.

    Attributes:
      owner, name: Whose function it is, and its name.
      is_after(bool): Whether it is killed once the function has returned.
      counts: Whether a call counts, of its arguments and, if it has returned, its answer.
    """

    owner: Any
    name: str
    is_after: bool
    counts: Callable[[tuple[Any, ...], Any], bool]


def points(kind: str) -> dict[str, Point]:
    """Every point at which a process on this kind of broker can be killed, by names like "before settle"."""
    if kind == "sqlite":
        return _sqlite_points()
    if kind == "redis":
        return _redis_points()
    return _rabbitmq_points()


def _sqlite_points() -> dict[str, Point]:
    # Operations are transactions in a thread of their own. Until COMMIT nothing is done; from
    # there on it is, though the answer has not come to whoever asked.
    from greenq.brokers.sqlite import membership, operations
    from greenq.stores.sqlite import store

    def some(kind: type, *, found: Callable[[Any], bool] = lambda _: True) -> Callable[[Any, Any], bool]:
        def counts(args: tuple[Any, ...], _answer: Any) -> bool:
            asked = args[0]._operations if isinstance(args[0], store._Attempt) else args[2]
            return any(type(each) is kind and each.error is None and found(each) for each in asked)

        return counts

    def of(name: str, kind: type, found: Callable[[Any], bool] = lambda _: True) -> dict[str, Point]:
        return {
            f"{BEFORE} {name}": Point(store.Store, "_perform", False, some(kind)),
            f"{AMID} {name}": Point(store._Attempt, "_run_all", True, some(kind, found=found)),
            f"{AFTER} {name}": Point(store.Store, "_perform", True, some(kind, found=found)),
        }

    def always(_args: Any, _answer: Any) -> bool:
        return True

    found: dict[str, Point] = {
        **of("fetch", operations.Claim, lambda each: each.result is not None and each.result[1] != "[]"),
        **of("settle", operations.Settle),
        **of("enqueue", operations.Write),
        **of("take back", operations.TakeBack),
    }
    del found[f"{AMID} enqueue"]  # one statement, which is a transaction of its own
    for name, function in [("renew", "_renew"), ("take back expired", "_take_back_expired")]:
        found[f"{BEFORE} {name}"] = Point(membership.Membership, function, False, always)
        found[f"{AFTER} {name}"] = Point(membership.Membership, function, True, always)
    return found


def _redis_points() -> dict[str, Point]:
    # Each is a script: done as a whole, or not. A client may die when it has sent it.
    import redis.connection

    from greenq.brokers.redis import scripts
    from greenq.brokers.redis.links import Link
    from greenq.brokers.redis.peek import Peek

    def of(name: str, script: Any, wanted: Callable[[Any], bool] = lambda _args: True) -> dict[str, Point]:
        def called(args: tuple[Any, ...], answer: Any) -> bool:
            if script is scripts.FETCH and answer is not None and not answer[0]:
                return False  # it found nothing
            return args[1] is script and wanted(args[3])

        def sent(args: tuple[Any, ...], _answer: Any) -> bool:
            if args[1] != "EVALSHA" or args[2] != script.sha:
                return False
            return wanted(args[4 + args[3] :])

        return {
            f"{BEFORE} {name}": Point(Link, "call", False, called),
            f"{AMID} {name}": Point(redis.connection.AbstractConnection, "send_command", True, sent),
            f"{AFTER} {name}": Point(Link, "call", True, called),
        }

    return {
        **of("fetch", scripts.FETCH),
        **of("settle", scripts.SETTLE),
        **of("enqueue", scripts.ENQUEUE),
        **of("renew", scripts.RENEW, lambda args: not args[2]),  # not to take a lease
        **of("take back", scripts.TAKE_BACK, lambda args: args[0] != ""),
        **of("take back expired", scripts.TAKE_BACK, lambda args: args[0] == ""),
        # A script behind a wait, which the server runs when a message is there.
        f"{BEFORE} claim": Point(Peek, "_send", False, lambda args, _answer: args[1] is not None),
        f"{AMID} claim": Point(Peek, "_read_claimed", False, lambda _args, _answer: True),
        f"{AFTER} claim": Point(Peek, "_read_claimed", True, lambda args, _answer: args[0].claimed is not None),
    }


def _rabbitmq_points() -> dict[str, Point]:
    from greenq.brokers.rabbitmq import publisher
    from greenq.brokers.rabbitmq.consumer import RabbitmqConsumer
    from greenq.brokers.rabbitmq.publisher import Publisher
    from greenq.brokers.rabbitmq.subscription import Subscription

    def has_some(args: tuple[Any, ...], found: Any) -> bool:
        return args[0]._subscription.has_some or bool(found)

    def always(_args: Any, _answer: Any) -> bool:
        return True

    calls: dict[str, tuple[Any, str, Callable[[Any, Any], bool]]] = {
        # To take what the server has sent; a look that finds nothing does not count.
        "fetch": (RabbitmqConsumer, "fetch", has_some),
        # To store something: the bytes have gone to the socket; the server's answer, from here on it is stored.
        "publish": (publisher, "write", always),
        "confirm": (Publisher, "_note", always),
        # To remove a message, and to return it.
        "ack": (Subscription, "_acknowledge", always),
        "return": (Subscription, "_return", always),
    }
    return {
        f"{when} {name}": Point(owner, function, when == AFTER, counts)
        for name, (owner, function, counts) in calls.items()
        for when in (BEFORE, AFTER)
    }


def die_at(kind: str, death: str, broker: Broker, ledger: Ledger, *, once_it_runs_one: bool = False) -> None:
    """Have this process killed at the next of these points.

    Parameters:
      death(str): A name of a point.
      broker(Broker): Of this process, not yet connected. Its worker id is noted before the kill.
      once_it_runs_one(bool): Not before a job has started here.
    """

    def is_time() -> bool:
        return not once_it_runs_one or any(each.pid == os.getpid() for each in ledger.entries("started"))

    _die(points(kind)[death], death, broker, ledger, is_time)


def die_sometime(kind: str, lives_s: float, broker: Broker, ledger: Ledger) -> None:
    """Have this process killed at any of these points, whichever chance has it.

    Parameters:
      lives_s(float): Seconds from the first call, on average.
    """
    left_s, ends_at = random.expovariate(1 / lives_s), math.inf

    def is_time() -> bool:
        nonlocal ends_at
        ends_at = min(ends_at, time.monotonic() + left_s)
        return time.monotonic() >= ends_at

    death = random.choice([each for each in points(kind) if each.split(" ", 1)[1] in _AT_ANY_TIME])
    _die(points(kind)[death], death, broker, ledger, is_time)


#: The calls that any worker makes, again and again.
_AT_ANY_TIME = {"fetch", "settle", "renew", "claim", "publish", "confirm", "ack"}


def _die(point: Point, death: str, broker: Broker, ledger: Ledger, is_time: Callable[[], bool]) -> None:
    really = getattr(point.owner, point.name)

    def die_if(args: tuple[Any, ...], answer: Any) -> None:
        if point.counts(args, answer) and is_time():
            ledger.note("held", "", broker.worker_id or "")
            ledger.note("killed", death, str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)

    def around(*args: Any, **options: Any) -> Any:
        if not point.is_after:
            die_if(args, None)
        answer = really(*args, **options)
        if point.is_after:
            die_if(args, answer)
        return answer

    setattr(point.owner, point.name, around)
