"""Loads the shared library, declares the types of its functions, and turns its errors into exceptions.

Knows nothing of workers, clients and jobs. C code never calls Python: Python threads fetch everything by calls.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_bool, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Tuple

from . import _errors, _green

ABI_VERSION = 1

OK, TIMEOUT, STOPPED, WOKEN, NOT_FOUND, CANCELLED = 0, 1, 2, 3, 4, 5
STOP_GRACEFUL, STOP_ABORT = 1, 2
RUN_FOREVER, RUN_ONCE = 1, 2
#: A length argument that means: the text ends with a NUL.
NUL = ctypes.c_size_t(-1).value

_handle = c_void_p  # a handle as an argument
_text = c_char_p  # text as an argument, or borrowed from the library
_owned = c_void_p  # text that the caller must free: c_char_p would copy it and lose the pointer
_pointer = c_void_p  # callbacks, their data and structs: not used from Python, so always NULL
_error = out_handle = POINTER(c_void_p)
_out_text = POINTER(c_void_p)
_int64s = POINTER(c_int64)
_handles = POINTER(c_void_p)
_texts = POINTER(c_char_p)

#: Every function of the header: its return type, then its argument types. `tests/test_native.py` compares it with the
#: header.
PROTOTYPES: Dict[str, Tuple[Any, ...]] = {
    # library
    "gw_version": (c_uint32,),
    "gw_version_string": (_text,),
    "gw_abi_version": (c_uint32,),
    "gw_build_info": (_text,),
    "gw_string_free": (None, _owned),
    # errors
    "gw_status_name": (_text, c_int32),
    "gw_status_text": (_text, c_int32),
    "gw_status_at": (c_int32, c_size_t),
    "gw_error_status": (c_int32, _handle),
    "gw_error_message": (_text, _handle),
    "gw_error_sqlstate": (_text, _handle),
    "gw_error_is_retryable": (c_bool, _handle),
    "gw_error_free": (None, _handle),
    # log
    "gw_log_set_sink": (c_int32, _pointer, _pointer, _pointer, c_int32),
    "gw_log_set_queue": (c_int32, c_int32),
    "gw_log_next": (c_int32, c_int64, out_handle, _error),
    # configuration
    "gw_config_new": (_handle,),
    "gw_config_set": (c_int32, _handle, _text, _text, _error),
    "gw_config_get": (c_int32, _handle, _text, _out_text, _error),
    "gw_config_load_env": (c_int32, _handle, _error),
    "gw_config_key_at": (_text, c_size_t),
    "gw_config_key_info": (_text, _text),
    "gw_config_free": (None, _handle),
    # client
    "gw_client_new": (c_int32, _handle, out_handle, _error),
    "gw_client_free": (None, _handle),
    "gw_client_check": (c_int32, _handle, c_int64, _error),
    "gw_client_migrate": (c_int32, _handle, _error),
    "gw_client_add_job": (c_int32, _handle, _handle, _int64s, _error),
    "gw_client_add_jobs": (c_int32, _handle, _handles, c_size_t, _int64s, _error),
    "gw_client_remove_job": (c_int32, _handle, _text, _error),
    "gw_client_list_jobs": (c_int32, _handle, _text, _out_text, _error),
    "gw_client_job": (c_int32, _handle, c_int64, _out_text, _error),
    "gw_client_stats": (c_int32, _handle, _out_text, _error),
    "gw_client_queues": (c_int32, _handle, _out_text, _error),
    "gw_client_locked_workers": (c_int32, _handle, _out_text, _error),
    "gw_client_active_workers": (c_int32, _handle, c_int64, _out_text, _error),
    "gw_client_complete_jobs": (c_int32, _handle, _int64s, c_size_t, _out_text, _error),
    "gw_client_fail_jobs": (c_int32, _handle, _int64s, c_size_t, _text, _out_text, _error),
    "gw_client_reschedule_jobs": (c_int32, _handle, _int64s, c_size_t, _text, _out_text, _error),
    "gw_client_force_unlock": (c_int32, _handle, _texts, c_size_t, _out_text, _error),
    "gw_client_cleanup": (c_int32, _handle, c_uint32, _out_text, _error),
    "gw_client_sweep_stale_workers": (c_int32, _handle, _text, _out_text, _error),
    # a job to add
    "gw_spec_new": (_handle, _text),
    "gw_spec_set_payload": (c_int32, _handle, _text, c_size_t),
    "gw_spec_set_queue": (c_int32, _handle, _text),
    "gw_spec_set_run_at": (c_int32, _handle, c_int64),
    "gw_spec_set_max_attempts": (c_int32, _handle, c_int32),
    "gw_spec_set_priority": (c_int32, _handle, c_int32),
    "gw_spec_set_key": (c_int32, _handle, _text, c_int32),
    "gw_spec_add_flag": (c_int32, _handle, _text),
    "gw_spec_set_traceparent": (c_int32, _handle, _text),
    "gw_spec_check": (c_int32, _handle, _error),
    "gw_spec_free": (None, _handle),
    "gw_sql_add_job": (c_int32, _text, c_int32, _out_text, _error),
    # worker
    "gw_worker_new": (c_int32, _handle, out_handle, _error),
    "gw_worker_add_task": (c_int32, _handle, _text, _pointer, _pointer, _pointer, _error),
    "gw_worker_set_task_option": (c_int32, _handle, _text, _text, _text, _error),
    "gw_worker_add_crontab": (c_int32, _handle, _text, _error),
    "gw_worker_start": (c_int32, _handle, c_int32, _error),
    "gw_worker_run": (c_int32, _handle, _error),
    "gw_worker_run_once": (c_int32, _handle, _error),
    "gw_worker_request_stop": (None, _handle, c_int32),
    "gw_worker_wait": (c_int32, _handle, c_int64, _error),
    "gw_worker_flush": (c_int32, _handle, c_int64, _error),
    "gw_worker_free": (None, _handle),
    "gw_worker_state": (c_int32, _handle),
    "gw_worker_id": (_text, _handle),
    "gw_worker_client": (_handle, _handle),
    "gw_worker_next": (c_int32, _handle, c_int64, out_handle, _error),
    "gw_worker_next_batch": (c_int32, _handle, c_int64, _handles, c_size_t, POINTER(c_size_t), _error),
    "gw_worker_fd": (c_int32, _handle),
    "gw_worker_wakeup": (None, _handle),
    "gw_worker_stats": (c_int32, _handle, _pointer),
    "gw_worker_stats_json": (_owned, _handle),
    # job
    "gw_job_id": (c_int64, _handle),
    "gw_job_task": (_text, _handle),
    "gw_job_key": (_text, _handle),
    "gw_job_worker_id": (_text, _handle),
    "gw_job_attempts": (c_int32, _handle),
    "gw_job_max_attempts": (c_int32, _handle),
    "gw_job_priority": (c_int32, _handle),
    "gw_job_revision": (c_int32, _handle),
    "gw_job_run_at": (c_int64, _handle),
    "gw_job_created_at": (c_int64, _handle),
    "gw_job_payload": (_text, _handle, POINTER(c_size_t)),
    "gw_job_json": (_owned, _handle),
    "gw_job_traceparent": (_owned, _handle),
    "gw_job_client": (_handle, _handle),
    "gw_job_is_cancelled": (c_bool, _handle),
    "gw_job_set_error": (c_int32, _handle, _text, c_size_t),
    "gw_job_snooze": (c_int32, _handle, c_int64),
    "gw_job_retry_after": (c_int32, _handle, c_int64),
    "gw_job_complete": (c_int32, _handle, _error),
    "gw_job_fail": (c_int32, _handle, _text, c_size_t, _error),
    "gw_job_complete_items": (c_int32, _handle, _texts, c_size_t, _error),
    "gw_job_retain": (_handle, _handle),
    "gw_job_free": (None, _handle),
    # cron
    "gw_crontab_parse": (c_int32, _text, out_handle, _error),
    "gw_crontab_len": (c_size_t, _handle),
    "gw_crontab_item_json": (_owned, _handle, c_size_t),
    "gw_crontab_next": (c_size_t, _handle, c_size_t, c_int64, _int64s, c_size_t),
    "gw_crontab_free": (None, _handle),
    # events
    "gw_worker_on_event": (c_int32, _handle, _text, _pointer, _pointer, _pointer, _error),
    "gw_worker_intercept": (c_int32, _handle, _text, _pointer, _pointer, _pointer, _error),
    "gw_decision_set_text": (c_int32, _handle, _text, c_size_t),
    "gw_decision_set_run_at": (c_int32, _handle, c_int64, c_int32),
    "gw_event_name_at": (_text, c_size_t),
    "gw_worker_next_event": (c_int32, _handle, c_int64, out_handle, _error),
    "gw_worker_event_fd": (c_int32, _handle),
    "gw_event_name": (_text, _handle),
    "gw_event_json": (_text, _handle),
    "gw_event_job_id": (c_int64, _handle),
    "gw_event_free": (None, _handle),
}

#: Functions that may wait for the network or for a job. They are called without the GIL. All others return within a
#: microsecond, so releasing the GIL would cost more than the call.
WAITING = {
    name
    for name in PROTOTYPES
    if name.startswith("gw_client_")
    or name in ("gw_worker_start", "gw_worker_run", "gw_worker_run_once", "gw_worker_wait", "gw_worker_flush",
                "gw_worker_free", "gw_worker_next", "gw_worker_next_batch", "gw_worker_next_event", "gw_log_set_sink",
                "gw_log_next")
}


def library_path() -> Path:
    """Returns the library's path: `GRAPHILE_WORKER_LIBRARY` if set, else the library in the folder of this file."""
    given = os.environ.get("GRAPHILE_WORKER_LIBRARY")
    name = "libgraphile_worker.dylib" if sys.platform == "darwin" else "libgraphile_worker.so"
    return Path(given) if given else Path(__file__).with_name(name)


def _load() -> Any:
    path = library_path()
    try:
        waiting, instant = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
    except OSError as error:
        raise ImportError(
            f"graphile_worker: cannot load {path}: {error}. Install the package with pip, which copies the library "
            "to that path, or set GRAPHILE_WORKER_LIBRARY to the file"
        ) from error
    version = waiting.gw_abi_version()
    if version != ABI_VERSION:
        raise ImportError(
            f"graphile_worker: {path} has ABI version {version}, but this package needs {ABI_VERSION}: "
            "install both from the same release"
        )
    functions = {}
    for name, (answer, *arguments) in PROTOTYPES.items():
        function = getattr(waiting if name in WAITING else instant, name)
        function.restype, function.argtypes = answer, arguments
        functions[name] = function
    # The same function again, called with the GIL held, for calls with a timeout of 0.
    functions["gw_worker_next_now"] = function = instant["gw_worker_next"]
    function.restype, function.argtypes = c_int32, list(PROTOTYPES["gw_worker_next"][1:])
    return SimpleNamespace(**functions)


lib = _load()


def call(function: Any, *arguments: Any) -> int:
    """Calls a function whose last argument is `gw_error_t **`; returns its status, or raises its error."""
    error = c_void_p()
    if function.__name__ in WAITING:
        status: int = _green.wait(function, *arguments, byref(error))
    else:
        status = function(*arguments, byref(error))
    if status >= 0:
        return status
    raise taken(status, error)


def taken(status: int, error: c_void_p) -> _errors.GraphileWorkerError:
    """Returns the exception for an error of the library, and frees the error."""
    if not error:
        return of_status(status)
    try:
        sqlstate = lib.gw_error_sqlstate(error)
        return _errors.of_status(
            _name(status),
            (lib.gw_error_message(error) or b"").decode("utf-8", "replace"),
            sqlstate.decode() if sqlstate else None,
            lib.gw_error_is_retryable(error),
        )
    finally:
        lib.gw_error_free(error)


def of_status(status: int) -> _errors.GraphileWorkerError:
    """Returns the exception for a status that has no error object."""
    return _errors.of_status(_name(status), (lib.gw_status_text(status) or b"").decode())


def check(status: int) -> None:
    """Raises if a status is an error."""
    if status < 0:
        raise of_status(status)


def _name(status: int) -> str:
    return str((lib.gw_status_name(status) or b"GW_UNKNOWN").decode())


def owned_text(pointer: Optional[int]) -> Optional[str]:
    """Returns a text that the library passed to the caller, and frees it; None for NULL."""
    if not pointer:
        return None
    try:
        return ctypes.string_at(pointer).decode()
    finally:
        lib.gw_string_free(pointer)


def asked_text(function: Any, *arguments: Any) -> Optional[str]:
    """Calls a function that ends in `char **, gw_error_t **`; returns the text, or None if it was not found."""
    text = c_void_p()
    return owned_text(text.value) if call(function, *arguments, byref(text)) == OK else None


def texts_at(function: Any) -> Tuple[str, ...]:
    """Returns all texts of a function that returns the text at an index, and NULL after the last one."""
    texts: List[str] = []
    while (text := function(len(texts))) is not None:
        texts.append(text.decode())
    return tuple(texts)


def text(name: str, value: str) -> bytes:
    """Returns a text argument for the library. Refuses a NUL, which would cut the text off."""
    if not isinstance(value, str):
        raise _errors.InvalidArgumentError(f"{name}: must be a str, got {value!r}")
    if "\0" in value:
        raise _errors.InvalidArgumentError(f"{name}: contains a NUL character, which PostgreSQL cannot store")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise _errors.InvalidArgumentError(f"{name}: {error}") from None


def integer(name: str, value: int, bits: int = 32) -> int:
    """Returns an integer argument. Refuses a value that does not fit: ctypes would cut it off."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _errors.InvalidArgumentError(f"{name}: must be an int, got {value!r}")
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise _errors.InvalidArgumentError(f"{name}: {value} does not fit into {bits} bits")
    return value


class Owned:
    """A handle that is freed with this object. The library refuses a freed handle, so a late call cannot crash."""

    __slots__ = ("value", "_free", "__weakref__")

    def __init__(self, value: Optional[int], free: Any) -> None:
        self.value = value
        self._free = free

    @property
    def _as_parameter_(self) -> c_void_p:
        return c_void_p(self.value)

    def free(self) -> None:
        """Frees the handle now; a second call does nothing."""
        value, self.value = self.value, None
        if value:
            self._free(value)

    __del__ = free

    def __reduce__(self) -> Any:
        raise TypeError("clients and workers cannot be copied or pickled: make one in each process")


def made(function: Any, *arguments: Any, free: Any) -> Owned:
    """Calls a function that ends in `gw_x_t **, gw_error_t **`; returns the handle."""
    handle = c_void_p()
    call(function, *arguments, byref(handle))
    return Owned(handle.value, free)
