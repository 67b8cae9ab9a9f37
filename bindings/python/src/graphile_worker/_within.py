"""Adds jobs on a connection of the caller's, in its transaction. Knows drivers, and gets its SQL from the library.

Every driver of PostgreSQL that keeps to the DB-API will do (psycopg, psycopg2, pg8000, Django's), also SQLAlchemy's
connections and sessions, and for `await` psycopg's, SQLAlchemy's and asyncpg's.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from . import _native
from ._errors import ConflictError, UnsupportedError
from ._native import lib
from ._new_job import NewJob
from ._payload import traced

STYLES = {"numeric_dollar": 1, "format": 2, "named": 3, "pyformat": 4}
#: How often a job whose key is being claimed at this very moment is added anew, and the seconds in between.
TRIES, PAUSE = 20, 0.005


def add(connection: Any, schema: Optional[str], job: NewJob) -> int:
    """Adds a job within the transaction of `connection`; its id."""
    parameters = _parameters(job)
    for _ in range(TRIES):
        sent, fetch = _send(connection, schema, parameters)
        if inspect.isawaitable(sent):
            getattr(sent, "close", lambda: None)()
            raise UnsupportedError(f"{_name(connection)} is to be awaited: use add_job_async")
        if (row := fetch(sent)) is not None:
            return _id(row)
        time.sleep(PAUSE)
    raise _contended(job)


async def add_async(connection: Any, schema: Optional[str], job: NewJob) -> int:
    """As `add`, for a connection whose calls are awaited."""
    parameters = _parameters(job)
    for _ in range(TRIES):
        sent, fetch = _send(connection, schema, parameters)
        row = fetch(await sent if inspect.isawaitable(sent) else sent)
        if inspect.isawaitable(row):
            row = await row
        if row is not None:
            return _id(row)
        await asyncio.sleep(PAUSE)
    raise _contended(job)


def _parameters(job: NewJob) -> Dict[str, Any]:
    """The statement's parameters by name, in the order of their positions."""
    job.spec()  # checks every limit, before anything is sent
    payload = job.payload_text()
    if job.traceparent is not None:
        payload = traced(payload, job.traceparent)
    return {
        "identifier": job.task,
        "payload": payload.decode(),
        "queue_name": job.queue,
        "run_at": job.run_at,
        "max_attempts": job.max_attempts,
        "job_key": job.key,
        "priority": job.priority,
        "flags": list(job.flags) or None,
        "job_key_mode": job.key_mode,
    }


def _send(connection: Any, schema: Optional[str], parameters: Dict[str, Any]) -> Tuple[Any, Callable[[Any], Any]]:
    """Sends the statement: what the driver answers, or an awaitable of it; and how to get the first row out of that."""
    packages = {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
    if "sqlalchemy" in packages and hasattr(connection, "execute"):
        from sqlalchemy import text

        return connection.execute(text(_sql(schema, "named")), parameters), lambda result: result.first()
    if "asyncpg" in packages:
        return connection.fetchrow(_sql(schema, "numeric_dollar"), *parameters.values()), lambda row: row
    style = "format" if "django" in packages else _paramstyle(connection)
    if style not in ("format", "pyformat", "named"):
        raise UnsupportedError(
            f"{_name(connection)} is no connection of psycopg, SQLAlchemy, asyncpg, Django, or another driver with the "
            "paramstyle format, pyformat or named"
        )
    cursor = connection if hasattr(connection, "fetchone") else connection.cursor()
    values: Any = tuple(parameters.values()) if style == "format" else parameters
    return cursor.execute(_sql(schema, style), values), lambda _: cursor.fetchone()


def _sql(schema: Optional[str], style: str) -> str:
    """The statement, its parameters written in this style."""
    name = None if schema is None else _native.text("schema", schema)
    sql = _native.asked_text(lib.gw_sql_add_job, name, STYLES[style])
    assert sql is not None, "the library has the statement in every style"
    return sql


def _paramstyle(connection: Any) -> Optional[str]:
    """What the driver's module says of its parameters; it is the one of the connection's class, or one around it."""
    for kind in type(connection).__mro__:
        names = kind.__module__.split(".")
        for length in range(len(names), 0, -1):
            style = getattr(sys.modules.get(".".join(names[:length])), "paramstyle", None)
            if isinstance(style, str):
                return style
    return None


def _id(row: Any) -> int:
    """The id in a row, whatever a row is here: a tuple, a mapping, or an object with fields."""
    if isinstance(row, Mapping):
        return int(row["id"])
    return int(row.id if hasattr(row, "id") else row[0])


def _contended(job: NewJob) -> ConflictError:
    return ConflictError(
        f"adding a job of task {job.task}: a worker has taken the job with key {job.key!r}, and this transaction "
        "cannot see what became of it; repeat the transaction, or use READ COMMITTED"
    )


def _name(connection: Any) -> str:
    return f"{type(connection).__module__}.{type(connection).__qualname__}"

