"""A middleware that writes down every hook that is called."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from greenq.middleware import Middleware

HOOKS = sorted(name for name in vars(Middleware) if name.startswith(("before_", "after_")))


class Call(NamedTuple):
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Recorder(Middleware):
    """Records hooks in the order in which they are called.

    Parameters:
      only: Names of the hooks to record. Default: all of them.
    """

    def __init__(self, *only: str) -> None:
        self.calls: list[Call] = []
        self._only = only or tuple(HOOKS)
        self._changed = threading.Condition()

    @property
    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def named(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.name == name]

    def wait_for(self, name: str, count: int = 1, timeout_s: float = 10) -> None:
        """Wait until a hook has been called so many times; fail if that does not happen."""
        with self._changed:
            called = self._changed.wait_for(lambda: self.names.count(name) >= count, timeout_s)
        assert called, f"{name} was called {self.names.count(name)} times; so far came {self.names}"

    def note(self, call: Call) -> None:
        if call.name in self._only:
            with self._changed:
                self.calls.append(call)
                self._changed.notify_all()


def _recording(name: str) -> Any:
    def hook(self: Recorder, broker: Any, *args: Any, **kwargs: Any) -> None:
        self.note(Call(name, args, kwargs))

    return hook


for _name in HOOKS:
    setattr(Recorder, _name, _recording(_name))

#: The hooks that follow one message, in a worker or on its way into the broker.
MESSAGE_HOOKS = [name for name in HOOKS if name.endswith(("_message", "_ack", "_nack", "_enqueue"))]
