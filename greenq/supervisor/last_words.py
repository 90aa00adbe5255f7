"""What a worker that cannot speak any more says all the same: the stacks of its threads, in a file without a name.

The worker has the interpreter's fault handler write there: at a fatal signal by itself, and when
it is asked by ASK. That is C code in a signal handler, so it works while other C code holds the
interpreter and no line of Python can run. The supervisor reads the file when the worker is dead.
"""

from __future__ import annotations

import os
import signal

from ..nameless import nameless_fd

#: Asks a worker for its stacks.
ASK = signal.SIGQUIT

#: Bytes that are kept of the beginning and of the end. The thread that runs the jobs is told last.
_HEAD, _TAIL = 4096, 16384


class LastWords:
    """The supervisor's side: the file.

    Attributes:
      fd(int): Its descriptor, to be inherited by the worker.

    Raises:
      OSError: There is no room for it.
    """

    def __init__(self) -> None:
        self.fd = nameless_fd("greenq-words")
        self._start = 0

    def begin(self) -> None:
        """Leave out what is there already: somebody else may have asked."""
        self._start = os.fstat(self.fd).st_size

    def read(self) -> str:
        """What was said since, the middle left out where it is long; empty if nothing was."""
        end = os.fstat(self.fd).st_size
        if end - self._start <= _HEAD + _TAIL:
            said = os.pread(self.fd, end - self._start, self._start)
        else:
            said = os.pread(self.fd, _HEAD, self._start) + b"\n  ...\n" + os.pread(self.fd, _TAIL, end - _TAIL)
        return said.decode("utf-8", "replace").strip()

    def close(self) -> None:
        os.close(self.fd)
