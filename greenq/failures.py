"""What each attempt at a message raised: noted on the message, within bounds, and read again.

A retry takes its history along, in the option ``failures`` (docs/wire-format.md). A message
that dies gets the last entry when its dead letter is stored, so that the message which hooks
and tests see stays as it was sent. Knows messages; does not know who judges a failure, nor
how letters are stored: see inspection.py.
"""

from __future__ import annotations

import json
import math
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from .clock import now_ms
from .consumer import MessageProxy, Undecodable
from .errors import MessageTooLarge, RateLimitExceeded, describe

if TYPE_CHECKING:
    from .message import Message

#: The message option that holds the history, the newest entry last.
OPTION = "failures"
#: Entries of a history: the first failure, which is often the cause of the others, and the latest.
MOST_FAILURES = 10
#: Characters of one traceback in a history: a quarter from its top, the rest from its end.
MOST_TRACEBACK_CHARACTERS = 4000
#: Bytes of a whole history, as JSON. A million messages that wait for a service to come back
#: carry theirs in the broker's memory.
MOST_HISTORY_BYTES = 64 * 1024
_MOST_FRAMES = 30


class Failure(NamedTuple):
    """What one attempt at a message raised.

    Attributes:
      at_ms(int): When, in Unix milliseconds; 0 if it is not known.
      attempt(int): Which one, from 1; it starts again when a dead letter is sent back.
      error(str): "Type: text", 500 characters at most.
      traceback(str): Cut in its middle if it is long; empty where there is none to tell.
    """

    at_ms: int
    attempt: int
    error: str
    traceback: str


# -- noting


def note_failure(message: MessageProxy, exception: BaseException, traceback_text: str | None = None) -> None:
    """Note what this attempt raised. A second time, for the same attempt, it does nothing.

    Parameters:
      message(MessageProxy): As it was handed out.
      exception(BaseException): What was raised.
      traceback_text(str): If it was formatted before.
    """
    if message._failure is None:
        if traceback_text is None:
            try:
                traceback_text = traceback_of(exception)
            except Exception:  # of the application's own class; it must not cost the message
                traceback_text = ""
        retries = message._message.options.get("retries")
        attempt = retries + 1 if type(retries) is int else 1
        message._failure = Failure(now_ms(), attempt, describe(exception), _cut(traceback_text))


def keep_failure(message: MessageProxy) -> None:
    """Move what was noted into the message's options, for its next attempt."""
    options = message._message.options
    history = _with_failure(options.get(OPTION), message._failure)
    message._failure = None
    if history is not None:
        options[OPTION] = history


def dead_payload(message: MessageProxy) -> bytes | None:
    """A message that dies as its dead letter is to hold it: with all that was noted on it.

    None for bytes that are no message, and for what cannot be encoded any more: the letter
    holds them as they are stored.
    """
    if isinstance(message, Undecodable):
        return None
    inner: Message[Any] = message._message
    if message._failure is not None:
        history = _with_failure(inner.options.get(OPTION), message._failure)
        if history is not None:
            inner = inner.copy(options={OPTION: history})
    while True:
        try:
            return inner.encode()
        except MessageTooLarge:
            shorter = inner.copy()
            if not drop_notes(shorter.options):
                return None
            inner = shorter
        except Exception:  # a middleware's note that no encoder takes
            return None


def drop_notes(options: dict[str, Any]) -> bool:
    """Take one kind of note off the options of a message that is too large; False if there is none left.

    A traceback can push a message over the limit that it was sent under.
    """
    name = OPTION if options.get(OPTION) is not None else "traceback"
    return options.pop(name, None) is not None


def without_notes_of_told(message: Message[Any]) -> Message[Any] | None:
    """The same for a message that tells of another one, which is its first argument, as a dict: a shorter copy."""
    told = message.args[0] if message.args else None
    if not isinstance(told, dict) or not isinstance(told.get("options"), dict):
        return None
    options = dict(told["options"])
    if not drop_notes(options):
        return None
    return message._replace(args=({**told, "options": options}, *message.args[1:]))


def traceback_of(exception: BaseException) -> str:
    """An exception's traceback without our own frames; its type and text alone if there are no others."""
    if isinstance(exception, RateLimitExceeded):
        return describe(exception)
    frames = exception.__traceback__
    # Our own frames, between the slot and the actor, tell nobody anything.
    while frames is not None and frames.tb_next is not None and _is_ours(frames):
        frames = frames.tb_next
    if frames is not None and _is_ours(frames):
        frames = None
    return "".join(traceback.format_exception(type(exception), exception, frames, limit=_MOST_FRAMES))


def _is_ours(frame: TracebackType) -> bool:
    return str(frame.tb_frame.f_globals.get("__name__", "")).startswith("greenq.")


def _cut(text: str) -> str:
    if len(text) <= MOST_TRACEBACK_CHARACTERS:
        return text
    top = MOST_TRACEBACK_CHARACTERS // 4
    end = MOST_TRACEBACK_CHARACTERS - top
    return f"{text[:top]}\n  ... {len(text) - top - end} characters left out ...\n{text[-end:]}"


def _with_failure(history: Any, failure: Failure | None) -> list[Any] | None:
    """A history with one more entry; None if the option is somebody else's, or there is no entry."""
    if failure is None or not isinstance(history, (list, type(None))):
        return None
    entries = list(history or ())
    entry: dict[str, Any] = {"at": failure.at_ms, "attempt": failure.attempt, "error": failure.error}
    # Of a thousand retries most fail in the same place: said once.
    if not entries or _traceback_at(entries, len(entries) - 1) != failure.traceback:
        entry["traceback"] = failure.traceback
    entries.append(entry)
    while len(entries) > MOST_FAILURES:
        _drop(entries, 1)
    while len(entries) > 1 and _size(entries) > MOST_HISTORY_BYTES:
        _drop(entries, 1 if len(entries) > 2 else 0)
    return entries


def _drop(entries: list[Any], position: int) -> None:
    """Take one entry out; if the next one says "the same as before", it has to say it itself now."""
    dropped, following = entries[position], entries[position + 1]
    says_it = isinstance(dropped, dict) and "traceback" in dropped
    if says_it and isinstance(following, dict) and "traceback" not in following:
        entries[position + 1] = {**following, "traceback": _traceback_at(entries, position)}
    del entries[position]


def _traceback_at(entries: list[Any], position: int) -> str:
    for entry in reversed(entries[: position + 1]):
        if isinstance(entry, dict) and "traceback" in entry:
            return str(entry["traceback"])
    return ""


def _size(entries: list[Any]) -> float:
    try:
        return len(json.dumps(entries, default=repr, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError):  # somebody else's entries, which only a pickle holds
        return math.inf


# -- reading


def read_failures(options: dict[str, Any]) -> list[Failure]:
    """What the attempts at a message raised, the first one first; whatever else is in the option is passed over."""
    history = options.get(OPTION)
    if isinstance(history, list):
        return [
            Failure(
                _whole_number(entry.get("at")),
                _whole_number(entry.get("attempt")),
                str(entry.get("error", "")),
                _traceback_at(history, position),
            )
            for position, entry in enumerate(history)
            if isinstance(entry, dict)
        ]
    latest = options.get("traceback")
    if not isinstance(latest, str):
        return []
    # By a program that keeps the latest one only.
    error = latest.rstrip("\n").rpartition("\n")[2][:500]
    at_ms, attempt = _whole_number(options.get("requeue_timestamp")), _whole_number(options.get("retries"))
    return [Failure(at_ms, attempt, error, latest)]


def _whole_number(value: Any) -> int:
    return value if type(value) is int else 0
