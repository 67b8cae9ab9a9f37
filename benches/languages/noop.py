"""Runs all due jobs of the task noop, and prints the seconds of wall clock and of CPU that they took.

`noop.py threads` runs a plain task on 4 threads, `noop.py asyncio` an `async def` on an event loop.
"""

import sys
import time

from graphile_worker import Worker

is_async = sys.argv[1] == "asyncio"
start = time.monotonic(), time.process_time()
worker = Worker(concurrency=100 if is_async else 4)

if is_async:

    @worker.task
    async def noop(payload):
        pass

else:

    @worker.task
    def noop(payload):
        pass


worker.run_once()
print(time.monotonic() - start[0], time.process_time() - start[1])
