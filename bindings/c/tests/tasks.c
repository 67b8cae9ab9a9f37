/* Called tasks: their outcomes, their requests, and what they must not do. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"

static gw_outcome_t read_everything(gw_job_t *job, void *user_data) {
  size_t length = 0;
  const char *payload = gw_job_payload(job, &length);
  char *json = gw_job_json(job);
  CHECK_TEXT(payload, "{\"a\": [1, 2.50]}");
  CHECK_INT(length, strlen(payload));
  CHECK_TEXT(gw_job_task(job), "look");
  CHECK_TEXT(gw_job_key(job), "key");
  CHECK(gw_job_id(job) > 0);
  CHECK_INT(gw_job_attempts(job), 1);
  CHECK_INT(gw_job_max_attempts(job), 7);
  CHECK_INT(gw_job_priority(job), -3);
  CHECK_INT(gw_job_revision(job), 0);
  CHECK_INT(gw_job_run_at(job), 1000000000123456);
  CHECK(gw_job_created_at(job) > now_us() - 60000000 && gw_job_created_at(job) < now_us() + 60000000);
  CHECK(!gw_job_is_cancelled(job));
  CHECK(gw_job_worker_id(job)[0] != '\0');
  CHECK_INT(json_number(json, "id"), gw_job_id(job));
  CHECK_HAS(json, payload);
  gw_string_free(json);
  count_up(user_data);
  return GW_TASK_DONE;
}

TEST(task_can_read_all_fields_of_its_job) {
  gw_client_t *client = a_client();
  gw_spec_t *spec = gw_spec_new("look");
  struct latch ran = LATCH;
  OK(gw_spec_set_payload(spec, "{\"a\": [1, 2.50]}", GW_NUL));
  OK(gw_spec_set_key(spec, "key", GW_KEY_REPLACE));
  OK(gw_spec_set_max_attempts(spec, 7));
  OK(gw_spec_set_priority(spec, -3));
  OK(gw_spec_set_run_at(spec, 1000000000123456));
  OK(gw_client_add_job(client, spec, NULL, &err));
  gw_spec_free(spec);
  run_once("look", read_everything, &ran);
  CHECK_INT(counted(&ran), 1);
  gw_client_free(client);
}

TEST(successful_job_is_deleted) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", succeed, NULL);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

TEST(failed_job_is_retried_later_and_keeps_its_error) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", fail, "the printer is on fire");
  CHECK_JOB(client, id, "last_error", "the printer is on fire");
  CHECK_JOB(client, id, "attempts", "1");
  CHECK_JOB(client, id, "state", "scheduled");
  gw_client_free(client);
}

static gw_outcome_t fail_without_a_word(gw_job_t *job, void *user_data) {
  (void)job, (void)user_data;
  return GW_TASK_FAILED;
}

TEST(failure_without_a_text_gets_a_default_text) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", fail_without_a_word, NULL);
  char *text = job_field(client, id, "last_error");
  CHECK(text && strlen(text) > 5);
  free(text);
  gw_client_free(client);
}

static gw_outcome_t answer_garbage(gw_job_t *job, void *user_data) {
  (void)job;
  return *(int32_t *)user_data;
}

static void garbage_fails(int32_t outcome) {
  char number[16];
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", answer_garbage, &outcome);
  char *text = job_field(client, id, "last_error");
  snprintf(number, sizeof number, "%d", outcome);
  CHECK_HAS(text, number);
  free(text);
  gw_client_free(client);
}

TEST(invalid_outcome_fails_the_attempt) {
  garbage_fails(0);
  garbage_fails(1);
  garbage_fails(-64897120);
  garbage_fails(0x6A04);
}

static gw_outcome_t snooze_an_hour(gw_job_t *job, void *user_data) {
  (void)user_data;
  OK(gw_job_snooze(job, 3600000));
  return GW_TASK_DONE;
}

TEST(snoozed_job_runs_later_and_attempt_is_not_counted) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", snooze_an_hour, NULL);
  CHECK_JOB(client, id, "attempts", "0");
  CHECK_JOB(client, id, "state", "scheduled");
  CHECK_JOB(client, id, "last_error", "null");
  gw_client_free(client);
}

static gw_outcome_t wait_for_less_than_nothing(gw_job_t *job, void *user_data) {
  ANSWERS(GW_ERR_CONFIG, gw_job_snooze(job, -1));
  ANSWERS(GW_ERR_CONFIG, gw_job_retry_after(job, -1));
  return succeed(job, user_data);
}

TEST(negative_delay_is_refused_and_changes_nothing) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", wait_for_less_than_nothing, NULL);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

static gw_outcome_t fail_for_a_day(gw_job_t *job, void *user_data) {
  OK(gw_job_retry_after(job, 86400000));
  return fail(job, user_data);
}

/* The hours until a job's next run, rounded. */
static long hours_until(gw_client_t *client, int64_t id) {
  char *json = NULL;
  OK(gw_client_job(client, id, &json, &err));
  char *run_at = json_field(json, "run_at");
  int year, month, day, hour, minute, second;
  CHECK_INT(sscanf(run_at, "%d-%d-%dT%d:%d:%d", &year, &month, &day, &hour, &minute, &second), 6);
  struct tm time = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute, .tm_sec = second};
  free(run_at);
  gw_string_free(json);
  return (long)((timegm(&time) + 1800 - now_us() / 1000000) / 3600);
}

TEST(retry_after_sets_the_delay_of_the_retry) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", fail_for_a_day, "later");
  CHECK_JOB(client, id, "last_error", "later");
  CHECK_INT(hours_until(client, id), 24);
  gw_client_free(client);
}

TEST(task_backoff_sets_the_delay_of_the_retry) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", fail, NULL);
  OK(gw_worker_set_task_option(worker, "task", "backoff", "fixed 6h", &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(hours_until(client, id), 6);
  gw_worker_free(worker);
  gw_client_free(client);
}

static void third_failure_waits(const char *backoff, long hours) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  int64_t id = add_job(client, "task", "{}");
  char *json = NULL;
  OK(gw_client_reschedule_jobs(client, &id, 1, "{\"attempts\": 2}", &json, &err));
  gw_string_free(json);
  add_task(worker, "task", fail, NULL);
  OK(gw_worker_set_task_option(worker, "task", "backoff", backoff, &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(hours_until(client, id), hours);
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(backoff_is_fixed_linear_or_exponential_up_to_its_limit) {
  third_failure_waits("fixed 5h", 5);
  third_failure_waits("linear 5h 1d", 15);
  third_failure_waits("exponential 5h 1d", 20);
  third_failure_waits("exponential 5h 18h", 18);
}

TEST(task_options_are_checked_when_they_are_set) {
  gw_worker_t *worker = a_worker();
  add_task(worker, "task", succeed, NULL);
  ANSWERS(GW_ERR_CONFIG, gw_worker_set_task_option(worker, "task", "timeout", "soon", &err));
  CHECK_HAS(error_message(), "timeout");
  ANSWERS(GW_ERR_CONFIG, gw_worker_set_task_option(worker, "task", "backoff", "cubic 1s", &err));
  CHECK_HAS(error_message(), "backoff");
  ANSWERS(GW_ERR_CONFIG, gw_worker_set_task_option(worker, "task", "colour", "red", &err));
  CHECK_HAS(error_message(), "colour");
  ANSWERS(GW_ERR_CONFIG, gw_worker_set_task_option(worker, "another", "timeout", "1s", &err));
  CHECK_HAS(error_message(), "another");
  OK(gw_worker_set_task_option(worker, "task", "backoff", "exponential 10s 1h", &err));
  OK(gw_worker_set_task_option(worker, "task", "backoff", "linear 10s 1h", &err));
  gw_worker_free(worker);
}

/* Waits until its job is cancelled. */
static gw_outcome_t until_cancelled(gw_job_t *job, void *started) {
  if (started) count_up(started);
  while (!gw_job_is_cancelled(job)) usleep(1000);
  gw_job_set_error(job, "cancelled", GW_NUL);
  return GW_TASK_FAILED;
}

TEST(task_is_cancelled_after_its_timeout_and_fails) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", until_cancelled, NULL);
  OK(gw_worker_set_task_option(worker, "task", "timeout", "50ms", &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_JOB(client, id, "attempts", "1");
  CHECK_INT(stats_of(worker).timed_out, 1);
  gw_worker_free(worker);
  gw_client_free(client);
}

static gw_outcome_t add_another(gw_job_t *job, void *user_data) {
  gw_spec_t *spec = gw_spec_new("follow-up");
  (void)user_data;
  OK(gw_client_add_job(gw_job_client(job), spec, NULL, &err));
  gw_spec_free(spec);
  return GW_TASK_DONE;
}

TEST(a_task_adds_jobs_through_the_client_of_its_job) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch ran = LATCH;
  add_job(client, "task", "{}");
  add_task(worker, "task", add_another, NULL);
  add_task(worker, "follow-up", count_and_succeed, &ran);
  start(worker);
  wait_for(&ran, 1);
  end(worker);
  gw_client_free(client);
}

static gw_outcome_t settle_items(gw_job_t *job, void *count) {
  const char *errors[] = {NULL, "no such address", NULL, "mailbox full"};
  OK(gw_job_complete_items(job, errors, *(size_t *)count, &err));
  return GW_TASK_DONE;
}

TEST(batch_retry_keeps_only_failed_items) {
  gw_client_t *client = a_client();
  size_t count = 4;
  int64_t id = add_job(client, "task", "[1, 2, 3, 4]");
  run_once("task", settle_items, &count);
  CHECK_JOB(client, id, "payload", "[2,4]");
  CHECK_JOB(client, id, "attempts", "1");
  char *text = job_field(client, id, "last_error");
  CHECK_HAS(text, "no such address");
  CHECK_HAS(text, "mailbox full");
  free(text);
  gw_client_free(client);
}

TEST(batch_with_wrong_number_of_results_keeps_all_items) {
  gw_client_t *client = a_client();
  size_t count = 3;
  int64_t id = add_job(client, "task", "[1, 2, 3, 4]");
  run_once("task", settle_items, &count);
  CHECK_JOB(client, id, "payload", "[1, 2, 3, 4]");
  CHECK_JOB(client, id, "attempts", "1");
  gw_client_free(client);
}

static gw_outcome_t complete_then_answer_failed(gw_job_t *job, void *user_data) {
  (void)user_data;
  OK(gw_job_complete(job, &err));
  ANSWERS(GW_ERR_ALREADY_FINISHED, gw_job_fail(job, "too late", GW_NUL, &err));
  return GW_TASK_FAILED;
}

TEST(first_outcome_counts_over_the_tasks_return_value) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", complete_then_answer_failed, NULL);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

struct stopper {
  gw_worker_t *worker;
  struct latch ran;
};

static gw_outcome_t stop_my_worker(gw_job_t *job, void *user_data) {
  struct stopper *stopper = user_data;
  (void)job;
  gw_worker_request_stop(stopper->worker, GW_STOP_GRACEFUL);
  count_up(&stopper->ran);
  return GW_TASK_DONE;
}

TEST(task_that_stops_its_worker_still_succeeds) {
  gw_client_t *client = a_client();
  struct stopper stopper = {a_worker(), LATCH};
  int64_t id = add_job(client, "task", "{}");
  add_task(stopper.worker, "task", stop_my_worker, &stopper);
  OK(gw_worker_run(stopper.worker, &err));
  CHECK_INT(gw_worker_state(stopper.worker), GW_STATE_STOPPED);
  CHECK(!job_exists(client, id));
  gw_worker_free(stopper.worker);
  gw_client_free(client);
}

static gw_outcome_t wait_for_my_worker(gw_job_t *job, void *user_data) {
  struct stopper *stopper = user_data;
  gw_job_t *next = NULL;
  (void)job;
  ANSWERS(GW_ERR_DEADLOCK, gw_worker_wait(stopper->worker, -1, &err));
  ANSWERS(GW_ERR_DEADLOCK, gw_worker_run(stopper->worker, &err));
  ANSWERS(GW_ERR_DEADLOCK, gw_worker_run_once(stopper->worker, &err));
  ANSWERS(GW_ERR_DEADLOCK, gw_worker_flush(stopper->worker, -1, &err));
  ANSWERS(GW_ERR_DEADLOCK, gw_worker_next(stopper->worker, -1, &next, &err));
  count_up(&stopper->ran);
  return GW_TASK_DONE;
}

TEST(waiting_for_the_own_worker_is_a_deadlock_error) {
  gw_client_t *client = a_client();
  struct stopper stopper = {a_worker(), LATCH};
  add_job(client, "task", "{}");
  add_task(stopper.worker, "task", wait_for_my_worker, &stopper);
  start(stopper.worker);
  wait_for(&stopper.ran, 1);
  end(stopper.worker);
  gw_client_free(client);
}

static gw_outcome_t free_my_job(gw_job_t *job, void *user_data) {
  gw_job_free(job); /* The handle is borrowed. */
  CHECK(gw_job_id(job) > 0);
  count_up(user_data);
  return GW_TASK_DONE;
}

TEST(a_task_that_frees_its_borrowed_job_does_no_harm) {
  gw_client_t *client = a_client();
  struct latch ran = LATCH;
  int64_t id = add_job(client, "task", "{}");
  run_once("task", free_my_job, &ran);
  CHECK_INT(counted(&ran), 1);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

static gw_outcome_t free_my_worker(gw_job_t *job, void *user_data) {
  struct stopper *stopper = user_data;
  (void)job;
  gw_worker_free(stopper->worker);
  count_up(&stopper->ran);
  return GW_TASK_DONE;
}

TEST(a_task_that_frees_its_worker_does_no_harm) {
  gw_client_t *client = a_client();
  struct stopper stopper = {a_worker(), LATCH};
  add_job(client, "task", "{}");
  add_task(stopper.worker, "task", free_my_worker, &stopper);
  start(stopper.worker);
  wait_for(&stopper.ran, 1);
  end(stopper.worker);
  gw_client_free(client);
}

/* The test leaves this thread behind. */
static gw_outcome_t never_return(gw_job_t *job, void *started) {
  (void)job;
  count_up(started);
  for (;;) pause();
  return GW_TASK_DONE;
}

TEST(worker_stops_despite_a_stuck_task_and_names_it) {
  static struct latch started = LATCH;
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("shutdown_grace_period", "200ms", NULL);
  int64_t id = add_job(client, "stubborn", "{}");
  char number[24];
  add_task(worker, "stubborn", never_return, &started);
  start(worker);
  wait_for(&started, 1);
  int64_t asked = clock_ns();
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  ANSWERS(GW_ERR_STUCK, gw_worker_wait(worker, -1, &err));
  if (check_times_count()) CHECK(clock_ns() - asked < 2000000000);
  snprintf(number, sizeof number, "%lld", (long long)id);
  CHECK_HAS(error_message(), "stubborn");
  CHECK_HAS(error_message(), number);
  CHECK_JOB(client, id, "locked_by", "null"); /* Given back to other workers. */
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(stop_cancels_running_jobs_after_the_grace_period) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("shutdown_grace_period", "100ms", NULL);
  struct latch started = LATCH;
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", until_cancelled, &started);
  start(worker);
  wait_for(&started, 1);
  end(worker);
  CHECK_JOB(client, id, "locked_by", "null");
  CHECK_JOB(client, id, "attempts", "0"); /* An interrupted attempt is not counted. */
  gw_client_free(client);
}

TEST(abort_cancels_running_jobs_without_grace_period) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("shutdown_grace_period", "1h", NULL);
  struct latch started = LATCH;
  add_job(client, "task", "{}");
  add_task(worker, "task", until_cancelled, &started);
  start(worker);
  wait_for(&started, 1);
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  gw_worker_request_stop(worker, GW_STOP_ABORT); /* An abort after a graceful stop. */
  OK(gw_worker_wait(worker, 20000, &err));
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(freeing_a_running_worker_ends_it) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch started = LATCH;
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", until_cancelled, &started);
  start(worker);
  wait_for(&started, 1);
  gw_worker_free(worker);
  CHECK_JOB(client, id, "locked_by", "null");
  gw_client_free(client);
}

TEST(an_idle_worker_stops_at_once) {
  int64_t longest = 0;
  gw_client_t *client = a_client();
  for (int i = 0; i < 3; i++) {
    gw_worker_t *worker = a_worker();
    struct latch ran = LATCH;
    add_job(client, "task", "{}");
    add_task(worker, "task", count_and_succeed, &ran);
    start(worker);
    wait_for(&ran, 1);
    int64_t asked = clock_ns();
    end(worker);
    int64_t took = clock_ns() - asked;
    if (took > longest) longest = took;
  }
  check_note("       stopping an idle worker took at most %.1f ms\n", (double)longest / 1e6);
  if (check_times_count()) CHECK(longest < 1000000000);
  gw_client_free(client);
}

TEST(worker_reports_its_state) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch started = LATCH;
  add_job(client, "task", "{}");
  add_task(worker, "task", until_cancelled, &started);
  CHECK_INT(gw_worker_state(worker), GW_STATE_NEW);
  CHECK(gw_worker_id(worker) == NULL);
  CHECK(gw_worker_client(worker) == NULL);
  ANSWERS(GW_ERR_STATE, gw_worker_wait(worker, 0, &err));
  start(worker);
  CHECK_INT(gw_worker_state(worker), GW_STATE_RUNNING);
  CHECK(gw_worker_id(worker) != NULL);
  OK(gw_client_check(gw_worker_client(worker), 5000, &err));
  ANSWERS(GW_ERR_STATE, gw_worker_start(worker, GW_RUN_FOREVER, &err));
  ANSWERS(GW_TIMEOUT, gw_worker_wait(worker, 0, &err));
  wait_for(&started, 1);
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  CHECK_INT(gw_worker_state(worker), GW_STATE_STOPPING);
  gw_worker_request_stop(worker, GW_STOP_ABORT);
  OK(gw_worker_wait(worker, -1, &err));
  OK(gw_worker_wait(worker, 0, &err)); /* Every later call returns the same result. */
  CHECK_INT(gw_worker_state(worker), GW_STATE_STOPPED);
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(a_stopped_worker_can_be_started_again) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch ran = LATCH;
  add_task(worker, "task", count_and_succeed, &ran);
  for (size_t round = 1; round <= 3; round++) {
    add_job(client, "task", "{}");
    OK(gw_worker_run_once(worker, &err));
    CHECK_INT(counted(&ran), round);
  }
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(stop_before_the_start_ends_the_next_start) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  add_task(worker, "task", succeed, NULL);
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  start(worker);
  OK(gw_worker_wait(worker, 20000, &err));
  start(worker); /* The stop counts for one start only. */
  ANSWERS(GW_TIMEOUT, gw_worker_wait(worker, 100, &err));
  end(worker);
  gw_client_free(client);
}

static gw_outcome_t succeed_or_fail(gw_job_t *job, void *user_data) {
  return gw_job_payload(job, NULL)[0] == '1' ? succeed(job, user_data) : fail(job, user_data);
}

TEST(statistics_count_how_jobs_ended_in_numbers_and_in_json) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  CHECK_INT(stats_of(worker).claimed, 0);
  for (int i = 0; i < 3; i++) add_job(client, "task", "1");
  for (int i = 0; i < 2; i++) add_job(client, "task", "2");
  add_job_once(client, "task", "2");
  add_task(worker, "task", succeed_or_fail, NULL);
  OK(gw_worker_run_once(worker, &err));
  gw_stats_t stats = stats_of(worker);
  char *json = gw_worker_stats_json(worker);
  CHECK_INT(stats.claimed, 6);
  CHECK_INT(stats.completed, 3);
  CHECK_INT(stats.failed, 3);
  CHECK_INT(stats.retried, 2);
  CHECK_INT(stats.permanently_failed, 1);
  CHECK_INT(stats.returned + stats.snoozed + stats.timed_out + stats.stuck + stats.lost, 0);
  CHECK_INT(stats.held + stats.running + stats.in_flight, 0);
  CHECK_INT(json_number(json, "claimed"), 6);
  CHECK_INT(json_number(json, "completed"), 3);
  CHECK_INT(json_number(json, "failed"), 3);
  CHECK_INT(json_number(json, "retried"), 2);
  CHECK_INT(json_number(json, "permanently_failed"), 1);
  CHECK_INT(json_number(json, "returned"), 0);
  char *times = json_field(json, "handler_times_us"), *listener = json_field(json, "listener");
  CHECK_INT(json_number(times, "count"), 6);
  CHECK(listener[0] != '\0');
  free(times), free(listener);
  gw_string_free(json);
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(freeing_the_borrowed_client_of_a_worker_does_nothing) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  add_task(worker, "task", succeed, NULL);
  start(worker);
  gw_client_free(gw_worker_client(worker));
  OK(gw_client_check(gw_worker_client(worker), 5000, &err));
  end(worker);
  gw_client_free(client);
}

TEST(nothing_can_be_registered_once_a_worker_runs) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch freed = LATCH;
  add_task(worker, "task", succeed, NULL);
  start(worker);
  ANSWERS(GW_ERR_STATE, gw_worker_add_task(worker, "another", succeed, &freed, count_free, &err));
  ANSWERS(GW_ERR_STATE, gw_worker_set_task_option(worker, "task", "timeout", "1s", &err));
  ANSWERS(GW_ERR_STATE, gw_worker_add_crontab(worker, "* * * * * task", &err));
  ANSWERS(GW_ERR_STATE, gw_worker_on_event(worker, "JobComplete", NULL, &freed, count_free, &err));
  CHECK_INT(counted(&freed), 2);
  end(worker);
  gw_client_free(client);
}

TEST(the_tasks_of_a_worker_are_all_called_or_all_pulled) {
  gw_worker_t *called = a_worker(), *pulled = a_worker();
  add_task(called, "one", succeed, NULL);
  ANSWERS(GW_ERR_STATE, gw_worker_add_task(called, "two", NULL, NULL, NULL, &err));
  add_task(pulled, "one", NULL, NULL);
  ANSWERS(GW_ERR_STATE, gw_worker_add_task(pulled, "two", succeed, NULL, NULL, &err));
  gw_worker_free(called);
  gw_worker_free(pulled);
}

TEST(user_data_of_a_task_is_freed_once_with_its_worker) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch freed = LATCH;
  OK(gw_worker_add_task(worker, "task", succeed, &freed, count_free, &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(counted(&freed), 0);
  gw_worker_free(worker);
  CHECK_INT(counted(&freed), 1);
  gw_client_free(client);
}

TEST(unreachable_database_fails_the_start_at_once) {
  gw_worker_t *worker = a_worker_with("database_url", "postgres://postgres@127.0.0.1:1/postgres", NULL);
  int64_t asked = clock_ns();
  add_task(worker, "task", succeed, NULL);
  ANSWERS(GW_ERR_CONNECT, gw_worker_start(worker, GW_RUN_FOREVER, &err));
  if (check_times_count()) CHECK(clock_ns() - asked < 2000000000);
  CHECK_INT(gw_worker_state(worker), GW_STATE_NEW); /* Nothing runs; the start can be repeated. */
  gw_worker_free(worker);
}
