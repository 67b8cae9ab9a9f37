"""Converts payloads from Python's values to JSON text, with errors that name the field. Knows nothing of jobs."""

from __future__ import annotations

import json
import math
from typing import Any, Iterator, Optional, Tuple

from ._errors import PayloadError


def dumped(payload: Any) -> bytes:
    """Returns the payload as JSON text.

    Raises `PayloadError` with the first field that JSON cannot hold.
    """
    try:
        return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        path, why = next(_misfits("payload", payload, ()), ("payload", str(error)))
        raise PayloadError(f"{path} {why}; or pass the JSON text with payload_json=") from None


def _misfits(path: str, value: Any, parents: Tuple[int, ...]) -> Iterator[Tuple[str, str]]:
    """Yields the fields that JSON cannot hold, each with the reason."""
    if id(value) in parents:
        yield path, "contains itself"
    elif len(parents) > 200:
        yield f"{path[:60]}...", "is nested too deeply"
    elif isinstance(value, dict):
        for key, item in value.items():
            member = f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r}]"
            if not isinstance(key, (str, int, float, type(None))):
                yield member, f"has a key that is a {type(key).__name__}; JSON keys are texts"
            elif isinstance(key, str) and (why := _unencodable(key)):
                yield member, why
            yield from _misfits(member, item, (*parents, id(value)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _misfits(f"{path}[{index}]", item, (*parents, id(value)))
    elif isinstance(value, str):
        if why := _unencodable(value):
            yield path, why
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield path, f"is {value}, which JSON cannot hold"
    elif not isinstance(value, (int, type(None))):
        yield path, f"is a {type(value).__name__}, which JSON cannot hold: convert it to text or a number"


def _unencodable(text: str) -> Optional[str]:
    try:
        text.encode()
        return None
    except UnicodeEncodeError:
        return "has half of a surrogate pair, which is not a character"


def traced(payload: bytes, traceparent: str) -> bytes:
    """Returns the payload with a trace context in `_trace.traceparent`, from which workers read it."""
    fields = json.loads(payload)
    if not isinstance(fields, dict):
        raise PayloadError("traceparent: the payload must be a JSON object to carry it")
    trace = fields.get("_trace")
    fields["_trace"] = {**(trace if isinstance(trace, dict) else {}), "traceparent": traceparent}
    return dumped(fields)
