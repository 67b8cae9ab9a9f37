/* Handles: NULL, freed, of another kind, and inherited by a forked child. Every function with a handle is called with each. */
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

struct handles {
  gw_config_t *config;
  gw_client_t *client;
  gw_spec_t *spec;
  gw_worker_t *worker;
  gw_job_t *job;
  gw_crontab_t *crontab;
  gw_event_t *event;
  gw_error_t *error;
  gw_decision_t *decision;
};

static void free_all(const struct handles *h) {
  gw_event_free(h->event);
  gw_job_free(h->job);
  gw_worker_free(h->worker);
  gw_client_free(h->client);
  gw_config_free(h->config);
  gw_spec_free(h->spec);
  gw_crontab_free(h->crontab);
  gw_error_free(h->error);
}

static int32_t go_on(const gw_event_t *event, gw_decision_t *decision, void *user_data) {
  (void)event, (void)decision, (void)user_data;
  return GW_DECIDE_CONTINUE;
}

static void nothing_is_written(void *output) { CHECK(output == NULL); }

/* Calls every function that takes a handle, with valid other arguments. */
static void every_call_answers(gw_status_t expected, const struct handles *h) {
  char *text = NULL;
  gw_client_t *client = NULL;
  gw_worker_t *worker = NULL;
  gw_job_t *job = NULL, *jobs[1] = {NULL};
  gw_event_t *event = NULL;
  int64_t id = -7, ids[] = {1}, times[1];
  size_t count = 7;
  const char *worker_ids[] = {"worker"}, *errors[] = {NULL};
  const gw_spec_t *specs[] = {h->spec};
  gw_stats_t stats = {.struct_size = sizeof stats};
  struct latch freed = LATCH;

  /* Errors. */
  CHECK_INT(gw_error_status(h->error), expected);
  CHECK(gw_error_message(h->error) == NULL);
  CHECK(gw_error_sqlstate(h->error) == NULL);
  CHECK(!gw_error_is_retryable(h->error));

  /* Config. */
  ANSWERS(expected, gw_config_set(h->config, "concurrency", "2", &err));
  ANSWERS(expected, gw_config_get(h->config, "concurrency", &text, &err));
  ANSWERS(expected, gw_config_load_env(h->config, &err));

  /* Client. */
  ANSWERS(expected, gw_client_new(h->config, &client, &err));
  ANSWERS(expected, gw_client_check(h->client, 0, &err));
  ANSWERS(expected, gw_client_migrate(h->client, &err));
  ANSWERS(expected, gw_client_add_job(h->client, h->spec, &id, &err));
  ANSWERS(expected, gw_client_add_jobs(h->client, specs, 1, &id, &err));
  ANSWERS(expected, gw_client_remove_job(h->client, "key", &err));
  ANSWERS(expected, gw_client_list_jobs(h->client, NULL, &text, &err));
  ANSWERS(expected, gw_client_job(h->client, 1, &text, &err));
  ANSWERS(expected, gw_client_stats(h->client, &text, &err));
  ANSWERS(expected, gw_client_queues(h->client, &text, &err));
  ANSWERS(expected, gw_client_locked_workers(h->client, &text, &err));
  ANSWERS(expected, gw_client_active_workers(h->client, 1000, &text, &err));
  ANSWERS(expected, gw_client_complete_jobs(h->client, ids, 1, &text, &err));
  ANSWERS(expected, gw_client_fail_jobs(h->client, ids, 1, "reason", &text, &err));
  ANSWERS(expected, gw_client_reschedule_jobs(h->client, ids, 1, "{}", &text, &err));
  ANSWERS(expected, gw_client_force_unlock(h->client, worker_ids, 1, &text, &err));
  ANSWERS(expected, gw_client_cleanup(h->client, GW_CLEANUP_GC_TASKS, &text, &err));
  ANSWERS(expected, gw_client_sweep_stale_workers(h->client, NULL, &text, &err));

  /* Spec. */
  ANSWERS(expected, gw_spec_set_payload(h->spec, "{}", GW_NUL));
  ANSWERS(expected, gw_spec_set_queue(h->spec, "queue"));
  ANSWERS(expected, gw_spec_set_run_at(h->spec, 0));
  ANSWERS(expected, gw_spec_set_max_attempts(h->spec, 3));
  ANSWERS(expected, gw_spec_set_priority(h->spec, 3));
  ANSWERS(expected, gw_spec_set_key(h->spec, "key", GW_KEY_REPLACE));
  ANSWERS(expected, gw_spec_add_flag(h->spec, "flag"));
  ANSWERS(expected, gw_spec_set_traceparent(h->spec, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  ANSWERS(expected, gw_spec_check(h->spec, &err));

  /* Worker. The library frees the user data although the calls fail. */
  ANSWERS(expected, gw_worker_new(h->config, &worker, &err));
  ANSWERS(expected, gw_worker_add_task(h->worker, "task", succeed, &freed, count_free, &err));
  ANSWERS(expected, gw_worker_on_event(h->worker, "JobComplete", NULL, &freed, count_free, &err));
  ANSWERS(expected, gw_worker_intercept(h->worker, "BeforeJobRun", go_on, &freed, count_free, &err));
  CHECK_INT(counted(&freed), 3);
  ANSWERS(expected, gw_worker_set_task_option(h->worker, "task", "timeout", "30s", &err));
  ANSWERS(expected, gw_worker_add_crontab(h->worker, "* * * * * task", &err));
  ANSWERS(expected, gw_worker_start(h->worker, GW_RUN_FOREVER, &err));
  ANSWERS(expected, gw_worker_run(h->worker, &err));
  ANSWERS(expected, gw_worker_run_once(h->worker, &err));
  gw_worker_request_stop(h->worker, GW_STOP_ABORT);
  gw_worker_wakeup(h->worker);
  ANSWERS(expected, gw_worker_wait(h->worker, 0, &err));
  ANSWERS(expected, gw_worker_flush(h->worker, 0, &err));
  CHECK_INT(gw_worker_state(h->worker), -1);
  CHECK(gw_worker_id(h->worker) == NULL);
  CHECK(gw_worker_client(h->worker) == NULL);
  ANSWERS(expected, gw_worker_next(h->worker, 0, &job, &err));
  ANSWERS(expected, gw_worker_next_batch(h->worker, 0, jobs, 1, &count, &err));
  CHECK_INT(gw_worker_fd(h->worker), -1);
  CHECK_INT(gw_worker_event_fd(h->worker), -1);
  ANSWERS(expected, gw_worker_next_event(h->worker, 0, &event, &err));
  ANSWERS(expected, gw_worker_stats(h->worker, &stats));
  CHECK(gw_worker_stats_json(h->worker) == NULL);

  /* Job. */
  CHECK_INT(gw_job_id(h->job), 0);
  CHECK(gw_job_task(h->job) == NULL);
  CHECK(gw_job_key(h->job) == NULL);
  CHECK(gw_job_worker_id(h->job) == NULL);
  CHECK_INT(gw_job_attempts(h->job), 0);
  CHECK_INT(gw_job_max_attempts(h->job), 0);
  CHECK_INT(gw_job_priority(h->job), 0);
  CHECK_INT(gw_job_revision(h->job), 0);
  CHECK_INT(gw_job_run_at(h->job), 0);
  CHECK_INT(gw_job_created_at(h->job), 0);
  CHECK(gw_job_payload(h->job, NULL) == NULL);
  CHECK(gw_job_json(h->job) == NULL);
  CHECK(gw_job_traceparent(h->job) == NULL);
  CHECK(gw_job_client(h->job) == NULL);
  CHECK(!gw_job_is_cancelled(h->job));
  ANSWERS(expected, gw_job_set_error(h->job, "message", GW_NUL));
  ANSWERS(expected, gw_job_snooze(h->job, 1));
  ANSWERS(expected, gw_job_retry_after(h->job, 1));
  ANSWERS(expected, gw_job_complete(h->job, &err));
  ANSWERS(expected, gw_job_fail(h->job, "message", GW_NUL, &err));
  ANSWERS(expected, gw_job_complete_items(h->job, errors, 1, &err));
  CHECK(gw_job_retain(h->job) == NULL);

  /* Crontab, events, decisions. */
  CHECK_INT(gw_crontab_len(h->crontab), 0);
  CHECK(gw_crontab_item_json(h->crontab, 0) == NULL);
  CHECK_INT(gw_crontab_next(h->crontab, 0, 0, times, 1), 0);
  CHECK(gw_event_name(h->event) == NULL);
  CHECK(gw_event_json(h->event) == NULL);
  CHECK_INT(gw_event_job_id(h->event), 0);
  ANSWERS(expected, gw_decision_set_text(h->decision, "text", GW_NUL));
  ANSWERS(expected, gw_decision_set_run_at(h->decision, 0, -1));

  nothing_is_written(text), nothing_is_written(client), nothing_is_written(worker), nothing_is_written(job);
  nothing_is_written(jobs[0]), nothing_is_written(event);
  CHECK_INT(id, -7);
  CHECK_INT(count, 7);
}

/* Keeps the decision handle, so that a test can use it after the interceptor has returned. */
static int32_t remember_decision(const gw_event_t *event, gw_decision_t *decision, void *place) {
  (void)event;
  *(gw_decision_t **)place = decision;
  return GW_DECIDE_CONTINUE;
}

/* One valid handle of each kind. */
static struct handles all_kinds(void) {
  struct handles h = {.config = a_config_with("worker_recovery", "false", NULL), .client = a_client()};
  gw_crontab_parse("* * * * * task", &h.crontab, NULL);
  gw_config_set(h.config, "no such key", "", &h.error);
  h.spec = gw_spec_new("task");
  OK(gw_worker_new(h.config, &h.worker, &err));
  add_task(h.worker, "task", NULL, NULL);
  OK(gw_worker_on_event(h.worker, "JobStart", NULL, NULL, NULL, &err));
  OK(gw_worker_intercept(h.worker, "BeforeJobRun", remember_decision, &h.decision, NULL, &err));
  start(h.worker);
  add_job(h.client, "task", "{}");
  OK(gw_worker_next(h.worker, -1, &h.job, &err));
  OK(gw_worker_next_event(h.worker, -1, &h.event, &err));
  return h;
}

TEST(every_function_refuses_null) {
  struct handles none = {0};
  every_call_answers(GW_ERR_INVALID, &none);
  free_all(&none);
  gw_string_free(NULL);
  CHECK(gw_spec_new(NULL) == NULL);
}

TEST(every_function_refuses_a_freed_handle) {
  struct handles freed = all_kinds();
  OK(gw_job_complete(freed.job, &err));
  free_all(&freed);
  every_call_answers(GW_ERR_HANDLE, &freed);
}

TEST(every_handle_can_be_freed_twice) {
  struct handles freed = all_kinds();
  OK(gw_job_complete(freed.job, &err));
  free_all(&freed);
  free_all(&freed);
  gw_client_t *client = a_client(); /* The third free must not free this new handle. */
  free_all(&freed);
  add_job(client, "task", "{}");
  gw_client_free(client);
}

TEST(freeing_twice_does_not_free_a_new_handle_in_the_slot) {
  gw_config_t *freed = gw_config_new(), *one, *other;
  char *value = NULL;
  gw_config_free(freed);
  gw_config_free(freed);
  one = gw_config_new(), other = gw_config_new();
  CHECK(one != other);
  OK(gw_config_set(one, "concurrency", "1", &err));
  OK(gw_config_set(other, "concurrency", "2", &err));
  gw_config_free(freed);
  OK(gw_config_get(one, "concurrency", &value, &err));
  CHECK_TEXT(value, "1");
  gw_string_free(value);
  ANSWERS(GW_ERR_HANDLE, gw_config_get(freed, "concurrency", &value, &err));
  gw_config_free(one);
  OK(gw_config_get(other, "concurrency", &value, &err));
  gw_string_free(value);
  gw_config_free(other);
}

TEST(every_function_refuses_a_handle_of_another_kind) {
  struct handles h = all_kinds();
  struct handles wrong = {(gw_config_t *)h.client, (gw_client_t *)h.spec,    (gw_spec_t *)h.worker,
                          (gw_worker_t *)h.job,    (gw_job_t *)h.crontab,    (gw_crontab_t *)h.event,
                          (gw_event_t *)h.error,   (gw_error_t *)h.decision, (gw_decision_t *)h.config};
  every_call_answers(GW_ERR_HANDLE, &wrong);
  free_all(&wrong);
  /* All handles still work. */
  OK(gw_client_check(h.client, 5000, &err));
  OK(gw_spec_check(h.spec, &err));
  CHECK_TEXT(gw_event_name(h.event), "JobStart");
  CHECK_INT(gw_crontab_len(h.crontab), 1);
  CHECK_INT(gw_error_status(h.error), GW_ERR_CONFIG);
  OK(gw_job_complete(h.job, &err));
  free_all(&h);
}

TEST(pointer_that_is_not_a_handle_is_refused) {
  int64_t stack[8] = {0};
  gw_job_t *job = (gw_job_t *)stack, *low = (gw_job_t *)(uintptr_t)8, *odd = (gw_job_t *)UINTPTR_MAX;
  ANSWERS(GW_ERR_HANDLE, gw_job_complete(job, &err));
  ANSWERS(GW_ERR_HANDLE, gw_job_complete(low, &err));
  ANSWERS(GW_ERR_HANDLE, gw_job_complete(odd, &err));
  gw_job_free(job), gw_job_free(low), gw_job_free(odd);
}

/* A failed check ends the child with 1. A successful child kills itself, so that leak checkers ignore the memory of the
 * parent's threads, which the child leaks on purpose. */
static void in_a_child(void (*body)(void *), void *argument) {
  int status = 0;
  pid_t child = check_fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(check_times_count() ? 30 : 120);
    body(argument);
    raise(SIGKILL);
  }
  CHECK_INT(waitpid(child, &status, 0), child);
  if (WIFEXITED(status)) check_fail(__FILE__, __LINE__, "the child ended with %d", WEXITSTATUS(status));
  CHECK_INT(WTERMSIG(status), SIGKILL);
}

static void use_and_free_everything(void *inherited) {
  every_call_answers(GW_ERR_FORKED, inherited);
  free_all(inherited);
}

TEST_THAT_FORKS_BESIDE_THREADS(forked_child_cannot_use_or_damage_inherited_handles) {
  struct handles h = all_kinds();
  in_a_child(use_and_free_everything, &h);
  /* The parent goes on with the same sockets. */
  OK(gw_job_complete(h.job, &err));
  OK(gw_worker_flush(h.worker, 10000, &err));
  CHECK_INT(stats_of(h.worker).completed, 1);
  add_job(h.client, "task", "{}");
  gw_job_t *next = NULL;
  OK(gw_worker_next(h.worker, -1, &next, &err));
  OK(gw_job_complete(next, &err));
  gw_job_free(next);
  free_all(&h);
}

static void add_and_run_one(void *unused) {
  struct latch ran = LATCH;
  gw_client_t *client = a_client();
  (void)unused;
  add_job(client, "of the child", "{}");
  run_once("of the child", count_and_succeed, &ran);
  CHECK_INT(counted(&ran), 1);
  gw_client_free(client);
}

TEST_THAT_FORKS_BESIDE_THREADS(forked_child_can_make_clients_and_workers) {
  struct handles h = all_kinds();
  /* Repeated, because the child fails only if its threads get the stack addresses of the parent's threads. */
  for (size_t i = 0; i < check_scaled(30); i++) in_a_child(add_and_run_one, NULL);
  OK(gw_job_complete(h.job, &err));
  free_all(&h);
}

/* The child's own handles get the same slots as the parent's. */
static void have_ones_own_and_use_what_is_inherited(void *inherited) {
  struct handles own = {.config = a_config(), .spec = gw_spec_new("task")};
  gw_config_set(own.config, "no such key", "", &own.error);
  gw_crontab_parse("* * * * * task", &own.crontab, NULL);
  OK(gw_worker_new(own.config, &own.worker, &err));
  use_and_free_everything(inherited);
  OK(gw_spec_check(own.spec, &err));
  CHECK_INT(gw_worker_state(own.worker), GW_STATE_NEW);
  CHECK_INT(gw_crontab_len(own.crontab), 1);
  CHECK_INT(gw_error_status(own.error), GW_ERR_CONFIG);
  free_all(&own);
}

TEST_THAT_FORKS_BESIDE_THREADS(inherited_handle_never_resolves_to_a_value_of_the_child) {
  struct handles h = all_kinds();
  in_a_child(have_ones_own_and_use_what_is_inherited, &h);
  OK(gw_job_complete(h.job, &err));
  free_all(&h);
}

static bool enough; /* Ends the threads below. */

static void *make_handles(void *unused) {
  (void)unused;
  while (!__atomic_load_n(&enough, __ATOMIC_RELAXED)) gw_config_free(gw_config_new());
  return NULL;
}

static void make_one(void *unused) {
  (void)unused;
  gw_config_free(gw_config_new());
}

TEST_THAT_FORKS_BESIDE_THREADS(child_forked_while_threads_make_handles_does_not_block) {
  size_t forks = check_scaled(200);
  pthread_t threads[2];
  make_one(NULL); /* The initialization of the process happens before the threads start. */
  for (int i = 0; i < 2; i++) threads[i] = start_thread(make_handles, NULL);
  for (size_t i = 0; i < forks; i++) in_a_child(make_one, NULL);
  __atomic_store_n(&enough, true, __ATOMIC_RELAXED);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

TEST(a_missing_argument_is_refused) {
  struct handles h = all_kinds();
  const gw_spec_t *specs[] = {h.spec, NULL};
  const char *ids[] = {NULL};
  char *text = NULL;
  size_t count = 0;
  gw_job_t *job = NULL;
  int64_t time = 0;
  ANSWERS(GW_ERR_INVALID, gw_config_set(h.config, NULL, "2", &err));
  ANSWERS(GW_ERR_INVALID, gw_config_set(h.config, "concurrency", NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_config_get(h.config, NULL, &text, &err));
  ANSWERS(GW_ERR_INVALID, gw_config_get(h.config, "concurrency", NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_new(h.config, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_add_job(h.client, NULL, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_add_jobs(h.client, NULL, 1, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_add_jobs(h.client, specs, 2, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_remove_job(h.client, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_complete_jobs(h.client, NULL, 1, &text, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_fail_jobs(h.client, NULL, 1, "reason", &text, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_reschedule_jobs(h.client, NULL, 1, "{}", &text, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_force_unlock(h.client, NULL, 1, &text, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_force_unlock(h.client, ids, 1, &text, &err));
  ANSWERS(GW_ERR_INVALID, gw_spec_set_payload(h.spec, NULL, GW_NUL));
  ANSWERS(GW_ERR_INVALID, gw_spec_set_key(h.spec, "key", 99));
  ANSWERS(GW_ERR_INVALID, gw_sql_add_job(NULL, 99, &text, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_new(h.config, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_add_task(h.worker, NULL, succeed, NULL, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_intercept(h.worker, "BeforeJobRun", NULL, NULL, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_start(h.worker, 99, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_add_crontab(h.worker, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_next(h.worker, 0, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_next_batch(h.worker, 0, NULL, 1, &count, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_next_batch(h.worker, 0, &job, 1, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_next_event(h.worker, 0, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_worker_stats(h.worker, NULL));
  ANSWERS(GW_ERR_INVALID, gw_job_complete_items(h.job, NULL, 1, &err));
  ANSWERS(GW_ERR_INVALID, gw_crontab_parse(NULL, &h.crontab, &err));
  CHECK_INT(gw_crontab_next(h.crontab, 0, 0, NULL, 1), 0);
  CHECK_INT(gw_crontab_next(h.crontab, 0, 0, &time, 0), 0);
  CHECK_INT(gw_crontab_next(h.crontab, 99, 0, &time, 1), 0);
  CHECK(gw_crontab_item_json(h.crontab, 99) == NULL);
  OK(gw_job_complete(h.job, &err));
  free_all(&h);
}

#define NO_UTF8 "\xff\xfe"

TEST(every_text_argument_refuses_invalid_utf8) {
  struct handles h = all_kinds();
  gw_worker_t *worker = a_worker();
  const char *bad[] = {NO_UTF8};
  int64_t id = 1;
  char *text = NULL;
  ANSWERS(GW_ERR_UTF8, gw_config_set(h.config, "schema", NO_UTF8, &err));
  ANSWERS(GW_ERR_UTF8, gw_client_remove_job(h.client, NO_UTF8, &err));
  ANSWERS(GW_ERR_UTF8, gw_client_list_jobs(h.client, NO_UTF8, &text, &err));
  ANSWERS(GW_ERR_UTF8, gw_client_fail_jobs(h.client, &id, 1, NO_UTF8, &text, &err));
  ANSWERS(GW_ERR_UTF8, gw_client_reschedule_jobs(h.client, &id, 1, NO_UTF8, &text, &err));
  ANSWERS(GW_ERR_UTF8, gw_client_force_unlock(h.client, bad, 1, &text, &err));
  ANSWERS(GW_ERR_UTF8, gw_client_sweep_stale_workers(h.client, NO_UTF8, &text, &err));
  ANSWERS(GW_ERR_UTF8, gw_spec_set_payload(h.spec, NO_UTF8, GW_NUL));
  ANSWERS(GW_ERR_UTF8, gw_spec_set_payload(h.spec, "\"\xff\"", 3));
  ANSWERS(GW_ERR_UTF8, gw_spec_set_queue(h.spec, NO_UTF8));
  ANSWERS(GW_ERR_UTF8, gw_spec_set_key(h.spec, NO_UTF8, GW_KEY_REPLACE));
  ANSWERS(GW_ERR_UTF8, gw_spec_add_flag(h.spec, NO_UTF8));
  ANSWERS(GW_ERR_UTF8, gw_spec_set_traceparent(h.spec, NO_UTF8));
  ANSWERS(GW_ERR_UTF8, gw_sql_add_job(NO_UTF8, GW_SQL_DOLLAR, &text, &err));
  ANSWERS(GW_ERR_UTF8, gw_worker_add_task(worker, NO_UTF8, succeed, NULL, NULL, &err));
  ANSWERS(GW_ERR_UTF8, gw_worker_set_task_option(worker, NO_UTF8, "timeout", "1s", &err));
  ANSWERS(GW_ERR_UTF8, gw_worker_add_crontab(worker, NO_UTF8, &err));
  ANSWERS(GW_ERR_UTF8, gw_worker_on_event(worker, NO_UTF8, NULL, NULL, NULL, &err));
  ANSWERS(GW_ERR_UTF8, gw_crontab_parse(NO_UTF8, &h.crontab, &err));
  CHECK(gw_config_key_info(NO_UTF8) == NULL);
  CHECK(text == NULL);
  gw_worker_free(worker);
  OK(gw_job_complete(h.job, &err));
  free_all(&h);
}

TEST(text_with_a_nul_within_its_length_is_refused) {
  gw_spec_t *spec = gw_spec_new("task");
  ANSWERS(GW_ERR_UTF8, gw_spec_set_payload(spec, "1\0 ", 3));
  ANSWERS(GW_ERR_UTF8, gw_spec_set_payload(spec, "\"a\0b\"", 5));
  gw_spec_free(spec);
}

TEST(job_fails_with_an_error_text_that_is_not_utf8) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  gw_job_t *job = NULL;
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", NULL, NULL);
  start(worker);
  OK(gw_worker_next(worker, -1, &job, &err));
  OK(gw_job_fail(job, "caf\xe9", GW_NUL, &err));
  gw_job_free(job);
  OK(gw_worker_flush(worker, -1, &err));
  CHECK_JOB(client, id, "last_error", "caf\xef\xbf\xbd");
  id = add_job(client, "task", "{}");
  OK(gw_worker_next(worker, -1, &job, &err));
  OK(gw_job_fail(job, "a\0b", 3, &err));
  gw_job_free(job);
  OK(gw_worker_flush(worker, -1, &err));
  CHECK_JOB(client, id, "last_error", "a\xef\xbf\xbd" "b");
  end(worker);
  gw_client_free(client);
}
