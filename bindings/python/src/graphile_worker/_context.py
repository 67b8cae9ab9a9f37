"""The context of a task: its job and its client. Knows nothing of threads, loops and workers."""

from __future__ import annotations

from typing import Any

from ._client import Client
from ._errors import Duration, JobCancelled, milliseconds
from ._job import Job
from ._native import check, lib


class Context:
    """The second argument of a task: its `job`, the worker's `client`, and calls that affect this attempt.

    >>> @worker.task                                        # doctest: +SKIP
    ... def import_file(payload, ctx):
    ...     for line in lines(payload["path"]):
    ...         ctx.raise_if_cancelled()
    ...         ctx.client.add_job("import_line", line)
    """

    __slots__ = ("client", "job")

    def __init__(self, job: Job, client: Client) -> None:
        #: The job that runs.
        self.job = job
        #: The worker's client. Its calls block: use its `add_job_async` in an `async def` task.
        self.client = client

    @property
    def payload(self) -> Any:
        """The job's payload."""
        return self.job.payload

    @property
    def is_cancelled(self) -> bool:
        """Whether the task should end now: the worker stops, or the task has taken longer than its timeout.

        `async def` tasks also receive `asyncio.CancelledError`. Costs less than a microsecond.
        """
        return lib.gw_job_is_cancelled(self.job._handle)

    def raise_if_cancelled(self) -> None:
        """Raises `JobCancelled` if `is_cancelled`. A task should not catch it."""
        if self.is_cancelled:
            raise JobCancelled("cancelled")

    def snooze(self, delay: Duration) -> None:
        """If the task succeeds, the job runs again after `delay`, and this attempt is not counted."""
        check(lib.gw_job_snooze(self.job._handle, milliseconds("delay", delay)))
