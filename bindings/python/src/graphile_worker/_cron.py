"""Previews of crontab entries. Knows nothing of workers."""

from __future__ import annotations

from ctypes import c_int64
from datetime import datetime, timezone
from typing import List, Optional

from . import _native
from ._errors import CrontabError
from ._native import lib
from ._new_job import microseconds, moment


def next_runs(entry: str, count: int = 1, *, after: Optional[datetime] = None) -> List[datetime]:
    """When a crontab entry will add its next jobs, in UTC; after this moment, or after now.

    Raises `CrontabError` with line and column.

    >>> next_runs("0 8 * * 1 report", 1, after=datetime(2026, 1, 1, tzinfo=timezone.utc))[0].isoformat()
    '2026-01-05T08:00:00+00:00'
    """
    crontab = _native.made(lib.gw_crontab_parse, _native.text("entry", entry), free=lib.gw_crontab_free)
    if lib.gw_crontab_len(crontab) != 1:
        raise CrontabError("next_runs: takes one entry")
    moments = (c_int64 * count)()
    start = microseconds("after", after if after is not None else datetime.now(timezone.utc))
    return [moment(us) for us in moments[: lib.gw_crontab_next(crontab, 0, start, moments, count)]]
