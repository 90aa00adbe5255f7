"""Which job asks, and how long it may still run. For actors; the limits are kept by worker/deadlines.py."""

from __future__ import annotations

import time
from typing import Any

from .cpu import of_context
from .runtime import current


def job_here() -> Any:
    """The job whose actor's code calls this, with its ``message``; None outside of one. Does not switch."""
    return current().guard_here() or of_context.get()


def remaining_ms() -> float | None:
    """How many milliseconds the job that calls this has left until its time limit; 0.0 once that has passed.

    None outside of a job, and in one without a limit. In async actors as well, in the tasks that they start, and
    in what they hand to ``asyncio.to_thread()``; not in threads and greenlets that a job starts otherwise. Does not
    switch.
    """
    job = job_here()
    ends_at: float | None = None if job is None else job.ends_at
    if ends_at is None or not job.is_inside:
        return None
    return max(0.0, (ends_at - time.monotonic()) * 1000)
