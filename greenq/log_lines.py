"""How the processes of `greenq-worker` write their log: one event, one line, one write; as text or as JSON.

Every process writes for itself, to the standard error that all of them inherited or to
a file opened for appending. One write call a record keeps lines whole without anybody
in between, so a worker never waits for another process to read its log.

A file takes each write whole, however long. A pipe takes 4 KiB whole (PIPE_BUF), and of a longer
write what it has room for; then it may be another process's turn. So whoever writes to a pipe, or
to a socket as that of systemd's journal, locks it first. That is a POSIX record lock on the pipe
itself: nobody has to be handed anything, and the lock of a process that dies is gone.

Standard library only.
"""

from __future__ import annotations

import copy
import fcntl
import json
import logging
import math
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from typing import Any

from . import logged_job

_STDERR = 2

#: Seconds that a line waits for another process to end its own, and between two looks. Who is
#: stopped, or has a reader that does not read, would be waited for in vain.
_LOCK_WITHIN_S = 1.0
_LOCK_LOOK_EVERY_S = 0.0005

# What a terminal or a line-wise reader would take for more than a character.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL |= {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_CONTROL_IN_TRACEBACKS = {code: escape for code, escape in _CONTROL.items() if code != 0x0A}

# Up to the last @ of the word: a password that should have been quoted may contain one.
_PASSWORD_IN_URL = re.compile(r"(://[^\s:@/]*):\S*@")
_PASSWORD_IN_QUERY = re.compile(r"([?&](?:password|passwd|secret|token)=)[^&\s'\"]*", re.IGNORECASE)


#: Levels of what is given to a record as ``extra``; what has more is printed.
_DEEPEST_EXTRA = 50

#: What every record has; anything else was given to it as ``extra``.
_USUAL = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_USUAL |= {logged_job.FIELD}


def configure(
    *,
    level: int,
    log_file: str | None = None,
    log_format: str = "text",
    task_name: Callable[[], str] | None = None,
    pause: Callable[[float], object] = time.sleep,
    lock: Callable[[], Any] | None = None,
) -> None:
    """Have the root logger write lines.

    Parameters:
      level(int): The lowest level that is written.
      log_file(str): A file to append to. Default: standard error.
      log_format(str): ``text``, or ``json``: then Python's warnings, and what threads fail of, are logged too
        instead of being printed.
      task_name(Callable[[], str]): Names whoever logs. Default: the thread's name.
      pause(Callable[[float], object]): Waits for so many seconds; see LineHandler.
      lock(Callable[[], Lock]): Makes the locks of logging, which its holder may acquire again. Default: as Python
        does; where gevent has patched, who waits for such a lock of another thread's may wait until that thread
        waits for something itself.

    Raises:
      OSError: The file cannot be opened for writing.
    """
    handler = LineHandler(_STDERR if log_file is None else _open(log_file), pause)
    if lock is not None:
        handler.lock = lock()
        logging._lock = lock()  # type: ignore[attr-defined]
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
    """Writes each record to a file descriptor with one call.

    Lines of several processes that write to one pipe stay whole too, but for one case: who
    has waited for a second for another's line to end (its writer was stopped half-way, or nobody
    reads) goes on, into the middle of it. What others than these handlers write is not held up.

    Parameters:
      fd(int): Where to.
      pause(Callable[[float], object]): Waits for so many seconds. It must not switch greenlets:
        logging never does.

    Attributes:
      path(str | None): Of the file, if it is one that can be opened anew.
    """

    def __init__(self, fd: int, pause: Callable[[float], object] = time.sleep) -> None:
        super().__init__()
        self.path: str | None = None
        self._fd = fd
        self._pause = pause
        self._lock_within_s = _LOCK_WITHIN_S
        self._is_locked = _is_pipe_or_socket(fd)

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
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        holds = self._is_locked and self._take_turn()
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            # A full disk, a reader that went away: there is nowhere left to say so, and a
            # log line is no reason to fail a job.
            return
        finally:
            if holds:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

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

    def _take_turn(self) -> bool:
        """Lock the pipe; False if that cannot be done, or takes too long."""
        ends_at = 0.0
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # POSIX lets a system say either
                pass
            except OSError:
                self._is_locked = False  # macOS locks files only
                return False
            else:
                self._lock_within_s = _LOCK_WITHIN_S
                return True
            now = time.monotonic()
            ends_at = ends_at or now + self._lock_within_s
            if now >= ends_at:
                self._lock_within_s = 0.0  # not again a second for each line, as long as that lasts
                return False
            self._pause(_LOCK_LOOK_EVERY_S)


def _told(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    """What is written of a record that cannot be formatted: all but its arguments, which may be those of a job."""
    told = copy.copy(record)
    message = record.msg if isinstance(record.msg, str) else f"A {type(record.msg).__name__}"
    place = f"{record.pathname}:{record.lineno}"
    told.msg, told.args = f"{message} (not formatted: {type(error).__name__}, logged at {place})", ()
    return told


def _is_pipe_or_socket(fd: int) -> bool:
    try:
        kind = os.fstat(fd).st_mode
    except OSError:  # standard error may be closed
        return False
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)


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
    if value is None or isinstance(value, int):
        return value
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
