"""Wakes consumers that wait, in this process and in others, when a message was stored.

Beside the file greenq.db there is a directory greenq.db.d/:

    4711-5f3a9c20.sock        a datagram socket of each process that consumes
    default~4711-5f3a9c20     this process has a consumer of "default" that waits

A producer lists it after a commit and sends the queue's name to those that wait for it, so a
busy system sends nothing. Nothing depends on any of it: whoever waits also looks for
itself now and then, and where unix sockets or /proc are missing, more often.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from typing import Any

from ...runtime import Event, current

#: Seconds between two looks of a consumer that is woken, and of one that cannot be.
LOOK_EVERY_S = 1.0
LOOK_OFTEN_EVERY_S = 0.05

# A socket's address has about 107 bytes, a path may have more: so it is given by way of an
# open directory.
_BY_DESCRIPTOR = "/proc/self/fd"
_LONGEST_MARK = 200
_STOP = b"~"


class WakeUp:
    """The sender and the receiver of one process.

    Parameters:
      path(str): Of the database; the directory's is the same with ".d".
    """

    def __init__(self, path: str) -> None:
        self._directory = path + ".d"
        self._runtime = current()
        self._guard = self._runtime.native_lock()
        self._waiting: dict[str, list[Event]] = {}
        self._descriptor: int | None = None
        self._name = ""
        self._receiver: Any = None
        self._sender: Any = None
        self._is_closed = False

    @property
    def look_every_s(self) -> float:
        """How often a consumer that waits has to look for itself."""
        return LOOK_OFTEN_EVERY_S if self._receiver is None else LOOK_EVERY_S

    # -- who waits

    def listen(self) -> None:
        """Receive from other processes, where that can be done."""
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):
            self._open_directory(create=True)
            receiver = self._runtime.native_socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                receiver.bind(self._address(name + ".sock"))
            except BaseException:
                receiver.close()
                raise
            self._name, self._receiver = name, receiver
            self._runtime.start_native_thread(self._receive, name="greenq-wake-up")

    @contextlib.contextmanager
    def waiting(self, queue_name: str, event: Event) -> Iterator[None]:
        """Have this event set while inside, whenever a message is stored in this queue.

        What was stored before is not told: look once more after entering.
        """
        with self._guard:
            self._waiting.setdefault(queue_name, []).append(event)
            self._mark(queue_name)
        try:
            yield
        finally:
            with self._guard:
                events = self._waiting[queue_name]
                events.remove(event)
                if not events:
                    del self._waiting[queue_name]
                    self._unmark(queue_name)

    def _mark(self, queue_name: str) -> None:
        if self._receiver is not None:
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(_mark_of(queue_name) + self._name, flags, 0o600, dir_fd=self._descriptor))

    def _unmark(self, queue_name: str) -> None:
        if self._receiver is not None:
            self._unlink(_mark_of(queue_name) + self._name)

    def _receive(self) -> None:
        receiver = self._receiver
        while not self._is_closed:
            try:
                queue_name = receiver.recv(4096)
            except OSError:
                break
            if queue_name != _STOP:
                self._wake(queue_name.decode("utf-8", "replace"))
        receiver.close()

    def _wake(self, queue_name: str) -> None:
        if queue_name in self._waiting:
            with self._guard:
                for event in self._waiting.get(queue_name, ()):
                    event.set()

    # -- who is told

    def notify(self, queue_names: set[str]) -> None:
        """Wake those who wait for these queues. Called in a native thread; does not wait."""
        for queue_name in queue_names:
            self._wake(queue_name)
        try:
            if self._descriptor is None:
                self._open_directory(create=False)
            names = os.listdir(self._descriptor)
        except OSError:
            return  # nobody has ever consumed here
        for queue_name in queue_names:
            mark = _mark_of(queue_name)
            for name in names:
                if name.startswith(mark) and name != mark + self._name:
                    self._send(queue_name, name, name[len(mark) :])

    def _send(self, queue_name: str, mark: str, receiver: str) -> None:
        if self._sender is None:
            self._sender = self._runtime.native_socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        try:
            self._sender.sendto(queue_name.encode()[:4096], self._address(receiver + ".sock"))
        except (ConnectionRefusedError, FileNotFoundError):
            # It was killed. Its names are its own, so nobody else can be using them.
            self._unlink(mark)
            self._unlink(receiver + ".sock")
        except OSError:
            pass  # its buffer is full: it has enough to wake up for

    # -- the directory

    def _open_directory(self, *, create: bool) -> None:
        if not os.path.isdir(_BY_DESCRIPTOR):
            raise FileNotFoundError(_BY_DESCRIPTOR)
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._directory, 0o700)
        if self._descriptor is None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._directory, flags)

    def _address(self, name: str) -> str:
        return f"{_BY_DESCRIPTOR}/{self._descriptor}/{name}"

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor)

    def close(self) -> None:
        """End the receiver and take its name away; to be called once the store is closed."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._receiver is not None:
            for queue_name in list(self._waiting):
                self._unmark(queue_name)
            with contextlib.suppress(OSError), self._runtime.native_socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
                own.setblocking(False)
                own.sendto(_STOP, self._address(self._name + ".sock"))
            self._unlink(self._name + ".sock")
        if self._sender is not None:
            self._sender.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def forget(self) -> None:
        """Let go, in a forked child, of what is its parent's."""
        for each in (self._receiver, self._sender):
            if each is not None:
                each.close()
        if self._descriptor is not None:
            os.close(self._descriptor)


def _mark_of(queue_name: str) -> str:
    # Two long names that begin alike are woken together, which does no harm.
    return queue_name.replace("/", "_")[:_LONGEST_MARK] + "~"
