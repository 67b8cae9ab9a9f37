"""Adds N jobs to Procrastinate's own tables, runs them, and prints the seconds of wall clock and of CPU of the run.

`procrastinate_noop.py threads N` runs a plain task on 4 threads, `procrastinate_noop.py asyncio N` an `async def`.
"""

import asyncio
import os
import sys
import time

import procrastinate
import psycopg

is_async, jobs = sys.argv[1] == "asyncio", int(sys.argv[2])
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))

if is_async:

    @app.task(name="noop")
    async def noop():
        pass

else:

    @app.task(name="noop")
    def noop():
        pass


async def main():
    async with app.open_async():
        async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True) as sql:
            found = await (await sql.execute("select to_regclass('procrastinate_jobs')")).fetchone()
            if found == (None,):
                await app.schema_manager.apply_schema_async()
            add = "insert into procrastinate_jobs (queue_name, task_name) select 'default', 'noop' from generate_series(1, %s)"
            await sql.execute(add, [jobs])
            for settle in ("vacuum analyze procrastinate_jobs", "checkpoint"):
                await sql.execute(settle)
            start = time.monotonic(), time.process_time()
            await app.run_worker_async(wait=False, concurrency=100 if is_async else 4, delete_jobs="always")
            print(time.monotonic() - start[0], time.process_time() - start[1])
            (left,) = await (await sql.execute("select count(*) from procrastinate_jobs")).fetchone()
            assert left == 0, f"{left} jobs are left"


asyncio.run(main())
