"""The control sockets of the supervisors of this machine: where they are, and how one is asked.

    $XDG_RUNTIME_DIR/greenq/PID.sock, else /tmp/greenq-UID/PID.sock; or where --control says

A request is one JSON line. The answer is JSON lines, the last of which has ``"end": true``; then the
connection is closed. Only the user that runs the supervisor may connect: the socket, and the directory
that greenq makes for it, are that user's alone.

Standard library only. Who answers: supervisor/control.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Any

from .json_lines import Decoder, encode

_SUFFIX = ".sock"

#: Bytes; some systems take no more, others a few.
_LONGEST_PATH = 100

#: Connections that may wait to be accepted.
_BACKLOG = 16

#: Seconds between two tries to become one of them.
_CONNECT_EVERY_S = 0.02


class ControlError(Exception):
    """A control socket cannot be had, or asked; the text says why and what to do."""


# -- where they are


def directories() -> list[str]:
    """The directories in which this user's supervisors have theirs, the preferred one first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    own = [os.path.join(runtime, "greenq")] if runtime and os.path.isdir(runtime) else []
    return [*own, f"/tmp/greenq-{os.geteuid()}"]


def check_private(directory: str) -> None:
    """Make sure that this is a directory of this user's alone.

    Raises:
      ControlError: It is somebody else's, open to others, or no directory at all.
      OSError: It cannot be looked at.
    """
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise ControlError(f"{directory} is no directory: remove it, or name another socket with --control.")
    if found.st_uid != os.geteuid():
        raise ControlError(f"{directory} belongs to another user: name another socket with --control.")
    if found.st_mode & 0o077:
        raise ControlError(f"{directory} is open to other users: chmod 700 it, or name another socket with --control.")


def found() -> list[str]:
    """The control sockets of this user's supervisors that run. Those of dead ones are removed."""
    paths = []
    for directory in directories():
        try:
            check_private(directory)
            names = sorted(os.listdir(directory))
        except (OSError, ControlError):
            continue
        for name in names:
            path = os.path.join(directory, name)
            if not name.endswith(_SUFFIX):
                continue
            if _is_answered(path):
                paths.append(path)
            elif not _lives(name.removesuffix(_SUFFIX)):
                with contextlib.suppress(OSError):
                    os.unlink(path)
    return paths


def _is_answered(path: str) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except BlockingIOError:
            return True  # more have asked than it has come to: it is stopped, or busy
        except OSError:
            return False
        return True


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


class ControlSocket:
    """A listening control socket, from ``__enter__`` to ``__exit__``.

    Parameters:
      path(str): Of the socket. Default: one named by the process's id, in the first of ``directories()``
        that can be had.

    Attributes:
      path(str): Where it is, once it is entered.
      socket(socket): It itself. Never blocks.
    """

    def __init__(self, path: str | None = None) -> None:
        self._wanted = path
        self._owner = -1
        self._inode: tuple[int, int] | None = None
        self.path = ""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> ControlSocket:
        """Listen.

        Raises:
          ControlError: It cannot be had.
        """
        try:
            self._listen()
        except BaseException:
            self.socket.close()
            raise
        return self

    def _listen(self) -> None:
        self.path = self._wanted if self._wanted is not None else self._default()
        self._remove_stale()
        # Nobody else may connect, not even between two of these calls.
        before = os.umask(0o177)
        try:
            self.socket.bind(self.path)
        except OSError as error:
            # A path of more than about a hundred bytes has no errno.
            reason = error.strerror or error
            raise ControlError(
                f"The control socket {self.path} cannot be made: {reason}. Name another with --control."
            ) from error
        finally:
            os.umask(before)
        found = os.stat(self.path)
        self._inode, self._owner = (found.st_dev, found.st_ino), os.getpid()
        self.socket.listen(_BACKLOG)
        self.socket.setblocking(False)

    def _default(self) -> str:
        problems = []
        for directory in directories():
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, 0o700)
                check_private(directory)
            except ControlError as error:
                problems.append(str(error))
            except OSError as error:
                problems.append(f"{directory} cannot be made: {error.strerror}. Name another socket with --control.")
            else:
                path = os.path.join(directory, f"{os.getpid()}{_SUFFIX}")
                if len(os.fsencode(path)) <= _LONGEST_PATH:
                    return path
                problems.append(f"The path {path} is too long for a socket. Name another with --control.")
        raise ControlError(problems[-1])

    def _remove_stale(self) -> None:
        try:
            mode = os.lstat(self.path).st_mode
        except OSError:
            return  # as it should be; or it cannot be made either
        if not stat.S_ISSOCK(mode):
            raise ControlError(f"{self.path} is no socket, and was left alone. Name another with --control.")
        if _is_answered(self.path):
            raise ControlError(f"The control socket {self.path} is in use by another greenq-worker. Name another.")
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def __exit__(self, *exc_info: object) -> None:
        """Remove it, if it is still this process's own."""
        self.socket.close()
        if self._owner != os.getpid():
            return
        with contextlib.suppress(OSError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self.path)


# -- asking


def ask(path: str, request: Mapping[str, Any], *, timeout_s: float) -> Iterator[dict[str, Any]]:
    """The documents of the answer, as they come; the last one has ``"end": true``.

    Parameters:
      path(str): Of the socket.
      request(Mapping): What is asked.
      timeout_s(float): Seconds in which all of it has to be there.

    Raises:
      ControlError: Nobody listens there, or the answer does not come.

    Blocks.
    """
    ends_at = time.monotonic() + timeout_s
    decoder = Decoder()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.settimeout(timeout_s)
            _connect(client, path, ends_at)
            client.sendall(encode(dict(request)))
            while True:
                client.settimeout(max(0.001, ends_at - time.monotonic()))
                data = client.recv(1 << 20)
                if not data:
                    raise ControlError(f"The supervisor at {path} ended its answer early: it is busy, or has ended.")
                for document in decoder.feed(data):
                    yield document
                    if document.get("end"):
                        return
        except TimeoutError as error:
            raise ControlError(
                f"The supervisor at {path} does not answer: it is stopped, or its machine is overloaded."
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise ControlError(f"No supervisor listens at {path}: it has ended.") from error
            raise ControlError(f"The supervisor at {path} cannot be asked: {error.strerror or error}.") from error


def _connect(client: socket.socket, path: str, ends_at: float) -> None:
    """Connect; wait while as many wait already as may: with a timeout, that is an error at once, and no wait."""
    while True:
        try:
            client.connect(path)
            return
        except BlockingIOError:
            if time.monotonic() >= ends_at:
                raise TimeoutError from None
            time.sleep(_CONNECT_EVERY_S)  # nobody tells when there is room again
