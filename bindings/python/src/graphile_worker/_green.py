"""Detects gevent, eventlet and trio, which replace threads or asyncio in a program. Knows nothing of jobs."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Callable, Optional, Tuple

from ._errors import UnsupportedError


#: The modules that monkey patching can replace: gevent's name, then eventlet's.
THREADS, SELECT = ("threading", "thread"), ("select", "select")


def patched(module: Tuple[str, str] = THREADS) -> Optional[str]:
    """Returns the package that has replaced a module in this process, or None."""
    monkey, patcher = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if monkey is not None and monkey.is_module_patched(module[0]):
        return "gevent"
    if patcher is not None and patcher.is_monkey_patched(module[1]):
        return "eventlet"
    return None


def wait(function: Callable[..., Any], *arguments: Any) -> Any:
    """Makes a call that may wait.

    If threads are greenlets, a thread of the package's own pool makes the call, so that other greenlets keep running.
    """
    package = patched()
    if package == "gevent":
        import gevent

        return gevent.get_hub().threadpool.apply(function, arguments)
    if package == "eventlet":
        from eventlet import tpool

        return tpool.execute(function, *arguments)
    return function(*arguments)


def running_loop() -> asyncio.AbstractEventLoop:
    """Returns the event loop of the caller, which must be asyncio's or compatible with it."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise UnsupportedError(
            "no asyncio event loop is running; under trio call `await trio.to_thread.run_sync(...)` with "
            "client.add_job or worker.run instead"
        ) from None


def refuse_worker(on_loop: bool) -> None:
    """Raises `UnsupportedError` if threads are greenlets: the first that waits for a job would stop all others.

    A worker on an event loop also needs the `select` module that is not patched.
    """
    package, what = patched(), "threads"
    if package is None and on_loop:
        package, what = patched(SELECT), "select"
    if package is not None:
        raise UnsupportedError(
            f"a worker needs real threads, and `async def` tasks a real select; {package} has replaced {what} in this "
            "process (monkey patching). Run the worker in a process without it: `python -m graphile_worker "
            "app.jobs:worker`, if its modules do not patch. Clients work in this process"
        )
