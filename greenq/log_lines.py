"""How the processes of `greenq-worker` write their log: one event, one line, one write; as text or as JSON.

Every process writes for itself, to the standard error that all of them inherited or to
a file opened for appending. One write call a record keeps lines whole without anybody
in between, so a worker never waits for another process to read its log.

How lines stay whole there, and what happens if nobody reads them: log_writer.py.

Standard library only.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from . import logged_job
from .log_writer import LogWriter, Native

_STDERR = 2

# What a terminal or a line-wise reader would take for more than a character.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL |= {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_CONTROL_IN_TRACEBACKS = {code: escape for code, escape in _CONTROL.items() if code != 0x0A}

# Up to the last @ of the word: a password that should have been quoted may contain one.
_PASSWORD_IN_URL = re.compile(r"(://[^\s:@/]*):\S*@")
_PASSWORD_IN_QUERY = re.compile(r"([?&](?:password|passwd|secret|token)=)[^&\s'\"]*", re.IGNORECASE)


#: Levels of what is given to a record as ``extra``; what has more is printed.
_DEEPEST_EXTRA = 50

#: Bits of an integer there; a longer one is printed. From some thousands on Python refuses to write one down.
_LONGEST_INT_BITS = 1024

#: What every record has; anything else was given to it as ``extra``.
_USUAL = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_USUAL |= {logged_job.FIELD}


def print_by_lines() -> None:
    """Have what this process prints be written line by line, as on a terminal.

    Into a pipe or a file it would come by some kilobytes, long after, or never from a process that is killed.
    """
    with contextlib.suppress(AttributeError, ValueError):  # there is none, or the application has put its own there
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it may be any text file


def configure(
    *,
    level: int,
    log_file: str | None = None,
    log_format: str = "text",
    task_name: Callable[[], str] | None = None,
    native: Native | None = None,
    lock: Callable[[], Any] | None = None,
) -> None:
    """Have the root logger write lines.

    Parameters:
      level(int): The lowest level that is written.
      log_file(str): A file to append to. Default: standard error.
      log_format(str): ``text``, or ``json``: then Python's warnings, and what threads fail of, are logged too
        instead of being printed.
      task_name(Callable[[], str]): Names whoever logs. Default: the thread's name.
      native(Native): What to wait with, and to start threads with. Default: the usual names.
      lock(Callable[[], Lock]): Makes the locks of logging, which its holder may acquire again. Default: as Python
        does; where gevent has patched, who waits for such a lock of another thread's may wait until that thread
        waits for something itself.

    Raises:
      OSError: The file cannot be opened for writing.
    """
    handler = LineHandler(_STDERR if log_file is None else _open(log_file), native)
    if lock is not None:
        handler.lock = lock()
        logging._lock = lock()  # type: ignore[attr-defined]  # private, and gevent has made it one of greenlets
    if log_file is not None:
        handler.path = os.path.abspath(log_file)
    if log_format == "json":
        handler.setFormatter(JsonFormatter(task_name))
        logging.captureWarnings(True)
        threading.excepthook = _log_end_of_thread
    else:
        handler.setFormatter(LineFormatter(task_name))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)


def reopen() -> None:
    """Go on in a new file of the same name where the log's file was moved away.

    Raises:
      OSError: It cannot be opened for writing; the log goes on where it was.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineHandler):
            handler.reopen()


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is not SystemExit and ended.exc_value is not None:
        name = ended.thread.name if ended.thread is not None else "that is gone"
        logging.getLogger("threading").error("Thread %s failed.", name, exc_info=ended.exc_value)


def log_with_details(logger: logging.Logger, level: int, message: str, details: str) -> None:
    """Log a message, followed by details of many lines where a traceback would be."""
    if logger.isEnabledFor(level):
        record = logger.makeRecord(logger.name, level, "", 0, message, (), None)
        record.exc_text = details
        logger.handle(record)


def without_password(text: str) -> str:
    """The same text; what looks like a password in a URL is three stars."""
    if "://" not in text:
        return text
    return _PASSWORD_IN_QUERY.sub(r"\1***", _PASSWORD_IN_URL.sub(r"\1:***@", text))


class LineHandler(logging.Handler):
    """Writes each record to a file descriptor, as log_writer.py does it.

    Parameters:
      fd(int): Where to.
      native(Native): Of a process that gevent has patched: logging never switches greenlets. Default: the
        usual names.

    Attributes:
      path(str | None): Of the file, if it is one that can be opened anew.
    """

    def __init__(self, fd: int, native: Native | None = None) -> None:
        super().__init__()
        self.path: str | None = None
        self._fd = fd
        self._writer = LogWriter(fd, native or Native(), self._dropped)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:
            told = _told(record, error)
            try:
                text = self.format(told)
            except Exception:
                self.handleError(told)
                return
        self._writer.write(_encoded(text))

    def _dropped(self, count: int) -> bytes:
        record = logging.LogRecord(
            "greenq.log_writer",
            logging.WARNING,
            __file__,
            0,
            "%d records are missing here: nobody read the log.",
            (count,),
            None,
        )
        return _encoded(self.format(record))

    def flush(self) -> None:
        """Wait for what is not written yet, for half a second at most."""
        self._writer.flush()

    def reopen(self) -> None:
        """See reopen()."""
        if self.path is None or (
            os.path.exists(self.path) and os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        ):
            return
        fd = _open(self.path)
        try:
            os.dup2(fd, self._fd, inheritable=False)
        finally:
            os.close(fd)


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _told(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    """What is written of a record that cannot be formatted: all but its arguments, which may be those of a job."""
    told = copy.copy(record)
    message = record.msg if isinstance(record.msg, str) else f"A {type(record.msg).__name__}"
    place = f"{record.pathname}:{record.lineno}"
    told.msg, told.args = f"{message} (not formatted: {type(error).__name__}, logged at {place})", ()
    return told


class LineFormatter(logging.Formatter):
    """``[time] [PID n] [task] [logger] [LEVEL] message``, control characters escaped.

    Tracebacks follow on lines of their own. Passwords in URLs are masked in both.
    """

    def __init__(self, task_name: Callable[[], str] | None = None) -> None:
        super().__init__()
        self._task_name = task_name

    def format(self, record: logging.LogRecord) -> str:
        task = self._task_name() if self._task_name is not None else record.threadName
        message = without_password(record.getMessage()).translate(_CONTROL)
        text = (
            f"[{self.formatTime(record)}] [PID {record.process}] [{task}] "
            f"[{record.name}] [{record.levelname}] {message}"
        )
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        for details in (record.exc_text, record.stack_info):
            if details:
                text += "\n" + without_password(details.rstrip("\n")).translate(_CONTROL_IN_TRACEBACKS)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object: time (UTC), level, logger, pid, task, message.

    Where they apply: what the job is marked with in which it was made (see logged_job.py), exception,
    stack, and what was given to it as ``extra``. Passwords in URLs are masked.
    """

    def __init__(self, task_name: Callable[[], str] | None = None) -> None:
        super().__init__()
        self._task_name = task_name

    def format(self, record: logging.LogRecord) -> str:
        task = self._task_name() if self._task_name is not None else record.threadName
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        document: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "task": task,
            "message": without_password(record.getMessage()),
        }
        job = logged_job.current.get()
        document.update(getattr(record, logged_job.FIELD, None) or (job.fields if job is not None else ()))
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        for name, details in (("exception", record.exc_text), ("stack", record.stack_info)):
            if details:
                document[name] = without_password(details.rstrip("\n"))
        extra = {name: _plain(value) for name, value in vars(record).items() if name not in _USUAL}
        if extra:
            document["extra"] = extra
        return json.dumps(document)  # in ASCII: some readers end a line at U+2028


def _plain(value: Any) -> Any:
    """The same without passwords, where JSON can say it, otherwise how it is printed."""
    try:
        return _masked(value, _DEEPEST_EXTRA)
    except Exception:  # it contains itself, or it is the user's code that fails
        return _printed(value)


def _masked(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return without_password(value)
    if value is None:
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _LONGEST_INT_BITS else _printed(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, (dict, list, tuple)) and not levels:
        raise RecursionError
    if isinstance(value, dict):
        return {_key(key): _masked(each, levels - 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(each, levels - 1) for each in value]
    return _printed(value)


def _key(key: Any) -> str:
    return without_password(key) if isinstance(key, str) else _printed(key)


def _printed(value: Any) -> str:
    try:
        return without_password(repr(value))
    except Exception as error:
        return f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"
