"""What a task is given: its job, and the context around it. Knows nothing of threads, loops and workers."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Dict, Optional

from . import _native
from ._errors import Duration, JobCancelled, milliseconds
from ._native import check, lib
from ._new_job import moment

if TYPE_CHECKING:
    from ._client import Client


#: A payload that nobody has asked for yet.
UNREAD = object()


class Job:
    """A job that this worker runs, as it was claimed. Any thread may read it, also after the task has returned.

    Workers make them. To add a job, see `Client.add_job` and `NewJob`.
    """

    __slots__ = ("_handle", "_payload", "id", "task")

    _handle: int
    _payload: Any
    #: The job's number.
    id: int
    #: The name of its task.
    task: str

    def __new__(cls, *_: Any, **__: Any) -> Job:
        raise TypeError("a Job is made by the worker that runs it; to add a job, use Client.add_job or NewJob")

    def __reduce__(self) -> Any:
        raise TypeError("a Job cannot be copied or pickled, as it is freed with this object; as_dict() has its fields")

    @classmethod
    def _of(cls, handle: int) -> Job:
        """The job of a handle, which is freed with it."""
        job = object.__new__(cls)
        job._handle, job._payload = handle, UNREAD
        job.id, job.task = lib.gw_job_id(handle), lib.gw_job_task(handle).decode()
        return job

    def __del__(self, _free: Any = lib.gw_job_free) -> None:
        _free(self._handle)

    def __repr__(self) -> str:
        return f"<Job {self.id} of task {self.task!r}, attempt {self.attempts} of {self.max_attempts}>"

    @property
    def payload_json(self) -> str:
        """The payload's text, as stored."""
        return lib.gw_job_payload(self._handle, None).decode()

    @property
    def payload(self) -> Any:
        """The payload as Python values; read at the first use."""
        if self._payload is UNREAD:
            self._payload = json.loads(self.payload_json)
        return self._payload

    @property
    def key(self) -> Optional[str]:
        """Its job key, or None."""
        key = lib.gw_job_key(self._handle)
        return key.decode() if key is not None else None

    @property
    def attempts(self) -> int:
        """Which attempt this is, from 1."""
        return lib.gw_job_attempts(self._handle)

    @property
    def max_attempts(self) -> int:
        """How many attempts there are at most."""
        return lib.gw_job_max_attempts(self._handle)

    @property
    def priority(self) -> int:
        """Lower runs first."""
        return lib.gw_job_priority(self._handle)

    @property
    def revision(self) -> int:
        """How often the job was replaced by its key."""
        return lib.gw_job_revision(self._handle)

    @property
    def run_at(self) -> datetime:
        """From when on it was to run, in UTC."""
        return moment(lib.gw_job_run_at(self._handle))

    @property
    def created_at(self) -> datetime:
        """When it was added, in UTC."""
        return moment(lib.gw_job_created_at(self._handle))

    @property
    def worker_id(self) -> str:
        """The id under which the worker locks it."""
        return lib.gw_job_worker_id(self._handle).decode()

    @property
    def traceparent(self) -> Optional[str]:
        """The W3C trace context that its payload carries, or None."""
        return _native.owned_text(lib.gw_job_traceparent(self._handle))

    def as_dict(self) -> Dict[str, Any]:
        """Every field as plain values, payload and flags included."""
        return json.loads(_native.owned_text(lib.gw_job_json(self._handle)) or "{}")


class Context:
    """What a task gets beside the payload: its `job`, the worker's `client`, and its wishes.

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
        #: The worker's client. Its calls block: in an `async def` task use its `add_job_async`.
        self.client = client

    @property
    def payload(self) -> Any:
        """The job's payload."""
        return self.job.payload

    @property
    def is_cancelled(self) -> bool:
        """Whether the task should end now: the worker stops, or the task takes longer than its timeout.

        `async def` tasks are told by `asyncio.CancelledError` as well. Costs less than a microsecond.
        """
        return lib.gw_job_is_cancelled(self.job._handle)

    def raise_if_cancelled(self) -> None:
        """Raises `JobCancelled` if `is_cancelled`; a task lets it through."""
        if self.is_cancelled:
            raise JobCancelled("cancelled")

    def snooze(self, delay: Duration) -> None:
        """Once the task has succeeded, the job runs again after `delay`, and this attempt is not counted."""
        check(lib.gw_job_snooze(self.job._handle, milliseconds("delay", delay)))
