"""A PostgreSQL job queue: add jobs, also within your own transaction, and run them on threads or an event loop.

>>> from graphile_worker import Worker
>>> worker = Worker()                                            # doctest: +SKIP
>>> @worker.task                                                 # doctest: +SKIP
... def hello(payload):
...     print("Hello,", payload["name"])
>>> worker.client.add_job("hello", {"name": "Ada"})              # doctest: +SKIP
>>> worker.run_once()                                            # doctest: +SKIP
"""

__version__ = "0.1.0"

from ._client import Client
from ._context import Context
from ._cron import next_runs
from ._errors import (
    AlreadyFinishedError,
    AuthError,
    ClosedError,
    ConfigError,
    ConflictError,
    ConnectError,
    CrontabError,
    DatabaseError,
    DatabaseTimeoutError,
    DeadlockError,
    Duration,
    ForkedError,
    GraphileWorkerError,
    InternalError,
    InvalidArgumentError,
    JobCancelled,
    PayloadError,
    RefusedError,
    RetryAfter,
    SchemaError,
    SkippedError,
    StateError,
    TaskFailed,
    TlsError,
    UnknownOutcomeError,
    UnsupportedConnectionError,
    UnsupportedError,
    StuckError,
)
from ._hooks import Event, Fail, Skip
from ._job import Job
from ._log import set_log_level
from ._new_job import NewJob
from ._options import ClientOptions, WorkerOptions, options
from ._worker import Worker

__all__ = [
    "AlreadyFinishedError", "AuthError", "Client", "ClientOptions", "ClosedError", "ConfigError", "ConflictError",
    "ConnectError", "Context", "CrontabError", "DatabaseError", "DatabaseTimeoutError", "DeadlockError", "Duration",
    "Event", "Fail", "ForkedError", "GraphileWorkerError", "InternalError", "InvalidArgumentError", "Job",
    "JobCancelled", "NewJob", "PayloadError", "RefusedError", "RetryAfter", "SchemaError", "Skip", "SkippedError",
    "StateError", "TaskFailed", "TlsError", "UnknownOutcomeError", "UnsupportedConnectionError",
    "UnsupportedError", "StuckError", "Worker", "WorkerOptions", "next_runs", "options", "set_log_level",
]
