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
    """Returns the next `count` times at which a crontab entry adds a job, in UTC.

    They are after the time `after`, or after now if it is not given. The list is shorter if there are fewer times.
    Raises `CrontabError` with line and column if the entry is wrong.

    >>> next_runs("0 8 * * 1 report", 1, after=datetime(2026, 1, 1, tzinfo=timezone.utc))[0].isoformat()
    '2026-01-05T08:00:00+00:00'
    """
    crontab = _native.made(lib.gw_crontab_parse, _native.text("entry", entry), free=lib.gw_crontab_free)
    if lib.gw_crontab_len(crontab) != 1:
        raise CrontabError("next_runs: pass exactly one entry")
    moments = (c_int64 * count)()
    start = microseconds("after", after if after is not None else datetime.now(timezone.utc))
    return [moment(us) for us in moments[: lib.gw_crontab_next(crontab, 0, start, moments, count)]]
