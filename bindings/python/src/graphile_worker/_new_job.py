"""A job to add: its fields, their checks, and the library's form of it. Knows neither clients nor connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Optional, Sequence

from . import _native
from ._errors import ConfigError, InvalidArgumentError
from ._native import call, lib
from ._payload import dumped

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
#: The default payload. It is only compared by identity: each job gets a dict of its own.
EMPTY: Any = {}
KEY_MODES = {"replace": 1, "preserve_run_at": 2, "unsafe_dedupe": 3}


@dataclass
class NewJob:
    """A job to add, for `Client.add_jobs`. The fields are the arguments of `Client.add_job`.

    >>> NewJob("send_email", {"to": "ada@example.com"}, queue="user 42").max_attempts is None
    True
    """

    task: str
    payload: Any = field(default_factory=dict)
    payload_json: Optional[str] = None
    queue: Optional[str] = None
    run_at: Optional[datetime] = None
    max_attempts: Optional[int] = None
    priority: Optional[int] = None
    key: Optional[str] = None
    key_mode: Optional[str] = None
    flags: Sequence[str] = ()
    traceparent: Optional[str] = None

    def payload_text(self) -> bytes:
        """Returns the payload as JSON text, in the form in which it is sent to the database."""
        if self.payload_json is None:
            return dumped(self.payload)
        return _native.text("payload_json", self.payload_json)

    def spec(self) -> _native.Owned:
        """Returns the library's form of this job, after all checks."""
        spec = _native.Owned(lib.gw_spec_new(_native.text("task", self.task)), lib.gw_spec_free)
        payload = self.payload_text()
        lib.gw_spec_set_payload(spec, payload, len(payload))
        if self.queue is not None:
            lib.gw_spec_set_queue(spec, _native.text("queue", self.queue))
        if self.run_at is not None:
            lib.gw_spec_set_run_at(spec, microseconds("run_at", self.run_at))
        if self.max_attempts is not None:
            lib.gw_spec_set_max_attempts(spec, _native.integer("max_attempts", self.max_attempts))
        if self.priority is not None:
            lib.gw_spec_set_priority(spec, _native.integer("priority", self.priority))
        if self.key_mode is not None and self.key_mode not in KEY_MODES:
            raise ConfigError(f"key_mode: must be one of {', '.join(KEY_MODES)}; got {self.key_mode!r}")
        if self.key is not None:
            lib.gw_spec_set_key(spec, _native.text("key", self.key), KEY_MODES[self.key_mode or "replace"])
        elif self.key_mode is not None:
            raise ConfigError("key_mode: has no meaning without a key")
        if isinstance(self.flags, str):
            raise InvalidArgumentError(f"flags: must be a list of str, got the str {self.flags!r}")
        for flag in self.flags:
            lib.gw_spec_add_flag(spec, _native.text("flags", flag))
        if self.traceparent is not None:
            lib.gw_spec_set_traceparent(spec, _native.text("traceparent", self.traceparent))
        call(lib.gw_spec_check, spec)  # also raises the errors of the setters above
        return spec


def microseconds(name: str, moment: datetime) -> int:
    """Returns a time in microseconds since 1970."""
    if not isinstance(moment, datetime):
        raise InvalidArgumentError(f"{name}: must be a datetime, got {moment!r}")
    if moment.tzinfo is None:
        raise InvalidArgumentError(f"{name}: needs a time zone, for example datetime.now(timezone.utc); got {moment!r}")
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """Returns the time that is `microseconds` after the start of 1970, in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)
