"""Tells when all members of a group are done, and has what comes next follow from the last one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..composition.chain import Frame, launch
from ..errors import ConnectionError, RateLimiterBusy, ResultError, ResultFailure, describe
from ..logging import get_logger
from ..message import Message
from ..runtime import current
from ..settings import GROUP_CALLBACK_BARRIER_TTL
from .middleware import Middleware

if TYPE_CHECKING:
    from ..broker import Broker
    from ..consumer import MessageProxy
    from ..rate_limits import RateLimiterBackend

R = TypeVar("R")

#: For how long a job that is done keeps its slot while the place where groups are counted is
#: away, in seconds, and between two tries.
_PATIENCE_S = 30.0
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


class GroupCallbacks(Middleware):
    """Counts the members of groups: for completion callbacks, and for groups inside pipelines.

    A member is noted by its place in the group before its message is settled, and counts once
    however often it is delivered. What follows from the last one (callbacks, the next step) is stored
    in the same step in which that one is settled. While the backend is away a job that is done keeps
    its slot and tries again, for half a minute; then its message goes back to its queue and runs again,
    so that no group is left incomplete.

    Parameters:
      rate_limiter_backend(RateLimiterBackend): Where members are counted, for all workers the same.
      barrier_ttl(int): Milliseconds for which a group is remembered after the latest of its members
        that was done: longer than any member takes. Default: the environment variable
        GREENQ_GROUP_CALLBACK_BARRIER_TTL, or else a day.

    A group inside a pipeline also needs Results: the results of its members are kept there, beside
    those that are asked for, until the next step has been sent.
    """

    counts_groups: ClassVar[bool] = True

    def __init__(self, rate_limiter_backend: RateLimiterBackend, *, barrier_ttl: int | None = None) -> None:
        self.logger = get_logger(__name__, type(self))
        self.rate_limiter_backend = rate_limiter_backend
        if barrier_ttl is None:
            barrier_ttl = GROUP_CALLBACK_BARRIER_TTL.get()
        assert barrier_ttl >= 1, "a barrier_ttl is 1 ms or more"
        self.barrier_ttl = barrier_ttl

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return {"group_member": (dict, type(None))}

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        frame = message._message.options.get("group_member")
        if not frame or exception is not None or message.failed or message._message.options.get("pipe_target"):
            return
        try:
            if frame["keep"]:
                self._keep(broker, frame, result)
        except _Away as error:
            self._give_back(message, error)
        except Exception as error:
            message.fail(f"Its result cannot be kept for the step after its group: {describe(error)}")

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        frame = message._message.options.get("group_member")
        if not frame or message._released is not None:
            return
        try:
            if not message._has_succeeded:  # it was skipped, or nothing retries
                self._note_end(message, frame)
            elif not message._message.options.get("pipe_target"):  # else the next step is the member now
                self._note_success(broker, message, frame)
        except _Away as error:
            self._give_back(message, error)
        except Exception as error:  # whatever another program put there, or a list that is too large
            message.fail(f"What comes after its group cannot be sent: {describe(error)}")

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        frame = message._message.options.get("group_member")
        if isinstance(frame, dict) and frame:
            # What follows from its success was refused, if there was to be something: the group stays
            # open, for when this message is sent back.
            message._closings = None
            try:
                self._note_end(message, frame)
                for each in message._completed or ():
                    if each.get("up"):
                        self._note_end(message, each["up"])  # since no later step will
            except _Away as error:
                self._give_back(message, error)
            except Exception:
                self.logger.exception("That message %s of a group is dead cannot be noted.", message.message_id)

    # -- what a member's end means

    def _note_success(self, broker: Broker, message: MessageProxy, frame: Frame) -> None:
        """One more member has succeeded. If it was the last one, what was waiting for all of them follows."""
        is_last = self._arrive(frame, "success")
        if is_last and self._is_open(message, frame, "success"):
            self._send_callbacks(message, frame, "success")
            results = self._gather(broker, message, frame) if frame["keep"] else None
            up = frame.get("up")
            if frame.get("then"):
                for each, delay in launch(frame["then"], up, (results,)):
                    message.follow_up(each, delay)
            elif up:
                if up["keep"]:
                    self._keep(broker, up, results)
                self._note_success(broker, message, up)
        if frame["ends"]:
            if is_last:
                self._do(lambda backend, ttl: backend.add(_key(frame, "complete"), 1, ttl))
                message._completed = [*(message._completed or ()), frame]
            self._note_end(message, frame)

    def _note_end(self, message: MessageProxy, frame: Frame) -> None:
        """One more member has ended, in whichever way; only told to those who asked."""
        if not frame["ends"] or not self._arrive(frame, "end") or not self._is_open(message, frame, "end"):
            return
        self._send_callbacks(message, frame, "always")
        if frame.get("up") and not self._exists(_key(frame, "complete")):
            self._note_end(message, frame["up"])  # else the last one to succeed did, or a later step will

    def _send_callbacks(self, message: MessageProxy, frame: Frame, on: str) -> None:
        for callback in frame.get("callbacks") or ():
            if callback["on"] == on:
                for each, delay in launch([callback["message"]]):
                    message.follow_up(each, delay)

    # -- counting

    def _arrive(self, frame: Frame, occasion: str) -> bool:
        member, parties = str(frame["index"]), frame["of"]
        return self._do(lambda backend, ttl: backend.arrive(_key(frame, occasion), member, parties, ttl))

    def _is_open(self, message: MessageProxy, frame: Frame, occasion: str) -> bool:
        """Whether what follows has not been sent yet; it will be, if this message is settled.

        The last member may be there twice, and each of the two is told that it is the last.
        """
        closed = _key(frame, f"{occasion}@closed")
        if self._exists(closed):
            return False
        closings = message._closings = message._closings or []
        closings.append(lambda: self.rate_limiter_backend.add(closed, 1, self.barrier_ttl))
        return True

    def _exists(self, key: str) -> bool:
        # Each is set to 1. A key that does not exist may count as 0, or refuse to be changed.
        return self._do(lambda backend, ttl: backend.decr(key, 0, 1, ttl))

    def _do(self, change: Callable[[RateLimiterBackend, int], R]) -> R:
        return _patiently(lambda: change(self.rate_limiter_backend, self.barrier_ttl))

    # -- the results of members, for the next step

    def _keep(self, broker: Broker, frame: Frame, result: Any) -> None:
        backend, kept = broker.get_results_backend(), _kept(frame, frame["index"])
        _patiently(lambda: backend.store_result(kept, result, self.barrier_ttl))

    def _gather(self, broker: Broker, message: MessageProxy, frame: Frame) -> list[Any]:
        backend = broker.get_results_backend()
        kept = [_kept(frame, index) for index in range(frame["of"])]
        try:
            results = [_patiently(partial(backend.get_result, each)) for each in kept]
        except ResultFailure:
            raise
        except ResultError as error:
            raise LookupError(f"the result of a member is gone ({error})") from error
        message._closings = message._closings or []
        message._closings += [partial(backend.forget_result, each) for each in kept]
        return results

    def _give_back(self, message: MessageProxy, error: _Away) -> None:
        self.logger.error(
            "Message %s of a group is done, and that could not be noted for %.0f s, so it goes back to its queue and "
            "runs again: %s",
            message.message_id,
            _PATIENCE_S,
            error.__cause__,
        )
        message.give_back()


def _key(frame: Frame, occasion: str) -> str:
    return f"greenq-group:{frame['id']}@{occasion}"


def _kept(frame: Frame, index: int) -> Message[Any]:
    """What a member's result is kept under: as that of a message which does not exist."""
    return Message("group", "group", (), {}, {}, f"group:{frame['id']}:{index}", 0)


def _patiently(do: Callable[[], R]) -> R:
    """Do it, however often it takes while the backend is away. Switches.

    Raises:
      _Away: It was away for too long.
    """
    deadline = time.monotonic() + _PATIENCE_S
    pause_s = _SHORTEST_PAUSE_S
    while True:
        try:
            return do()
        except (ConnectionError, RateLimiterBusy) as error:
            if time.monotonic() >= deadline:
                raise _Away from error
        current().sleep(pause_s * random.uniform(0.5, 1))
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class _Away(Exception):
    """The backend, or that of the results, was away for too long."""
