"""Stores what actors return, before the message itself is settled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..composition.chain import followers
from ..consumer import MessageProxy
from ..errors import ConnectionError, GreenqError, SkipMessage, text_of
from ..logging import get_logger
from ..message import Message
from ..middleware.middleware import Middleware
from ..runtime import current
from .backend import EarlierFailure

if TYPE_CHECKING:
    from ..broker import Broker
    from .backend import ResultBackend

DEFAULT_RESULT_TTL_MS = 600_000
DEFAULT_STORE_TIMEOUT_MS = 30_000
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


class Results(Middleware):
    """Stores the results of actors, and the failures of those that failed for good.

    A result is stored before its message is settled: a worker that dies in between leaves the
    result, and the message runs again. While the backend is away a job that is done keeps its slot
    and tries again; when ``store_timeout`` is over the result is lost, with an ERROR in the log,
    and the message is settled all the same, because the job is done.

    Parameters:
      backend(ResultBackend): Where results are kept.
      store_results(bool): Whether results are stored. Default: False.
      result_ttl(int): Milliseconds for which they are kept. Default: 10 minutes.
      store_timeout(int): Milliseconds for which storing one is tried. Default: 30 seconds.

    Actors and messages may set store_results and result_ttl; the message's value comes first. A
    result_ttl of 0 counts as not given.
    """

    def __init__(
        self,
        *,
        backend: ResultBackend,
        store_results: bool = False,
        result_ttl: int | None = None,
        store_timeout: int = DEFAULT_STORE_TIMEOUT_MS,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.backend = backend
        self.store_results = store_results
        self.result_ttl = result_ttl or DEFAULT_RESULT_TTL_MS
        self.store_timeout = store_timeout
        self._is_away = False
        self._warned_of: set[str] = set()

    @property
    def actor_options(self) -> set[str]:
        return {"store_results", "result_ttl"}

    @property
    def message_option_types(self) -> Mapping[str, tuple[type, ...]]:
        return {"store_results": (bool, int, type(None)), "result_ttl": (int, float, type(None))}

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        if exception is not None or message.failed:
            return  # it may be tried again; if not, before_nack comes
        if self._is_wanted(broker, message):
            self._store_result(broker, message, result)
        elif result is not None and "pipe_target" not in message.options and "group_member" not in message.options:
            self._warn(message.actor_name)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        if not message.failed and self._is_wanted(broker, message):
            self._store_result(broker, message, None)

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        # Before, and not after as the API reference has it: a worker that dies in between
        # would leave a dead letter whose result is waited for in vain.
        exception = getattr(message, "_exception", None) or MessageFailed(getattr(message, "reason", None) or "failed")
        if self._is_wanted(broker, message):
            self._store_failure(broker, message, exception)
        self._tell_followers(broker, message, type(exception).__name__, text_of(exception))

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        if not message._has_succeeded and message._released is None:
            # It was skipped, or nothing retries what it raised: a pipeline ends here as well.
            exception = message._exception or SkipMessage("The message was skipped.")
            self._tell_followers(broker, message, type(exception).__name__, text_of(exception))

    def _tell_followers(self, broker: Broker, message: MessageProxy, kind: str, text: str) -> None:
        """Store for those that come after it in a pipeline that they will not run."""
        options = message.options
        if not options.get("pipe_target") and not options.get("group_member"):
            return
        failure = EarlierFailure(f"actor {message.actor_name} of an earlier step ({message.message_id})", kind, text)
        deadline = time.monotonic() + self.store_timeout / 1000
        try:
            for step in followers(options):
                follower = Message._from_fields(dict(step), b"")
                if self._is_wanted(broker, follower, if_unknown=True):
                    self._store_failure(broker, follower, failure, deadline)
        except Exception:  # whatever another program put there
            self.logger.exception("Those who wait for what comes after message %s cannot be told.", message.message_id)

    # -- whether, and for how long

    def _is_wanted(self, broker: Broker, message: MessageProxy | Message[Any], *, if_unknown: bool = False) -> bool:
        actor = broker.actors.get(message.actor_name)
        if actor is None and not if_unknown:
            return False
        for options in (message.options, {} if actor is None else actor.options):
            if options.get("store_results") is not None:
                return bool(options["store_results"])
        return self.store_results or actor is None

    def _ttl_ms(self, broker: Broker, message: MessageProxy | Message[Any]) -> int:
        own = message.options.get("result_ttl")
        if not isinstance(own, (int, float)):
            own = None  # such a message is dead, and this is its failure
        actor = broker.actors.get(message.actor_name)
        return int(own or (actor is not None and actor.options.get("result_ttl")) or self.result_ttl)

    def _warn(self, actor_name: str) -> None:
        if actor_name not in self._warned_of:
            self._warned_of.add(actor_name)
            self.logger.warning(
                "Actor %s returned a value that is not None, and it is not kept. Declare the actor with "
                "store_results=True if it should be.",
                actor_name,
            )

    # -- storing

    def _store_result(self, broker: Broker, message: MessageProxy, result: Any) -> None:
        inner, ttl_ms = message._message, self._ttl_ms(broker, message)
        try:
            self._persist(message, lambda: self.backend.store_result(inner, result, ttl_ms))
        except Exception as error:
            # Too large, or of a kind that the encoder cannot write. Whoever waits is told.
            self.logger.error(
                "The result of message %s of actor %s cannot be stored; a failure is stored in its place.",
                inner.message_id,
                inner.actor_name,
                exc_info=True,
            )
            self._store_failure(broker, message, error)

    def _store_failure(
        self,
        broker: Broker,
        message: MessageProxy | Message[Any],
        exception: BaseException,
        deadline: float | None = None,
    ) -> None:
        inner = message.message if isinstance(message, MessageProxy) else message
        ttl_ms = self._ttl_ms(broker, message)
        self._persist(message, lambda: self.backend.store_exception(inner, exception, ttl_ms), deadline)

    def _persist(
        self, message: MessageProxy | Message[Any], store: Callable[[], None], deadline: float | None = None
    ) -> None:
        """Store, however often it takes while the backend is away. Switches."""
        if deadline is None:
            deadline = time.monotonic() + self.store_timeout / 1000
        pause_s = _SHORTEST_PAUSE_S
        while True:
            try:
                store()
            except ConnectionError as error:
                self._note_outage(error)
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    self.logger.error(
                        "The result of message %s of actor %s is lost: it could not be stored for %d ms. %s",
                        message.message_id,
                        message.actor_name,
                        self.store_timeout,
                        error,
                    )
                    return
                current().sleep(min(left_s, pause_s * random.uniform(0.5, 1)))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            else:
                self._note_return()
                return

    def _note_outage(self, error: ConnectionError) -> None:
        if not self._is_away:
            self._is_away = True
            self.logger.warning("Results cannot be stored now, and jobs that are done wait: %s", error)

    def _note_return(self) -> None:
        if self._is_away:
            self._is_away = False
            self.logger.info("Results are stored again.")


class MessageFailed(GreenqError):
    """A middleware has failed the message, and no exception says why."""
