"""A proxy of the tests' own between clients and a server on loopback: a network that can fail.

    with tcp_proxy(server.port) as proxy:
        client of proxy.url_of(server.url) ...
        proxy.stall(TO_SERVER)      nothing is passed on in this direction, or without one in both, and nobody is told
        proxy.go_on()               all that was held back is passed on
        proxy.cut()                 every connection ends with a reset, as of a router that forgot it
        proxy.sent                  what each connection has sent to the server so far

New connections are accepted at any time; while the server is away they are reset.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .waiting import PATIENCE_S

TO_SERVER, TO_CLIENT = "to the server", "to the client"


class _Flow:
    """One direction of a connection.

    Attributes:
      held(bytes): What was read from one end and not yet written to the other.
      passed(bytearray): What was written to the other.
    """

    def __init__(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        self.source, self.target, self.direction = source, target, direction
        self.held = b""
        self.passed = bytearray()

    def read(self) -> bool:
        """Take what is there; False if this was the end."""
        self.held = self.source.recv(1 << 16)
        return bool(self.held)

    def write(self) -> None:
        count = self.target.send(self.held)
        if self.direction == TO_SERVER:
            self.passed += self.held[:count]
        self.held = self.held[count:]


class TcpProxy:
    """A proxy that runs, in a thread of its own.

    Parameters:
      server_port(int): Where it leads to.

    Attributes:
      port(int): Where it listens.
      sent(list[bytearray]): What each connection has sent to the server, in the order in which they came.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent: list[bytearray] = []
        self._flows: list[_Flow] = []
        self._stalled: set[str] = set()
        self._is_closed = False
        # The thread alone touches sockets; the others ask it to, and ring.
        self._orders: deque[Callable[[], None]] = deque()
        self._bell, self._ringer = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()

    def url_of(self, url: str) -> str:
        """The URL of something on the server, by way of this proxy."""
        return url.replace(f":{self._server_port}/", f":{self.port}/")

    # -- what befalls it

    def stall(self, *directions: str) -> None:
        """Pass on nothing in these directions, or in both, until it goes on. Connections stay as they are."""
        self._do(lambda: self._stalled.update(directions or (TO_SERVER, TO_CLIENT)))

    def go_on(self) -> None:
        """Pass on everything, first what was held back."""
        self._do(self._stalled.clear)

    def cut(self) -> None:
        """Reset all connections there are."""
        self._do(self._reset_all)

    def close(self) -> None:
        """Cut all connections, and accept no more."""
        self._do(self._end)
        self._thread.join(PATIENCE_S)
        for each in (self._listener, self._bell, self._ringer):
            each.close()

    def _do(self, order: Callable[[], None]) -> None:
        is_done = threading.Event()
        self._orders += (order, is_done.set)
        self._ringer.send(b"!")
        assert is_done.wait(PATIENCE_S)

    # -- in its thread

    def _run(self) -> None:
        while not self._is_closed:
            moving = [each for each in self._flows if each.direction not in self._stalled]
            readable, writable, _ = select.select(
                [self._bell, self._listener, *(each.source for each in moving if not each.held)],
                [each.target for each in moving if each.held],
                [],
            )
            for flow in moving:
                if flow in self._flows and (flow.source in readable or flow.target in writable):
                    self._move(flow, flow.source in readable and not flow.held)
            if self._listener in readable:
                self._accept()
            if self._bell in readable:
                self._bell.recv(1)
                while self._orders:
                    self._orders.popleft()()

    def _move(self, flow: _Flow, reads: bool) -> None:
        try:
            if reads and not flow.read():
                self._end_connection(flow)
                return
            if flow.held:
                flow.write()
        except BlockingIOError:
            pass  # the other end is full; it is written once that is ready
        except OSError:
            self._end_connection(flow)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._server_port), PATIENCE_S)
        except OSError:
            _reset(client)
            return
        for each in (client, server):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._flows += [_Flow(client, server, TO_SERVER), _Flow(server, client, TO_CLIENT)]
        self.sent.append(self._flows[-2].passed)

    def _end_connection(self, flow: _Flow) -> None:
        self._flows = [each for each in self._flows if flow.source not in (each.source, each.target)]
        flow.source.close()
        flow.target.close()

    def _reset_all(self) -> None:
        for each in self._flows:
            _reset(each.source)  # each socket is the source of one of the two directions
        self._flows = []

    def _end(self) -> None:
        self._reset_all()
        self._is_closed = True


def _reset(connection: socket.socket) -> None:
    # What does not linger is not said goodbye to.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def tcp_proxy(server_port: int) -> Iterator[TcpProxy]:
    """A proxy for the time of the block."""
    proxy = TcpProxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
