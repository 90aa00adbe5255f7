"""What a result is while it is kept, and how it is read and waited for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

from ..encoder import Encoder
from ..errors import ConnectionError, GreenqError, ResultFailure, ResultMissing, ResultTimeout, text_of
from ..message import Message, get_encoder
from ..stores.values import ValueStore, await_for, wait_for
from .gathering import Gathering

R = TypeVar("R")

DEFAULT_TIMEOUT_MS = 10_000

#: A success is stored as it is; a failure is a dict that has this key.
_FAILURE = "__greenq_failure__"


class EarlierFailure(GreenqError):
    """What is stored for a message that will not run, because one before it in its pipeline is dead.

    Parameters:
      where(str): Which one.
      kind(str): The class of the exception that it raised.
      text(str): The exception's text.
    """

    def __init__(self, where: str, kind: str, text: str) -> None:
        super().__init__(f"{where} raised {kind}: {text}")
        self.where = where
        self.kind = kind
        self.text = text


class ResultBackend:
    """Base class of result backends. A backend gives the store; all else is here.

    All methods may be called from any thread or greenlet; they may switch.

    Parameters:
      namespace(str): What the keys of the results begin with. Default: "greenq-results".
      encoder(Encoder): Turns results into bytes. Default: the one that messages use, so JSON.
      values(ValueStore): Where results are kept. A backend that keeps them in another way overrides
        ``get_result``, ``store_result`` and ``store_exception``.

    Attributes:
      namespace(str): The same.
      values(ValueStore): The same.
    """

    def __init__(
        self,
        *,
        namespace: str = "greenq-results",
        encoder: Encoder | None = None,
        values: ValueStore | None = None,
    ) -> None:
        self.namespace = namespace
        self.values = values or ValueStore()
        self._encoder = encoder

    @property
    def encoder(self) -> Encoder:
        """What turns results into bytes."""
        return self._encoder or get_encoder()

    def build_message_key(self, message: Message[Any] | str) -> str:
        """The key of a message's result.

        Parameters:
          message(Message | str): The message, or its id.
        """
        return f"{self.namespace}:{message if isinstance(message, str) else message.message_id}"

    # -- reading

    @overload
    def get_result(self, message: Message[R], *, block: bool = False, timeout: float | None = None) -> R: ...
    @overload
    def get_result(self, message: str, *, block: bool = False, timeout: float | None = None) -> Any: ...
    def get_result(self, message: Message[Any] | str, *, block: bool = False, timeout: float | None = None) -> Any:
        """The result of a message. Reading it does not remove it.

        Parameters:
          message(Message | str): The message, or its id.
          block(bool): Whether to wait for it. Only this greenlet or thread waits.
          timeout(int): Milliseconds to wait, any number of them. Default: 10 seconds.

        Raises:
          ResultMissing: There is none, and block is False.
          ResultTimeout: None came in time; also if the backend was away until then.
          ResultFailure: The actor failed for good.
          ConnectionError: The backend is away, and block is False.
        """
        key = self.build_message_key(message)
        if not block:
            data = self.values.get(key)
            if data is None:
                raise ResultMissing(
                    f"There is no result of {_name(message)}: it is not done yet, stores no results, or the time for "
                    "which its result is kept is over."
                )
            return self._read(data, message)
        timeout_ms = DEFAULT_TIMEOUT_MS if timeout is None else timeout
        try:
            data = wait_for(self.values, key, timeout_ms)
        except ConnectionError as error:
            raise _timed_out(message, timeout_ms, error) from error
        if data is None:
            raise _timed_out(message, timeout_ms)
        return self._read(data, message)

    @overload
    async def aget_result(self, message: Message[R], *, timeout: float | None = None) -> R: ...
    @overload
    async def aget_result(self, message: str, *, timeout: float | None = None) -> Any: ...
    async def aget_result(self, message: Message[Any] | str, *, timeout: float | None = None) -> Any:
        """``get_result(block=True)`` for code that runs on an asyncio loop: nothing blocks it meanwhile.

        Parameters:
          message(Message | str): The message, or its id.
          timeout(int): Milliseconds to wait. Default: 10 seconds.

        Raises:
          ResultTimeout: None came in time; also if the backend was away until then.
          ResultFailure: The actor failed for good.
        """
        timeout_ms = DEFAULT_TIMEOUT_MS if timeout is None else timeout
        try:
            data = await await_for(self.values, self.build_message_key(message), timeout_ms)
        except ConnectionError as error:
            raise _timed_out(message, timeout_ms, error) from error
        if data is None:
            raise _timed_out(message, timeout_ms)
        return self._read(data, message)

    @overload
    def get_each(self, messages: Iterable[Message[R]], *, timeout: float | None = None) -> Iterator[R]: ...
    @overload
    def get_each(self, messages: Iterable[Message[Any] | str], *, timeout: float | None = None) -> Iterator[Any]: ...
    def get_each(self, messages: Iterable[Message[Any] | str], *, timeout: float | None = None) -> Iterator[Any]:
        """The results of several messages, in their order, each waited for when it is asked for.

        Parameters:
          messages(Iterable): The messages, or their ids.
          timeout(int): Milliseconds to wait for all of them. Default: 10 seconds for each.

        Raises:
          ResultTimeout: That of one did not come in time; also if the backend was away until then.
          ResultFailure: One of them failed for good; at once, whichever is waited for.
        """
        messages = list(messages)
        ends_at = math.inf if timeout is None else time.monotonic() + timeout / 1000
        if type(self).get_result is not ResultBackend.get_result:
            # A backend of the API reference: one after the other.
            for message in messages:
                timeout_ms = DEFAULT_TIMEOUT_MS if timeout is None else max(0.0, ends_at - time.monotonic()) * 1000
                yield self.get_result(message, block=True, timeout=timeout_ms)
            return
        by_key = {self.build_message_key(message): message for message in messages}
        gathering = Gathering(self.values, lambda key, data: self._read(data, by_key[key]))
        with gathering.of(list(by_key)):
            for key, message in zip(map(self.build_message_key, messages), messages, strict=True):
                deadline = time.monotonic() + DEFAULT_TIMEOUT_MS / 1000 if timeout is None else ends_at
                try:
                    result = gathering.get(key, deadline)
                except TimeoutError:
                    raise _timed_out(message, DEFAULT_TIMEOUT_MS if timeout is None else timeout) from None
                yield result

    def _read(self, data: bytes, message: Message[Any] | str) -> Any:
        try:
            return self.unwrap_result(self.encoder.decode(data))
        except ResultFailure as failure:
            failure.message_id = message if isinstance(message, str) else message.message_id
            raise

    def unwrap_result(self, res: Any) -> Any:
        """What was returned, from what was stored.

        Raises:
          ResultFailure: The actor failed.
        """
        if isinstance(res, dict) and _FAILURE in res:
            failure = res[_FAILURE]
            kind, text = failure["type"], failure["text"]
            raise ResultFailure(f"{failure.get('where', 'actor')} raised {kind}: {text}", kind, text)
        return res

    # -- storing

    def store_result(self, message: Message[Any] | str, result: Any, ttl: int) -> None:
        """Store what an actor returned, in place of an earlier result.

        Parameters:
          message(Message | str): The message, or its id.
          result(object): What the encoder can write.
          ttl(int): Milliseconds for which it is kept.

        Raises:
          ConnectionError: The backend is away. Storing it again does no harm.
        """
        self._write(message, result, ttl)

    def store_exception(self, message: Message[Any] | str, exception: BaseException, ttl: int) -> None:
        """Store that an actor failed: the class name of the exception and its text.

        Parameters:
          message(Message | str): The message, or its id.
          exception(Exception): What it raised.
          ttl(int): Milliseconds for which it is kept.

        Raises:
          ConnectionError: The backend is away. Storing it again does no harm.
        """
        if isinstance(exception, EarlierFailure):
            failure = {"type": exception.kind, "text": exception.text, "where": exception.where}
        else:
            failure = {"type": type(exception).__name__, "text": text_of(exception)}
        self._write(message, {_FAILURE: failure}, ttl)

    def _write(self, message: Message[Any] | str, stored: Any, ttl_ms: float) -> None:
        data = self.encoder.encode(stored)
        self.values.put(self.build_message_key(message), data, max(1, int(ttl_ms)))

    def forget_result(self, message: Message[Any] | str) -> None:
        """Remove a result before its time is over. Nothing happens if there is none.

        Parameters:
          message(Message | str): The message, or its id.

        Raises:
          ConnectionError: The backend is away.
        """
        self.values.delete(self.build_message_key(message))

    def close(self) -> None:
        """End connections and threads. A backend that is used again opens them again. May switch."""
        self.values.close()


def _name(message: Message[Any] | str) -> str:
    return f"message {message}" if isinstance(message, str) else f"message {message.message_id} ({message.actor_name})"


def _timed_out(message: Message[Any] | str, timeout_ms: float, error: Exception | None = None) -> ResultTimeout:
    text = f"No result of {_name(message)} came within {timeout_ms:g} ms"
    return ResultTimeout(f"{text}; the last look at the backend failed: {error}" if error else text + ".")
