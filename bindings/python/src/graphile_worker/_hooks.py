"""The events that hooks receive, and the decisions they may return. Knows nothing of their callers."""

from __future__ import annotations

import json
from ctypes import c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Optional, Union

from ._native import lib

if TYPE_CHECKING:
    from ._new_job import NewJob


@dataclass(frozen=True)
class Event:
    """An event of a worker or a job, as observers receive it."""

    #: The event's name: `"JobComplete"`, `"WorkerStart"`, ...
    name: str
    #: The event's fields as plain values, with the names of the Rust API.
    data: Dict[str, Any]
    #: The id of the job that the event belongs to, or None.
    job_id: Optional[int]


@dataclass(frozen=True)
class Skip:
    """A decision of an interceptor.

    Before and after a run, the job counts as done. Before an enqueue, no job is added.
    """


@dataclass(frozen=True)
class Fail:
    """A decision of an interceptor.

    Before and after a run, the attempt fails with this text. Before an enqueue, no job is added.
    """

    reason: str


#: The return value of an interceptor. After None the next interceptor is called.
Decision = Union[None, Skip, Fail, "NewJob"]

#: The events for which interceptors are called.
INTERCEPTED = ("BeforeJobRun", "AfterJobRun", "BeforeJobSchedule")


def event(handle: c_void_p) -> Event:
    """Reads an event of the library and frees it."""
    try:
        return Event(
            lib.gw_event_name(handle).decode(),
            json.loads(lib.gw_event_json(handle)),
            lib.gw_event_job_id(handle) or None,
        )
    finally:
        lib.gw_event_free(handle)
