"""How a process that is measured tells the benchmark what it saw.

By one line of JSON through a named pipe for each thing that the benchmark waits for; its
reading end is in processes.py. Times are those of the monotonic clock, which all processes
of a machine share.
"""

from __future__ import annotations

import json
import os
import time

#: The pipe to the benchmark.
PIPE_VARIABLE = "LOADTEST_PIPE"
#: How many jobs the benchmark waits for.
COUNT_VARIABLE = "LOADTEST_COUNT"

#: As the benchmark says.
expected = int(os.environ.get(COUNT_VARIABLE, "0"))


def tell(**what: float | str) -> None:
    """Write a line to the benchmark."""
    # If the benchmark was killed there is nobody to read, and a worker that waited for somebody would wait for ever.
    pipe = os.open(os.environ[PIPE_VARIABLE], os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.set_blocking(pipe, True)
        os.write(pipe, json.dumps(what).encode() + b"\n")
    finally:
        os.close(pipe)


class Stretch:
    """Counts jobs; tells when the first begins and when the last ends, and starts anew then.

    Parameters:
      count(int): How many jobs a stretch has.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._begun = 0
        self._ended = 0
        self._began_at = 0.0
        self._cpu_s = 0.0

    def begin(self) -> None:
        """A job begins."""
        if not self._begun:
            tell(began=time.monotonic())
            self._began_at, self._cpu_s = time.monotonic(), time.process_time()
        self._begun += 1

    def end(self) -> None:
        """A job ends."""
        self._ended += 1
        if self._ended == self._count:
            now = time.monotonic()
            tell(ended=now, seconds=now - self._began_at, cpu_s=time.process_time() - self._cpu_s, pid=os.getpid())
            # What has begun belongs to the next stretch already.
            self._begun -= self._count
            self._ended = 0
            if self._begun:
                self._began_at, self._cpu_s = now, time.process_time()
