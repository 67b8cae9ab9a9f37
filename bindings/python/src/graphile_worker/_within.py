"""Adds jobs on the caller's connection, in its transaction. Knows the drivers, and gets its SQL from the library.

Every PostgreSQL driver that follows the DB-API works (psycopg, psycopg2, pg8000, Django's), also SQLAlchemy's
connections and sessions. With `await`, the connections of psycopg, SQLAlchemy and asyncpg work.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from . import _native
from ._errors import ConflictError, UnsupportedConnectionError
from ._native import lib
from ._new_job import NewJob
from ._payload import traced

STYLES = {"numeric_dollar": 1, "format": 2, "named": 3, "pyformat": 4}
#: The number of tries to add a job whose key is being claimed at the same time, and the seconds between two tries.
TRIES, PAUSE = 20, 0.005


def add(connection: Any, schema: Optional[str], job: NewJob) -> int:
    """Adds a job within the transaction of `connection`; returns its id."""
    parameters = _parameters(job)
    send, fetch = _statement(connection, schema, parameters)
    for _ in range(TRIES):
        sent = send()
        if inspect.isawaitable(sent):
            getattr(sent, "close", lambda: None)()
            raise UnsupportedConnectionError(f"{_name(connection)} must be awaited: use add_job_async")
        if (row := fetch(sent)) is not None:
            return _id(row)
        time.sleep(PAUSE)
    raise _contended(job)


async def add_async(connection: Any, schema: Optional[str], job: NewJob) -> int:
    """As `add`, for a connection whose calls are awaited."""
    parameters = _parameters(job)
    send, fetch = _statement(connection, schema, parameters)
    for _ in range(TRIES):
        sent = send()
        row = fetch(await sent if inspect.isawaitable(sent) else sent)
        if inspect.isawaitable(row):
            row = await row
        if row is not None:
            return _id(row)
        await asyncio.sleep(PAUSE)
    raise _contended(job)


def _parameters(job: NewJob) -> Dict[str, Any]:
    """Returns the statement's parameters by name, in the order of their positions."""
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


#: Two functions: one sends the statement and returns the driver's result, or an awaitable of it; one reads the first
#: row.
Statement = Tuple[Callable[[], Any], Callable[[Any], Any]]


def _statement(connection: Any, schema: Optional[str], parameters: Dict[str, Any]) -> Statement:
    """Returns the functions for this kind of connection. Sends nothing. Refuses a connection that cannot be used.

    Rows are read as tuples, whatever rows the caller's own cursors return: once the job is added, reading its id must
    not fail.
    """
    packages = {kind.__module__.partition(".")[0] for kind in _kinds(connection)}
    if "sqlalchemy" in packages:
        driver = getattr(connection, "driver_connection", None)  # results of raw_connection() have it
        if driver is not None:
            return _statement(driver, schema, parameters)
        return _sqlalchemy(connection, schema, parameters)
    if "asyncpg" in packages:
        return _asyncpg(connection, schema, parameters)
    if "psycopg" in packages:
        style, cursor = "pyformat", _psycopg(connection)
    elif "psycopg2" in packages:
        style, cursor = "pyformat", _psycopg2(connection)
    else:
        style = "format" if "django" in packages else _paramstyle(connection)
        if style not in ("format", "pyformat", "named") or not (_is_cursor(connection) or hasattr(connection, "cursor")):
            raise _refused(connection)
        cursor = connection if _is_cursor(connection) else connection.cursor()
    values: Any = tuple(parameters.values()) if style == "format" else parameters
    sql = _sql(schema, style)
    return lambda: cursor.execute(sql, values), lambda _: cursor.fetchone()


def _kinds(connection: Any) -> Tuple[type, ...]:
    """Returns the classes of a connection. Behind a proxy also those of the real one, which `__class__` returns."""
    return tuple({**dict.fromkeys(type(connection).__mro__), **dict.fromkeys(connection.__class__.__mro__)})


def _is_cursor(connection: Any) -> bool:
    return hasattr(connection, "fetchone")


def _sqlalchemy(connection: Any, schema: Optional[str], parameters: Dict[str, Any]) -> Statement:
    if not hasattr(connection, "execute") or hasattr(connection, "raw_connection"):
        raise _refused(connection)  # an engine has no transaction; before 2.0 it has `execute`
    from sqlalchemy import text

    statement, options = text(_sql(schema, "named")), {"stream_results": False}
    if "execution_options" in inspect.signature(connection.execute).parameters:
        return lambda: connection.execute(statement, parameters, execution_options=options), _first
    return lambda: connection.execute(statement, parameters), _first


def _first(result: Any) -> Any:
    return result.first()


def _asyncpg(connection: Any, schema: Optional[str], parameters: Dict[str, Any]) -> Statement:
    if hasattr(connection, "acquire") or not hasattr(connection, "fetchrow"):
        raise _refused(connection)  # a pool has no transaction
    record = getattr(sys.modules["asyncpg"], "Record", None)
    options = {} if record is None else {"record_class": record}
    sql, values = _sql(schema, "numeric_dollar"), tuple(parameters.values())
    return lambda: connection.fetchrow(sql, *values, **options), lambda row: row


def _psycopg(connection: Any) -> Any:
    """Returns a new cursor on this connection, or on this cursor's connection, that returns rows as tuples."""
    import psycopg
    from psycopg.rows import tuple_row

    connection = connection.connection if _is_cursor(connection) else connection
    if isinstance(connection, psycopg.AsyncConnection):
        plain, client_side = psycopg.AsyncCursor, psycopg.AsyncClientCursor
    elif isinstance(connection, psycopg.Connection):
        plain, client_side = psycopg.Cursor, psycopg.ClientCursor
    else:
        raise _refused(connection)
    # A pooler may need cursors that bind parameters on the client: if the caller's cursors do, this one does too.
    kind = client_side if issubclass(connection.cursor_factory, client_side) else plain
    return kind(connection, row_factory=tuple_row)


def _psycopg2(connection: Any) -> Any:
    """The same for psycopg2."""
    from psycopg2.extensions import cursor

    connection = connection.connection if _is_cursor(connection) else connection
    if not hasattr(connection, "cursor") or getattr(connection, "async_", 0):
        raise _refused(connection)
    return connection.cursor(cursor_factory=cursor)


def _refused(connection: Any) -> UnsupportedConnectionError:
    return UnsupportedConnectionError(
        f"{_name(connection)} is not a connection of psycopg, SQLAlchemy, asyncpg, Django, or another driver with the "
        "paramstyle format, pyformat or named; instead of an engine or a pool, pass one of its connections"
    )


def _sql(schema: Optional[str], style: str) -> str:
    """Returns the statement, with its parameters written in this style."""
    name = None if schema is None else _native.text("schema", schema)
    sql = _native.asked_text(lib.gw_sql_add_job, name, STYLES[style])
    assert sql is not None, "the library has the statement in every style"
    return sql


def _paramstyle(connection: Any) -> Optional[str]:
    """Returns the `paramstyle` of the driver: of the module of the connection's class, or of a package around it."""
    for kind in _kinds(connection):
        names = kind.__module__.split(".")
        for length in range(len(names), 0, -1):
            style = getattr(sys.modules.get(".".join(names[:length])), "paramstyle", None)
            if isinstance(style, str):
                return style
    return None


def _id(row: Any) -> int:
    """Returns the id in a row, which may be a tuple, a mapping, or an object with fields."""
    if isinstance(row, Mapping):
        return int(row["id"])
    return int(row.id if hasattr(row, "id") else row[0])


def _contended(job: NewJob) -> ConflictError:
    return ConflictError(
        f"adding a job of task {job.task}: a worker has claimed the job with key {job.key!r}, and this transaction "
        "does not see the claim; repeat the transaction, or use READ COMMITTED"
    )


def _name(connection: Any) -> str:
    return f"{type(connection).__module__}.{type(connection).__qualname__}"

