"""One run of a worker, from its start to its end: pulls jobs, runs them, and passes their outcomes to the library.

    graphile-worker        starts the library's worker, and waits for its end
    graphile-worker-0...N  run plain tasks, each thread one job at a time
    graphile-worker-loop   runs `async def` tasks, unless the caller passes its own loop
    graphile-worker-hooks  calls observers

All are daemon threads, so the interpreter does not wait for a task that hangs. `stop_all` stops the workers before
that. Knows nothing of how tasks are registered.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import os
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from ctypes import byref, c_char_p, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, List, Optional, Set, Union

from . import _hooks, _log, _native, _options
from ._client import Client
from ._context import Context
from ._errors import DeadlockError, ForkedError, RetryAfter, TaskFailed, milliseconds
from ._hooks import Fail, Skip
from ._job import Job
from ._log import logger
from ._native import call, lib
from ._setup import Setup
from ._task import Task, text_of

#: The most jobs that the puller takes before it lets other callbacks of the event loop run.
TURN = 64
#: Seconds that the end of a worker waits for observers of the last events, and for ending threads.
END_TIMEOUT = 2.0

_alive: Set[Running] = set()


class Running:
    """A started worker. The thread that waits for the library sets `started` and `ended`."""

    def __init__(self, setup: Setup, once: bool, loop: Optional[asyncio.AbstractEventLoop] = None) -> None:
        _log.follow()
        self._pid = os.getpid()
        self._mode = _native.RUN_ONCE if once else _native.RUN_FOREVER
        self._tasks = dict(setup.tasks)
        self._interceptors = {name: list(hooks) for name, hooks in setup.interceptors.items()}
        self._observers = {name: list(hooks) for name, hooks in setup.observers.items()}
        on_loop = loop is not None or any(task.is_async for task in self._tasks.values())

        # Only a loop needs cancellations delivered; tasks on threads check `is_cancelled`.
        own = {"deliver_cancellations": "true" if on_loop else "false"}
        config = _options.configuration({**setup.settings, **own})
        self._concurrency = int(_options.value_of(config, "concurrency") or 1)
        self._schema = _options.value_of(config, "schema")
        self._worker = _native.made(lib.gw_worker_new, config, free=lib.gw_worker_free)
        for task in self._tasks.values():
            call(lib.gw_worker_add_task, self._worker, _native.text("task", task.name), None, None, None)
            for key, value in task.options.items():
                call(lib.gw_worker_set_task_option, self._worker, task.name.encode(), key.encode(), value.encode())
        for crontab in setup.crontabs:
            call(lib.gw_worker_add_crontab, self._worker, crontab)
        for event in self._observers:
            call(lib.gw_worker_on_event, self._worker, event.encode(), None, None, None)

        self._threads: List[threading.Thread] = []
        self._puller: Union[_LoopPuller, _ThreadPuller] = _LoopPuller(self, loop) if on_loop else _ThreadPuller(self)
        self.client: Client
        self.started: Future[None] = Future()
        self.ended: Future[None] = Future()
        for future in (self.started, self.ended):
            future.set_running_or_notify_cancel()  # so that no waiting caller can cancel it
        _alive.add(self)
        self.spawn("", self._live)

    def _live(self) -> None:
        """Body of the thread that starts the library's worker and waits for its end."""
        try:
            call(lib.gw_worker_start, self._worker, self._mode)
            self.client = Client._lent(
                lib.gw_worker_client(self._worker), self._schema, self._interceptors["BeforeJobSchedule"]
            )
            if self._observers:
                self.spawn("-hooks", self._observe)
            self._puller.begin()
        except BaseException as error:
            lib.gw_worker_request_stop(self._worker, _native.STOP_ABORT)
            lib.gw_worker_wait(self._worker, -1, None)
            self._end(error)
            self.started.set_exception(error)
            return
        self.started.set_result(None)
        try:
            call(lib.gw_worker_wait, self._worker, -1)
        except BaseException as error:
            self._puller.end()
            self._end(error)
        else:
            self._puller.end()
            self._join_threads()
            self._end(None)

    def _join_threads(self) -> None:
        """Waits for threads that are about to end, so that no observer is called after `ended`."""
        deadline = time.monotonic() + END_TIMEOUT
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _end(self, error: Optional[BaseException]) -> None:
        _alive.discard(self)
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    # called by other threads

    def stop(self, abort: bool = False) -> None:
        """Asks the worker to stop, and returns at once. A signal handler may call it."""
        self.refuse_fork()
        lib.gw_worker_request_stop(self._worker, _native.STOP_ABORT if abort else _native.STOP_GRACEFUL)

    def refuse_fork(self) -> None:
        """Raises `ForkedError` in a process that was forked after the start."""
        if os.getpid() != self._pid:
            raise ForkedError(
                "this worker was started before the fork, and runs in the parent process only: "
                "make and start a worker in the child"
            )

    def refuse_own_thread(self) -> None:
        """Raises `DeadlockError` on a thread that this worker waits for."""
        if threading.current_thread() in self._threads:
            raise DeadlockError("a task or observer cannot wait for the worker that runs it")

    def id(self) -> Optional[str]:
        """Returns the id under which the worker locks jobs, or None."""
        worker_id = lib.gw_worker_id(self._worker)
        return worker_id.decode() if worker_id is not None else None

    def stats_text(self) -> str:
        """Returns the worker's counters, as JSON."""
        return _native.owned_text(lib.gw_worker_stats_json(self._worker)) or "{}"

    def spawn(self, name: str, body: Callable[[], None]) -> None:
        """Starts one of the worker's threads."""
        thread = threading.Thread(target=body, name=f"graphile-worker{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # jobs

    def run(self, job: Job) -> None:
        """Runs a job of a plain task on this thread, and settles it. Raises nothing."""
        # Each job has a context of its own, so that the next job does not see a ContextVar that this one sets.
        contextvars.copy_context().run(self._run, job)

    def _run(self, job: Job) -> None:
        task, context = self._tasks[job.task], Context(job, self.client)
        result = error = None
        decision = self._before(context)
        if decision is None:
            try:
                result = task.checked(task.handler(*task.arguments(context)))
            except BaseException as caught:  # SystemExit too: it must not end the thread, nor lose the job
                error = caught
            decision = self._after(context, error)
        try:
            self._settle(task, context, decision, result, error)
        finally:
            error = None  # its traceback refers to this frame

    async def run_async(self, job: Job) -> None:
        """Runs a job of an `async def` task, and settles it. Raises nothing."""
        task, context = self._tasks[job.task], Context(job, self.client)
        result = error = None
        decision = self._before(context)
        if decision is None:
            try:
                result = await task.handler(*task.arguments(context))
            except BaseException as caught:
                error = caught
            decision = self._after(context, error)
        try:
            self._settle(task, context, decision, result, error)
        finally:
            error = None

    def is_async(self, job: Job) -> bool:
        """Whether a job runs on the loop."""
        return self._tasks[job.task].is_async

    def drop(self, job: Job, error: BaseException) -> None:
        """Fails a job that could not start."""
        self._settle(self._tasks[job.task], Context(job, self.client), None, None, error)

    def _before(self, context: Context) -> Optional[object]:
        for interceptor in self._interceptors["BeforeJobRun"]:
            try:
                decision = _checked(interceptor(context))
            except BaseException as error:
                return _Broken(error)
            if decision is not None:
                return decision
        return None

    def _after(self, context: Context, error: Optional[BaseException]) -> Optional[object]:
        for interceptor in self._interceptors["AfterJobRun"]:
            try:
                decision = _checked(interceptor(context, error))
            except BaseException:
                logger.exception("an AfterJobRun interceptor failed for %r; the outcome does not change", context.job)
                continue
            if decision is not None:
                return decision
        return None

    def _settle(
        self, task: Task, context: Context, decision: Optional[object], result: Any, error: Optional[BaseException]
    ) -> None:
        """Sets a job's outcome. Never blocks: the library writes the outcome to the database."""
        items = None
        if isinstance(decision, Skip):
            error = None
        elif isinstance(decision, Fail):
            error = TaskFailed(decision.reason)
        elif isinstance(decision, _Broken):
            error = decision.error
        elif error is None:
            try:
                items = task.item_errors(context, result)
            except Exception as mistake:
                error = mistake
        handle = context.job._handle
        if error is not None:
            status = self._fail(context, handle, error)
        elif items is not None:
            status = lib.gw_job_complete_items(handle, (c_char_p * len(items))(*items), len(items), None)
        else:
            status = lib.gw_job_complete(handle, None)
        if status < 0:
            logger.warning("the library refused the outcome of %r: %s", context.job, _native.of_status(status))

    def _fail(self, context: Context, handle: int, error: BaseException) -> int:
        if isinstance(error, RetryAfter):
            try:
                lib.gw_job_retry_after(handle, milliseconds("delay", error.delay))
            except Exception as mistake:
                error = mistake
        text = text_of(error)
        if not isinstance(error, TaskFailed) and not context.is_cancelled:
            _log.failure(context.job, error, text.decode().partition("\n")[0])
        return lib.gw_job_fail(handle, text, len(text), None)

    # observers

    def _observe(self) -> None:
        handle = c_void_p()
        while (status := lib.gw_worker_next_event(self._worker, -1, byref(handle), None)) >= 0:
            if status == _native.STOPPED:
                return
            if status != _native.OK:
                continue
            event = _hooks.event(handle)
            for observer in self._observers.get(event.name, ()):
                try:
                    observer(event)
                except BaseException:
                    logger.exception("an observer of %s failed", event.name)
        logger.error("observers receive no more events: %s", _native.of_status(status))


class _ThreadPuller:
    """Pulls jobs on the threads that run them.

    One thread at a time waits in the library. It puts its jobs into `_taken`, from which all threads take, so that no
    job waits behind another one while a thread is idle. Each thread starts the next one before its first job, up to
    `concurrency` threads. So one idle thread is ready for the next job, and there are no more threads than needed.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._taken: Deque[Job] = deque()
        self._turn = threading.Lock()
        self._capacity = running._concurrency
        self._started = 0
        self._handles = (c_void_p * self._capacity)()
        self._count = c_size_t()

    def begin(self) -> None:
        self._running.spawn("-0", self._work)
        self._started = 1

    def end(self) -> None:
        pass  # the threads end when the library returns STOPPED

    def _work(self) -> None:
        if self._work_once(self._grow):
            while self._work_once():
                pass

    def _work_once(self, before: Callable[[], None] = lambda: None) -> bool:
        job = self._next()
        if job is None:
            return False
        before()
        self._running.run(job)
        return True

    def _grow(self) -> None:
        # Only the newest thread calls this, and only once, so `_started` needs no lock.
        number = self._started
        if number < self._capacity:
            self._started = number + 1
            try:
                self._running.spawn(f"-{number}", self._work)
            except RuntimeError as error:
                logger.warning("at most %d jobs run at once: a thread could not be started: %s", number, error)

    def _next(self) -> Optional[Job]:
        try:
            return self._taken.popleft()
        except IndexError:
            pass
        with self._turn:
            while True:
                try:
                    return self._taken.popleft()
                except IndexError:
                    pass
                if not self._pull():
                    return None

    def _pull(self) -> bool:
        """Waits for jobs; returns False once the worker has ended. The caller must hold `_turn`."""
        worker, count = self._running._worker, self._count
        status: int = lib.gw_worker_next_batch(worker, -1, self._handles, self._capacity, byref(count), None)
        if status == _native.OK:
            self._taken.extend(Job._of(handle) for handle in self._handles[: count.value] if handle)
        elif status < 0:
            logger.error("a thread stops pulling jobs: %s", _native.of_status(status))
        return status >= 0 and status != _native.STOPPED


class _LoopPuller:
    """Pulls jobs on an event loop, whenever the library's descriptor is readable.

    `async def` tasks run on the loop, plain tasks on threads, which are started when they are needed.
    """

    def __init__(self, running: Running, lent: Optional[asyncio.AbstractEventLoop]) -> None:
        self._running = running
        self._lent = lent
        self._fd: int = lib.gw_worker_fd(running._worker)
        self._coroutines: Dict[int, asyncio.Task[None]] = {}
        self._plain: queue.SimpleQueue[Optional[Job]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0

    def begin(self) -> None:
        self._loop = self._lent or asyncio.new_event_loop()
        if self._lent is None:
            self._running.spawn("-loop", self._run_loop)
        self._loop.call_soon_threadsafe(self._loop.add_reader, self._fd, self._pull)

    def end(self) -> None:
        for _ in range(self._threads):
            self._plain.put(None)
        try:
            self._loop.call_soon_threadsafe(self._close)
        except RuntimeError:
            pass  # the caller's loop is closed already

    def _close(self) -> None:
        self._loop.remove_reader(self._fd)
        if self._lent is None:
            self._loop.stop()

    def _run_loop(self) -> None:
        self._loop.run_forever()
        # The worker has ended. asyncio tasks that jobs have left behind are cancelled, then have `END_TIMEOUT` to end.
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=END_TIMEOUT))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _pull(self) -> None:
        handle = c_void_p()
        for _ in range(TURN):
            status = lib.gw_worker_next_now(self._running._worker, 0, byref(handle), None)
            if status == _native.OK:
                assert handle.value is not None
                self._start(Job._of(handle.value))
            elif status == _native.CANCELLED:
                assert handle.value is not None
                coroutine = self._coroutines.get(Job._of(handle.value).id)
                if coroutine is not None:
                    coroutine.cancel()
            elif status == _native.TIMEOUT:
                return
            elif status != _native.WOKEN:
                if status < 0:
                    logger.error("the event loop stops pulling jobs: %s", _native.of_status(status))
                self._loop.remove_reader(self._fd)
                return

    def _start(self, job: Job) -> None:
        if self._running.is_async(job):
            coroutine = self._loop.create_task(self._running.run_async(job), name=f"{job.task} {job.id}")
            self._coroutines[job.id] = coroutine
            coroutine.add_done_callback(functools.partial(self._done, job))
            return
        if not self._idle.acquire(blocking=False):
            try:
                self._running.spawn(f"-{self._threads}", self._work)
                self._threads += 1
            except RuntimeError as error:
                logger.warning(
                    "at most %d plain tasks run at once: a thread could not be started: %s", self._threads, error
                )
                if not self._threads:
                    return self._running.drop(job, error)
        self._plain.put(job)

    def _done(self, job: Job, coroutine: asyncio.Task[None]) -> None:
        if self._coroutines.get(job.id) is coroutine:
            del self._coroutines[job.id]
        if coroutine.cancelled():  # cancelled before its first step, so run_async did not settle it
            self._running.drop(job, asyncio.CancelledError())

    def _work(self) -> None:
        while self._work_once():
            self._idle.release()

    def _work_once(self) -> bool:
        job = self._plain.get()
        if job is None:
            return False
        self._running.run(job)
        return True


@dataclass(frozen=True)
class _Broken:
    """The decision for an interceptor that raised: the attempt fails as if the task had raised."""

    error: BaseException


def _checked(decision: object) -> Optional[object]:
    """Returns an interceptor's decision. Raises if it is of another type."""
    if decision is None or isinstance(decision, (Skip, Fail)):
        return decision
    raise TypeError(f"an interceptor of runs must return None, Skip() or Fail(reason), not {decision!r}")


def stop_all() -> None:
    """Stops the workers of this process when the interpreter ends. Running jobs have the grace period."""
    running = [worker for worker in list(_alive) if worker._pid == os.getpid() and worker.started.done()]
    for abort in (False, True):
        try:
            for worker in running:
                worker.stop(abort)
            for worker in running:
                worker.ended.exception()
            return
        except KeyboardInterrupt:
            continue  # stop again, without the grace period


atexit.register(stop_all)
