"""Tasks on threads: their outcomes and their arguments."""

import asyncio
import contextvars
import copy
import functools
import gc
import logging
import pickle
import threading
import time
import unittest
from datetime import datetime, timedelta, timezone

from graphile_worker import (
    ConfigError, CrontabError, DeadlockError, JobCancelled, NewJob, RetryAfter, StateError, TaskFailed, StuckError,
    Worker,
)
from harness import SOON, DatabaseTest, until


class OutcomeTest(DatabaseTest):
    """One job of one task: its outcome, and its row after that."""

    def left(self, handler, payload=None, **options):
        """Runs one job once; returns `attempts|last_error` of its row, or None if it is gone."""
        worker = self.worker()
        worker.task("t", **options)(handler)
        self.client.add_job("t", payload)
        worker.run_once()
        rows = self.sql("select attempts, last_error from jobs")
        return rows[0] if rows else None

    def test_any_return_value_completes_the_job(self):
        for answer in (None, 0, False, "", [], Exception("a return value, not a failure")):
            with self.subTest(answer=answer):
                self.assertIsNone(self.left(lambda payload: answer))

    def test_a_task_gets_the_arguments_that_it_declares(self):
        calls = []
        for handler in (
            lambda: calls.append(()),
            lambda payload: calls.append((payload,)),
            lambda payload, ctx: calls.append((payload, ctx.payload, ctx.job.attempts)),
            lambda payload, retries=3: calls.append((payload, retries)),
            lambda payload, ctx=None: calls.append((payload, ctx.job.task)),
            lambda *arguments: calls.append(len(arguments)),
            functools.partial(lambda extra, payload: calls.append((extra, payload)), "extra"),
        ):
            self.assertIsNone(self.left(handler, {"n": 1}))
        one = {"n": 1}
        self.assertEqual(calls, [(), (one,), (one, one, 1), (one, 3), (one, "t"), 2, ("extra", one)])

    def test_infinite_times_read_as_the_years_1_and_9999(self):
        times = []
        worker = self.worker()
        worker.task("t")(lambda payload, ctx: times.append((ctx.job.run_at, ctx.job.created_at)))
        self.client.add_job("t")
        self.sql("update _private_jobs set run_at = '-infinity', created_at = 'infinity'")
        worker.run_once()
        first, last = datetime.min.replace(tzinfo=timezone.utc), datetime.max.replace(tzinfo=timezone.utc)
        self.assertEqual(times, [(first, last)])
        self.client.add_job("t", run_at=last)
        with self.assertRaisesRegex(ConfigError, "run_at: year"):
            self.client.add_job("t", run_at=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))))

    def test_an_exception_fails_the_attempt_with_type_and_text(self):
        def task(payload):
            raise ValueError("no such user: Zoë")

        with self.logged() as records:
            self.assertEqual(self.left(task), "1|ValueError: no such user: Zoë")
        (record,) = [record for record in records if record.exc_info]
        self.assertIn("in task\n    raise ValueError", logging.Formatter().format(record))

    def test_a_job_cannot_be_made_copied_or_pickled(self):
        program = self.program(
            "from graphile_worker import Job\n"
            "for arguments in ((), (5,), ('t', {})):\n"
            "    try:\n"
            "        Job(*arguments)\n"
            "    except TypeError as error:\n"
            "        print(error)\n"
        )
        for _ in range(3):
            self.assertIn("use Client.add_job or NewJob", program.line())
        self.assertEqual((program.ended(), program.errors()), (0, ""))

        def task(payload, ctx):
            for copied in (copy.copy, copy.deepcopy, pickle.dumps):
                with self.assertRaisesRegex(TypeError, "as_dict"):
                    copied(ctx.job)
            gc.collect()
            self.assertEqual(ctx.job.payload, payload)

        self.assertIsNone(self.left(task, {"n": 1}))

    def test_a_client_cannot_be_pickled(self):
        with self.assertRaisesRegex(TypeError, "make one in each process"):
            pickle.dumps(self.client)

    def test_task_failed_is_stored_with_exactly_its_text(self):
        def task(payload):
            raise TaskFailed("the disk is full")

        with self.logged() as records:
            self.assertEqual(self.left(task), "1|the disk is full")
        self.assertEqual([record for record in records if record.exc_info], [])

    def test_system_exit_fails_the_job_and_ends_no_thread(self):
        def task(payload):
            raise SystemExit(3)

        self.assertEqual(self.left(task), "1|SystemExit: 3")

    def test_keyboard_interrupt_in_a_task_fails_the_job(self):
        def task(payload):
            raise KeyboardInterrupt

        self.assertEqual(self.left(task), "1|KeyboardInterrupt")

    def test_unreadable_and_unstorable_exceptions_fail_the_job(self):
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError("no text")

        def unreadable(payload):
            raise Odd

        def unstorable(payload):
            raise ValueError("nul \0 and half \ud83d")

        self.assertRegex(self.left(unreadable), r"1\|.*Odd: its text cannot be read")
        self.sql("delete from _private_jobs")
        self.assertEqual(self.left(unstorable), "1|ValueError: nul � and half ?")

    def test_retry_after_decides_when_the_next_attempt_is(self):
        def task(payload):
            raise RetryAfter(timedelta(hours=1), "busy")

        self.assertEqual(self.left(task), "1|busy")
        self.assertEqual(self.value("select run_at - now() between '59 min' and '60 min' from jobs"), "t")

    def test_snooze_runs_the_job_again_later_and_counts_no_attempt(self):
        def task(payload, ctx):
            ctx.snooze(3600)

        self.assertEqual(self.left(task), "0|")
        self.assertEqual(self.value("select run_at - now() between '59 min' and '60 min' from jobs"), "t")

    def test_a_tasks_backoff_sets_the_delay(self):
        def task(payload):
            raise TaskFailed("no")

        self.left(task, backoff="fixed 30m")
        self.assertEqual(self.value("select run_at - now() between '29 min' and '30 min' from jobs"), "t")

    def test_a_task_that_takes_too_long_is_cancelled_and_fails(self):
        def task(payload, ctx):
            until(lambda: ctx.is_cancelled)
            ctx.raise_if_cancelled()

        self.assertRegex(self.left(task, timeout=0.05), r"1\|.*timed out")

    def test_a_returned_awaitable_fails_the_attempt(self):
        async def work():
            pass

        self.assertRegex(self.left(lambda payload: work()), "1|TypeError: task t returned an awaitable")

    def test_a_key_error_in_a_task_fails_the_attempt(self):
        self.assertRegex(self.left(lambda payload: payload["missing"], {}), r"1\|KeyError: 'missing'")


class BatchTest(DatabaseTest):
    def run_batch(self, answer, payload):
        worker = self.worker()
        worker.batch_task("letters")(lambda items, ctx: answer(items))
        self.client.add_job("letters", payload)
        worker.run_once()
        return self.sql("select payload, attempts from _private_jobs")

    def test_only_the_items_that_failed_are_left(self):
        left = self.run_batch(lambda items: [ValueError("odd") if item % 2 else None for item in items], [1, 2, 3])
        self.assertEqual(left, ["[1,3]|1"])
        error = self.value("select last_error from jobs")
        self.assertIn("ValueError: odd", error)

    def test_a_batch_without_errors_is_done(self):
        self.assertEqual(self.run_batch(lambda items: None, [1, 2]), [])
        self.assertEqual(self.run_batch(lambda items: [None for _ in items], [1, 2]), [])
        self.assertEqual(self.run_batch(lambda items: None, []), [])

    def test_an_exception_fails_the_whole_batch(self):
        self.assertEqual(self.run_batch(lambda items: items[9], [1, 2]), ["[1,2]|1"])

    def test_a_batch_result_of_the_wrong_shape_fails(self):
        self.assertEqual(self.run_batch(lambda items: [None], [1, 2]), ["[1,2]|1"])
        self.assertIn("one entry for each of its 2 items", self.value("select last_error from jobs"))
        self.sql("delete from _private_jobs")
        self.assertEqual(self.run_batch(lambda items: "ab", [1, 2]), ["[1,2]|1"])

    def test_a_payload_that_is_no_list_fails(self):
        self.run_batch(lambda items: None, {"a": 1})
        self.assertIn("JSON array", self.value("select last_error from jobs"))


class ThreadsTest(DatabaseTest):
    def test_exactly_concurrency_jobs_run_at_once(self):
        worker, together, lock, now, most = self.worker(concurrency=5), threading.Barrier(5), threading.Lock(), [0], [0]

        @worker.task
        def meet(payload):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            together.wait(SOON)  # fails unless five jobs wait at the same time
            with lock:
                now[0] -= 1

        self.client.add_jobs(NewJob("meet") for _ in range(20))
        worker.run_once()
        self.assertEqual(self.value("select count(*) from jobs"), "0")
        self.assertEqual(most[0], 5)

    def test_a_slow_job_does_not_delay_the_other_jobs(self):
        worker, others = self.worker(concurrency=4), threading.Semaphore(0)

        @worker.task
        def slow(payload):
            for _ in range(40):
                self.assertTrue(others.acquire(timeout=SOON))

        @worker.task
        def quick(payload):
            others.release()

        self.client.add_jobs([NewJob("slow"), *(NewJob("quick") for _ in range(40))])
        worker.run_once()
        self.assertEqual(self.sql("select last_error from jobs"), [])

    def test_a_thousand_quick_jobs_are_each_run_once(self):
        worker, seen = self.worker(concurrency=8), []
        worker.task("t")(seen.append)
        self.client.add_jobs(NewJob("t", n) for n in range(1000))
        worker.run_once()
        self.assertEqual(sorted(seen), list(range(1000)))
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_context_variables_do_not_leak_to_the_next_task(self):
        variable, seen = contextvars.ContextVar("variable", default="unset"), []
        worker = self.worker(concurrency=1)

        @worker.task
        def t(payload):
            seen.append(variable.get())
            variable.set("set")

        self.client.add_jobs([NewJob("t"), NewJob("t")])
        worker.run_once()
        self.assertEqual(seen, ["unset", "unset"])

    def test_a_job_can_be_read_after_its_task_has_returned(self):
        worker, kept = self.worker(), []
        worker.task("t")(lambda payload, ctx: kept.append(ctx))
        id = self.client.add_job("t", [1, "é"], key="k", flags=["red"], priority=2, max_attempts=7)
        worker.run_once()
        job = kept[0].job
        self.assertEqual((job.id, job.task, job.payload, job.payload_json), (id, "t", [1, "é"], '[1,"é"]'))
        self.assertEqual((job.key, job.attempts, job.max_attempts, job.priority, job.revision), ("k", 1, 7, 2, 0))
        self.assertEqual((job.as_dict()["payload"], job.as_dict()["flags"]), ([1, "é"], ["red"]))
        self.assertEqual(job.worker_id, worker.id)
        self.assertLess(abs((job.run_at - job.created_at).total_seconds()), 5)
        self.assertIsNone(job.traceparent)
        self.assertFalse(kept[0].is_cancelled)

    def test_a_trace_context_travels_with_the_job(self):
        worker, seen = self.worker(), []
        worker.task("t")(lambda payload, ctx: seen.append(ctx.job.traceparent))
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        self.client.add_job("t", traceparent=trace)
        worker.run_once()
        self.assertEqual(seen, [trace])

    def test_a_task_can_add_jobs_with_its_client(self):
        worker, done = self.worker(), []
        worker.task("first")(lambda payload, ctx: ctx.client.add_job("second", payload + 1))
        worker.task("second")(done.append)
        self.client.add_job("first", 1)
        worker.run_once()
        self.assertEqual(done, [2])

    def test_jobs_of_one_queue_run_one_after_the_other(self):
        worker, running, overlaps = self.worker(concurrency=4), threading.Lock(), []

        @worker.task
        def t(payload):
            if not running.acquire(blocking=False):
                overlaps.append(payload)
                return
            time.sleep(0.002)  # long enough for another job to overlap, if one could
            running.release()

        self.client.add_jobs(NewJob("t", n, queue="q") for n in range(20))
        worker.run_once()
        self.assertEqual((overlaps, self.value("select count(*) from jobs")), ([], "0"))

    def test_forbidden_flags_leave_jobs_to_others(self):
        worker, seen = self.worker(forbidden_flags=["red"]), []
        worker.task("t")(seen.append)
        self.client.add_jobs([NewJob("t", 1, flags=["red"]), NewJob("t", 2, flags=["blue"])])
        worker.run_once()
        self.assertEqual(seen, [2])


class LifeTest(DatabaseTest):
    def test_a_worker_runs_in_the_background_within_with(self):
        done, worker = threading.Event(), self.worker()
        worker.task("t")(lambda payload: done.set())
        self.assertEqual(worker.state, "new")
        self.assertIsNone(worker.id)
        with worker:
            self.assertEqual(worker.state, "running")
            worker.client.add_job("t")
            self.assertTrue(done.wait(SOON))
            self.assertFalse(worker.wait(0))
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_a_worker_can_be_started_again_after_its_end(self):
        worker, seen = self.worker(), []
        worker.task("t")(seen.append)
        ids = set()
        for n in range(3):
            self.client.add_job("t", n)
            worker.run_once()
            ids.add(worker.id)
            self.assertEqual(worker.stats()["completed"], 1)
            self.assertEqual(worker.state, "stopped")
        self.assertEqual((seen, len(ids)), ([0, 1, 2], 3))

    def test_stop_lets_running_jobs_end(self):
        worker, begun, go_on = self.worker(shutdown_grace_period=SOON), threading.Event(), threading.Event()

        @worker.task
        def t(payload):
            begun.set()
            self.assertTrue(go_on.wait(SOON))

        self.client.add_job("t")
        worker.start()
        self.assertTrue(begun.wait(SOON))
        worker.stop()
        until(lambda: worker.state == "stopping")
        go_on.set()
        self.assertTrue(worker.wait(SOON))
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_abort_cancels_jobs_and_counts_no_attempt(self):
        worker, begun = self.worker(shutdown_grace_period=60), threading.Event()

        @worker.task
        def t(payload, ctx):
            begun.set()
            until(lambda: ctx.is_cancelled)
            ctx.raise_if_cancelled()

        self.client.add_job("t")
        worker.start()
        self.assertTrue(begun.wait(SOON))
        worker.stop(abort=True)
        self.assertTrue(worker.wait(SOON))
        self.assertEqual(self.value("select attempts, locked_by is null from jobs"), "0|t")

    def test_a_task_that_hangs_is_named_and_its_job_given_back(self):
        worker, begun, go_on = self.worker(shutdown_grace_period=0.05), threading.Event(), threading.Event()

        @worker.task
        def stubborn(payload):
            begun.set()
            go_on.wait(SOON)

        self.client.add_job("stubborn")
        worker.start()
        self.assertTrue(begun.wait(SOON))
        worker.stop()
        with self.assertRaisesRegex(StuckError, "stubborn"):
            worker.wait(SOON)
        self.assertEqual(self.value("select attempts, locked_by is null from jobs"), "0|t")
        threads = worker._running._threads
        go_on.set()
        for thread in threads:
            thread.join(SOON)
        self.assertEqual([thread.name for thread in threads if thread.is_alive()], [])

    def test_no_thread_is_left_after_the_end(self):
        before = threading.active_count()
        worker = self.worker(concurrency=8)
        worker.task("t")(lambda: None)
        worker.on("JobComplete")(lambda event: None)
        with worker:
            pass
        self.assertEqual(threading.active_count(), before)

    def test_waiting_for_the_worker_inside_of_a_task_is_refused(self):
        worker, errors = self.worker(), []

        @worker.task
        def t(payload):
            for wait in (worker.wait, worker.close):
                try:
                    wait()
                except DeadlockError as error:
                    errors.append(error.status)

        self.client.add_job("t")
        worker.run_once()
        self.assertEqual(errors, ["GW_ERR_DEADLOCK", "GW_ERR_DEADLOCK"])

    def test_a_second_start_and_late_registrations_are_refused(self):
        worker = self.worker()
        worker.task("t")(lambda: None)
        with worker:
            for late in (
                worker.start, worker.run_once, lambda: worker.task("u")(lambda: None),
                lambda: worker.cron("* * * * * t"), lambda: worker.on("JobFail"),
                lambda: worker.intercept("BeforeJobRun"),
            ):
                with self.assertRaisesRegex(StateError, "runs already"):
                    late()

    def test_a_failed_start_raises_and_can_be_repeated(self):
        worker = Worker(self.url.rpartition("/")[0] + "/no_such_database")
        worker.task("t")(lambda: None)
        for _ in range(2):
            with self.assertRaises(Exception) as caught:
                worker.start()
            self.assertEqual(caught.exception.sqlstate, "3D000")
        worker.close()

    def test_cron_entries_add_jobs(self):
        worker, done = self.worker(), threading.Event()
        worker.task("t")(lambda payload: done.set() if payload["n"] == 1 else None)
        # The entry is due once a minute. Its fill adds the jobs of the minutes since its last execution.
        self.sql("insert into _private_known_crontabs (identifier, known_since, last_execution)"
                 " values ('t', now() - interval '1 h', now() - interval '3 min')")
        worker.cron('* * * * * t ?fill=5m {"n": 1}')
        with worker:
            self.assertTrue(done.wait(SOON))


class RegistrationTest(unittest.TestCase):
    def setUp(self):
        self.worker = Worker("postgres://localhost/nowhere")

    def test_a_decorated_function_stays_what_it_is(self):
        @self.worker.task
        def hello(payload):
            return payload

        @self.worker.batch_task("items", timeout=30, backoff="fixed 10s")
        async def batch(items):
            return items

        self.assertEqual(hello(1), 1)
        self.assertEqual(asyncio.run(batch([1])), [1])
        self.assertEqual(sorted(self.worker._setup.tasks), ["hello", "items"])
        self.assertEqual(self.worker._setup.tasks["items"].options, {"timeout": "30000ms", "backoff": "fixed 10s"})

    def test_functions_that_cannot_be_tasks_are_refused(self):
        def generator(payload):
            yield

        for handler, words in [
            (generator, "yield"),
            (lambda a, b, c: None, "payload, ctx"),
            (lambda payload, *, needed: None, "payload, ctx"),
        ]:
            with self.subTest(words=words), self.assertRaisesRegex(ConfigError, words):
                self.worker.task("t")(handler)
        self.worker.task("twice")(lambda: None)
        with self.assertRaisesRegex(ConfigError, "task twice is registered already"):
            self.worker.task("twice")(lambda: None)
        with self.assertRaisesRegex(ConfigError, "name"):
            self.worker.task(functools.partial(print))

    def test_a_worker_without_tasks_does_not_run(self):
        with self.assertRaisesRegex(ConfigError, "no task"):
            self.worker.run()

    def test_a_wrong_crontab_is_refused_at_once(self):
        with self.assertRaisesRegex(CrontabError, "line 2, column"):
            self.worker.cron("* * * * * a\n* * 40 * * b")

    def test_unknown_options_and_events_suggest_similar_names(self):
        with self.assertRaisesRegex(ConfigError, "unknown option concurency: did you mean concurrency"):
            Worker(concurency=4)
        with self.assertRaisesRegex(ConfigError, "unknown event JobCompleted: did you mean JobComplete"):
            self.worker.on("JobCompleted")
        with self.assertRaisesRegex(ConfigError, "use intercept"):
            self.worker.on("BeforeJobRun")
        with self.assertRaisesRegex(ConfigError, "unknown interceptor JobFail"):
            self.worker.intercept("JobFail")

    def test_job_cancelled_is_a_task_failed(self):
        self.assertTrue(issubclass(JobCancelled, TaskFailed))


if __name__ == "__main__":
    unittest.main()
