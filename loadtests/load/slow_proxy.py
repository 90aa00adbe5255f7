"""A proxy between clients and a server on loopback that can be slow: a network with a way to go.

    with slow_proxy(server.port) as proxy:
        client of port proxy.port ...
        proxy.delay_s = 0.025         everything arrives so much later, in each direction

Only later, not less of it: what was sent meanwhile is under way at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class SlowProxy:
    """A proxy that runs, in a thread of its own.

    Parameters:
      server_port(int): Where it leads to.

    Attributes:
      delay_s(float): By how much later everything arrives from now on, in each direction.
      port(int): Where it listens.
    """

    def __init__(self, server_port: int) -> None:
        self.delay_s = 0.0
        self.port = 0
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._is_open = threading.Event()
        self._is_over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()
        self._is_open.wait()

    def close(self) -> None:
        """End all connections, and accept no more."""
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()
        self._loop.close()

    # -- in its thread

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_open.set()
        await self._is_over.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connect(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        writers = [to_client]
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
            writers.append(to_server)
            await asyncio.gather(self._pass_on(from_client, to_server), self._pass_on(from_server, to_client))
        except OSError:
            pass  # an end went away, and now the other end sees it too
        finally:
            for each in writers:
                each.close()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        reading = asyncio.ensure_future(self._read(source, under_way))
        try:
            while True:
                due_at, data = await under_way.get()
                if (early_s := due_at - self._loop.time()) > 0:
                    await asyncio.sleep(early_s)
                if not data:
                    target.write_eof()
                    return
                target.write(data)
                await target.drain()
        finally:
            reading.cancel()

    async def _read(self, source: asyncio.StreamReader, under_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = await source.read(1 << 16)
            except OSError:
                data = b""
            under_way.put_nowait((self._loop.time() + self.delay_s, data))


@contextlib.contextmanager
def slow_proxy(server_port: int) -> Iterator[SlowProxy]:
    """A proxy for the time of the block."""
    proxy = SlowProxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
