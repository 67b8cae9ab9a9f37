"""One life of a worker, from its start to its end: pulls jobs, runs them, and gives back their outcomes.

    graphile-worker        starts the library's worker, and waits for its end
    graphile-worker-0...N  run plain tasks, one job each at a time
    graphile-worker-loop   runs `async def` tasks, unless the caller lends a loop of its own
    graphile-worker-hooks  calls observers

All are daemon threads: the interpreter does not wait for a task that hangs. `stop_all` has stopped the workers by then.
Knows nothing of how tasks are registered.
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
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Optional, Set, Union

from . import _hooks, _log, _native, _options
from ._client import Client
from ._errors import DeadlockError, ForkedError, RetryAfter, TaskFailed, milliseconds
from ._hooks import Fail, Skip
from ._job import Context, Job
from ._log import logger
from ._native import call, lib
from ._task import Task, text_of

if TYPE_CHECKING:
    from ._worker import Worker

#: How many jobs a loop takes in before others have their turn.
TURN = 64
#: How long the end of a worker waits for observers of what happened last, and for threads on their way out.
FAREWELL = 2.0

_alive: Set[Running] = set()


class Running:
    """A worker that was started. `started` and `ended` are set by the thread that waits for the library."""

    def __init__(self, worker: Worker, once: bool, loop: Optional[asyncio.AbstractEventLoop] = None) -> None:
        _log.follow()
        self._pid = os.getpid()
        self._mode = _native.RUN_ONCE if once else _native.RUN_FOREVER
        self._tasks = dict(worker._tasks)
        self._interceptors = {name: list(hooks) for name, hooks in worker._interceptors.items()}
        self._observers = {name: list(hooks) for name, hooks in worker._observers.items()}
        on_loop = loop is not None or any(task.is_async for task in self._tasks.values())

        # Only a loop is told of cancellations; threads ask.
        told = {"deliver_cancellations": "true" if on_loop else "false"}
        config = _options.configuration({**worker._settings, **told})
        self._concurrency = int(_options.value_of(config, "concurrency") or 1)
        self._schema = _options.value_of(config, "schema")
        self._worker = _native.made(lib.gw_worker_new, config, free=lib.gw_worker_free)
        for task in self._tasks.values():
            call(lib.gw_worker_add_task, self._worker, _native.text("task", task.name), None, None, None)
            for key, value in task.options.items():
                call(lib.gw_worker_set_task_option, self._worker, task.name.encode(), key.encode(), value.encode())
        for crontab in worker._crontabs:
            call(lib.gw_worker_add_crontab, self._worker, crontab)
        for event in self._observers:
            call(lib.gw_worker_on_event, self._worker, event.encode(), None, None, None)

        self._threads: List[threading.Thread] = []
        self._puller: Union[_LoopPuller, _ThreadPuller] = _LoopPuller(self, loop) if on_loop else _ThreadPuller(self)
        self.client: Client
        self.started: Future[None] = Future()
        self.ended: Future[None] = Future()
        for future in (self.started, self.ended):
            future.set_running_or_notify_cancel()  # so that nobody who waits can cancel it
        _alive.add(self)
        self.spawn("", self._live)

    def _live(self) -> None:
        """The thread that starts the library's worker and sees it end."""
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
            self._farewell()
            self._end(None)

    def _farewell(self) -> None:
        """Waits for threads that are about to end, so that nothing is observed after `ended`."""
        deadline = time.monotonic() + FAREWELL
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _end(self, error: Optional[BaseException]) -> None:
        _alive.discard(self)
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    # what others ask of it

    def stop(self, abort: bool = False) -> None:
        """Asks it to stop; returns at once. May be called by a signal handler."""
        self.refuse_fork()
        lib.gw_worker_request_stop(self._worker, _native.STOP_ABORT if abort else _native.STOP_GRACEFUL)

    def refuse_fork(self) -> None:
        """Raises `ForkedError` in a process that was forked after the start."""
        if os.getpid() != self._pid:
            raise ForkedError(
                "this worker was started before the fork, and runs in the parent process only: "
                "make and start the worker in the child"
            )

    def refuse_own_thread(self) -> None:
        """Raises `DeadlockError` on a thread that this worker waits for."""
        if threading.current_thread() in self._threads:
            raise DeadlockError("a task or observer cannot wait for the worker that runs it")

    def id(self) -> Optional[str]:
        """The id under which it locks jobs."""
        worker_id = lib.gw_worker_id(self._worker)
        return worker_id.decode() if worker_id is not None else None

    def stats_text(self) -> str:
        """Its counters, as JSON."""
        return _native.owned_text(lib.gw_worker_stats_json(self._worker)) or "{}"

    def spawn(self, name: str, body: Callable[[], None]) -> None:
        """Starts one of its threads."""
        thread = threading.Thread(target=body, name=f"graphile-worker{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # jobs

    def run(self, job: Job) -> None:
        """Runs a job of a plain task, on this thread, and gives it its outcome. Raises nothing."""
        # A context of its own: what a task sets in a ContextVar is not there for the next one.
        contextvars.copy_context().run(self._run, job)

    def _run(self, job: Job) -> None:
        task, context = self._tasks[job.task], Context(job, self.client)
        result = error = None
        decision = self._before(context)
        if decision is None:
            try:
                result = task.checked(task.handler(*task.arguments(context)))
            except BaseException as caught:  # SystemExit too: a job must not be lost, nor end a thread
                error = caught
            decision = self._after(context, error)
        try:
            self._settle(task, context, decision, result, error)
        finally:
            error = None  # its traceback holds this frame

    async def run_async(self, job: Job) -> None:
        """Runs a job of an `async def` task, and gives it its outcome. Raises nothing."""
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
        """Whether a job is for the loop."""
        return self._tasks[job.task].is_async

    def drop(self, job: Job, error: BaseException) -> None:
        """Fails a job that could not begin."""
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
                logger.exception("an interceptor after the run of %r failed; the outcome stays", context.job)
                continue
            if decision is not None:
                return decision
        return None

    def _settle(
        self, task: Task, context: Context, decision: Optional[object], result: Any, error: Optional[BaseException]
    ) -> None:
        """Gives a job its outcome. Never blocks: the library writes it to the database."""
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
            logger.warning("%r: its outcome came too late: %s", context.job, _native.of_status(status))

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
        logger.error("observers hear nothing more: %s", _native.of_status(status))


class _ThreadPuller:
    """Takes jobs on the threads that run them.

    One thread at a time waits in the library; what it gets lies in `_taken` for all of them, so that no job waits
    behind another one while a thread is idle. Each thread starts the next one before its first job, up to as many as
    jobs can be handed out: so one that has had no job yet is there for the next, and none is there that never had one.
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
        pass  # the threads hear of it from the library

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
        # Only the last thread comes here, and each only once.
        number = self._started
        if number < self._capacity:
            self._started = number + 1
            try:
                self._running.spawn(f"-{number}", self._work)
            except RuntimeError as error:
                logger.warning("no more than %d jobs run at once: %s", number, error)

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
        """Waits for jobs; False if there will be none any more. Only for who has the turn."""
        worker, count = self._running._worker, self._count
        status: int = lib.gw_worker_next_batch(worker, -1, self._handles, self._capacity, byref(count), None)
        if status == _native.OK:
            self._taken.extend(Job._of(handle) for handle in self._handles[: count.value] if handle)
        elif status < 0:
            logger.error("no more jobs: %s", _native.of_status(status))
        return status >= 0 and status != _native.STOPPED


class _LoopPuller:
    """Takes jobs on an event loop, whenever the library's descriptor says that there are any.

    `async def` tasks run on the loop, plain ones on threads, which are started as they are needed.
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
        # The worker has ended. Tasks that tasks have started are not ours to wait for; they are told.
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=FAREWELL))
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
                    logger.error("no more jobs: %s", _native.of_status(status))
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
                logger.warning("no more than %d plain tasks run at once: %s", self._threads, error)
                if not self._threads:
                    return self._running.drop(job, error)
        self._plain.put(job)

    def _done(self, job: Job, coroutine: asyncio.Task[None]) -> None:
        if self._coroutines.get(job.id) is coroutine:
            del self._coroutines[job.id]
        if coroutine.cancelled():  # before its first step
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
    """The decision of an interceptor that raised: the attempt fails like that of a task that did."""

    error: BaseException


def _checked(decision: object) -> Optional[object]:
    """An interceptor's answer, unless it is none."""
    if decision is None or isinstance(decision, (Skip, Fail)):
        return decision
    raise TypeError(f"an interceptor of runs answers None, Skip() or Fail(reason), not {decision!r}")


def stop_all() -> None:
    """Stops the workers of this process as it ends, running jobs included: they have the grace period."""
    running = [worker for worker in list(_alive) if worker._pid == os.getpid() and worker.started.done()]
    for abort in (False, True):
        try:
            for worker in running:
                worker.stop(abort)
            for worker in running:
                worker.ended.exception()
            return
        except KeyboardInterrupt:
            continue  # once more, without the grace period


atexit.register(stop_all)
