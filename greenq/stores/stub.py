"""Values in memory, for tests: of one process, and gone with it."""

from __future__ import annotations

from ..clock import now_ms
from ..runtime import current
from .values import Bell, ValueStore, Watch

_PURGE_EVERY_MS = 1000


class StubValues(ValueStore):
    """Keeps values in a dict. Nothing here waits."""

    def __init__(self) -> None:
        self._guard = current().native_lock()
        self._values: dict[str, tuple[bytes, int]] = {}
        self._purge_at = 0
        self._bells: dict[str, list[Bell]] = {}

    def put(self, key: str, data: bytes, ttl_ms: int) -> None:
        now = now_ms()
        with self._guard:
            if now >= self._purge_at:
                self._purge_at = now + _PURGE_EVERY_MS
                for expired in [each for each, (_, expires) in self._values.items() if expires <= now]:
                    del self._values[expired]
            self._values[key] = (data, now + ttl_ms)
            bells = list(self._bells.get(key, ()))
        for bell in bells:
            bell()

    def get(self, key: str) -> bytes | None:
        data, expires = self._values.get(key, (None, 0))
        return data if expires > now_ms() else None

    def delete(self, key: str) -> None:
        with self._guard:
            self._values.pop(key, None)

    def clear(self) -> None:
        """Remove all values."""
        with self._guard:
            self._values.clear()

    def watch(self, key: str, bell: Bell) -> Watch:
        with self._guard:
            self._bells.setdefault(key, []).append(bell)
        return _Told(self, key, bell)

    def _forget(self, key: str, bell: Bell) -> None:
        with self._guard:
            bells = self._bells[key]
            bells.remove(bell)
            if not bells:
                del self._bells[key]


class _Told(Watch):
    def __init__(self, store: StubValues, key: str, bell: Bell) -> None:
        super().__init__(store, key)
        self._values, self._bell = store, bell

    def close(self) -> None:
        self._values._forget(self._key, self._bell)

    def pause_s(self) -> float:
        return 3600.0  # whoever puts a value in memory rings
