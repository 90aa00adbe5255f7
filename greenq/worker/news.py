"""What a worker process tells its supervisor of its worker, once for each change."""

from __future__ import annotations

from collections.abc import Callable

from ..broker import Broker
from .worker import Worker


class News:
    """What was told, and what is to be told.

    Parameters:
      worker(Worker): Of whom.
      broker(Broker): The worker's.
      max_jobs(int | None): After how many jobs it is worn out.
      report(Callable[..., object]): Called with what the supervisor is told.

    Attributes:
      worker_id(str | None): Under which the worker holds messages, as it is told.
      is_consuming(bool): Whether it fetches them, as it is told.
      has_told_job(bool): Whether it was told that a job is done.
    """

    def __init__(self, worker: Worker, broker: Broker, *, max_jobs: int | None, report: Callable[..., object]) -> None:
        self.worker_id = broker.worker_id
        self.is_consuming = worker.is_consuming
        self.has_told_job = False
        self._has_told_worn = False
        self._worker = worker
        self._broker = broker
        self._max_jobs = max_jobs
        self._report = report

    def tell(self) -> None:
        """Tell what has changed."""
        done, max_jobs = self._worker.jobs_done, self._max_jobs
        if done and not self.has_told_job:
            self.has_told_job = True
            self._report(event="job_done")
        if max_jobs is not None and done >= max_jobs and not self._has_told_worn:
            self._has_told_worn = True
            self._report(event="worn", reason=f"it has done {done} jobs (--max-jobs {max_jobs})")
        if self._worker.is_consuming != self.is_consuming:
            self.is_consuming = self._worker.is_consuming
            self._report(event="consuming", is_on=self.is_consuming)
        if self._broker.worker_id != self.worker_id:
            self.worker_id = self._broker.worker_id
            self._report(event="worker_id", worker_id=self.worker_id)
