"""Children that jobs fork: they begin as ordinary processes, and not as copies of a worker.

Without a word to them a signal for a child would be obeyed as the worker's, and what only the
worker and somebody else have in common, a pipe, would stay open as long as the child lives. What is
done about the greenlets: see greenlets.py.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable, Iterable


def leave_alone(signals: Iterable[int], fds: Callable[[], Iterable[int]]) -> None:
    """Give all children that this process forks from now on Python's own handlers, and nothing to read or to write.

    Parameters:
      signals(Iterable[int]): Those that this process handles. INT is one of them anyway.
      fds(Callable): The descriptors that lead to nowhere in a child. Called there.
    """
    handled = [*signals]

    def hold(how: int) -> None:
        # Python forgets a signal that reaches a child before its first line, and what comes a little later
        # would be obeyed as this process's.
        signal.pthread_sigmask(how, handled)

    def begin() -> None:
        faulthandler.disable()
        for signum in handled:
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in fds():
            os.dup2(nothing, fd, inheritable=False)
        os.close(nothing)
        hold(signal.SIG_UNBLOCK)

    os.register_at_fork(
        before=lambda: hold(signal.SIG_BLOCK), after_in_parent=lambda: hold(signal.SIG_UNBLOCK), after_in_child=begin
    )
