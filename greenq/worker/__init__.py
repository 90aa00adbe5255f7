"""The runtime: takes messages from a broker, runs their actors, settles them.

    consumer -> slot (processor) -> completer

A consumer fetches for free slots, a slot carries one message at a time through the
processor to a verdict, a completer writes verdicts in batches. The rooms read the same
on greenlets and on native threads; see ../runtime.py.
"""

from __future__ import annotations

from .consumer import ConsumerThread
from .slots import WorkerThread
from .worker import Worker

__all__ = ["ConsumerThread", "Worker", "WorkerThread"]
