"""The client: adds jobs, and lists and changes existing ones. Knows nothing of workers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from ctypes import c_char_p, c_int64, c_void_p
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Literal, Mapping, Optional, Sequence, Union

from . import _log, _native, _options, _within
from ._errors import ClosedError, Duration, InvalidArgumentError, RefusedError, SkippedError, milliseconds
from ._green import running_loop
from ._hooks import Decision, Fail, Skip
from ._native import call, lib
from ._new_job import EMPTY, NewJob, microseconds

if TYPE_CHECKING:
    from typing_extensions import Unpack

CLEANUPS = {"delete_permafailed": 1, "gc_tasks": 2, "gc_queues": 4}


class Client:
    """Adds jobs to the queue, and manages existing jobs. Any thread may use it. Calls block on the database.

    If `database_url` is not given, the client uses `DATABASE_URL`, or else `PGHOST` and the other variables of libpq.
    The options are those of `ClientOptions`. The constructor connects, so it raises `ConnectError`, `AuthError` or
    `ConfigError` if the address, the password or an option is wrong.

    After a fork the child must make a client of its own; this client raises `ForkedError` there.

    >>> with Client("postgres://localhost/app") as client:                 # doctest: +SKIP
    ...     client.add_job("send_email", {"to": "ada@example.com"}, queue="user 42")
    """

    def __init__(self, database_url: Optional[str] = None, **options: Unpack[_options.ClientOptions]) -> None:
        self._open(_options.settings(database_url, options), [])

    def _open(self, settings: Mapping[str, str], interceptors: List[Callable[[NewJob], Decision]]) -> None:
        _log.follow()
        config = _options.configuration(settings)
        self._schema, self._interceptors = _options.value_of(config, "schema"), interceptors
        self._owned = _native.made(lib.gw_client_new, config, free=lib.gw_client_free)

    @classmethod
    def _of_worker(cls, settings: Mapping[str, str], interceptors: List[Callable[[NewJob], Decision]]) -> Client:
        """Makes a client with a worker's options and interceptors."""
        client = cls.__new__(cls)
        client._open(settings, interceptors)
        return client

    @classmethod
    def _lent(cls, handle: int, schema: Optional[str], interceptors: List[Callable[[NewJob], Decision]]) -> Client:
        """Wraps the client of a running worker. The worker owns the handle, so this object does not free it."""
        client = cls.__new__(cls)
        client._schema, client._interceptors = schema, interceptors
        client._owned = _native.Owned(handle, lambda _: None)
        return client

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the client's connections; later calls raise `ClosedError`. A second close does nothing."""
        self._owned.free()

    # adding jobs

    def add_job(
        self,
        task: str,
        payload: Any = EMPTY,
        *,
        payload_json: Optional[str] = None,
        queue: Optional[str] = None,
        run_at: Optional[datetime] = None,
        max_attempts: Optional[int] = None,
        priority: Optional[int] = None,
        key: Optional[str] = None,
        key_mode: Optional[str] = None,
        flags: Sequence[str] = (),
        traceparent: Optional[str] = None,
        connection: Any = None,
    ) -> int:
        """Adds a job, and returns its id.

        - `payload`: a value that JSON can hold; `payload_json`: the JSON text itself, instead of `payload`.
        - `queue`: jobs of one queue run one after the other.
        - `run_at`: the job does not run before this time, an aware `datetime`.
        - `max_attempts`: 25 if not given.
        - `priority`: lower runs first; 0 if not given.
        - `key`: replaces the waiting job with the same key. `key_mode` sets how: `"replace"` (if not given),
          `"preserve_run_at"`, or `"unsafe_dedupe"`.
        - `flags`: workers can be set to run no jobs, or only jobs, with certain flags.
        - `traceparent`: a W3C trace context for the task.
        - `connection`: a connection, session or cursor of psycopg, SQLAlchemy, Django or another DB-API driver. The job
          is added in its transaction, and exists if and only if the transaction commits. Errors are then the driver's.

        Raises `PayloadError` or another `InvalidArgumentError` before anything is sent, and `DatabaseError` after that.
        `UnknownOutcomeError` means that the job may have been added.
        """
        job = NewJob(
            task, {} if payload is EMPTY else payload, payload_json, queue, run_at, max_attempts, priority, key, key_mode, flags, traceparent
        )
        return self.add_jobs([job], connection=connection)[0]

    def add_jobs(self, jobs: Iterable[NewJob], *, connection: Any = None) -> List[int]:
        """Adds several jobs at once, all or none, and returns their ids in the same order.

        >>> client.add_jobs(NewJob("greet", {"name": name}) for name in ("Ada", "Grace"))   # doctest: +SKIP
        """
        decided = [self._decided(job) for job in jobs]
        if connection is not None:
            return [_within.add(connection, self._schema, job) for job in decided]
        specs = [job.spec() for job in decided]
        ids = (c_int64 * len(specs))()
        if len(specs) == 1:
            call(lib.gw_client_add_job, self._handle, specs[0], ids)
        elif specs:
            handles = (c_void_p * len(specs))(*(spec.value for spec in specs))
            call(lib.gw_client_add_jobs, self._handle, handles, len(specs), ids)
        return list(ids)

    async def add_job_async(self, task: str, payload: Any = EMPTY, *, connection: Any = None, **options: Any) -> int:
        """As `add_job`, with the same options, for `async def` code: the event loop keeps running during the call.

        `connection` may be psycopg's `AsyncConnection`, SQLAlchemy's `AsyncConnection` or `AsyncSession`, or asyncpg's.
        """
        job = NewJob(task, {} if payload is EMPTY else payload, **options)
        return (await self.add_jobs_async([job], connection=connection))[0]

    async def add_jobs_async(self, jobs: Iterable[NewJob], *, connection: Any = None) -> List[int]:
        """As `add_jobs`, for `async def` code."""
        if connection is None:
            return await running_loop().run_in_executor(None, self.add_jobs, list(jobs))
        return [await _within.add_async(connection, self._schema, self._decided(job)) for job in jobs]

    def remove_job(self, key: str) -> bool:
        """Removes the job with this key; returns False if there is none.

        If the job is running, it is not stopped, but it is not retried.
        """
        return call(lib.gw_client_remove_job, self._handle, _native.text("key", key)) == _native.OK

    # reading, and changing by hand

    def job(self, id: int) -> Optional[Dict[str, Any]]:
        """Returns the job with this id and all its fields, or None if there is none."""
        return self._ask(lib.gw_client_job, _native.integer("id", id, 64))

    def list_jobs(
        self,
        *,
        task: Optional[str] = None,
        queue: Optional[str] = None,
        state: Optional[str] = None,
        limit: Optional[int] = None,
        offset: Optional[int] = None,
    ) -> List[Dict[str, Any]]:
        """Returns the jobs of this task, queue and state: `"ready"`, `"scheduled"`, `"locked"` or `"failed"`."""
        return self._ask(
            lib.gw_client_list_jobs, _given(task=task, queue=queue, state=state, limit=limit, offset=offset)
        )

    def stats(self) -> Dict[str, Any]:
        """Returns the number of jobs in each state."""
        return self._ask(lib.gw_client_stats)

    def queues(self) -> List[Dict[str, Any]]:
        """Returns the named queues."""
        return self._ask(lib.gw_client_queues)

    def locked_workers(self) -> List[Dict[str, Any]]:
        """Returns the workers that hold jobs."""
        return self._ask(lib.gw_client_locked_workers)

    def active_workers(self, sweep_threshold: Duration = 300) -> List[Dict[str, Any]]:
        """Returns the workers that have sent a heartbeat within `sweep_threshold`: 300 seconds if not given."""
        return self._ask(lib.gw_client_active_workers, milliseconds("sweep_threshold", sweep_threshold))

    def complete_jobs(self, ids: Iterable[int]) -> Any:
        """Removes waiting jobs as completed; returns the removed jobs."""
        return self._ask(lib.gw_client_complete_jobs, *_ids(ids))

    def fail_jobs(self, ids: Iterable[int], reason: str) -> Any:
        """Fails waiting jobs permanently; returns the failed jobs."""
        return self._ask(lib.gw_client_fail_jobs, *_ids(ids), _native.text("reason", reason))

    def reschedule_jobs(
        self,
        ids: Iterable[int],
        *,
        run_at: Union[datetime, Literal["now"], None] = None,
        priority: Optional[int] = None,
        attempts: Optional[int] = None,
        max_attempts: Optional[int] = None,
    ) -> Any:
        """Changes waiting jobs; returns the changed jobs. A field that is not given stays as it is."""
        at = microseconds("run_at", run_at) if isinstance(run_at, datetime) else run_at
        options = _given(run_at=at, priority=priority, attempts=attempts, max_attempts=max_attempts)
        return self._ask(lib.gw_client_reschedule_jobs, *_ids(ids), options)

    def force_unlock(self, worker_ids: Iterable[str]) -> Any:
        """Gives back the jobs of these workers. Use it for dead workers only: a living one's jobs would run twice."""
        names = [_native.text("worker_ids", name) for name in worker_ids]
        return self._ask(lib.gw_client_force_unlock, (c_char_p * len(names))(*names), len(names))

    def cleanup(self, *tasks: str) -> Any:
        """Deletes unused rows: `"delete_permafailed"`, `"gc_tasks"`, `"gc_queues"`; all three if none is given.

        They delete permanently failed jobs, tasks without jobs, and queues without jobs.
        """
        unknown = set(tasks) - set(CLEANUPS)
        if unknown:
            raise InvalidArgumentError(f"cleanup: {', '.join(sorted(unknown))} is not one of {', '.join(CLEANUPS)}")
        return self._ask(lib.gw_client_cleanup, sum(CLEANUPS[task] for task in set(tasks or CLEANUPS)))

    def sweep_stale_workers(
        self,
        *,
        sweep_threshold: Optional[Duration] = None,
        recovery_delay: Optional[Duration] = None,
        dry_run: Optional[bool] = None,
    ) -> Any:
        """Recovers the jobs of workers that have sent no heartbeat within `sweep_threshold`.

        No worker counts as dead before three of its own heartbeats are missing. If the threshold is shorter than that
        for a living worker, the result names it in `raised_thresholds`, with the time that was applied instead.
        """
        options = _given(
            sweep_threshold_ms=None if sweep_threshold is None else milliseconds("sweep_threshold", sweep_threshold),
            recovery_delay_ms=None if recovery_delay is None else milliseconds("recovery_delay", recovery_delay),
            dry_run=dry_run,
        )
        return self._ask(lib.gw_client_sweep_stale_workers, options)

    def check(self, timeout: Duration = 5) -> None:
        """Raises `DatabaseError` if the database does not reply within `timeout` (5 seconds if not given).

        Meant for health checks.
        """
        call(lib.gw_client_check, self._handle, milliseconds("timeout", timeout))

    def migrate(self) -> None:
        """Installs a missing schema, and adds this library's objects to an existing one. Safe to repeat.

        A worker does so when it starts. Raises `SchemaError` if the schema is older than Graphile Worker's migration
        18, or has a newer breaking migration.
        """
        call(lib.gw_client_migrate, self._handle)

    @property
    def _handle(self) -> _native.Owned:
        if not self._owned.value:
            raise ClosedError("the client is closed")
        return self._owned

    def _decided(self, job: NewJob) -> NewJob:
        """Calls the interceptors of `BeforeJobSchedule` and returns the job that results."""
        for interceptor in self._interceptors:
            try:
                decision = interceptor(dataclasses.replace(job))
            except Exception as error:
                raise RefusedError(f"{type(error).__name__}: {error}") from error
            if isinstance(decision, Skip):
                raise SkippedError(f"a hook skipped the job of task {job.task}")
            if isinstance(decision, Fail):
                raise RefusedError(decision.reason)
            if isinstance(decision, NewJob):
                job = decision
            elif decision is not None:
                raise RefusedError(f"an enqueue interceptor must return None, Skip, Fail or NewJob, not {decision!r}")
        return job

    def _ask(self, function: Any, *arguments: Any) -> Any:
        text = _native.asked_text(function, self._handle, *arguments)
        return None if text is None else json.loads(text)


def _given(**options: Any) -> bytes:
    """Returns the options that are not None, as JSON."""
    return json.dumps({key: value for key, value in options.items() if value is not None}).encode()


def _ids(ids: Iterable[int]) -> Sequence[Any]:
    numbers = [_native.integer("ids", id, 64) for id in ids]
    return (c_int64 * len(numbers))(*numbers), len(numbers)
