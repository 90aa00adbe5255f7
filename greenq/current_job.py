"""The job that runs here, and how far it has come, as it says itself: for `greenq top`.

Progress is a note on the message that runs; it is stored nowhere and sent to nobody until somebody asks.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .consumer import MessageProxy

#: The message of the job that runs in this context.
job: ContextVar[MessageProxy | None] = ContextVar("greenq_job", default=None)


def progress(done: float, total: float | None = None) -> None:
    """Note how far the job that calls this has come: `greenq top` shows it.

    Parameters:
      done(float): How much is done, in any unit.
      total(float): How much there is to do, in the same unit. Default: nobody knows.

    Nothing happens outside of a job, so that what jobs call can be called elsewhere, too. Greenlets and
    threads that a job starts are outside of it, unless they run in a copy of its context
    (``contextvars.copy_context().run``); so is the process of an actor with ``lane="process"``. It costs less
    than a microsecond.
    """
    message = job.get()
    if message is not None:
        message._progress = (done, total)
