"""The worker that users configure with tasks, hooks and a crontab, and run. Knows nothing of how a job is pulled."""

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
from ._setup import Setup
from ._task import Task

if TYPE_CHECKING:
    from typing_extensions import Unpack

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds between two checks, while the worker starts, whether a signal has asked it to stop.
SIGNAL_CHECK = 0.1
STATES = ("new", "running", "stopping", "stopped", "failed")


class Worker:
    """Runs jobs. Make it, register its tasks, and run it.

    If `database_url` is not given, the worker uses `DATABASE_URL`, or else `PGHOST` and the other variables of libpq.
    The options are those of `WorkerOptions`. An option that is not given is read from the environment
    (`GRAPHILE_WORKER_CONCURRENCY`), or else has the library's default.

    The worker connects and starts threads only when it runs. So it may be made when a module is imported, and run in a
    child that is forked later. Raises `ConfigError` if an option is unknown or its value is not valid.

    >>> worker = Worker(concurrency=4)                          # doctest: +SKIP
    >>> @worker.task                                            # doctest: +SKIP
    ... def hello(payload):
    ...     print("Hello,", payload["name"])
    >>> worker.run()                                            # doctest: +SKIP
    """

    def __init__(self, database_url: Optional[str] = None, **options: Unpack[_options.WorkerOptions]) -> None:
        self._setup = Setup(_options.settings(database_url, options))
        self._running: Optional[Running] = None
        self._client: Optional[Client] = None
        self._client_pid = 0

    # tasks and hooks

    @overload
    def task(self, name: F) -> F: ...

    @overload
    def task(
        self, name: Optional[str] = None, *, timeout: Union[Duration, str, None] = None, backoff: Optional[str] = None
    ) -> Callable[[F], F]: ...

    def task(
        self, name: Any = None, *, timeout: Union[Duration, str, None] = None, backoff: Optional[str] = None
    ) -> Any:
        """Registers a function as a task. If no name is given, the task has the function's name.

        The function takes the payload, and a `Context` if it has a second parameter. It succeeds by returning, and
        fails by raising; see `TaskFailed` and `RetryAfter`. `async def` functions run on an event loop, all others on
        threads. At most `concurrency` jobs run at once.

        - `timeout`: the longest time that the task may take, as a number of seconds, `timedelta` or text. After it the
          task is cancelled, and the attempt fails. No timeout if not given.
        - `backoff`: `"fixed 10s"`, `"linear 10s 1h"` or `"exponential 10s 1h"`; e^attempts seconds if not given.

        Raises `ConfigError` if the function cannot be a task or the name is taken, `StateError` if the worker runs.

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
        """As `task`, for jobs whose payload is a list: the function receives the list.

        It returns None if all items succeeded, or a list with None or an exception for each item. Only the items that
        failed are left for the next attempt.
        """
        return self._registered(name, True, timeout, backoff)

    def _registered(
        self, name: Any, is_batch: bool, timeout: Union[Duration, str, None], backoff: Optional[str]
    ) -> Any:
        def register(handler: F) -> F:
            given = getattr(handler, "__name__", None) if name is None else name
            if not isinstance(given, str):
                raise ConfigError(f"a task's name must be a str, not {given!r}")
            if given in self._setup.tasks:
                raise ConfigError(f"task {given} is registered already")
            self._refuse_running("register a task")
            options = {}
            if timeout is not None:
                options["timeout"] = _options.duration_text("timeout", timeout)
            if backoff is not None:
                options["backoff"] = backoff
            self._setup.tasks[given] = Task(given, handler, is_batch, options)
            return handler

        if callable(name):
            handler, name = name, None
            return register(handler)
        return register

    def cron(self, crontab: str) -> None:
        """Adds entries of Graphile Worker's crontab, which add jobs at given times. The text may have several lines.

        Raises `CrontabError` with line and column if the text is wrong, `StateError` if the worker runs.

        >>> worker.cron("0 8 * * 1 report ?tz=Europe/Berlin&fill=1d {\\"week\\": 0}")    # doctest: +SKIP
        """
        self._refuse_running("add a crontab")
        text = _native.text("crontab", crontab)
        _native.made(lib.gw_crontab_parse, text, free=lib.gw_crontab_free)
        self._setup.crontabs.append(text)

    def on(self, event: str) -> Callable[[F], F]:
        """Registers an observer of an event (`"JobComplete"`, `"JobFail"`, `"WorkerStart"`, ...).

        The observer is called with an `Event`. One thread calls all observers, one event after the other. An exception
        of an observer is logged. Raises `ConfigError` for an unknown event, `StateError` if the worker runs.

        >>> @worker.on("JobPermanentlyFail")                      # doctest: +SKIP
        ... def alert(event):
        ...     print("job", event.job_id, "failed permanently:", event.data["error"])
        """
        if event in INTERCEPTED:
            raise ConfigError(f"{event} cannot be observed: use intercept")
        known = [name for name in _native.texts_at(lib.gw_event_name_at) if name not in INTERCEPTED]
        self._refuse_running("register an observer")
        return _collect(self._setup.observers.setdefault(_one_of("event", event, known), []))

    def intercept(self, event: str) -> Callable[[F], F]:
        """Registers an interceptor, which may decide the outcome of a job. The first that does not return None decides.

        - `"BeforeJobRun"`: called with the `Context`; returns None, `Skip()` (the job counts as done), `Fail(reason)`.
        - `"AfterJobRun"`: called with the `Context` and the exception, or None if the task succeeded; returns the same.
        - `"BeforeJobSchedule"`: called with the `NewJob` that a client of this worker is about to add. Returns None,
          `Skip()` (the caller gets `SkippedError`), `Fail(reason)` (`RefusedError`), or another `NewJob`, with which
          the next interceptor is called.

        An interceptor of runs is called where the job runs: on its thread, or on the loop, where it must not block.
        """
        self._refuse_running("register an interceptor")
        return _collect(self._setup.interceptors[_one_of("interceptor", event, INTERCEPTED)])

    # running it

    def run(self) -> None:
        """Runs the worker until `stop` is called, or until SIGINT (Ctrl-C), SIGTERM or SIGHUP on the main thread.

        The first signal lets running jobs end within `shutdown_grace_period`, the second cancels them. Signals that the
        program handles by itself, or ignores, are left alone. Raises the errors of `start`. Raises `StuckError` if a
        task did not return or an outcome could not be written; that job may run again.
        """
        self._run(once=False)

    def run_once(self) -> None:
        """Runs every job that is due, and returns. Stops as `run` does.

        Adds no jobs of the crontab, not even those that `fill` would add, and recovers no jobs of dead workers.
        """
        self._run(once=True)

    def start(self, *, once: bool = False) -> None:
        """Starts the worker in the background, and returns once it runs.

        With `once` the worker runs every due job and then ends. Raises `ConnectError` or another `GraphileWorkerError`
        if it cannot start, `StateError` if it runs already.
        """
        running = self._begun(once)
        try:
            running.started.result()
        except BaseException:
            running.stop(abort=True)
            raise

    def stop(self, *, abort: bool = False) -> None:
        """Asks the worker to stop, and returns at once. Running jobs have the grace period, but not with `abort`.

        Any thread and any signal handler may call it. Does nothing if the worker does not run.
        """
        if self._running is not None:
            self._running.stop(abort)

    def wait(self, timeout: Optional[Duration] = None) -> bool:
        """Waits until the worker has ended; returns False if it has not ended within `timeout`. No limit if not given.

        Raises `StuckError` if a task did not return or an outcome could not be written; that job may run again. Raises
        `DeadlockError` if a task or an observer of this worker calls it.
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
        """Stops the worker, waits for its end, and frees it. In a forked child it does not stop the parent's worker.

        Raises `StuckError` and `DeadlockError` as `wait` does.
        """
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
        """Runs the worker on the caller's event loop; returns and raises as `run` and `run_once` do.

        `async def` tasks run on this loop, others on threads. Cancelling this coroutine stops the worker: the first
        time running jobs have the grace period, the second time they are cancelled.

        >>> asyncio.run(worker.run_async())                     # doctest: +SKIP
        """
        loop = _green.running_loop()
        with _loop_signals(loop) as stopper:
            running = stopper.follow(self._begun(once, loop))
            try:
                started = asyncio.wrap_future(running.started)
                while not (await asyncio.wait([started], timeout=SIGNAL_CHECK))[0]:
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

    # client and state

    @property
    def client(self) -> Client:
        """A client with this worker's options. The interceptors of `BeforeJobSchedule` see the jobs that it adds.

        It is made at the first use. It then connects, and installs the schema unless `migrate` is false, as `start`
        does.
        """
        if self._client is None or self._client_pid != os.getpid():
            self._client = Client._of_worker(self._setup.settings, self._setup.interceptors["BeforeJobSchedule"])
            self._client_pid = os.getpid()
            if self._setup.settings.get("migrate") != "false":
                self._client.migrate()
        return self._client

    @property
    def id(self) -> Optional[str]:
        """The id under which the worker locks jobs; None before the first start, and a new one with each start."""
        return None if self._running is None else self._running.id()

    @property
    def state(self) -> str:
        """`"new"`, `"running"`, `"stopping"`, `"stopped"` or `"failed"`."""
        return "new" if self._running is None else STATES[lib.gw_worker_state(self._running._worker)]

    def stats(self) -> Dict[str, Any]:
        """Returns counters since the last start: jobs claimed, completed, failed, running; times of tasks; sessions.

        Raises `StateError` before the first start.
        """
        if self._running is None:
            raise StateError("the worker was not started yet: call start or run first")
        self._running.refuse_fork()
        return json.loads(self._running.stats_text())

    # helpers

    def _begun(self, once: bool, loop: Optional[asyncio.AbstractEventLoop] = None) -> Running:
        self._refuse_running("start it")
        if not self._setup.tasks:
            raise ConfigError("the worker has no task: register one with @worker.task")
        _green.refuse_worker(on_loop=loop is not None or any(task.is_async for task in self._setup.tasks.values()))
        self._running = Running(self._setup, once, loop)
        return self._running

    def _refuse_running(self, what: str) -> None:
        if self._running is not None:
            self._running.refuse_fork()
            if not self._running.ended.done():
                raise StateError(f"the worker runs already: {what} before the worker starts, or after it has ended")

    def _run(self, once: bool) -> None:
        with _signals() as stopper:
            running = stopper.follow(self._begun(once))
            try:
                while not _started(running, SIGNAL_CHECK):
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
        """Stops gracefully and waits; a Ctrl-C during the wait aborts."""
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
            raise ConfigError(f"{hook.__name__}: a hook must be a plain function, not async def")
        hooks.append(hook)
        return hook

    return register


def _one_of(what: str, name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    raise _options.unknown(what, name, known)


#: The signals that stop a worker, each with Python's default handler.
_STOPPING = {
    getattr(signal, name): default
    for name, default in (
        ("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL), ("SIGHUP", signal.SIG_DFL)
    )
    if hasattr(signal, name)
}


def _free_signals() -> List[int]:
    """Returns the stopping signals that have their default handler; none outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number, default in _STOPPING.items() if signal.getsignal(number) == default]


class _Stopper:
    """The signal handler: the first signal stops gracefully, the next aborts. Installed before the worker starts."""

    def __init__(self) -> None:
        self._running: Optional[Running] = None
        self._signal: Optional[int] = None

    def follow(self, running: Running) -> Running:
        """Applies signals to this worker from now on. If a signal has arrived already, stops it at once."""
        self._running = running
        if self._signal is not None:
            running.stop()
        return running

    def __call__(self, number: int, _frame: object = None) -> None:
        if self._running is not None:
            self._running.stop(abort=self._signal is not None)
        self._signal = number

    def give_up(self) -> None:
        """Raises if a signal has arrived, to end a start that may wait for a database that never replies."""
        if self._signal is not None:
            raise KeyboardInterrupt if self._signal == signal.SIGINT else SystemExit(128 + self._signal)


def _started(running: Running, timeout: float) -> bool:
    """Whether the worker has started within `timeout` seconds; raises the error of the start."""
    try:
        running.started.result(timeout)
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
