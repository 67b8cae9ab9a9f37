"""Clients: add jobs, refuse invalid jobs, read jobs, and change them by hand."""

import os
import socket
import threading
import unittest
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from unittest import mock

from graphile_worker import (
    AuthError, Client, ClosedError, ConfigError, ConnectError, CrontabError, DatabaseError, GraphileWorkerError,
    InvalidArgumentError, NewJob, PayloadError, SchemaError, next_runs,
)
from harness import DatabaseTest, psql


class AddTest(DatabaseTest):
    def test_a_job_has_the_options_that_it_was_added_with(self):
        at = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
        id = self.client.add_job(
            "greet", {"name": "Zoë", "n": [1, None, True]}, queue="q", run_at=at, max_attempts=3, priority=-5, key="k",
            key_mode="preserve_run_at", flags=["red", "blue"],
        )
        job = self.client.job(id)
        self.assertEqual(job["payload"], {"name": "Zoë", "n": [1, None, True]})
        self.assertEqual((job["queue_name"], job["key"], job["priority"], job["max_attempts"]), ("q", "k", -5, 3))
        self.assertEqual(self.value("select run_at at time zone 'UTC', flags from jobs"),
                         '2030-01-01 10:00:00.123456|{"red": true, "blue": true}')

    def test_a_job_without_a_payload_has_an_empty_object(self):
        self.client.add_job("greet")
        self.client.add_job("greet", None)
        self.assertEqual(self.sql("select payload from _private_jobs order by id"), ["{}", "null"])

    def test_payload_json_is_stored_as_it_is(self):
        self.client.add_job("greet", payload_json='{"price": 10.10, "a":  1}')
        self.assertEqual(self.value("select payload::text from _private_jobs"), '{"price": 10.10, "a":  1}')

    def test_many_jobs_get_their_ids_in_order(self):
        ids = self.client.add_jobs(NewJob("count", n) for n in range(100))
        self.assertEqual([self.client.job(id)["payload"] for id in ids[::9]], list(range(100))[::9])
        self.assertEqual(self.client.add_jobs([]), [])

    def test_one_invalid_job_of_many_adds_none(self):
        with self.assertRaisesRegex(GraphileWorkerError, "priority"):
            self.client.add_jobs([NewJob("a"), NewJob("b", priority=100_000)])
        self.assertEqual(self.value("select count(*) from jobs"), "0")

    def test_a_key_replaces_the_waiting_job_and_can_be_removed(self):
        first = self.client.add_job("greet", 1, key="k")
        self.assertEqual(self.client.add_job("greet", 2, key="k"), first)
        self.assertTrue(self.client.remove_job("k"))
        self.assertFalse(self.client.remove_job("k"))

    def test_any_number_of_threads_can_share_a_client(self):
        def add():
            for n in range(25):
                self.client.add_job("count", n)

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.value("select count(*) from jobs"), "200")


class RefusedTest(DatabaseTest):
    def refused(self, kind, words, *arguments, **options):
        with self.assertRaisesRegex(kind, words) as caught:
            self.client.add_job(*arguments, **options)
        self.assertEqual(self.value("select count(*) from jobs"), "0")
        return caught.exception

    def test_a_payload_that_json_cannot_hold_is_refused_by_field(self):
        for payload, words in [
            ({"order": {"items": [1, {"price": Decimal("1.5")}]}}, r"payload\.order\.items\[1\]\.price is a Decimal"),
            ({"at": datetime.now(timezone.utc)}, r"payload\.at is a datetime"),
            ([b"raw"], r"payload\[0\] is a bytes"),
            ({"odd key": {1, 2}}, r"payload\['odd key'\] is a set"),
            ({"x": float("nan")}, r"payload\.x is nan"),
            ({"x": [float("-inf")]}, r"payload\.x\[0\] is -inf"),
            ({(1, 2): 3}, r"payload\[\(1, 2\)\] has a key that is a tuple"),
            ({"name": "half \ud83d"}, r"payload\.name has half of a surrogate pair"),
            (object(), "payload is a object"),
        ]:
            with self.subTest(payload=payload):
                error = self.refused(PayloadError, words, "greet", payload)
                self.assertIn("payload_json=", str(error))
                self.assertEqual(error.status, "GW_ERR_JSON")

    def test_a_cyclic_or_too_deep_payload_is_refused(self):
        loop = {"a": []}
        loop["a"].append(loop)
        self.refused(PayloadError, r"payload\.a\[0\] contains itself", "greet", loop)
        deep = []
        for _ in range(100_000):
            deep = [deep]
        self.refused(PayloadError, "nested too deeply", "greet", deep)

    def test_invalid_json_text_is_refused(self):
        self.refused(GraphileWorkerError, "", "greet", payload_json="{'a': 1}")
        self.refused(PayloadError, r"payload: is not JSON \(line 2, column 1\)", "greet", payload_json="{\n'a': 1}")

    def test_invalid_arguments_are_refused_by_name(self):
        self.refused(InvalidArgumentError, "task: contains a NUL", "gre\0et")
        self.refused(InvalidArgumentError, "task: must be a str, got 7", 7)
        self.refused(InvalidArgumentError, "max_attempts: 1099511627776 does not fit", "greet", max_attempts=2**40)
        self.refused(InvalidArgumentError, "priority: must be an int, got 1.5", "greet", priority=1.5)
        self.refused(InvalidArgumentError, "run_at: needs a time zone", "greet", run_at=datetime(2030, 1, 1))
        self.refused(InvalidArgumentError, "run_at: must be a datetime", "greet", run_at=5)
        self.refused(InvalidArgumentError, "flags: must be a list", "greet", flags="red")
        self.refused(ConfigError, "key_mode: must be one of replace", "greet", key="k", key_mode="replaced")
        self.refused(ConfigError, "key_mode: has no meaning without a key", "greet", key_mode="replace")
        self.refused(GraphileWorkerError, "task", "")
        self.refused(GraphileWorkerError, "queue", "greet", queue="q" * 129)

    def test_invalid_arguments_are_value_errors(self):
        self.refused(ValueError, "task", "gre\0et")


class ErrorsTest(DatabaseTest):
    def test_an_unreachable_address_is_a_connect_error(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with self.assertRaises(ConnectError) as caught:
            Client(f"postgres://ada:s3cret@127.0.0.1:{port}/app")
        self.assertEqual(caught.exception.status, "GW_ERR_CONNECT")
        self.assertTrue(caught.exception.retryable)
        self.assertIn(str(port), str(caught.exception))
        self.assertNotIn("s3cret", str(caught.exception))

    def test_an_unknown_role_is_an_auth_error_with_its_sqlstate(self):
        with self.assertRaises(AuthError) as caught:
            Client(self.url.replace("postgres@", "no_such_role@"))
        self.assertTrue(caught.exception.sqlstate.startswith("28"))
        self.assertFalse(caught.exception.retryable)

    def test_a_missing_schema_is_a_schema_error(self):
        self.sql("drop schema graphile_worker cascade")
        with self.assertRaisesRegex(DatabaseError, "graphile_worker") as caught:
            self.client.add_job("greet")
        self.assertEqual(caught.exception.sqlstate, "3F000")
        for call in (lambda: self.client.add_job("greet"), self.client.stats, self.client.queues):
            with self.assertRaisesRegex(SchemaError, "run migrate first") as caught:
                call()
            self.assertNotIn("gw_", str(caught.exception).replace(self.url.rpartition("/")[2], ""))

    def test_a_misspelled_variable_suggests_the_right_one(self):
        with mock.patch.dict("os.environ", GRAPHILE_WORKER_CONCURENCY="4"):
            with self.assertRaisesRegex(ConfigError, "CONCURENCY.*did you mean GRAPHILE_WORKER_CONCURRENCY"):
                Client(self.url)

    def test_without_a_url_the_pg_variables_are_used(self):
        with mock.patch.dict(os.environ, {"DATABASE_URL": ""}):
            with self.assertRaisesRegex(ConfigError, "PGHOST"):
                Client()
            os.environ.update(PGHOST="127.0.0.1", PGPORT="1")
            with self.assertRaisesRegex(ConnectError, "127.0.0.1:1"):
                Client()

    def test_an_unknown_option_suggests_similar_names(self):
        with self.assertRaisesRegex(ConfigError, "unknown option databse_timeout: did you mean database_timeout"):
            Client(self.url, databse_timeout=3)
        with self.assertRaisesRegex(ConfigError, "unknown option xyzzy: known names: .*concurrency"):
            Client(self.url, xyzzy=3)

    def test_an_invalid_option_value_names_the_option(self):
        for value in ("soon", timedelta(seconds=-1), object(), [1]):
            with self.subTest(value=value), self.assertRaisesRegex(ConfigError, "database_timeout"):
                Client(self.url, database_timeout=value)

    def test_durations_can_be_seconds_timedeltas_and_texts(self):
        for value in (3, 2.5, timedelta(seconds=3), "3s"):
            with Client(self.url, database_timeout=value) as client:
                client.check()

    def test_a_closed_client_raises_closed_error(self):
        client = Client(self.url)
        client.close()
        client.close()
        with self.assertRaisesRegex(ClosedError, "the client is closed"):
            client.add_job("greet")


class AdministrationTest(DatabaseTest):
    def test_jobs_can_be_found_by_task_queue_and_state(self):
        ready = self.client.add_job("a", queue="q")
        later = self.client.add_job("b", run_at=datetime.now(timezone.utc) + timedelta(hours=1))
        self.assertEqual([job["id"] for job in self.client.list_jobs(state="ready")], [ready])
        self.assertEqual([job["id"] for job in self.client.list_jobs(task="b", limit=5, offset=0)], [later])
        self.assertEqual([job["id"] for job in self.client.list_jobs(queue="q")], [ready])
        self.assertIsNone(self.client.job(later + 1))
        self.assertEqual(self.client.stats()["ready"], 1)
        self.assertEqual([queue["queue_name"] for queue in self.client.queues()], ["q"])

    def test_jobs_can_be_completed_failed_and_rescheduled(self):
        done, failed, moved = self.client.add_jobs([NewJob("a"), NewJob("b"), NewJob("c")])
        self.assertEqual([job["id"] for job in self.client.complete_jobs([done])], [done])
        self.assertEqual(self.client.fail_jobs([failed], "not today")[0]["last_error"], "not today")
        at = datetime(2031, 5, 1, tzinfo=timezone.utc)
        (job,) = self.client.reschedule_jobs([moved], run_at=at, priority=3, attempts=1, max_attempts=9)
        self.assertEqual((job["priority"], job["attempts"], job["max_attempts"]), (3, 1, 9))
        self.assertTrue(job["run_at"].startswith("2031-05-01T00:00:00"))
        (job,) = self.client.reschedule_jobs([moved], run_at="now")
        self.assertEqual(job["state"], "ready")

    def test_jobs_of_dead_workers_can_be_given_back(self):
        id = self.client.add_job("a")
        self.sql("update _private_jobs set locked_by = 'dead', locked_at = now()")
        self.assertEqual([worker["worker_id"] for worker in self.client.locked_workers()], ["dead"])
        self.client.force_unlock(["dead"])
        self.assertEqual(self.client.job(id)["locked_by"], None)
        self.assertEqual(self.client.active_workers(60), [])
        self.client.sweep_stale_workers(sweep_threshold=60, recovery_delay=timedelta(seconds=1), dry_run=True)

    def test_a_cleanup_deletes_unused_rows(self):
        self.client.add_job("a", max_attempts=1)
        self.sql("update _private_jobs set attempts = 1")
        self.assertEqual(self.client.cleanup("delete_permafailed")["jobs"], 1)
        self.assertEqual(self.client.cleanup()["tasks"], 1)
        with self.assertRaisesRegex(InvalidArgumentError, "everything is not one of delete_permafailed"):
            self.client.cleanup("everything")

    def test_a_dry_run_changes_nothing(self):
        id = self.client.add_job("a")
        with Client(self.url, dry_run=True) as client:
            client.complete_jobs([id])
        self.assertIsNotNone(self.client.job(id))

    def test_the_schema_can_have_another_name(self):
        with Client(self.url, schema="other place") as client:
            client.migrate()
            client.add_job("a")
        self.assertEqual(psql(self.url, 'select count(*) from "other place".jobs'), ["1"])


class CronPreviewTest(unittest.TestCase):
    def test_next_runs_uses_the_time_zone_of_the_entry(self):
        after = datetime(2026, 1, 1, tzinfo=timezone.utc)
        runs = next_runs("0 8 * * 1 report ?tz=Europe/Berlin", 2, after=after)
        self.assertEqual([run.isoformat() for run in runs], ["2026-01-05T07:00:00+00:00", "2026-01-12T07:00:00+00:00"])
        self.assertEqual(next_runs("0 0 30 2 * never", 3, after=after), [])

    def test_a_wrong_entry_is_refused_with_line_and_column(self):
        with self.assertRaisesRegex(CrontabError, "line 1, column 3"):
            next_runs("0 99 * * * report")


if __name__ == "__main__":
    unittest.main()
