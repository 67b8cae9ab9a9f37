"""In processes whose threads are greenlets of gevent or eventlet, clients work and workers are refused."""

import importlib.util
import unittest

import psycopg

from harness import DatabaseTest

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}

CLIENT = """
import asyncio, sys, threading, time
from graphile_worker import Client
client = Client(database_timeout=1)
ticks, done = [], False
def tick():
    while not done:
        ticks.append(1)
        time.sleep(0.001)
other = threading.Thread(target=tick)
other.start()
client.add_job("t", {"n": 1})
print("added", flush=True)
before = len(ticks)
try:
    client.reschedule_jobs([int(sys.argv[1])], priority=1)  # waits for a lock until its deadline
except Exception as error:
    print(type(error).__name__, len(ticks) - before > 20, flush=True)
print(asyncio.run(client.add_job_async("t", {"n": 2})) > 0, flush=True)
done = True
other.join()
client.close()
print("closed", flush=True)
"""

WORKER = """
from graphile_worker import UnsupportedError, Worker
worker = Worker(concurrency=2)
@worker.task
def t(payload):
    print("ran", payload, flush=True)
{}
worker.client.add_job("t", 1)
for run in (worker.run, worker.run_once, worker.start, worker.__enter__):
    try:
        run()
        break
    except UnsupportedError as error:
        print(error, flush=True)
print(worker.state, flush=True)
worker.close()
"""

ASYNC = """
@worker.task
async def a(payload):
    pass
"""


LOOP = """
import asyncio
from graphile_worker import UnsupportedError, Worker
worker = Worker(concurrency=1)
@worker.task
async def on_loop(payload):
    print(type(asyncio.get_running_loop()).__module__, payload, flush=True)
@worker.task
def plain(payload):
    print("plain", payload, flush=True)
async def main():
    await worker.client.add_job_async("on_loop", 1)
    await worker.run_async(once=True)
    await worker.client.add_job_async("plain", 2)
    await worker.run_async(once=True)
    print("done", flush=True)
async def instead():
    for call in (lambda: worker.client.add_job_async("plain", 3), lambda: worker.run_async(once=True)):
        try:
            await call()
        except UnsupportedError as error:
            print(error, flush=True)
    await trio.to_thread.run_sync(worker.client.add_job, "plain", 3)
    await trio.to_thread.run_sync(worker.run_once)
{run}
"""


def has(package):
    return importlib.util.find_spec(package) is not None


class GreenTest(DatabaseTest):
    def packages(self):
        for package, patch in PATCHES.items():
            if has(package):
                with self.subTest(package=package):
                    yield package, patch

    def test_a_waiting_client_does_not_block_other_greenlets(self):
        for package, patch in self.packages():
            id = self.client.add_job("locked")
            with psycopg.connect(self.url) as other:
                other.execute("select 1 from graphile_worker._private_jobs where id = %s for update", [id])
                program = self.program(f"{patch}\n{CLIENT}", id)
                self.assertEqual([program.line(), program.line()], ["added", "DatabaseTimeoutError True"])
            self.assertEqual([program.line(), program.line()], ["True", "closed"])
            self.assertEqual(program.ended(), 0, program.errors())

    def test_a_patched_worker_is_refused_and_never_hangs(self):
        for package, patch in self.packages():
            program = self.program(f"{patch}\n{WORKER.format('')}")
            for _ in range(4):
                line = program.line()
                self.assertIn(f"{package} has replaced threads", line)
                self.assertIn("python -m graphile_worker", line)
            self.assertEqual(program.line(), "new")
            self.assertEqual(program.ended(), 0, program.errors())

    @unittest.skipUnless(has("gevent"), "gevent is not installed")
    def test_a_patched_select_refuses_async_tasks_only(self):
        patch = "from gevent import monkey; monkey.patch_all(thread=False)"
        program = self.program(f"{patch}\n{WORKER.replace('worker.run, ', '', 1).format('')}")
        self.assertEqual([program.line(), program.line()], ["ran 1", "stopped"])
        self.assertEqual(program.ended(), 0, program.errors())
        program = self.program(f"{patch}\n{WORKER.format(ASYNC)}")
        self.assertIn("gevent has replaced select", program.line())
        program.process.wait()


class LoopTest(DatabaseTest):
    """Event loops other than asyncio's own."""

    @unittest.skipUnless(has("uvloop"), "uvloop is not installed")
    def test_a_worker_runs_on_a_loop_of_uvloop(self):
        program = self.program(LOOP.format(run="import uvloop; uvloop.run(main())"))
        self.assertEqual([program.line(), program.line(), program.line()], ["uvloop 1", "plain 2", "done"])
        self.assertEqual(program.ended(), 0, program.errors())

    @unittest.skipUnless(has("trio"), "trio is not installed")
    def test_under_trio_the_error_names_the_calls_to_use(self):
        program = self.program(LOOP.format(run="import trio; trio.run(instead)"))
        for _ in range(2):
            self.assertIn("trio.to_thread.run_sync", program.line())
        self.assertEqual(program.line(), "plain 3")
        self.assertEqual(program.ended(), 0, program.errors())


if __name__ == "__main__":
    unittest.main()
