"""Heartbeats of a process whose hub is busy: a job that computes must not cost the connection.

pika sends heartbeats from the hub. When that is late, a native thread sends them instead, as
whole frames between others: whoever writes to the socket, or closes it, holds a lock meanwhile.
Not over TLS, whose state is in the hub's hands.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.heartbeat import HeartbeatChecker

from ...runtime import Runtime
from .wire import BulkReading

_HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

#: In parts of the heartbeat's time: pika sends after a half of it without a word; we, when it did
#: not; and we look that often. The server gives up after two.
_LATE = 0.6
_LOOK = 0.15

#: Seconds that the hub gets after a stall to read what came before the server is given up.
_READ_S = 1.0


class Pulsing(BulkReading):
    """A connection that a native thread may send heartbeats for."""

    def __init__(self, *args: Any, lock: Any, **kwargs: Any) -> None:
        self.wire_lock = lock
        self._sent_before = -1
        self._silent_since = 0.0
        super().__init__(*args, **kwargs)

    def _proto_connection_made(self, transport: Any) -> None:
        # Everything that writes, or closes, so that no frame gets into another, nor into the
        # socket that has the same number next.
        transport._produce = self._locked(transport._produce)
        transport._close_and_finalize = self._locked(transport._close_and_finalize)
        super()._proto_connection_made(transport)

    def _locked(self, call: Callable[[], None]) -> Callable[[], None]:
        def locked() -> None:
            with self.wire_lock:
                call()

        return locked

    def write_frames(self, data: bytes) -> bool:
        with self.wire_lock:
            return super().write_frames(data)

    def _create_heartbeat_checker(self) -> Any:
        heartbeat = self.params.heartbeat
        return _PatientChecker(self, heartbeat) if heartbeat else None

    def pulse(self) -> float:
        """Send a heartbeat if nobody else did; answer after how many seconds to look again.

        Called by a native thread.
        """
        heartbeat: float = self.params.heartbeat or 0
        if not heartbeat:
            return 60.0
        sent = self.bytes_sent
        now = time.monotonic()
        if sent != self._sent_before:
            self._sent_before, self._silent_since = sent, now
        elif now - self._silent_since >= _LATE * heartbeat:
            self._silent_since = now
            self._send_heartbeat()
        return _LOOK * heartbeat

    def _send_heartbeat(self) -> None:
        with self.wire_lock:
            transport = self._transport
            if (
                type(transport) is _AsyncPlaintextTransport
                and transport._state == transport._STATE_ACTIVE
                and not transport._tx_buffers
            ):
                try:
                    os.write(transport._sock.fileno(), _HEARTBEAT_FRAME)
                except OSError:
                    return  # full, or broken, which pika finds out


class _PatientChecker(HeartbeatChecker):  # type: ignore[misc] # pika has no types
    """Looks once more: after a stall, timers are due before what came meanwhile was read."""

    def _check_heartbeat(self) -> None:
        if self._has_received_data:
            super()._check_heartbeat()
        else:
            self._check_timer = self._connection._adapter_call_later(_READ_S, super()._check_heartbeat)


class Pulse:
    """The native thread.

    Parameters:
      runtime(Runtime): The world.
      connections: Answers the connections that are open.
      on_failure: Called with an error that nobody expected.
    """

    def __init__(
        self, runtime: Runtime, connections: Callable[[], list[Any]], on_failure: Callable[[Exception], None]
    ) -> None:
        self._connections = connections
        self._on_failure = on_failure
        # Held while it is to go on: releasing it ends a wait at once.
        self._running = runtime.native_lock()
        self._running.acquire()
        runtime.start_native_thread(self._run, name="greenq-heartbeat")

    def stop(self) -> None:
        """End it. Safe to call twice; does not wait."""
        if self._running.locked():
            self._running.release()

    def _run(self) -> None:
        wait_s = 0.1
        while not self._running.acquire(True, wait_s):
            try:
                wait_s = min((each.pulse() for each in self._connections()), default=1.0)
            except Exception as error:
                self._on_failure(error)
                wait_s = 1.0
