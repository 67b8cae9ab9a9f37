"""The exceptions that calls raise and that tasks may raise. Knows nothing of the library."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Optional, Union

#: A length of time: a `timedelta`, or a number of seconds.
Duration = Union[timedelta, float]


class GraphileWorkerError(Exception):
    """The base of all errors that calls of this package raise. Each subclass is one kind of error.

    `status` is the library's status (`"GW_ERR_CONNECT"`), `sqlstate` is the database's code (`"28P01"`) or None, and
    `retryable` is true if the same call may succeed later.
    """

    status = "GW_ERR_INVALID"
    sqlstate: Optional[str] = None
    retryable = False


class InvalidArgumentError(GraphileWorkerError, ValueError):
    """An argument is out of range, or has the wrong type."""


class PayloadError(InvalidArgumentError):
    """A payload is not valid JSON; the text names the field."""

    status = "GW_ERR_JSON"


class ConfigError(GraphileWorkerError, ValueError):
    """An option is unknown, or its value is not valid."""

    status = "GW_ERR_CONFIG"


class CrontabError(ConfigError):
    """A crontab is not valid; the text names line and column."""

    status = "GW_ERR_CRONTAB"


class StateError(GraphileWorkerError):
    """The call is not allowed in this state: for instance a second start, or a task added to a running worker."""

    status = "GW_ERR_STATE"


class ClosedError(StateError):
    """The client or worker was closed."""

    status = "GW_ERR_CLOSED"


class DeadlockError(StateError):
    """A task or an observer tried to wait for the worker that waits for it."""

    status = "GW_ERR_DEADLOCK"


class ForkedError(StateError):
    """The object was made before this process was forked: make a new one in this process."""

    status = "GW_ERR_FORKED"


class AlreadyFinishedError(StateError):
    """The job has its outcome already, or this worker does not hold it any more."""

    status = "GW_ERR_ALREADY_FINISHED"


class StuckError(GraphileWorkerError):
    """The worker stopped, but tasks did not return or outcomes could not be written. The text names the jobs."""

    status = "GW_ERR_STUCK"


class DatabaseError(GraphileWorkerError):
    """The database returned an error, or did not reply."""

    status = "GW_ERR_DATABASE"


class ConnectError(DatabaseError):
    """The database cannot be reached."""

    status = "GW_ERR_CONNECT"


class AuthError(ConnectError):
    """The database refused to log this role in."""

    status = "GW_ERR_AUTH"


class TlsError(ConnectError):
    """The TLS connection could not be set up."""

    status = "GW_ERR_TLS"


class SchemaError(DatabaseError):
    """The schema is missing, incomplete, too old or too new, or the role lacks a right on it."""

    status = "GW_ERR_SCHEMA"


class DatabaseTimeoutError(DatabaseError):
    """The database did not reply within `database_timeout`."""

    status = "GW_ERR_DATABASE_TIMEOUT"


class ConflictError(DatabaseError):
    """A job with a key lost a race against a worker at every try, and was not added."""

    status = "GW_ERR_CONFLICT"


class UnknownOutcomeError(DatabaseError):
    """The reply to the commit was lost, and the outcome could not be read: the change may have been made."""

    status = "GW_ERR_UNKNOWN_OUTCOME"


class SkippedError(GraphileWorkerError):
    """A `BeforeJobSchedule` interceptor skipped the job: nothing was added."""

    status = "GW_ERR_SKIPPED"


class RefusedError(GraphileWorkerError):
    """A `BeforeJobSchedule` interceptor refused the job, with this text: nothing was added."""

    status = "GW_ERR_REFUSED"


class UnsupportedError(GraphileWorkerError):
    """The call is not possible with this driver, platform or version."""

    status = "GW_ERR_UNSUPPORTED"


class UnsupportedConnectionError(UnsupportedError, TypeError):
    """Jobs cannot be added on a connection of this kind. Nothing was sent."""


class InternalError(GraphileWorkerError):
    """The library has a defect, or ran out of memory."""

    status = "GW_ERR_PANIC"


#: The class for each status. A status without a class becomes a plain `GraphileWorkerError`.
BY_STATUS = {
    kind.status: kind
    for kind in (
        InvalidArgumentError, PayloadError, ConfigError, CrontabError, StateError, ClosedError, DeadlockError,
        ForkedError, AlreadyFinishedError, StuckError, DatabaseError, ConnectError, AuthError, TlsError, SchemaError,
        DatabaseTimeoutError, ConflictError, UnknownOutcomeError, SkippedError, RefusedError, UnsupportedError,
        InternalError,
    )
}
BY_STATUS.update(
    GW_ERR_UTF8=InvalidArgumentError, GW_ERR_HANDLE=ClosedError, GW_ERR_NOMEM=InternalError, GW_ERR_ABI=InternalError
)


def of_status(
    status: str, message: str, sqlstate: Optional[str] = None, retryable: bool = False
) -> GraphileWorkerError:
    """Returns the exception for a status of the library."""
    error = BY_STATUS.get(status, GraphileWorkerError)(message)
    error.status, error.sqlstate, error.retryable = status, sqlstate, retryable
    return error


class TaskFailed(Exception):
    """Raise it in a task to fail the attempt with exactly this text as the job's `last_error`.

    Any other exception fails the attempt too. It is stored as `"ValueError: no such user"`, and its traceback is
    logged.
    """


class RetryAfter(TaskFailed):
    """Raise it in a task to fail the attempt. The job is retried after `delay` instead of the usual backoff.

    >>> raise RetryAfter(30, "the mail server is busy")   # doctest: +SKIP
    """

    def __init__(self, delay: Duration, message: str = "retry later") -> None:
        super().__init__(message)
        self.delay = delay


class JobCancelled(TaskFailed):
    """`Context.raise_if_cancelled` raises it if the worker stops, or the task has taken longer than its timeout."""


def seconds(duration: Duration) -> float:
    """Returns a duration in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def milliseconds(name: str, duration: Duration) -> int:
    """Returns a duration in milliseconds, rounded up, so that no wait is shorter than the given duration."""
    if isinstance(duration, (timedelta, int, float)) and not isinstance(duration, bool):
        length = seconds(duration)
        if 0 <= length < 1e12:
            return math.ceil(round(length * 1000, 6))
    raise InvalidArgumentError(f"{name}: must be a timedelta or a number of seconds, not below zero; got {duration!r}")
