"""The worker as users write it: tasks, hooks, crontab; and the ways to run it. Knows nothing of how a job is pulled."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import signal
import threading
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, TypeVar, Union, overload

from . import _green, _native, _options
from ._client import Client
from ._errors import ConfigError, Duration, StateError, seconds
from ._hooks import INTERCEPTED
from ._native import lib
from ._running import Running
from ._task import Task

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F", bound=Callable[..., Any])

#: A start goes on for so many seconds at least after a signal has asked it to stop.
PATIENCE = 0.1
STATES = ("new", "running", "stopping", "stopped", "failed")


class Worker:
    """Runs jobs. Make it, register its tasks, and run it.

    `database_url` is `DATABASE_URL` if not given, or what `PGHOST` and its like say; the options are those of `WorkerOptions`. Options that are not given
    come from the environment (`GRAPHILE_WORKER_CONCURRENCY`), or else are the library's defaults.

    Nothing is connected and no thread started before the worker runs, so a worker may be made when a module is
    imported, and run in a child that is forked later. Raises `ConfigError` for an option that is unknown or impossible.

    >>> worker = Worker(concurrency=4)                          # doctest: +SKIP
    >>> @worker.task                                            # doctest: +SKIP
    ... def hello(payload):
    ...     print("Hello,", payload["name"])
    >>> worker.run()                                            # doctest: +SKIP
    """

    def __init__(self, database_url: Optional[str] = None, **options: Unpack[_options.WorkerOptions]) -> None:
        self._settings = _options.settings(database_url, options)
        self._tasks: Dict[str, Task] = {}
        self._crontabs: List[bytes] = []
        self._observers: Dict[str, List[Callable[..., Any]]] = {}
        self._interceptors: Dict[str, List[Callable[..., Any]]] = {name: [] for name in INTERCEPTED}
        self._running: Optional[Running] = None
        self._client: Optional[Client] = None
        self._client_pid = 0

    # what it does

    @overload
    def task(self, name: F) -> F: ...

    @overload
    def task(
        self, name: Optional[str] = None, *, timeout: Union[Duration, str, None] = None, backoff: Optional[str] = None
    ) -> Callable[[F], F]: ...

    def task(
        self, name: Any = None, *, timeout: Union[Duration, str, None] = None, backoff: Optional[str] = None
    ) -> Any:
        """Registers a function as a task; its name is the function's if none is given.

        The function takes the payload, and a `Context` if it has a second parameter. It succeeds by returning, and
        fails by raising; see `TaskFailed` and `RetryAfter`. `async def` functions run on an event loop, all others on
        threads, `concurrency` jobs at once.

        - `timeout`: how long it may take, as a number of seconds, `timedelta` or text; then it is cancelled, and the
          attempt fails.
        - `backoff`: `"fixed 10s"`, `"linear 10s 1h"` or `"exponential 10s 1h"`; e^attempts seconds if not given.

        >>> @worker.task("send_email", timeout=30)               # doctest: +SKIP
        ... async def send_email(payload, ctx): ...
        """
        return self._registered(name, False, timeout, backoff)

    @overload
    def batch_task(self, name: F) -> F: ...

    @overload
    def batch_task(
        self, name: Optional[str] = None, *, timeout: Union[Duration, str, None] = None, backoff: Optional[str] = None
    ) -> Callable[[F], F]: ...

    def batch_task(
        self, name: Any = None, *, timeout: Union[Duration, str, None] = None, backoff: Optional[str] = None
    ) -> Any:
        """As `task`, for jobs whose payload is a list: the function takes the items.

        It returns None if all succeeded, or a list with None or an exception for each item: only the items that failed
        stay for the next attempt.
        """
        return self._registered(name, True, timeout, backoff)

    def _registered(
        self, name: Any, is_batch: bool, timeout: Union[Duration, str, None], backoff: Optional[str]
    ) -> Any:
        def register(handler: F) -> F:
            given = getattr(handler, "__name__", None) if name is None else name
            if not isinstance(given, str):
                raise ConfigError(f"a task's name is a text, not {given!r}")
            if given in self._tasks:
                raise ConfigError(f"there is a task {given} already")
            self._refuse_running("a task is registered")
            options = {}
            if timeout is not None:
                options["timeout"] = _options.duration_text("timeout", timeout)
            if backoff is not None:
                options["backoff"] = backoff
            self._tasks[given] = Task(given, handler, is_batch, options)
            return handler

        if callable(name):
            handler, name = name, None
            return register(handler)
        return register

    def cron(self, crontab: str) -> None:
        """Adds jobs by the clock, as Graphile Worker's crontab has it; several lines at once will do.

        Raises `CrontabError` with line and column.

        >>> worker.cron("0 8 * * 1 report ?tz=Europe/Berlin&fill=1d {\\"week\\": 0}")    # doctest: +SKIP
        """
        self._refuse_running("a crontab is added")
        text = _native.text("crontab", crontab)
        _native.made(lib.gw_crontab_parse, text, free=lib.gw_crontab_free)
        self._crontabs.append(text)

    def on(self, event: str) -> Callable[[F], F]:
        """Registers an observer of an event (`"JobComplete"`, `"JobFail"`, `"WorkerStart"`, ...).

        It is called with an `Event`, on a thread of its own, one event after the other; what it raises is logged.

        >>> @worker.on("JobPermanentlyFail")                      # doctest: +SKIP
        ... def alert(event):
        ...     print("job", event.job_id, "is given up:", event.data["error"])
        """
        if event in INTERCEPTED:
            raise ConfigError(f"{event} is decided over, not observed: use intercept")
        known = [name for name in _native.texts_at(lib.gw_event_name_at) if name not in INTERCEPTED]
        self._refuse_running("an observer is registered")
        return _collect(self._observers.setdefault(_one_of("event", event, known), []))

    def intercept(self, event: str) -> Callable[[F], F]:
        """Registers an interceptor, which may decide over a job. The first that answers anything but None decides.

        - `"BeforeJobRun"`: called with the `Context`; answers `Skip()` (the job counts as done) or `Fail(reason)`.
        - `"AfterJobRun"`: called with the `Context` and the exception, or None if the task succeeded; answers the same.
        - `"BeforeJobSchedule"`: called with the `NewJob` that a client of this worker is about to add; answers `Skip()`
          (the caller gets `SkippedError`), `Fail(reason)` (`RefusedError`), or another `NewJob`, which the next
          interceptor is then shown.

        It runs where the job runs: on its thread, or on the loop, where it must not block.
        """
        self._refuse_running("an interceptor is registered")
        return _collect(self._interceptors[_one_of("interceptor", event, INTERCEPTED)])

    # running it

    def run(self) -> None:
        """Runs until it is stopped: by `stop`, or by SIGINT (Ctrl-C), SIGTERM or SIGHUP on the main thread.

        The first signal lets running jobs end within `shutdown_grace_period`, the second cancels them. Signals that the
        program handles by itself, or ignores, are left alone. Raises what the start raises, and `StuckError` if a task
        did not return, or an outcome could not be written: that job may run again.
        """
        self._run(once=False)

    def run_once(self) -> None:
        """Runs every job that is due, and returns. Stops as `run` does.

        Adds no jobs of the crontab, also none that `fill` would make up for, and recovers no jobs of dead workers.
        """
        self._run(once=True)

    def start(self, *, once: bool = False) -> None:
        """Starts in the background and returns once it runs; raises `ConnectError` and the like if it cannot."""
        running = self._begun(once)
        try:
            running.started.result()
        except BaseException:
            running.stop(abort=True)
            raise

    def stop(self, *, abort: bool = False) -> None:
        """Asks it to stop, and returns at once. Running jobs have the grace period; with `abort` they have not.

        Any thread may call it, a signal handler too. Does nothing if the worker does not run.
        """
        if self._running is not None:
            self._running.stop(abort)

    def wait(self, timeout: Optional[Duration] = None) -> bool:
        """Waits until it has ended; False if it has not within `timeout`.

        Raises `StuckError` if a task did not return, or an outcome could not be written: that job may run again.
        """
        if self._running is None:
            return True
        self._running.refuse_fork()
        self._running.refuse_own_thread()
        try:
            self._running.ended.result(None if timeout is None else seconds(timeout))
            return True
        except FutureTimeout:
            return False

    def close(self) -> None:
        """Stops it, waits for its end, and frees what it holds. In a forked child it does nothing."""
        running = self._running
        if running is not None and running._pid == os.getpid():
            try:
                if not running.ended.done():
                    self._stop_and_wait(running)
            finally:
                self._running = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def run_async(self, *, once: bool = False) -> None:
        """Runs on the caller's event loop; returns and raises as `run` and `run_once` do.

        `async def` tasks run on this loop, others on threads. To cancel it stops the worker: once, and running jobs
        have the grace period; twice, and they have not.

        >>> asyncio.run(worker.run_async())                     # doctest: +SKIP
        """
        loop = _green.running_loop()
        with _loop_signals(loop) as stopper:
            running = stopper.follow(self._begun(once, loop))
            try:
                started = asyncio.wrap_future(running.started)
                while not (await asyncio.wait([started], timeout=PATIENCE))[0]:
                    stopper.give_up()
                started.result()
                await asyncio.wrap_future(running.ended)
            except asyncio.CancelledError:
                running.stop(abort=not running.started.done())
                await self._end_async(running)
                raise

    async def _end_async(self, running: Running) -> None:
        while not running.ended.done():
            try:
                await asyncio.wrap_future(running.ended)
            except asyncio.CancelledError:
                running.stop(abort=True)

    # what it knows

    @property
    def client(self) -> Client:
        """A client with this worker's options. Its jobs pass `BeforeJobSchedule`.

        It is made at the first use: connects, and installs the schema as a start does, unless `migrate` is false.
        """
        if self._client is None or self._client_pid != os.getpid():
            self._client = Client._of_worker(self._settings, self._interceptors["BeforeJobSchedule"])
            self._client_pid = os.getpid()
            if self._settings.get("migrate") != "false":
                self._client.migrate()
        return self._client

    @property
    def id(self) -> Optional[str]:
        """The id under which it locks jobs; None before the first start, new with each."""
        return None if self._running is None else self._running.id()

    @property
    def state(self) -> str:
        """`"new"`, `"running"`, `"stopping"`, `"stopped"` or `"failed"`."""
        return "new" if self._running is None else STATES[lib.gw_worker_state(self._running._worker)]

    def stats(self) -> Dict[str, Any]:
        """Counters of the last start: jobs claimed, completed, failed, running; times of tasks; sessions."""
        if self._running is None:
            raise StateError("the worker was not started yet")
        self._running.refuse_fork()
        return json.loads(self._running.stats_text())

    # helpers

    def _begun(self, once: bool, loop: Optional[asyncio.AbstractEventLoop] = None) -> Running:
        self._refuse_running("it is started")
        if not self._tasks:
            raise ConfigError("the worker has no task: register one with @worker.task")
        _green.refuse_worker(on_loop=loop is not None or any(task.is_async for task in self._tasks.values()))
        self._running = Running(self, once, loop)
        return self._running

    def _refuse_running(self, what: str) -> None:
        if self._running is not None:
            self._running.refuse_fork()
            if not self._running.ended.done():
                raise StateError(f"the worker runs already: {what} before that, or after it has ended")

    def _run(self, once: bool) -> None:
        with _signals() as stopper:
            running = stopper.follow(self._begun(once))
            try:
                while not _started(running, PATIENCE):
                    stopper.give_up()
                running.ended.result()
            except BaseException as error:  # a refused start, a stuck task, or what the user's signal handler raises
                if not running.started.done():
                    running.stop(abort=True)
                    raise
                if not running.ended.done():
                    self._stop_and_wait(running)
                if not isinstance(error, KeyboardInterrupt):
                    raise

    def _stop_and_wait(self, running: Running) -> None:
        """Stops gracefully; a Ctrl-C meanwhile aborts."""
        running.refuse_own_thread()
        running.stop()
        try:
            running.ended.result()
        except KeyboardInterrupt:
            running.stop(abort=True)
            running.ended.result()
            raise


def _collect(hooks: List[Callable[..., Any]]) -> Callable[[F], F]:
    def register(hook: F) -> F:
        if inspect.iscoroutinefunction(hook):
            raise ConfigError(f"{hook.__name__}: a hook is a plain function, not async def")
        hooks.append(hook)
        return hook

    return register


def _one_of(what: str, name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    raise _options.unknown(what, name, known)


#: The signals that stop a worker, each with the handler that it has when nobody has set one.
_STOPPING = {
    getattr(signal, name): default
    for name, default in (
        ("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)
    )
    if hasattr(signal, name)
}


def _free_signals() -> List[int]:
    """Those signals that nobody handles or ignores; none outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number, default in _STOPPING.items() if signal.getsignal(number) == default]


class _Stopper:
    """What a signal does: the first stops gracefully, the next aborts. It is there before the worker begins."""

    def __init__(self) -> None:
        self._running: Optional[Running] = None
        self._signal: Optional[int] = None

    def follow(self, running: Running) -> Running:
        """Stops this worker from now on; at once if a signal has come already."""
        self._running = running
        if self._signal is not None:
            running.stop()
        return running

    def __call__(self, number: int, _frame: object = None) -> None:
        if self._running is not None:
            self._running.stop(abort=self._signal is not None)
        self._signal = number

    def give_up(self) -> None:
        """Ends a start that takes too long after a signal: the database may not answer at all."""
        if self._signal is not None:
            raise KeyboardInterrupt if self._signal == signal.SIGINT else SystemExit(128 + self._signal)


def _started(running: Running, patience: float) -> bool:
    """Whether it has started within `patience`; raises what it was refused with."""
    try:
        running.started.result(patience)
        return True
    except FutureTimeout:
        return False


@contextlib.contextmanager
def _signals() -> Iterator[_Stopper]:
    numbers, stopper = _free_signals(), _Stopper()
    for number in numbers:
        signal.signal(number, stopper)
    try:
        yield stopper
    finally:
        for number in numbers:
            signal.signal(number, _STOPPING[number])


@contextlib.contextmanager
def _loop_signals(loop: asyncio.AbstractEventLoop) -> Iterator[_Stopper]:
    numbers, stopper = _free_signals(), _Stopper()
    for number in numbers:
        loop.add_signal_handler(number, stopper, number)
    try:
        yield stopper
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
