"""How far a job has come, as it says itself: for `greenq top`.

Progress is a note on the message that runs; it is stored nowhere and sent to nobody until somebody asks.
"""

from __future__ import annotations

from .time_left import job_here


def progress(done: float, total: float | None = None) -> None:
    """Note how far the job that calls this has come: `greenq top` shows it.

    Parameters:
      done(float): How much is done, in any unit.
      total(float): How much there is to do, in the same unit. Default: nobody knows.

    Nothing happens outside of a job, so that what jobs call can be called elsewhere, too. Greenlets and
    threads that a job starts are outside of it; the tasks of an async actor, and what they hand to
    ``asyncio.to_thread()``, are not. The process of an actor with ``lane="process"`` is outside. It costs
    less than a microsecond.
    """
    job = job_here()
    if job is not None:
        job.message._progress = (done, total)
