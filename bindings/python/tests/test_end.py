"""Ends of a worker: Ctrl-C, the end of the interpreter, forks, and several processes."""

import os
import signal
import socket
import sys
import time
import unittest
from pathlib import Path

from harness import SOON, DatabaseTest, psql, until

#: How often the interpreter ends with running jobs. GRAPHILE_WORKER_EXITS=200 repeats it more often.
EXITS = int(os.environ.get("GRAPHILE_WORKER_EXITS", "20"))

RUNS = """
import sys, time
from graphile_worker import Worker
worker = Worker(concurrency=2, shutdown_grace_period=float(sys.argv[1]))
@worker.on("WorkerStart")
def ready(event):
    print("ready")
@worker.task
def t(payload, ctx):
    print("begun")
    while not ctx.is_cancelled:
        time.sleep(0.01)
    print("cancelled")
    ctx.raise_if_cancelled()
@worker.task
async def u(payload, ctx):
    pass
run = getattr(worker, sys.argv[2])
import asyncio
try:
    asyncio.run(run()) if "async" in sys.argv[2] else run()
except KeyboardInterrupt:
    pass
print(time.monotonic())
"""


class SignalTest(DatabaseTest):
    def stops_within(self, limit, number, *arguments):
        program = self.program(RUNS, *arguments)
        self.assertEqual(program.line(), "ready")
        sent = program.signal(number)
        self.assertLess(float(program.line()) - sent, limit)
        self.assertEqual(program.ended(), 0, program.errors())

    def test_an_idle_worker_stops_within_half_a_second_of_a_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(signal=number):
                self.stops_within(0.5, number, 5, "run")

    def test_an_idle_async_worker_stops_within_half_a_second(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number):
                self.stops_within(0.5, number, 5, "run_async")

    def busy(self, *arguments):
        program = self.program(RUNS, *arguments)
        self.assertEqual(program.line(), "ready")
        self.client.add_job("t")
        self.assertEqual(program.line(), "begun")
        return program

    def test_a_second_ctrl_c_ends_the_grace_period(self):
        program = self.busy(60, "run")
        program.signal(signal.SIGINT)
        until(lambda: self.sql("select 1 from jobs where locked_by is not null"))
        sent = program.signal(signal.SIGINT)
        self.assertEqual(program.line(), "cancelled")
        self.assertLess(float(program.line()) - sent, 0.5)
        self.assertEqual(program.ended(), 0, program.errors())
        self.assertEqual(self.value("select attempts, locked_by is null from jobs"), "0|t")

    def test_ctrl_c_stops_a_busy_worker_after_the_grace_period(self):
        program = self.busy(0.1, "run")
        sent = program.signal(signal.SIGINT)
        self.assertEqual(program.line(), "cancelled")
        self.assertLess(float(program.line()) - sent, 0.5)
        self.assertEqual(program.ended(), 0, program.errors())

    def test_ctrl_c_stops_a_worker_whose_database_hangs(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            self.url = f"postgres://postgres@127.0.0.1:{silent.getsockname()[1]}/postgres"
            program = self.program(RUNS, 5, "run")
            connection, _ = silent.accept()
            with connection:
                sent = program.signal(signal.SIGINT)
                self.assertLess(float(program.line()) - sent, 0.5)
                self.assertEqual(program.ended(), 0, program.errors())
                self.assertLess(time.monotonic() - sent, 2)

    def test_a_signal_during_the_start_stops_the_worker(self):
        source = RUNS.replace(
            "run = getattr",
            "import os, signal\n"
            "from graphile_worker import _worker\n"
            "class Running(_worker.Running):\n"
            "    def __init__(self, *arguments):\n"
            "        os.kill(os.getpid(), signal.SIGTERM)\n"
            "        super().__init__(*arguments)\n"
            "_worker.Running = Running\n"
            "# After SIGNAL_CHECK a signal gives up a start that is slow. This start is not given up.\n"
            "_worker.SIGNAL_CHECK = 60\n"
            "run = getattr",
        )
        for run in ("run", "run_async"):
            with self.subTest(run=run):
                program = self.program(source, 5, run)
                self.assertEqual(program.ended(), 0, program.errors())

    def test_signals_that_the_program_handles_are_left_alone(self):
        source = RUNS.replace(
            "run = getattr",
            "import signal\n"
            "signal.signal(signal.SIGTERM, lambda *_: (print('mine'), worker.stop()))\n"
            "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
            "run = getattr",
        ).replace("print(time.monotonic())", "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")
        program = self.program(source, 5, "run")
        self.assertEqual(program.line(), "ready")
        program.signal(signal.SIGHUP)
        program.signal(signal.SIGTERM)
        self.assertEqual(program.line(), "mine")
        self.assertEqual(program.line(), "True")
        self.assertEqual(program.ended(), 0, program.errors())


EXITING = """
import asyncio, sys, threading, time
from graphile_worker import NewJob, Worker
worker = Worker(concurrency=8, shutdown_grace_period=0.05)
begun = threading.Semaphore(0)
def begin(body):
    begun.release()
    return body()
@worker.task
def sleeps(payload):
    begin(lambda: time.sleep(1000))
@worker.task
def computes(payload):
    begun.release()
    while True:
        pass
@worker.task
def polls(payload, ctx):
    begun.release()
    while not ctx.is_cancelled:
        time.sleep(0.001)
    ctx.raise_if_cancelled()
if "awaits" in sys.argv:
    @worker.task
    async def awaits(payload):
        begun.release()
        await asyncio.sleep(1000)
worker.client.add_jobs(NewJob(name) for name in sys.argv[2:])
worker.start()
for _ in sys.argv[2:]:
    assert begun.acquire(timeout=20)
sys.exit(int(sys.argv[1]))
"""


class ExitTest(DatabaseTest):
    def exits(self, tasks, times):
        for n in range(times):
            program = self.program(EXITING, n % 7, *tasks)
            status = program.ended()
            with self.subTest(time=n):
                self.assertEqual(status, n % 7, program.errors())
                for word in ("FATAL", "Fatal", "panicked", "Aborted", "Traceback"):
                    self.assertNotIn(word, program.errors())
                self.assertEqual(self.sql("select id from jobs where locked_by is not null or attempts > 0"), [])
            self.sql("delete from _private_jobs")

    def test_the_interpreter_exits_normally_while_jobs_run(self):
        self.exits(["sleeps"] * 3 + ["polls"] * 3 + ["computes"] * 2, EXITS)

    def test_the_interpreter_exits_normally_while_async_jobs_run(self):
        self.exits(["awaits"] * 5 + ["sleeps"] * 2 + ["polls"], max(1, EXITS // 4))

    def test_an_uncaught_exception_ends_the_program_with_status_one(self):
        program = self.program(EXITING.replace("sys.exit(int(sys.argv[1]))", "raise ValueError('top')"), 0, "polls")
        self.assertEqual(program.ended(), 1)
        self.assertIn("ValueError: top", program.errors())
        self.assertEqual(self.value("select attempts, locked_by is null from jobs"), "0|t")


FORKING = """
import gc, os, sys, threading
from graphile_worker import Client, ForkedError, Worker
worker, client = Worker(concurrency=2), Client()
done = threading.Semaphore(0)
kept = []
@worker.task
def t(payload, ctx):
    kept.append(ctx)
    done.release()
worker.start()
client.add_job("t")
assert done.acquire(timeout=20)
pid = os.fork()
if pid == 0:
    adds = [lambda: client.add_job("t"), lambda: kept[0].client.add_job("t")]
    for call in (*adds, worker.stop, worker.wait, worker.start):
        try:
            call()
            os._exit(90)
        except ForkedError as error:
            assert "fork" in str(error), error
    worker.close()
    if sys.argv[1] == "works":
        # The child may have a worker and a client of its own.
        mine, ran = Worker(concurrency=1), []
        mine.task("mine")(ran.append)
        mine.client.add_job("mine", 5)
        mine.run_once()
        assert ran == [5]
    del worker, client, kept
    gc.collect()
    if sys.argv[1] == "os._exit":
        os._exit(7)
    sys.exit(7)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
gc.collect()
client.add_job("t")
assert done.acquire(timeout=20)
worker.close()
print("the parent still works")
"""


class ForkTest(DatabaseTest):
    def test_a_forked_child_is_refused_and_the_parent_goes_on(self):
        for way in ("sys.exit", "os._exit"):
            with self.subTest(way=way):
                program = self.program(FORKING, way)
                self.assertEqual(program.line(), "the parent still works")
                self.assertEqual(program.ended(), 0, program.errors())
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_a_forked_child_can_have_a_worker_of_its_own(self):
        program = self.program(FORKING, "works")
        self.assertEqual(program.line(), "the parent still works")
        self.assertEqual(program.ended(), 0, program.errors())

    def test_a_worker_made_before_the_fork_can_run_after_it(self):
        program = self.program(
            "import os\n"
            "from graphile_worker import Worker\n"
            "worker = Worker(concurrency=1)\n"
            "worker.task('t')(lambda payload: print('ran in the child', flush=True))\n"
            "if os.fork() == 0:\n"
            "    worker.client.add_job('t')\n"
            "    worker.run_once()\n"
            "    raise SystemExit\n"
            "os.wait()\n"
        )
        self.assertEqual(program.line(), "ran in the child")
        self.assertEqual(program.ended(), 0, program.errors())


APPLICATION = """
import os, time
from graphile_worker import Worker
worker = Worker(concurrency=1, shutdown_grace_period=0.2)
@worker.task
def who(payload, ctx):
    ctx.client.add_job("unhandled", os.getpid())
    while not ctx.is_cancelled:
        time.sleep(0.01)
@worker.task
def quick(payload):
    pass
not_a_worker = 5
"""


class ProcessesTest(DatabaseTest):
    def start(self, *arguments):
        return self.program(APPLICATION, *arguments, module="graphile_worker")

    def pids(self, count):
        """Waits until `count` processes run jobs of `who`; returns their ids."""
        rows = until(
            lambda: (found := self.sql("select payload from _private_jobs where task_id ="
                                       " (select id from _private_tasks where identifier = 'unhandled') order by id"))
            and len(found) >= count and found,
            f"{count} processes with a running job",
        )
        return [int(row) for row in rows]

    def test_one_process_runs_the_worker_of_a_module(self):
        self.client.add_job("quick")
        program = self.start("program:worker", "--once")
        self.assertEqual(program.ended(), 0, program.errors())
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_several_processes_share_the_work_and_stop_together(self):
        for _ in range(3):
            self.client.add_job("who")
        program = self.start("program:worker", "--processes", 3)
        self.assertEqual(len(set(self.pids(3))), 3)
        program.signal(signal.SIGTERM)
        self.assertEqual(program.ended(), 0, program.errors())
        self.assertEqual(self.sql("select distinct attempts, locked_by is null from jobs"), ["0|t"])

    def test_a_process_that_is_killed_is_started_again(self):
        self.client.add_job("who")
        program = self.start("program:worker", "--processes", 2)
        (first,) = self.pids(1)
        os.kill(first, signal.SIGKILL)
        for _ in range(2):  # the other process has room for one job, so the new process must run the second
            self.client.add_job("who")
        self.assertEqual(len(set(self.pids(3))), 3)
        program.signal(signal.SIGINT)
        self.assertEqual(program.ended(), 0, program.errors())
        self.assertIn("starting another one", program.errors())

    def test_processes_end_when_their_parent_is_killed(self):
        for _ in range(2):
            self.client.add_job("who")
        program = self.start("program:worker", "--processes", 2)
        pids = self.pids(2)
        program.signal(signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of both processes")
        self.assertEqual(self.sql("select distinct attempts, locked_by is null from jobs"), ["0|t"])

    def test_a_program_that_cannot_run_ends_with_an_error(self):
        for arguments, status, words in [
            (["program:missing"], 1, "no graphile_worker.Worker"),
            (["program:not_a_worker"], 1, "no graphile_worker.Worker"),
            ([], 2, "module:variable"),
            (["program:worker", "--processes", 0], 2, "at least 1"),
        ]:
            with self.subTest(arguments=arguments):
                program = self.start(*arguments)
                self.assertEqual(program.ended(), status, program.errors())
                self.assertIn(words, program.errors())
        self.url = self.url.rpartition("/")[0] + "/no_such_database"
        program = self.start("program:worker", "--processes", 2)
        self.assertEqual(program.ended(), 1)
        self.assertIn("no_such_database", program.errors())

    def test_the_options_can_be_printed(self):
        program = self.start("--options")
        self.assertTrue(program.line())
        text = program.process.stdout.read()
        self.assertEqual(program.ended(), 0)
        self.assertIn("concurrency (", text)


if __name__ == "__main__":
    unittest.main()
