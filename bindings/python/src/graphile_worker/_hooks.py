"""What hooks are told, and what they may decide. Knows nothing of who calls them."""

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
    """Something that happened to a worker or a job, as observers get it."""

    #: Which event: `"JobComplete"`, `"WorkerStart"`, ...
    name: str
    #: What it tells: a dict of plain values, as the Rust API names them.
    data: Dict[str, Any]
    #: The job it is about, or None.
    job_id: Optional[int]


@dataclass(frozen=True)
class Skip:
    """An interceptor's answer: before and after a run, the job counts as done; before an enqueue, nothing is added."""


@dataclass(frozen=True)
class Fail:
    """An interceptor's answer: the attempt fails with this text; before an enqueue, nothing is added."""

    reason: str


#: What an interceptor answers; None goes on to the next one.
Decision = Union[None, Skip, Fail, "NewJob"]

#: The events that interceptors are asked about.
INTERCEPTED = ("BeforeJobRun", "AfterJobRun", "BeforeJobSchedule")


def event(handle: c_void_p) -> Event:
    """The library's event, which is freed."""
    try:
        return Event(
            lib.gw_event_name(handle).decode(),
            json.loads(lib.gw_event_json(handle)),
            lib.gw_event_job_id(handle) or None,
        )
    finally:
        lib.gw_event_free(handle)
