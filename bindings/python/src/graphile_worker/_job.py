"""A job that a worker runs. Knows nothing of clients, threads, loops and workers."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Dict, Optional

from . import _native
from ._native import lib
from ._new_job import moment

#: The value of a payload that has not been read yet.
UNREAD = object()


class Job:
    """A job that this worker runs, as it was claimed. Any thread may read it, also after the task has returned.

    Only workers make objects of this class. To add a job, see `Client.add_job` and `NewJob`.
    """

    __slots__ = ("_handle", "_payload", "id", "task")

    _handle: int
    _payload: Any
    #: The job's id.
    id: int
    #: The name of its task.
    task: str

    def __new__(cls, *_: Any, **__: Any) -> Job:
        raise TypeError("only a worker makes a Job; to add a job, use Client.add_job or NewJob")

    def __reduce__(self) -> Any:
        raise TypeError("a Job cannot be copied or pickled: it is freed with this object; use as_dict() for its fields")

    @classmethod
    def _of(cls, handle: int) -> Job:
        """Wraps a job's handle. The object owns the handle and frees it."""
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
        """The payload as Python values; parsed at the first use."""
        if self._payload is UNREAD:
            self._payload = json.loads(self.payload_json)
        return self._payload

    @property
    def key(self) -> Optional[str]:
        """The job's key, or None."""
        key = lib.gw_job_key(self._handle)
        return key.decode() if key is not None else None

    @property
    def attempts(self) -> int:
        """The number of this attempt, starting at 1."""
        return lib.gw_job_attempts(self._handle)

    @property
    def max_attempts(self) -> int:
        """The highest number of attempts."""
        return lib.gw_job_max_attempts(self._handle)

    @property
    def priority(self) -> int:
        """The job's priority; lower runs first."""
        return lib.gw_job_priority(self._handle)

    @property
    def revision(self) -> int:
        """How often the job was replaced through its key."""
        return lib.gw_job_revision(self._handle)

    @property
    def run_at(self) -> datetime:
        """The earliest time at which the job may run, in UTC."""
        return moment(lib.gw_job_run_at(self._handle))

    @property
    def created_at(self) -> datetime:
        """When the job was added, in UTC."""
        return moment(lib.gw_job_created_at(self._handle))

    @property
    def worker_id(self) -> str:
        """The id under which the worker holds the job's lock."""
        return lib.gw_job_worker_id(self._handle).decode()

    @property
    def traceparent(self) -> Optional[str]:
        """The W3C trace context in the job's payload, or None."""
        return _native.owned_text(lib.gw_job_traceparent(self._handle))

    def as_dict(self) -> Dict[str, Any]:
        """Returns all fields as plain values, payload and flags included."""
        return json.loads(_native.owned_text(lib.gw_job_json(self._handle)) or "{}")
