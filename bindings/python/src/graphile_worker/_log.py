"""Passes the library's log records to Python's `logging`. Knows nothing of their content.

The library queues its records, and a Python thread fetches them. So no handler of `logging` runs on a thread of the
library.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import traceback
from ctypes import byref, c_void_p
from typing import Any, Dict, Optional, Tuple, Union

from . import _green, _native
from ._errors import InvalidArgumentError
from ._job import Job
from ._native import check, lib

logger = logging.getLogger("graphile_worker")

LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG // 2,
}

_lock = threading.Lock()
_pid = 0
_level: Optional[int] = None
_thread: Optional[threading.Thread] = None
_ending = False


#: Failures of tasks for which the library's record has not arrived yet, by worker, job and attempt. The value is the
#: exception to attach to that record, or None if the failure is logged already and the record must be dropped.
_failures: Dict[Tuple[str, int, int], Optional[BaseException]] = {}
#: The most failures kept. If a job is lost, its record never arrives, so the oldest entries must be dropped.
MOST_FAILURES = 1024


def failure(job: Job, error: BaseException, text: str) -> None:
    """Logs that an attempt failed, with its traceback. Must be called before the library learns of the failure.

    The library logs the failure as well, and one of the two records is dropped. If the job is retried, this function
    logs at once. If the job failed permanently, the library logs it once the database has the outcome.
    """
    key = (job.worker_id, job.id, job.attempts)
    is_last = job.attempts >= job.max_attempts
    if not logger.isEnabledFor(logging.ERROR if is_last else logging.WARNING):
        return
    while len(_failures) >= MOST_FAILURES:
        _failures.pop(next(iter(_failures)), None)
    _failures[key] = error if is_last else None
    if not is_last:
        fields = {"attempt": job.attempts, "error": text, "job_id": job.id, "task": job.task, "worker_id": job.worker_id}
        logger.warning("%s", _sentence("job failed, trying again later", fields), exc_info=error, extra=fields)


def _sentence(message: str, fields: Dict[str, Any]) -> str:
    pairs = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value != "")
    return " ".join([message, *pairs])


def set_log_level(level: Union[int, str]) -> None:
    """Logs from this level up, like `logging.getLogger("graphile_worker").setLevel(level)`, but at once.

    A level that was set in another way takes effect when the next client or worker is made. Payloads are never logged.
    Raises `InvalidArgumentError` for an unknown level.

    >>> set_log_level("WARNING")
    """
    try:
        logger.setLevel(level)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(f"level: {error}") from None
    follow()


def follow() -> None:
    """Passes the library's records to `logging` from now on, at the level that is set there.

    If threads are greenlets, a thread that waits for a record would stop all others. The library then keeps writing its
    warnings and errors to standard error, as it does without this package.
    """
    global _pid, _level, _thread
    if _green.patched() and _pid != os.getpid():
        return
    with _lock:
        # The library's levels are 0 (off) to 5 (everything).
        level = sum(logger.isEnabledFor(number) for number in LEVELS.values())
        is_new = _pid != os.getpid()  # a forked child has no thread of its parent
        if is_new or level != _level:
            check(lib.gw_log_set_queue(level))
            _pid, _level = os.getpid(), level
        if is_new:
            _thread = threading.Thread(target=_fetch, name="graphile-worker-log", daemon=True)
            _thread.start()


def _fetch() -> None:
    """Body of the log thread: passes records on until the process ends.

    A change of the level ends one queue of the library and begins another, so STOPPED alone does not end the thread.
    """
    while (status := _next(-1)) >= 0:
        if status == _native.STOPPED and _ending:
            return


def _next(timeout: int) -> int:
    """Passes one record on; returns the library's status."""
    handle = c_void_p()
    status: int = lib.gw_log_next(timeout, byref(handle), None)
    if status == _native.OK:
        try:
            name, data = lib.gw_event_name(handle).decode(), json.loads(lib.gw_event_json(handle))
        finally:
            lib.gw_event_free(handle)
        try:
            _hand_on(name, data)
        except Exception:  # a filter of the program failed, which must not end the log thread
            traceback.print_exc()
    return status


def _hand_on(name: str, data: Any) -> None:
    if name not in LEVELS:
        logger.warning("%d log records were dropped because the library's queue was full", data.get("events", 0))
        return
    fields, error = data["fields"], None
    if data["message"].startswith("job failed"):
        key = (fields.get("worker_id"), fields.get("job_id"), fields.get("attempt"))
        if key in _failures and (error := _failures.pop(key)) is None:
            return
    target = data["target"].replace("::", ".")
    log = logging.getLogger(target if target.startswith("graphile_worker") else f"graphile_worker.{target}")
    if not log.isEnabledFor(LEVELS[name]):
        return
    text = _sentence(data["message"], fields)
    exception = None if error is None else (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, LEVELS[name], "libgraphile_worker", 0, "%s", (text,), exception, "")
    record.created, record.msecs = data["time_us"] / 1e6, data["time_us"] // 1000 % 1000
    for key, value in fields.items():
        record.__dict__.setdefault(key, value)  # logging has its own `thread` and similar fields
    log.handle(record)


@atexit.register
def _end() -> None:
    """Passes the remaining records on, and ends the thread. Runs after the workers were stopped."""
    global _ending
    if _pid != os.getpid() or _thread is None:
        return
    while _next(0) == _native.OK:
        pass
    _ending = True
    lib.gw_log_set_sink(None, None, None, min(_level or 0, 2))
    _thread.join(1)
