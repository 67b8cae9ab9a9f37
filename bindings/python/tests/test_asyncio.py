"""`async def` tasks: on the worker's own loop, and on the caller's."""

import asyncio
import threading
import unittest

from graphile_worker import NewJob, RetryAfter
from harness import SOON, DatabaseTest, until


class OwnLoopTest(DatabaseTest):
    def test_a_thousand_async_jobs_run_at_once(self):
        worker, here, all_here = self.worker(concurrency=1000), [], None

        @worker.task
        async def meet(payload):
            nonlocal all_here
            all_here = all_here or asyncio.Event()
            here.append(payload)
            if len(here) == 1000:
                all_here.set()
            await asyncio.wait_for(all_here.wait(), SOON)

        self.client.add_jobs(NewJob("meet", n) for n in range(1000))
        worker.run_once()
        self.assertEqual(sorted(here), list(range(1000)))
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_async_and_plain_tasks_live_in_one_worker(self):
        worker, threads = self.worker(concurrency=4), {}

        @worker.task
        async def on_loop(payload):
            threads.setdefault("loop", set()).add(threading.current_thread().name)

        @worker.task
        def on_thread(payload):
            threads.setdefault("threads", set()).add(threading.current_thread().name)

        self.client.add_jobs(NewJob(name) for _ in range(20) for name in ("on_loop", "on_thread"))
        worker.run_once()
        self.assertEqual(threads["loop"], {"graphile-worker-loop"})
        self.assertLessEqual(threads["threads"], {f"graphile-worker-{n}" for n in range(4)})
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_a_plain_task_that_blocks_does_not_hold_up_the_loop(self):
        worker, seen = self.worker(concurrency=2), threading.Event()

        @worker.task
        def blocks(payload):
            self.assertTrue(seen.wait(SOON))

        @worker.task
        async def goes_on(payload):
            seen.set()

        self.client.add_jobs([NewJob("blocks"), NewJob("goes_on", priority=1)])
        worker.run_once()
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def failure(self, task, **options):
        """Runs one job of an `async def` task; returns `attempts|last_error`."""
        worker = self.worker(**options)
        worker.task("t")(task)
        self.client.add_job("t")
        worker.run_once()
        return self.value("select attempts, last_error from jobs")

    def test_no_exception_of_a_task_ends_the_loop(self):
        for error, text in [
            (ValueError("no"), "ValueError: no"), (SystemExit(3), "SystemExit: 3"),
            (KeyboardInterrupt(), "KeyboardInterrupt"), (asyncio.CancelledError(), "cancelled"),
            (RetryAfter(60, "busy"), "busy"),
        ]:
            async def task(payload, error=error):
                await asyncio.sleep(0)
                raise error

            with self.subTest(error=error):
                self.assertEqual(self.failure(task), f"1|{text}")
                self.sql("delete from _private_jobs")

    def test_a_task_that_takes_too_long_is_cancelled(self):
        worker, cancelled = self.worker(), []

        @worker.task(timeout=0.05)
        async def t(payload):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        self.client.add_job("t")
        worker.run_once()
        self.assertEqual(cancelled, [True])
        self.assertRegex(self.value("select attempts, last_error from jobs"), r"1\|.*timed out")

    def test_a_stop_cancels_tasks_after_the_grace_period(self):
        worker, begun = self.worker(shutdown_grace_period=0.05), threading.Semaphore(0)

        @worker.task
        async def t(payload):
            begun.release()
            await asyncio.Event().wait()

        self.client.add_jobs([NewJob("t"), NewJob("t")])
        with worker:
            for _ in range(2):
                self.assertTrue(begun.acquire(timeout=SOON))
        self.assertEqual(self.sql("select attempts, locked_by is null from jobs"), ["0|t", "0|t"])

    def test_only_the_items_of_a_batch_that_failed_are_left(self):
        worker = self.worker()

        @worker.batch_task
        async def letters(items):
            return [None if item % 2 else "even" for item in items]

        self.client.add_job("letters", [1, 2, 3])
        worker.run_once()
        self.assertEqual(self.sql("select payload from _private_jobs"), ["[2]"])

    def test_a_task_adds_jobs_without_blocking_the_loop(self):
        worker, done = self.worker(), []

        @worker.task
        async def first(payload, ctx):
            await ctx.client.add_job_async("second", 1, priority=3)
            await ctx.client.add_jobs_async(NewJob("second", n) for n in (2, 3))

        @worker.task
        async def second(payload):
            done.append(payload)

        self.client.add_job("first")
        worker.run_once()
        self.assertEqual(sorted(done), [1, 2, 3])

    def test_the_loop_is_closed_and_no_thread_left_after_the_end(self):
        before, worker = threading.active_count(), self.worker()

        @worker.task
        async def t(payload):
            asyncio.get_running_loop().create_task(asyncio.Event().wait())  # the task does not wait for this one

        self.client.add_job("t")
        worker.run_once()
        self.assertTrue(worker._running._puller._loop.is_closed())
        self.assertEqual(threading.active_count(), before)


class CallersLoopTest(DatabaseTest):
    def test_run_async_uses_the_callers_loop_and_threads(self):
        worker, seen = self.worker(), {}

        @worker.task
        async def on_loop(payload):
            seen["loop"] = threading.current_thread()

        @worker.task
        def on_thread(payload):
            seen["thread"] = threading.current_thread()

        self.client.add_jobs([NewJob("on_loop"), NewJob("on_thread")])
        asyncio.run(worker.run_async(once=True))
        self.assertIs(seen["loop"], threading.main_thread())
        self.assertIsNot(seen["thread"], threading.main_thread())

    def test_the_loop_is_free_while_the_worker_waits_for_jobs(self):
        worker, done = self.worker(), []
        worker.task("t")(done.append)

        async def main():
            running = asyncio.ensure_future(worker.run_async())
            await worker.client.add_job_async("t", 1)
            while not done:
                await asyncio.sleep(0.01)
            worker.stop()
            await asyncio.wait_for(running, SOON)

        asyncio.run(main())
        self.assertEqual(done, [1])

    def test_cancelling_run_async_lets_jobs_end(self):
        worker, done = self.worker(shutdown_grace_period=SOON), []

        async def main():
            begun, go_on = asyncio.Event(), asyncio.Event()

            @worker.task
            async def t(payload):
                begun.set()
                await go_on.wait()
                done.append(payload)

            running = asyncio.ensure_future(worker.run_async())
            self.client.add_job("t", 1)
            await asyncio.wait_for(begun.wait(), SOON)
            running.cancel()
            while worker.state != "stopping":
                await asyncio.sleep(0.01)
            go_on.set()
            with self.assertRaises(asyncio.CancelledError):
                await asyncio.wait_for(running, SOON)

        asyncio.run(main())
        self.assertEqual((done, worker.state), ([1], "stopped"))
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_cancelling_run_async_twice_cancels_jobs(self):
        worker = self.worker(shutdown_grace_period=60)

        async def main():
            begun = asyncio.Event()

            @worker.task
            async def t(payload):
                begun.set()
                await asyncio.Event().wait()

            running = asyncio.ensure_future(worker.run_async())
            self.client.add_job("t")
            await asyncio.wait_for(begun.wait(), SOON)
            for _ in range(2):
                running.cancel()
                await asyncio.sleep(0.01)
            await asyncio.wait([running], timeout=SOON)
            self.assertTrue(running.cancelled())

        asyncio.run(main())
        self.assertEqual(self.value("select attempts, locked_by is null from jobs"), "0|t")

    def test_a_start_that_fails_raises(self):
        from graphile_worker import AuthError, Worker

        worker = Worker(self.url.rpartition("/")[0] + "/no_such_database")
        worker.task("t")(lambda: None)
        with self.assertRaises(AuthError):
            asyncio.run(worker.run_async())
        self.assertTrue(until(lambda: worker._running.ended.done()))


if __name__ == "__main__":
    unittest.main()
