"""Observers, interceptors, and what is logged."""

import dataclasses
import logging
import threading
import time
import unittest

import graphile_worker
from graphile_worker import ConfigError, Fail, NewJob, RefusedError, Skip, SkippedError, TaskFailed
from harness import SOON, DatabaseTest, until


class ObserverTest(DatabaseTest):
    def test_observers_receive_events_in_order(self):
        worker, received = self.worker(concurrency=1), []
        for name in ("WorkerStart", "JobComplete", "JobFail", "JobPermanentlyFail", "WorkerShutdown"):
            worker.on(name)(received.append)
        worker.task("ok")(lambda: None)

        @worker.task
        def fail(payload):
            raise TaskFailed("no")

        good, bad, last = self.client.add_jobs(
            [NewJob("ok"), NewJob("fail", priority=1), NewJob("fail", priority=2, max_attempts=1)]
        )
        worker.run_once()
        self.assertEqual([(event.name, event.job_id) for event in received], [
            ("WorkerStart", None), ("JobComplete", good), ("JobFail", bad), ("JobPermanentlyFail", last),
            ("WorkerShutdown", None),
        ])
        self.assertEqual(received[2].data["error"], "no")

    def test_a_raising_observer_does_not_stop_the_others(self):
        worker, received = self.worker(), []

        @worker.on("JobComplete")
        def broken(event):
            raise ValueError("observer")

        worker.on("JobComplete")(received.append)
        worker.task("t")(lambda: None)
        self.client.add_job("t")
        with self.assertLogs("graphile_worker", "ERROR") as log:
            worker.run_once()
        self.assertEqual(len(received), 1)
        self.assertIn("an observer of JobComplete failed", log.output[0])
        self.assertIn("ValueError: observer", log.output[0])

    def test_observers_run_on_a_thread_of_their_own(self):
        worker, names = self.worker(), []
        worker.on("JobComplete")(lambda event: names.append(threading.current_thread().name))
        worker.task("t")(lambda: None)
        self.client.add_job("t")
        worker.run_once()
        self.assertEqual(names, ["graphile-worker-hooks"])

    def test_a_hook_that_is_a_coroutine_function_is_refused(self):
        async def hook(event):
            pass

        with self.assertRaisesRegex(ConfigError, "plain function"):
            self.worker().on("JobComplete")(hook)


class InterceptorTest(DatabaseTest):
    def setUp(self):
        super().setUp()
        self.ran = []

    def left(self, before=None, after=None, task=None, is_async=False):
        """Runs one job with interceptors; returns `attempts|last_error` of the job, or None if it is gone."""
        worker = self.worker()
        if before:
            worker.intercept("BeforeJobRun")(before)
        if after:
            worker.intercept("AfterJobRun")(after)
        task = task or self.ran.append
        if is_async:
            async def wrapped(payload):
                return task(payload)

            worker.task("t")(wrapped)
        else:
            worker.task("t")(task)
        self.client.add_job("t")
        worker.run_once()
        rows = self.sql("select attempts, last_error from jobs")
        self.sql("delete from _private_jobs")
        return rows[0] if rows else None

    def test_an_interceptor_before_a_run_can_skip_and_fail(self):
        for is_async in (False, True):
            with self.subTest(is_async=is_async):
                self.ran.clear()
                self.assertIsNone(self.left(lambda ctx: None, is_async=is_async))
                self.assertEqual(self.ran, [{}])
                self.assertIsNone(self.left(lambda ctx: Skip(), is_async=is_async))
                self.assertEqual(self.left(lambda ctx: Fail(f"not {ctx.job.task}"), is_async=is_async), "1|not t")
                self.assertEqual(self.ran, [{}])

    def test_a_broken_interceptor_before_a_run_fails_the_attempt(self):
        self.assertEqual(self.left(lambda ctx: 1 / 0), "1|ZeroDivisionError: division by zero")
        self.assertIn("must return None, Skip() or Fail(reason)", self.left(lambda ctx: "skip"))
        self.assertEqual(self.ran, [])

    def test_an_interceptor_after_a_run_can_change_the_outcome(self):
        def broken(payload):
            raise ValueError("no")

        errors = []
        for is_async in (False, True):
            with self.subTest(is_async=is_async):
                self.assertIsNone(self.left(after=lambda ctx, error: errors.append(error), is_async=is_async))
                left = self.left(after=lambda ctx, error: errors.append(error), task=broken, is_async=is_async)
                self.assertEqual(left, "1|ValueError: no")
                self.assertIsNone(self.left(after=lambda ctx, error: Skip(), task=broken, is_async=is_async))
                self.assertEqual(self.left(after=lambda ctx, error: Fail("bad luck"), is_async=is_async), "1|bad luck")
        self.assertEqual([type(error) for error in errors], [type(None), ValueError] * 2)

    def test_a_raising_interceptor_after_a_run_changes_nothing(self):
        with self.assertLogs("graphile_worker", "ERROR"):
            self.assertIsNone(self.left(after=lambda ctx, error: 1 / 0))

    def test_a_skipped_job_does_not_reach_after_job_run(self):
        received = []
        self.left(before=lambda ctx: Skip(), after=lambda ctx, error: received.append(error))
        self.assertEqual(received, [])

    def test_before_job_schedule_changes_skips_and_refuses_jobs(self):
        worker = self.worker()

        @worker.intercept("BeforeJobSchedule")
        def decide(job):
            if job.task == "changed":
                return dataclasses.replace(job, payload={**job.payload, "by": "hook"}, priority=7)
            return {"skipped": Skip(), "refused": Fail("not on Sundays")}.get(job.task)

        for name in ("spawn", "changed"):
            worker.task(name)(lambda payload, ctx: None)
        worker.client.add_job("changed", {"n": 1})
        self.assertEqual(self.sql("select payload, priority from _private_jobs"), ['{"n":1,"by":"hook"}|7'])
        with self.assertRaises(SkippedError):
            worker.client.add_job("skipped")
        with self.assertRaisesRegex(RefusedError, "not on Sundays"):
            worker.client.add_job("refused")
        self.assertEqual(self.value("select count(*) from jobs"), "1")
        self.client.add_job("skipped")  # a client that is not the worker's does not call the interceptor
        self.assertEqual(self.value("select count(*) from jobs"), "2")

    def test_jobs_that_a_task_adds_pass_the_interceptors(self):
        worker = self.worker()
        worker.intercept("BeforeJobSchedule")(lambda job: Fail("no"))
        worker.task("spawn")(lambda payload, ctx: ctx.client.add_job("other"))
        self.client.add_job("spawn")
        worker.run_once()
        self.assertEqual(self.value("select last_error from jobs"), "RefusedError: no")


class LogTest(DatabaseTest):
    def run_one(self, task, **options):
        worker = self.worker()
        worker.task("t")(task)
        id = self.client.add_job("t", {"secret": "payload"}, **options)
        worker.run_once()
        return id

    def test_a_tasks_exception_is_logged_with_traceback_and_fields(self):
        with self.logged() as records:
            id = self.run_one(lambda payload: 1 / 0)
        (record,) = [record for record in records if record.exc_info]
        self.assertEqual((record.name, record.levelname), ("graphile_worker", "WARNING"))
        self.assertEqual((record.job_id, record.task, record.attempt), (id, "t", 1))
        self.assertIs(record.exc_info[0], ZeroDivisionError)

    def test_library_logs_become_logging_records_with_fields(self):
        with self.logged() as records:
            before = time.time()
            id = self.run_one(lambda payload: 1 / 0, max_attempts=1)
            find = lambda: [record for record in records if "job failed permanently" in record.getMessage()]  # noqa: E731
            (record,) = until(find)
        self.assertEqual((record.name, record.levelname), ("graphile_worker.engine.settle", "ERROR"))
        self.assertEqual((record.job_id, record.task, record.attempt), (id, "t", 1))
        self.assertEqual(record.error, "ZeroDivisionError: division by zero")
        self.assertIn('error="ZeroDivisionError: division by zero"', record.getMessage())
        self.assertTrue(before - 1 < record.created < time.time() + 1)
        self.assertNotIn("secret", "".join(record.getMessage() for record in records))

    def failures(self, records, id):
        """Returns the records of a job's failures.

        Another job fails after them. The library keeps the order of records, so its record marks the end.
        """

        def fails(payload):
            raise TaskFailed("the last one")

        last = self.run_one(fails)
        until(lambda: [record for record in records if getattr(record, "job_id", None) == last])
        return [r for r in records if getattr(r, "job_id", None) == id and r.levelno >= logging.WARNING]

    def test_each_failure_is_one_record_with_a_traceback(self):
        for attempts, level, words in ((25, "WARNING", "job failed, trying again"), (1, "ERROR", "job failed permanently")):
            with self.subTest(attempts=attempts), self.logged() as records:
                id = self.run_one(lambda payload: 1 / 0, max_attempts=attempts)
                (record,) = self.failures(records, id)
                self.assertEqual((record.levelname, record.attempt, record.task), (level, 1, "t"))
                self.assertIn(words, record.getMessage())
                self.assertIn('error="ZeroDivisionError: division by zero"', record.getMessage())
                self.assertIs(record.exc_info[0], ZeroDivisionError)
                self.assertIn("1 / 0", logging.Formatter().format(record))

    def test_a_failed_interceptor_before_a_run_is_one_log_record(self):
        worker = self.worker()
        worker.task("t")(lambda payload: None)
        worker.intercept("BeforeJobRun")(lambda ctx: 1 / 0)
        with self.logged() as records:
            id = self.client.add_job("t")
            worker.run_once()
            (record,) = self.failures(records, id)
        self.assertIs(record.exc_info[0], ZeroDivisionError)
        self.assertEqual(self.client.job(id)["last_error"], "ZeroDivisionError: division by zero")

    def test_records_below_the_level_are_not_logged(self):
        for level, words in (("INFO", {"job completed"}), ("WARNING", set())):
            with self.subTest(level=level), self.logged() as records:
                graphile_worker.set_log_level(level)
                self.run_one(lambda payload: None)
                self.run_one(lambda payload: 1 / 0)
                until(lambda: [record for record in records if "job failed" in record.getMessage()])
                found = {"job completed" for record in records if "job completed" in record.getMessage()}
                self.assertEqual(found, words)
        self.assertRaisesRegex(ValueError, "level", graphile_worker.set_log_level, "LOUD")

    def test_no_log_record_is_lost_when_the_program_ends(self):
        program = self.program(
            "import logging, graphile_worker\n"
            "logging.basicConfig(level=logging.INFO, format='%(levelname)s %(name)s %(message)s')\n"
            "worker = graphile_worker.Worker()\n"
            "worker.task('t')(lambda: None)\n"
            "worker.client.add_jobs(graphile_worker.NewJob('t') for _ in range(200))\n"
            "worker.run_once()\n"
        )
        self.assertEqual(program.ended(), 0)
        self.assertEqual(program.errors().count("job completed"), 200)
        self.assertIn("INFO graphile_worker.engine.settle job completed", program.errors())

    def test_a_filter_that_raises_does_not_end_the_log(self):
        program = self.program(
            "import logging, graphile_worker\n"
            "logging.basicConfig(level=logging.INFO)\n"
            "def raises(record):\n"
            "    raise ValueError('filter')\n"
            "logging.getLogger('graphile_worker.engine.settle').addFilter(raises)\n"
            "worker = graphile_worker.Worker()\n"
            "worker.task('t')(lambda: None)\n"
            "worker.client.add_jobs([graphile_worker.NewJob('t'), graphile_worker.NewJob('t')])\n"
            "worker.run_once()\n"
        )
        self.assertEqual(program.ended(), 0)
        self.assertEqual(program.errors().count("ValueError: filter"), 2)


class SlowObserverTest(DatabaseTest):
    def test_the_end_waits_for_observers(self):
        worker, received, go_on = self.worker(), [], threading.Event()

        @worker.on("JobComplete")
        def slow(event):
            self.assertTrue(go_on.wait(SOON))
            received.append(event.job_id)

        worker.task("t")(go_on.set)
        ids = self.client.add_jobs(NewJob("t") for _ in range(10))
        worker.run_once()
        self.assertEqual(sorted(received), sorted(ids))


if __name__ == "__main__":
    unittest.main()
