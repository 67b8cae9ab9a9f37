#!/usr/bin/env python3
"""The Python adapter of tests/conformance: executes commands, one per line, and decides nothing.

With `--asyncio` its tasks are `async def`. tests/conformance/README.md lists the commands.
"""

import asyncio
import json
import logging
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import graphile_worker
from graphile_worker import Client, ConfigError, GraphileWorkerError, NewJob, RetryAfter, TaskFailed, Worker

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
AN_HOUR = timedelta(hours=1)


class Notes:
    """The notes of tasks or hooks, in order."""

    def __init__(self):
        self._lock, self._texts = threading.Lock(), []

    def add(self, text):
        with self._lock:
            self._texts.append(text)

    def take(self):
        with self._lock:
            texts, self._texts = self._texts, []
            return texts


ran, events = Notes(), Notes()


def note(ctx):
    """Notes that the job runs; returns the text of its payload."""
    ran.add(f"{ctx.job.task}:{ctx.job.attempts}:{ctx.job.payload_json}")
    return ctx.job.payload_json


# The tasks, plain and async.


def ok(payload, ctx):
    note(ctx)


def fail(payload, ctx):
    raise TaskFailed(note(ctx))


def throw(payload, ctx):
    raise RuntimeError(note(ctx))


def fail_twice(payload, ctx):
    note(ctx)
    if ctx.job.attempts < 3:
        raise TaskFailed(f"attempt {ctx.job.attempts}")


def wait(payload, ctx):
    note(ctx)
    while not ctx.is_cancelled:
        time.sleep(0.002)
    ran.add("wait:cancelled:")
    raise TaskFailed("cancelled")


async def wait_async(payload, ctx):
    note(ctx)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        ran.add("wait:cancelled:")
        raise TaskFailed("cancelled") from None


def sleep(payload, ctx):
    note(ctx)
    time.sleep(payload / 1000)


async def sleep_async(payload, ctx):
    note(ctx)
    until = time.monotonic() + payload / 1000
    while (left := until - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            pass  # the task must ignore cancellation


def snooze(payload, ctx):
    note(ctx)
    ctx.snooze(AN_HOUR)


def later(payload, ctx):
    note(ctx)
    raise RetryAfter(AN_HOUR, "later")


def spawn(payload, ctx):
    ctx.client.add_job("ok", payload_json=note(ctx))


async def spawn_async(payload, ctx):
    await ctx.client.add_job_async("ok", payload_json=note(ctx))


def batch(items, ctx):
    note(ctx)
    return [ValueError("negative") if item < 0 else None for item in items]


def trace(payload, ctx):
    ran.add(f"trace:{ctx.job.attempts}:{ctx.job.traceparent or ''}")


def coroutine(task):
    """Returns a plain task as `async def`."""

    async def run(payload, ctx):
        return task(payload, ctx)

    return run


PLAIN = [ok, fail, throw, fail_twice, wait, sleep, snooze, later, spawn, batch, trace]
ASYNC = {"wait": wait_async, "sleep": sleep_async, "spawn": spawn_async}


def tasks(is_async):
    """Returns the tasks by name."""
    return {task.__name__: ASYNC.get(task.__name__, coroutine(task)) if is_async else task for task in PLAIN}


# The commands.


class Adapter:
    def __init__(self, is_async):
        self.is_async = is_async
        self.made = self.working = None
        self.jobs = []

    def obey(self, command, *words):
        method = getattr(self, f"do_{command}", None)
        if method is None:
            raise graphile_worker.UnsupportedError("unknown command")
        return method(*words)

    @property
    def client(self):
        if self.made is None:
            raise graphile_worker.StateError("there is no client")
        return self.made

    @property
    def worker(self):
        if self.working is None:
            raise graphile_worker.StateError("there is no worker")
        return self.working

    def do_client(self, *pairs):
        if self.made:
            self.made.close()
        self.made = Client(**dict(split(pairs)))
        return []

    def do_add(self, task, payload, *pairs):
        job = new_job(task, payload, pairs)
        return [self.client.add_jobs([job])[0]]

    def do_and(self, task, payload, *pairs):
        self.jobs.append(new_job(task, payload, pairs))
        return []

    def do_add_many(self):
        jobs, self.jobs = self.jobs, []
        return self.client.add_jobs(jobs)

    def do_remove(self, key):
        return [str(self.client.remove_job(key)).lower()]

    def do_job(self, id):
        job = self.client.job(int(id))
        return ["none"] if job is None else as_json(job)

    def do_list(self, options):
        return as_json(self.client.list_jobs(**json.loads(options)))

    def do_stats(self):
        return as_json(self.client.stats())

    def do_queues(self):
        return as_json(self.client.queues())

    def do_locked_workers(self):
        return as_json(self.client.locked_workers())

    def do_active_workers(self, ms):
        return as_json(self.client.active_workers(milliseconds(ms)))

    def do_complete(self, ids):
        return as_json(self.client.complete_jobs(numbers(ids)))

    def do_fail(self, ids, reason):
        return as_json(self.client.fail_jobs(numbers(ids), reason))

    def do_reschedule(self, ids, text):
        options = json.loads(text)
        at = options.get("run_at")
        if isinstance(at, int):
            options["run_at"] = moment("run_at", at)
        elif at is not None and at != "now":
            options["run_at"] = datetime.fromisoformat(at.replace("Z", "+00:00"))
        return as_json(self.client.reschedule_jobs(numbers(ids), **options))

    def do_unlock(self, workers):
        return as_json(self.client.force_unlock(workers.split(",")))

    def do_cleanup(self, names):
        return as_json(self.client.cleanup(*names.split(",")))

    def do_sweep(self, text):
        options = json.loads(text)
        for key in ("sweep_threshold", "recovery_delay"):
            if f"{key}_ms" in options:
                options[key] = milliseconds(options.pop(f"{key}_ms"))
        return as_json(self.client.sweep_stale_workers(**options))

    def do_next_runs(self, line, after_us, count):
        runs = graphile_worker.next_runs(line, int(count), after=moment("after", int(after_us)))
        return [(run - EPOCH) // timedelta(microseconds=1) for run in runs]

    def do_worker(self, *pairs):
        if self.working:
            self.working.close()
        chosen, options, crontabs, hooks = tasks(self.is_async), {}, [], []
        of_task = {name: {} for name in chosen}
        for key, value in split(pairs):
            if key == "hook":
                hooks.append(value)
            elif key == "crontab":
                crontabs.append(value)
            elif key == "tasks":
                chosen = {name: chosen[name] for name in value.split(",")}
            elif key.startswith("task."):
                _, name, option = key.split(".")
                of_task[name][option] = value
            else:
                options[key] = value
        self.working = worker = Worker(**options)
        for name, task in chosen.items():
            register = worker.batch_task if name == "batch" else worker.task
            register(name, **of_task[name])(task)
        for crontab in crontabs:
            worker.cron(crontab)
        for hook in hooks:
            worker.on(hook)(lambda event: events.add(event.name))
        return []

    def do_start(self):
        self.worker.start()
        return []

    def do_start_once(self):
        self.worker.start(once=True)
        return []

    def do_stop(self, mode):
        self.worker.stop(abort=mode == "abort")
        return []

    def do_wait(self, ms):
        return ["ended" if self.worker.wait(milliseconds(ms)) else "timeout"]

    def do_ran(self):
        return ran.take()

    def do_events(self):
        return events.take()

    def do_worker_stats(self):
        return as_json(self.worker.stats())

    def do_worker_id(self):
        return [self.worker.id]

    def do_close(self):
        if self.working:
            self.working.close()
        if self.made:
            self.made.close()
        self.working = self.made = None
        return []


def split(pairs):
    """Returns the `k=v` fields."""
    return [pair.split("=", 1) for pair in pairs]


def new_job(task, payload, pairs):
    options = {}
    for key, value in split(pairs):
        if key == "flag":
            options.setdefault("flags", []).append(value)
        elif key == "run_at_us":
            options["run_at"] = moment("run_at", int(value))
        elif key in ("max_attempts", "priority"):
            options[key] = int(value)
        else:
            options[key] = value
    return NewJob(task, payload_json=payload, **options)


def moment(name, us):
    try:
        return EPOCH + timedelta(microseconds=us)
    except OverflowError as error:
        raise ConfigError(f"{name}: {error}") from None


def milliseconds(ms):
    return timedelta(milliseconds=int(ms))


def numbers(ids):
    return [int(id) for id in ids.split(",")]


def as_json(value):
    return [json.dumps(value, ensure_ascii=False, separators=(",", ":"))]


def refusal(error):
    """Returns the reply for an exception. Python itself refuses a wrong type, for which C returns GW_ERR_INVALID."""
    status = getattr(error, "status", "GW_ERR_INVALID")
    text = str(error).replace("\t", " ").replace("\n", " ").replace("\r", " ")
    return ["error", status, getattr(error, "sqlstate", None) or "-", text]


def main():
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    adapter = Adapter("--asyncio" in sys.argv[1:])
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        if words == ["quit"]:
            break
        try:
            reply = ["ok", *map(str, adapter.obey(*words))]
        except (GraphileWorkerError, TypeError, ValueError) as error:
            reply = refusal(error)
        print("\t".join(reply), flush=True)
    adapter.do_close()


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    main()
