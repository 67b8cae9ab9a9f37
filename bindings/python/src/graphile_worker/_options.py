"""Converts options of workers and clients from Python's types to the library's texts. Knows nothing of their effect."""

from __future__ import annotations

import difflib
import json
from datetime import timedelta
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, TypedDict, Union

from . import _native
from ._errors import ConfigError, Duration, InvalidArgumentError, milliseconds
from ._native import call, lib


class ClientOptions(TypedDict, total=False):
    """The options of `Client`; `python -m graphile_worker --options` prints each with its default.

    A duration is a `timedelta`, a number of seconds, or a text with a unit: `"250ms"`, `"5m"`.
    """

    schema: str
    max_pg_conn: int
    database_timeout: Union[Duration, str]
    dry_run: bool


class WorkerOptions(TypedDict, total=False):
    """The options of `Worker`; `python -m graphile_worker --options` prints each with its default.

    A duration is a `timedelta`, a number of seconds, or a text with a unit: `"250ms"`, `"5m"`.
    """

    schema: str
    migrate: bool
    max_pg_conn: int
    database_timeout: Union[Duration, str]
    use_local_time: bool
    concurrency: int
    poll_interval: Union[Duration, str]
    use_notification_delivery: bool
    shutdown_grace_period: Union[Duration, str]
    shutdown_interrupted_job_retry_delay: Union[Duration, str]
    listen_os_shutdown_signals: bool
    complete_job_batch_delay: Union[Duration, str]
    fail_job_batch_delay: Union[Duration, str]
    local_queue_size: int
    local_queue_count: int
    local_queue_ttl: Union[Duration, str]
    local_queue_refetch_delay: Union[Duration, str]
    local_queue_refetch_threshold: int
    local_queue_refetch_max_abort_threshold: int
    max_held_bytes: int
    forbidden_flags: Sequence[str]
    accepted_flags: Sequence[str]
    worker_recovery: bool
    heartbeat_interval: Union[Duration, str]
    sweep_interval: Union[Duration, str]
    sweep_threshold: Union[Duration, str]
    recovery_delay: Union[Duration, str]
    resilient_sweep_threshold_multiplier: int
    resilient_job_flags: Sequence[str]
    max_recoveries: int
    crontab: str


#: Options that only the binding sets: it pulls jobs, so it needs no callback threads and handles cancellations itself.
OWN_KEYS = frozenset({"threads", "deliver_cancellations"})


def options() -> List[Dict[str, Any]]:
    """Returns all options of the library as dicts with `key`, `type`, `default`, `for` and `doc`."""
    keys = (key for key in _native.texts_at(lib.gw_config_key_at) if key not in OWN_KEYS)
    return [json.loads(lib.gw_config_key_info(key.encode())) for key in keys]


def settings(database_url: Optional[str], given: Mapping[str, Any]) -> Dict[str, str]:
    """Checks the options and returns them as the library's texts."""
    known = {option["key"]: option for option in options()}
    texts = {} if database_url is None else {"database_url": database_url}
    for key, value in given.items():
        if key not in known:
            raise unknown("option", key, known)
        if value is not None:
            texts[key] = _text(key, known[key]["type"], value)
    configuration(texts)
    return texts


def configuration(texts: Mapping[str, str]) -> _native.Owned:
    """Returns a configuration of the library. `texts` override the values from the environment."""
    config = _native.Owned(lib.gw_config_new(), lib.gw_config_free)
    call(lib.gw_config_load_env, config)
    for key, value in texts.items():
        call(lib.gw_config_set, config, key.encode(), _native.text(key, value))
    return config


def value_of(config: _native.Owned, key: str) -> Optional[str]:
    """Returns the value of a key, or its default."""
    return _native.asked_text(lib.gw_config_get, config, key.encode())


def duration_text(name: str, duration: Union[Duration, str]) -> str:
    """Returns a duration in the library's text form."""
    return duration if isinstance(duration, str) else f"{milliseconds(name, duration)}ms"


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """Returns the error for a name that does not exist. Its text suggests similar names."""
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(known)}"
    return ConfigError(f"unknown {what} {name}: {hint}")


def _text(key: str, kind: str, value: Any) -> str:
    try:
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, timedelta) or (kind == "duration" and isinstance(value, (int, float))):
            return duration_text(key, value)
        if isinstance(value, (int, float)):
            return str(value)
        if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) for item in value):
            if any("," in item for item in value):
                raise ConfigError(f"{key}: its texts must not contain a comma; got {value!r}")
            return ",".join(value)
    except InvalidArgumentError as error:
        raise ConfigError(str(error)) from None
    raise ConfigError(f"{key}: takes a {kind}, got {value!r}")

