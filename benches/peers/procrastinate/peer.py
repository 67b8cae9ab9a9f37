"""The driver of Procrastinate. benches/peers.rs describes its words and lines.

The best settings are those that its guide names for throughput: many tasks on the event loop (Execute multiple jobs at
the same time), and jobs that are deleted when they end (Delete finished jobs).
"""

import asyncio
import logging
import os
import sys
import threading
import time
from importlib.metadata import version

import procrastinate
import psycopg

# Procrastinate warns that the app is in the main module. That matters only for tasks without a name.
logging.disable(logging.WARNING)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ.get("DATABASE_URL", "")))
ran = 0


def say(*words):
    print(*words, flush=True)


@app.task(name="noop")
async def noop():
    global ran
    ran += 1


@app.task(name="stamp")
async def stamp(n):
    say("at", n, time.time_ns() // 1000)


async def add(jobs, batch):
    while jobs > 0:
        await noop.batch_defer_async(*[{}] * min(batch, jobs))
        jobs -= batch


async def trickle(jobs):
    async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"]) as connection:
        start = time.monotonic()
        for n in range(jobs):
            await asyncio.sleep(max(0, start + n * 0.01 - time.monotonic()))
            await stamp.configure(connection=connection).defer_async(n=n)
            say("added", n, time.time_ns() // 1000)
            await connection.commit()


async def report():
    printed = 0
    while True:
        await asyncio.sleep(0.01)
        if ran != printed:
            printed = ran
            say("ran", printed)


def end_with_the_bench():
    sys.stdin.read()
    os._exit(1)


async def work(settings, concurrency):
    options = {"concurrency": 100, "delete_jobs": "always"} if settings == "best" else {}
    if concurrency:
        options["concurrency"] = concurrency
    say("ready")
    sys.stdin.readline()
    threading.Thread(target=end_with_the_bench, daemon=True).start()
    reports = asyncio.create_task(report())
    await app.run_worker_async(**options)
    reports.cancel()


async def main(word, settings="", *rest):
    if word == "version":
        return say(f"Procrastinate {version('procrastinate')} (Python {sys.version.split()[0]})")
    async with app.open_async():
        if word == "setup":
            await app.schema_manager.apply_schema_async()
        elif word == "add":
            await add(int(rest[0]), int(rest[1]))
        elif word == "trickle":
            await trickle(int(rest[0]))
        elif word == "work":
            await work(settings, int(rest[0]) if rest else None)
        else:
            sys.exit("unknown words")


asyncio.run(main(*sys.argv[1:]))
