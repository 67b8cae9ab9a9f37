/* Events: called and pulling observers, and interceptors. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

TEST(every_event_has_its_name) {
  static const char *const names[] = {
      "WorkerInit", "WorkerStart", "WorkerShutdown", "WorkerRecovered", "JobFetch", "JobStart", "JobComplete", "JobFail",
      "JobPermanentlyFail", "JobInterrupted", "JobLost", "JobTimeout", "JobRecovery", "BeforeJobRun", "AfterJobRun",
      "BeforeJobSchedule", "CronTick", "CronJobScheduled", "LocalQueueInit", "LocalQueueSetMode",
      "LocalQueueGetJobsComplete", "LocalQueueReturnJobs", "LocalQueueRefetchDelayStart", "LocalQueueRefetchDelayAbort",
      "LocalQueueRefetchDelayExpired"};
  size_t count = 0;
  for (const char *name; (name = gw_event_name_at(count)) != NULL; count++) {
    bool known = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) known = known || strcmp(name, names[i]) == 0;
    if (!known) check_fail(__FILE__, __LINE__, "%s is not in the list", name);
  }
  CHECK_INT(count, sizeof names / sizeof *names);
  CHECK(gw_event_name_at((size_t)-1) == NULL);
}

/* What an observer saw. */
struct sight {
  struct latch seen;
  int64_t job_id;
  char name[40], json[2000];
};

static void look(const gw_event_t *event, void *user_data) {
  struct sight *sight = user_data;
  sight->job_id = gw_event_job_id(event);
  snprintf(sight->name, sizeof sight->name, "%s", gw_event_name(event));
  snprintf(sight->json, sizeof sight->json, "%s", gw_event_json(event));
  count_up(&sight->seen);
}

static void observer_sees(const char *name, gw_task_fn task, int32_t attempts, const char *part) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct sight sight = {.seen = LATCH};
  int64_t id = attempts == 1 ? add_job_once(client, "task", "{\"a\": 1}") : add_job(client, "task", "{\"a\": 1}");
  add_task(worker, "task", task, "out of paper");
  OK(gw_worker_on_event(worker, name, look, &sight, NULL, &err));
  OK(gw_worker_run_once(worker, &err));
  wait_for(&sight.seen, 1);
  CHECK_TEXT(sight.name, name);
  CHECK_INT(sight.job_id, id);
  CHECK_INT(sight.json[0], '{');
  CHECK_HAS(sight.json, "\"task\"");
  CHECK_HAS(sight.json, part);
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(an_observer_sees_a_job_being_fetched) { observer_sees("JobFetch", succeed, 25, "worker_id"); }
TEST(an_observer_sees_a_job_start) { observer_sees("JobStart", succeed, 25, "worker_id"); }
TEST(an_observer_sees_a_job_succeed) { observer_sees("JobComplete", succeed, 25, "duration"); }
TEST(an_observer_sees_a_job_fail) { observer_sees("JobFail", fail, 25, "out of paper"); }
TEST(an_observer_sees_a_job_fail_permanently) { observer_sees("JobPermanentlyFail", fail, 1, "out of paper"); }

TEST(an_observer_sees_a_worker_start_and_stop) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct sight init = {.seen = LATCH}, started = {.seen = LATCH}, stopped = {.seen = LATCH};
  add_task(worker, "task", succeed, NULL);
  OK(gw_worker_on_event(worker, "WorkerInit", look, &init, NULL, &err));
  OK(gw_worker_on_event(worker, "WorkerStart", look, &started, NULL, &err));
  OK(gw_worker_on_event(worker, "WorkerShutdown", look, &stopped, NULL, &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(counted(&init.seen), 1);
  CHECK_INT(counted(&started.seen), 1);
  CHECK_INT(counted(&stopped.seen), 1);
  CHECK_INT(stopped.job_id, 0);
  CHECK_HAS(stopped.json, gw_worker_id(worker));
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(events_can_be_pulled_and_end_with_stopped) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct pollfd ready = {.fd = gw_worker_event_fd(worker), .events = POLLIN};
  gw_event_t *event = NULL;
  CHECK(ready.fd >= 0 && ready.fd != gw_worker_fd(worker));
  add_task(worker, "task", succeed, NULL);
  OK(gw_worker_on_event(worker, "JobComplete", NULL, NULL, NULL, &err));
  start(worker);
  ANSWERS(GW_TIMEOUT, gw_worker_next_event(worker, 0, &event, &err));
  CHECK(event == NULL);
  CHECK_INT(poll(&ready, 1, 0), 0);
  int64_t id = add_job(client, "task", "{}");
  CHECK_INT(poll(&ready, 1, 20000), 1);
  OK(gw_worker_next_event(worker, 0, &event, &err));
  CHECK_TEXT(gw_event_name(event), "JobComplete");
  CHECK_INT(gw_event_job_id(event), id);
  gw_event_free(event);
  ANSWERS(GW_TIMEOUT, gw_worker_next_event(worker, 0, &event, &err));
  CHECK_INT(poll(&ready, 1, 0), 0);
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  ANSWERS(GW_STOPPED, gw_worker_next_event(worker, -1, &event, &err));
  CHECK_INT(poll(&ready, 1, 0), 1);
  OK(gw_worker_wait(worker, -1, &err));
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(an_event_that_was_pulled_outlives_its_worker) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  gw_event_t *event = NULL;
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", succeed, NULL);
  OK(gw_worker_on_event(worker, "JobComplete", NULL, NULL, NULL, &err));
  start(worker);
  OK(gw_worker_next_event(worker, -1, &event, &err));
  end(worker);
  CHECK_INT(gw_event_job_id(event), id);
  gw_event_free(event);
  gw_client_free(client);
}

static void free_my_event(const gw_event_t *event, void *user_data) {
  struct sight *sight = user_data;
  gw_event_free((gw_event_t *)(uintptr_t)event); /* It is borrowed. */
  CHECK_TEXT(gw_event_name(event), "JobComplete");
  count_up(&sight->seen);
}

TEST(a_handler_that_frees_its_borrowed_event_does_no_harm) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct sight sight = {.seen = LATCH};
  add_job(client, "task", "{}");
  add_task(worker, "task", succeed, NULL);
  OK(gw_worker_on_event(worker, "JobComplete", free_my_event, &sight, NULL, &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(counted(&sight.seen), 1);
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(dropped_events_are_counted_before_the_next_event) {
  enum { TIMES = 20, ROOM = 1024, DROPPED = 16 };
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  gw_event_t *event = NULL;
  struct sight last = {.seen = LATCH};
  add_task(worker, "task", succeed, NULL);
  for (int i = 0; i < TIMES; i++) OK(gw_worker_on_event(worker, "JobComplete", NULL, NULL, NULL, &err));
  OK(gw_worker_on_event(worker, "JobComplete", look, &last, NULL, &err));
  start(worker);
  add_jobs(client, "task", (ROOM + DROPPED) / TIMES);
  wait_for(&last.seen, (ROOM + DROPPED) / TIMES);
  for (int i = 0; i < ROOM; i++) {
    OK(gw_worker_next_event(worker, 10000, &event, &err));
    CHECK_TEXT(gw_event_name(event), "JobComplete");
    gw_event_free(event);
  }
  ANSWERS(GW_TIMEOUT, gw_worker_next_event(worker, 0, &event, &err));
  add_job(client, "task", "{}");
  OK(gw_worker_next_event(worker, 10000, &event, &err));
  CHECK_TEXT(gw_event_name(event), "EventsDropped");
  CHECK_INT(json_number(gw_event_json(event), "events"), DROPPED);
  CHECK_INT(gw_event_job_id(event), 0);
  gw_event_free(event);
  end(worker);
  gw_client_free(client);
}

/* A worker whose own functions try to wait for it. */
struct waiter {
  gw_worker_t *worker;
  struct latch asked;
};

static void wait_in_vain(struct waiter *waiter) {
  gw_event_t *event = NULL;
  ANSWERS(GW_ERR_DEADLOCK, gw_worker_wait(waiter->worker, -1, &err));
  ANSWERS(GW_ERR_DEADLOCK, gw_worker_next_event(waiter->worker, -1, &event, &err));
  ANSWERS(GW_TIMEOUT, gw_worker_next_event(waiter->worker, 0, &event, &err)); /* A call that does not wait is allowed. */
  count_up(&waiter->asked);
}

static void observe_and_wait(const gw_event_t *event, void *user_data) {
  (void)event;
  wait_in_vain(user_data);
}

static int32_t decide_and_wait(const gw_event_t *event, gw_decision_t *decision, void *user_data) {
  (void)event, (void)decision;
  wait_in_vain(user_data);
  return GW_DECIDE_CONTINUE;
}

TEST(waiting_in_an_observer_or_interceptor_is_a_deadlock_error) {
  gw_client_t *client = a_client();
  struct waiter waiter = {a_worker(), LATCH};
  add_job(client, "task", "{}");
  add_task(waiter.worker, "task", succeed, NULL);
  OK(gw_worker_on_event(waiter.worker, "JobComplete", observe_and_wait, &waiter, NULL, &err));
  OK(gw_worker_intercept(waiter.worker, "BeforeJobRun", decide_and_wait, &waiter, NULL, &err));
  OK(gw_worker_run_once(waiter.worker, &err));
  CHECK_INT(counted(&waiter.asked), 2);
  gw_worker_free(waiter.worker);
  gw_client_free(client);
}

/* The decision of an interceptor. */
struct verdict {
  int32_t decision;
  const char *text;
  int64_t run_at;
  int32_t attempts;
  struct latch asked;
  char json[2000];
};

static int32_t decide(const gw_event_t *event, gw_decision_t *decision, void *user_data) {
  struct verdict *verdict = user_data;
  snprintf(verdict->json, sizeof verdict->json, "%s", gw_event_json(event));
  if (verdict->text) OK(gw_decision_set_text(decision, verdict->text, GW_NUL));
  if (verdict->run_at) OK(gw_decision_set_run_at(decision, verdict->run_at, verdict->attempts));
  count_up(&verdict->asked);
  return verdict->decision;
}

TEST(unknown_event_names_are_refused) {
  gw_worker_t *worker = a_worker();
  struct latch freed = LATCH;
  ANSWERS(GW_ERR_CONFIG, gw_worker_on_event(worker, "JobCompleted", look, &freed, count_free, &err));
  CHECK_HAS(error_message(), "JobCompleted");
  ANSWERS(GW_ERR_CONFIG, gw_worker_on_event(worker, "BeforeJobRun", look, &freed, count_free, &err));
  CHECK_HAS(error_message(), "gw_worker_intercept");
  ANSWERS(GW_ERR_CONFIG, gw_worker_intercept(worker, "JobComplete", decide, &freed, count_free, &err));
  CHECK_INT(counted(&freed), 3);
  gw_worker_free(worker);
}

/* Runs one job with an interceptor. Returns its id, and writes to `ran` how often its task ran. */
static int64_t intercepted(gw_client_t *client, const char *name, struct verdict *verdict, gw_task_fn task, size_t *ran) {
  gw_worker_t *worker = a_worker();
  struct latch runs = LATCH;
  int64_t id = add_job(client, "task", "{\"a\": 1}");
  add_task(worker, "task", task, task == count_and_succeed ? (void *)&runs : NULL);
  OK(gw_worker_intercept(worker, name, decide, verdict, NULL, &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(counted(&verdict->asked), 1);
  gw_worker_free(worker);
  *ran = counted(&runs);
  return id;
}

TEST(before_job_run_can_continue) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_CONTINUE, .asked = LATCH};
  size_t ran;
  int64_t id = intercepted(client, "BeforeJobRun", &verdict, count_and_succeed, &ran);
  CHECK_INT(ran, 1);
  CHECK(!job_exists(client, id));
  CHECK_HAS(verdict.json, "\"a\"");
  gw_client_free(client);
}

TEST(before_job_run_can_skip_the_job) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_SKIP, .asked = LATCH};
  size_t ran;
  int64_t id = intercepted(client, "BeforeJobRun", &verdict, count_and_succeed, &ran);
  CHECK_INT(ran, 0);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

TEST(before_job_run_can_fail_the_attempt) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_FAIL, .text = "not on a Sunday", .asked = LATCH};
  size_t ran;
  int64_t id = intercepted(client, "BeforeJobRun", &verdict, count_and_succeed, &ran);
  CHECK_INT(ran, 0);
  CHECK_JOB(client, id, "last_error", "not on a Sunday");
  CHECK_JOB(client, id, "attempts", "1");
  gw_client_free(client);
}

TEST(before_job_run_invalid_decision_fails_the_attempt) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = 0, .asked = LATCH};
  size_t ran;
  int64_t id = intercepted(client, "BeforeJobRun", &verdict, count_and_succeed, &ran);
  CHECK_INT(ran, 0);
  CHECK_JOB(client, id, "attempts", "1");
  CHECK_JOB(client, id, "last_error", "an interceptor of BeforeJobRun returned 0, which is not a decision for this event");
  gw_client_free(client);
}

TEST(after_job_run_can_fail_a_successful_job) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_FAIL, .text = "not good enough", .asked = LATCH};
  size_t ran;
  int64_t id = intercepted(client, "AfterJobRun", &verdict, count_and_succeed, &ran);
  CHECK_INT(ran, 1);
  CHECK_JOB(client, id, "last_error", "not good enough");
  gw_client_free(client);
}

TEST(after_job_run_can_skip_a_failure) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_SKIP, .asked = LATCH};
  size_t ran;
  int64_t id = intercepted(client, "AfterJobRun", &verdict, fail, &ran);
  CHECK(!job_exists(client, id));
  CHECK_HAS(verdict.json, "no luck");
  gw_client_free(client);
}

TEST(after_job_run_invalid_decision_changes_nothing) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = 99, .asked = LATCH};
  size_t ran;
  int64_t id = intercepted(client, "AfterJobRun", &verdict, count_and_succeed, &ran);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

/* Adds a job through the client of a worker with this interceptor. Returns the status. */
static gw_status_t schedule(struct verdict *verdict, int64_t *id, char *text, size_t capacity) {
  gw_worker_t *worker = a_worker();
  gw_spec_t *spec = gw_spec_new("another");
  gw_error_t *error = NULL;
  OK(gw_spec_set_payload(spec, "{\"a\": 1}", GW_NUL));
  add_task(worker, "task", succeed, NULL);
  OK(gw_worker_intercept(worker, "BeforeJobSchedule", decide, verdict, NULL, &err));
  start(worker);
  gw_status_t status = gw_client_add_job(gw_worker_client(worker), spec, id, &error);
  snprintf(text, capacity, "%s", error ? gw_error_message(error) : "");
  gw_error_free(error);
  gw_spec_free(spec);
  end(worker);
  CHECK_INT(counted(&verdict->asked), 1);
  CHECK_HAS(verdict->json, "another");
  return status;
}

TEST(before_job_schedule_can_change_the_payload) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_PAYLOAD, .text = "{\"b\": 2}", .asked = LATCH};
  char text[200];
  int64_t id = 0;
  CHECK_INT(schedule(&verdict, &id, text, sizeof text), GW_OK);
  char *payload = job_field(client, id, "payload");
  CHECK_HAS(payload, "\"b\"");
  CHECK(strstr(payload, "\"a\"") == NULL);
  free(payload);
  gw_client_free(client);
}

TEST(before_job_schedule_can_skip_the_job) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_SKIP, .asked = LATCH};
  char text[200], *json = NULL;
  int64_t id = 0;
  CHECK_INT(schedule(&verdict, &id, text, sizeof text), GW_ERR_SKIPPED);
  CHECK_INT(id, 0);
  OK(gw_client_stats(client, &json, &err));
  CHECK_INT(json_number(json, "total"), 0);
  gw_string_free(json);
  gw_client_free(client);
}

TEST(before_job_schedule_can_refuse_the_job_with_a_reason) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_FAIL, .text = "quota exceeded", .asked = LATCH};
  char text[200];
  int64_t id = 0;
  CHECK_INT(schedule(&verdict, &id, text, sizeof text), GW_ERR_REFUSED);
  CHECK_HAS(text, "quota exceeded");
  gw_client_free(client);
}

TEST(before_job_schedule_invalid_decision_refuses_the_job) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_RESCHEDULE, .asked = LATCH};
  char text[200];
  int64_t id = 0;
  CHECK_INT(schedule(&verdict, &id, text, sizeof text), GW_ERR_REFUSED);
  CHECK_HAS(text, "not a decision");
  CHECK_INT(id, 0);
  gw_client_free(client);
}

TEST(before_job_schedule_invalid_payload_refuses_the_job) {
  gw_client_t *client = a_client();
  struct verdict verdict = {.decision = GW_DECIDE_PAYLOAD, .text = "{not json", .asked = LATCH};
  char text[200];
  int64_t id = 0;
  CHECK(schedule(&verdict, &id, text, sizeof text) < 0);
  CHECK_HAS(text, "line 1, column 2");
  CHECK_INT(id, 0);
  gw_client_free(client);
}

static gw_outcome_t say_so_and_hang(gw_job_t *job, void *pipe) {
  (void)job;
  CHECK_INT(write(*(int *)pipe, "!", 1), 1);
  for (;;) pause();
  return GW_TASK_DONE;
}

/* A job whose worker was killed while the job ran. Called before the test has a client, so that the forked child inherits
 * no locks of threads that it does not have. */
static int64_t orphan(void) {
  int64_t id = 0;
  int ids[2], ends[2];
  char signal;
  schema(); /* Parent and child use the same schema. */
  CHECK_INT(pipe(ids), 0);
  CHECK_INT(pipe(ends), 0);
  pid_t child = check_fork();
  if (child == 0) {
    id = add_job(a_client(), "task", "{}");
    CHECK_INT(write(ids[1], &id, sizeof id), sizeof id);
    gw_worker_t *worker = a_worker_with("heartbeat_interval", "100ms", "worker_recovery", "true", NULL);
    add_task(worker, "task", say_so_and_hang, &ends[1]);
    gw_worker_run(worker, NULL);
    _exit(1);
  }
  close(ids[1]), close(ends[1]); /* If the child fails, the reads below return. */
  CHECK_INT(read(ids[0], &id, sizeof id), sizeof id);
  CHECK_INT(read(ends[0], &signal, 1), 1);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  close(ids[0]), close(ends[0]);
  return id;
}

/* Lets a worker with this interceptor recover the job. */
static int64_t recovered(gw_client_t **client, struct verdict *verdict) {
  int64_t id = orphan();
  *client = a_client();
  CHECK_JOB(*client, id, "attempts", "1");
  gw_worker_t *worker = a_worker_with("worker_recovery", "true", "heartbeat_interval", "100ms", "sweep_interval", "100ms",
                                      "sweep_threshold", "500ms", "recovery_delay", "1h", NULL);
  add_task(worker, "another", succeed, NULL);
  OK(gw_worker_intercept(worker, "JobRecovery", decide, verdict, NULL, &err));
  start(worker);
  wait_for(&verdict->asked, 1);
  end(worker);
  CHECK_HAS(verdict->json, "previous_worker_id");
  return id;
}

TEST(job_recovery_can_continue) {
  gw_client_t *client;
  struct verdict verdict = {.decision = GW_DECIDE_CONTINUE, .asked = LATCH};
  int64_t id = recovered(&client, &verdict);
  CHECK_JOB(client, id, "locked_by", "null");
  CHECK_JOB(client, id, "attempts", "0");
  gw_client_free(client);
}

TEST(job_recovery_can_reschedule_the_job) {
  gw_client_t *client;
  struct verdict verdict = {.decision = GW_DECIDE_RESCHEDULE, .run_at = 1924995845000000, .attempts = 7, .asked = LATCH};
  int64_t id = recovered(&client, &verdict);
  CHECK_JOB(client, id, "locked_by", "null");
  CHECK_JOB(client, id, "run_at", "2031-01-01T01:04:05Z");
  CHECK_JOB(client, id, "attempts", "7");
  gw_client_free(client);
}

TEST(job_recovery_reschedule_without_a_time_changes_nothing) {
  gw_client_t *client;
  struct verdict verdict = {.decision = GW_DECIDE_RESCHEDULE, .asked = LATCH};
  int64_t id = recovered(&client, &verdict);
  CHECK_JOB(client, id, "locked_by", "null");
  CHECK_JOB(client, id, "attempts", "0");
  gw_client_free(client);
}

static int32_t decide_beyond_time(const gw_event_t *event, gw_decision_t *decision, void *asked) {
  (void)event;
  ANSWERS(GW_ERR_CONFIG, gw_decision_set_run_at(decision, INT64_MAX, -1));
  ANSWERS(GW_ERR_CONFIG, gw_decision_set_run_at(decision, 0, 32768));
  OK(gw_decision_set_run_at(decision, 0, 32767));
  count_up(asked);
  return GW_DECIDE_CONTINUE;
}

TEST(decision_refuses_invalid_time_or_attempts) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch asked = LATCH;
  add_job(client, "task", "{}");
  add_task(worker, "task", succeed, NULL);
  OK(gw_worker_intercept(worker, "BeforeJobRun", decide_beyond_time, &asked, NULL, &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(counted(&asked), 1);
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(job_recovery_reschedule_can_keep_the_attempts) {
  gw_client_t *client;
  struct verdict verdict = {.decision = GW_DECIDE_RESCHEDULE, .run_at = 1924995845000000, .attempts = -1, .asked = LATCH};
  int64_t id = recovered(&client, &verdict);
  CHECK_JOB(client, id, "locked_by", "null");
  CHECK_JOB(client, id, "run_at", "2031-01-01T01:04:05Z");
  CHECK_JOB(client, id, "attempts", "1");
  gw_client_free(client);
}

TEST(job_recovery_can_count_the_attempt) {
  gw_client_t *client;
  struct verdict verdict = {.decision = GW_DECIDE_FAIL_WITH_BACKOFF, .asked = LATCH};
  int64_t id = recovered(&client, &verdict);
  CHECK_JOB(client, id, "locked_by", "null");
  CHECK_JOB(client, id, "attempts", "1");
  gw_client_free(client);
}

TEST(job_recovery_can_leave_the_job_locked) {
  gw_client_t *client;
  struct verdict verdict = {.decision = GW_DECIDE_SKIP, .asked = LATCH};
  int64_t id = recovered(&client, &verdict);
  char *holder = job_field(client, id, "locked_by");
  CHECK(strcmp(holder, "null") != 0);
  free(holder);
  gw_client_free(client);
}

static struct latch begun = LATCH, go_on = LATCH;
static gw_status_t answers[2];
static void change_it(const gw_event_t *event, void *worker) {
  (void)event;
  answers[0] = gw_worker_add_task(*(gw_worker_t **)worker, "later", succeed, NULL, NULL, NULL);
  answers[1] = gw_worker_start(*(gw_worker_t **)worker, GW_RUN_ONCE, NULL);
}

TEST(callbacks_of_a_start_cannot_change_the_worker) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  add_task(worker, "task", succeed, NULL);
  OK(gw_worker_on_event(worker, "WorkerInit", change_it, &worker, NULL, &err));
  start(worker);
  CHECK_INT(answers[0], GW_ERR_STATE);
  CHECK_INT(answers[1], GW_ERR_STATE);
  end(worker);
  gw_client_free(client);
}

static void hold_up(const gw_event_t *event, void *user_data) {
  (void)event, (void)user_data;
  count_up(&begun);
  wait_for(&go_on, 1);
}
static void *start_it(void *worker) {
  gw_worker_start(worker, GW_RUN_FOREVER, NULL);
  return NULL;
}
static void *free_it(void *worker) {
  gw_worker_free(worker);
  return NULL;
}

TEST(freeing_a_starting_worker_waits_for_its_end) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch freed = LATCH;
  OK(gw_worker_add_task(worker, "task", succeed, &freed, count_free, &err));
  OK(gw_worker_on_event(worker, "WorkerInit", hold_up, NULL, NULL, &err));
  pthread_t starter = start_thread(start_it, worker);
  wait_for(&begun, 1);
  pthread_t freer = start_thread(free_it, worker);
  usleep(50000); /* gw_worker_free waits. There is no event to wait for. */
  count_up(&go_on);
  pthread_join(freer, NULL);
  CHECK_INT(gw_worker_state(worker), -1);
  pthread_join(starter, NULL);
  CHECK_INT(counted(&freed), 1);
  gw_client_free(client);
}

static void *wait_for_an_event(void *worker) {
  gw_event_t *event = NULL;
  gw_status_t status;
  count_up(&begun);
  status = gw_worker_next_event(worker, -1, &event, NULL);
  if (status != GW_ERR_HANDLE) CHECK_INT(status, GW_STOPPED); /* The worker may have been freed before the call. */
  return NULL;
}

TEST(freeing_an_unstarted_worker_wakes_event_waiters) {
  gw_worker_t *worker = a_worker();
  pthread_t waiter = start_thread(wait_for_an_event, worker);
  wait_for(&begun, 1);
  gw_worker_free(worker);
  pthread_join(waiter, NULL);
}

static int32_t ask_back(const gw_event_t *event, gw_decision_t *decision, void *worker) {
  gw_stats_t stats = {.struct_size = sizeof stats};
  (void)event, (void)decision;
  count_up(&begun);
  wait_for(&go_on, 1);
  gw_worker_stats(*(gw_worker_t **)worker, &stats);
  return GW_DECIDE_CONTINUE;
}
static void *pull_one(void *worker) {
  gw_job_t *job = NULL;
  gw_worker_next(worker, -1, &job, NULL);
  gw_job_free(job);
  return NULL;
}

TEST(interceptor_can_read_stats_during_a_restart) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("shutdown_grace_period", "0", NULL);
  add_task(worker, "task", NULL, NULL);
  OK(gw_worker_intercept(worker, "BeforeJobRun", ask_back, &worker, NULL, &err));
  add_job(client, "task", "{}");
  start(worker);
  pthread_t puller = start_thread(pull_one, worker);
  wait_for(&begun, 1);
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  ANSWERS(GW_ERR_STUCK, gw_worker_wait(worker, -1, &err));
  pthread_t starter = start_thread(start_it, worker);
  usleep(200000); /* The start waits for the interceptor. There is no event to wait for. */
  count_up(&go_on);
  pthread_join(puller, NULL);
  pthread_join(starter, NULL);
  end(worker);
  gw_client_free(client);
}
