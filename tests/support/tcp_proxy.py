"""A proxy of the tests' own between a client and a server on loopback: it can stall, and keeps what clients sent.

with tcp_proxy(server.port) as proxy:
    RabbitmqBroker(url=proxy.url_of(vhost)) ...
    proxy.stall()       nothing is passed on in either direction, and nobody is told
    proxy.go_on()       all that was held back is passed on
    proxy.sent          what each connection has sent to the server so far
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .rabbitmq_server import Vhost
from .waiting import PATIENCE_S


class TcpProxy:
    """A proxy that runs, on a free port.

    Parameters:
      server_port(int): Where it connects to, on loopback.

    Attributes:
      sent(list[bytearray]): What each connection has sent to the server, in the order in which they came.
    """

    def __init__(self, server_port: int) -> None:
        self.sent: list[bytearray] = []
        self._server_port = server_port
        self._sockets: list[socket.socket] = []
        self._passes_on = threading.Event()
        self._passes_on.set()
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, run, *arguments) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self._is_closed:
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self._server_port), PATIENCE_S)
            for each in (client, server):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += (client, server)
            sent = bytearray()
            self.sent.append(sent)
            self._start(self._pass_on, client, server, sent)
            self._start(self._pass_on, server, client, None)

    def _pass_on(self, source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(256 * 1024):
                self._passes_on.wait()
                if record is not None:
                    record += data
                target.sendall(data)
        self._passes_on.wait()  # the end of a connection is held back like anything else
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def url_of(self, vhost: Vhost) -> str:
        """The URL of a RabbitMQ virtual host, by way of this proxy."""
        return vhost.url.replace(f":{self._server_port}/", f":{self.port}/")

    def stall(self) -> None:
        """Pass on nothing from now on, as a network that lost its way; connections stay as they are."""
        self._passes_on.clear()

    def go_on(self) -> None:
        """Pass on everything again, first what was held back."""
        self._passes_on.set()

    def close(self) -> None:
        """End it, and all connections through it."""
        self._is_closed = True
        self.go_on()
        with contextlib.suppress(OSError):  # an accept that waits does not see its socket closed
            socket.create_connection(("127.0.0.1", self.port), PATIENCE_S).close()
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        for each in self._sockets:
            each.close()


@contextmanager
def tcp_proxy(server_port: int) -> Iterator[TcpProxy]:
    """A proxy for the time of the block."""
    proxy = TcpProxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
