/* limits.c: excessive lengths and counts, NULL result pointers and invalid JSON are refused by name. */
#include "fixture.h"

#include <string.h>

/* The lengths and counts that each function is called with. The last is not GW_NUL. */
static const size_t beyond[] = {(size_t)1 << 31, (size_t)1 << 32, (size_t)1 << 40, (size_t)1 << 62, SIZE_MAX - 1};
enum { BEYOND = sizeof beyond / sizeof *beyond };

/* The handles that the functions below need: a pulled job with its worker and client. */
struct lent {
  gw_client_t *client;
  gw_worker_t *worker;
  gw_spec_t *spec;
  gw_job_t *job;
  char *json;
};

static gw_status_t spec_payload(struct lent *lent, size_t length) {
  gw_status_t status = gw_spec_set_payload(lent->spec, "1", length);
  CHECK_INT(gw_spec_check(lent->spec, &err), status); /* Only the check has a message. */
  return status;
}
static gw_status_t job_set_error(struct lent *lent, size_t length) { return gw_job_set_error(lent->job, "x", length); }
static gw_status_t job_fail(struct lent *lent, size_t length) { return gw_job_fail(lent->job, "x", length, &err); }
static gw_status_t job_complete_items(struct lent *lent, size_t count) {
  const char *errors[] = {NULL};
  return gw_job_complete_items(lent->job, errors, count, &err);
}
static gw_status_t add_many(struct lent *lent, size_t count) {
  const gw_spec_t *specs[] = {lent->spec};
  return gw_client_add_jobs(lent->client, specs, count, NULL, &err);
}
static const int64_t ids[] = {1};
static gw_status_t complete(struct lent *lent, size_t count) {
  return gw_client_complete_jobs(lent->client, ids, count, &lent->json, &err);
}
static gw_status_t fail_them(struct lent *lent, size_t count) {
  return gw_client_fail_jobs(lent->client, ids, count, "reason", &lent->json, &err);
}
static gw_status_t reschedule(struct lent *lent, size_t count) {
  return gw_client_reschedule_jobs(lent->client, ids, count, "{}", &lent->json, &err);
}
static gw_status_t force_unlock(struct lent *lent, size_t count) {
  const char *workers[] = {"worker"};
  return gw_client_force_unlock(lent->client, workers, count, &lent->json, &err);
}
static gw_status_t next_batch(struct lent *lent, size_t capacity) {
  gw_job_t *jobs[1];
  size_t count = 7;
  gw_status_t status = gw_worker_next_batch(lent->worker, 0, jobs, capacity, &count, &err);
  CHECK_INT(count, 7);
  return status;
}

/* Every function that takes a length or a count and returns a status, with its parameter's name and limit. Only
 * gw_decision_set_text is missing, because only interceptors can call it. */
static const struct {
  const char *function, *parameter, *limit;
  gw_status_t (*call)(struct lent *lent, size_t number);
} refused[] = {
    {"gw_spec_set_payload", "payload", "1073741824", spec_payload},
    {"gw_job_set_error", NULL, NULL, job_set_error},
    {"gw_job_fail", "message", "1073741824", job_fail},
    {"gw_job_complete_items", "errors", "16777216", job_complete_items},
    {"gw_client_add_jobs", "specs", "16777216", add_many},
    {"gw_client_complete_jobs", "ids", "16777216", complete},
    {"gw_client_fail_jobs", "ids", "16777216", fail_them},
    {"gw_client_reschedule_jobs", "ids", "16777216", reschedule},
    {"gw_client_force_unlock", "worker_ids", "16777216", force_unlock},
    {"gw_worker_next_batch", "capacity", "16777216", next_batch},
};

/* A job, pulled from a worker of its own. */
static struct lent a_pulled_job(void) {
  struct lent lent = {.client = a_client(), .worker = a_worker(), .spec = gw_spec_new("task")};
  add_task(lent.worker, "task", NULL, NULL);
  start(lent.worker);
  add_job(lent.client, "task", "[1]");
  OK(gw_worker_next(lent.worker, -1, &lent.job, &err));
  return lent;
}

static void give_back(struct lent *lent) {
  gw_job_free(lent->job);
  gw_spec_free(lent->spec);
  end(lent->worker);
  gw_client_free(lent->client);
}

TEST(excessive_length_or_count_is_refused_by_name) {
  struct lent lent = a_pulled_job();
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    for (size_t j = 0; j < BEYOND; j++) {
      forget_error();
      check_status(__FILE__, __LINE__, refused[i].function, refused[i].call(&lent, beyond[j]), GW_ERR_INVALID);
      if (refused[i].parameter) CHECK_HAS(error_message(), refused[i].parameter);
      if (refused[i].limit) CHECK_HAS(error_message(), refused[i].limit);
    }
  }
  CHECK(lent.json == NULL);
  OK(gw_spec_set_payload(lent.spec, "1", GW_NUL));
  OK(gw_spec_check(lent.spec, &err));
  OK(gw_job_complete(lent.job, &err)); /* The job has no outcome yet. */
  give_back(&lent);
}

static int32_t decide_at_length(const gw_event_t *event, gw_decision_t *decision, void *asked) {
  (void)event;
  for (size_t i = 0; i < BEYOND; i++) ANSWERS(GW_ERR_INVALID, gw_decision_set_text(decision, "text", beyond[i]));
  count_up(asked);
  return GW_DECIDE_CONTINUE;
}

TEST(excessive_decision_text_is_refused) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct latch asked = LATCH;
  add_job(client, "task", "{}");
  add_task(worker, "task", succeed, NULL);
  OK(gw_worker_intercept(worker, "BeforeJobRun", decide_at_length, &asked, NULL, &err));
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(counted(&asked), 1);
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(excessive_index_or_capacity_returns_nothing) {
  gw_crontab_t *crontab = NULL;
  int64_t times[1] = {7};
  OK(gw_crontab_parse("* * * * * task", &crontab, &err));
  for (size_t i = 0; i < BEYOND; i++) {
    gw_stats_t stats = {.struct_size = beyond[i]};
    gw_worker_t *worker = a_worker();
    CHECK_INT(gw_status_at(beyond[i]), INT32_MIN);
    CHECK(gw_config_key_at(beyond[i]) == NULL);
    CHECK(gw_event_name_at(beyond[i]) == NULL);
    CHECK(gw_crontab_item_json(crontab, beyond[i]) == NULL);
    CHECK_INT(gw_crontab_next(crontab, beyond[i], 0, times, 1), 0);
    CHECK_INT(gw_crontab_next(crontab, 0, 0, times, beyond[i]), 0);
    OK(gw_worker_stats(worker, &stats)); /* The library writes only its own fields. */
    CHECK_INT(stats.claimed, 0);
    gw_worker_free(worker);
  }
  CHECK_INT(times[0], 7);
  gw_crontab_free(crontab);
}

TEST(large_text_and_long_list_are_accepted) {
  gw_client_t *client = a_client();
  size_t count = check_scaled(100000), length = 16 << 20;
  int64_t *many = calloc(count, sizeof *many);
  char *text = malloc(length), *json = NULL;
  struct lent lent = a_pulled_job();
  memset(text, 'x', length);
  text[0] = text[length - 1] = '"';
  OK(gw_spec_set_payload(lent.spec, text, length));
  OK(gw_job_set_error(lent.job, text, length));
  for (size_t i = 0; i < count; i++) many[i] = 1000000 + (int64_t)i;
  OK(gw_client_complete_jobs(client, many, count, &json, &err));
  CHECK_TEXT(json, "[]");
  gw_string_free(json);
  OK(gw_job_complete(lent.job, &err));
  give_back(&lent);
  free(text);
  free(many);
  gw_client_free(client);
}

TEST(null_result_pointer_is_refused_before_any_change) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  const char *workers[] = {"worker"};
  ANSWERS(GW_ERR_INVALID, gw_client_list_jobs(client, NULL, NULL, &err));
  CHECK_HAS(error_message(), "json: is NULL");
  ANSWERS(GW_ERR_INVALID, gw_client_job(client, id, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_job(client, id + 1, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_stats(client, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_queues(client, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_locked_workers(client, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_active_workers(client, 1000, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_complete_jobs(client, &id, 1, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_fail_jobs(client, &id, 1, "reason", NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_reschedule_jobs(client, &id, 1, "{\"priority\": 7}", NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_force_unlock(client, workers, 1, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_cleanup(client, GW_CLEANUP_GC_TASKS, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_client_sweep_stale_workers(client, NULL, NULL, &err));
  ANSWERS(GW_ERR_INVALID, gw_crontab_parse("* * * * * task", NULL, &err));
  CHECK_HAS(error_message(), "out: is NULL");
  ANSWERS(GW_ERR_INVALID, gw_sql_add_job(NULL, GW_SQL_DOLLAR, NULL, &err));
  CHECK_HAS(error_message(), "sql: is NULL");
  CHECK_JOB(client, id, "priority", "0");
  CHECK_JOB(client, id, "last_error", "null");
  gw_client_free(client);
}

/* The message names the option, its line and column, and the error. */
#define WRONG_OPTIONS(call, option, place) \
  do {                                     \
    ANSWERS(GW_ERR_JSON, call);            \
    CHECK_HAS(error_message(), option);             \
    CHECK_HAS(error_message(), place);              \
  } while (0)

TEST(invalid_option_is_named_with_line_and_column) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  char *json = NULL;
  WRONG_OPTIONS(gw_client_list_jobs(client, "{\"task\": \"a\",\n \"limit\": \"ten\"}", &json, &err), "options.limit: ",
                "line 2 column 15");
  WRONG_OPTIONS(gw_client_list_jobs(client, "{\"lmit\": 1}", &json, &err), "options.lmit: ", "line 1 column 7");
  WRONG_OPTIONS(gw_client_list_jobs(client, "{\"limit\": 1", &json, &err), "options: ", "line 1 column 11");
  WRONG_OPTIONS(gw_client_list_jobs(client, "[1]", &json, &err), "options: ", "line 1 column");
  WRONG_OPTIONS(gw_client_list_jobs(client, "", &json, &err), "options: ", "line 1 column 0");
  WRONG_OPTIONS(gw_client_list_jobs(client, "{\"limit\": 1, \"limit\": 2}", &json, &err), "limit", "line 1 column 20");
  WRONG_OPTIONS(gw_client_reschedule_jobs(client, &id, 1, "{\"priority\": 1.5}", &json, &err), "options.priority: ",
                "line 1 column 16");
  WRONG_OPTIONS(gw_client_reschedule_jobs(client, &id, 1, "{\"attempts\": 3000000000}", &json, &err),
                "options.attempts: ", "line 1 column 23");
  WRONG_OPTIONS(gw_client_sweep_stale_workers(client, "{\"dry_run\": 1}", &json, &err), "options.dry_run: ",
                "line 1 column 13");
  CHECK(json == NULL);
  gw_client_free(client);
}

TEST(refused_setter_fails_the_check_and_the_add) {
  gw_client_t *client = a_client();
  gw_spec_t *spec = gw_spec_new("task"), *good = gw_spec_new("task");
  const gw_spec_t *both[] = {good, spec};
  int64_t id = 0;
  ANSWERS(GW_ERR_JSON, gw_spec_set_payload(spec, "{\n  \"a\": oops}", GW_NUL));
  ANSWERS(GW_ERR_JSON, gw_spec_check(spec, &err));
  CHECK_TEXT(error_message(), "payload: is not JSON (line 2, column 8)");
  ANSWERS(GW_ERR_JSON, gw_client_add_job(client, spec, &id, &err));
  ANSWERS(GW_ERR_JSON, gw_client_add_jobs(client, both, 2, NULL, &err));
  CHECK_HAS(error_message(), "job 1: payload: ");
  CHECK_INT(id, 0);
  OK(gw_spec_set_payload(spec, "{}", GW_NUL));
  OK(gw_spec_check(spec, &err));
  ANSWERS(GW_ERR_UTF8, gw_spec_set_queue(spec, "\xff"));
  ANSWERS(GW_ERR_INVALID, gw_spec_set_key(spec, "key", 99));
  ANSWERS(GW_ERR_INVALID, gw_spec_check(spec, &err));
  CHECK_HAS(error_message(), "mode: 99");
  OK(gw_spec_set_key(spec, "key", GW_KEY_REPLACE));
  ANSWERS(GW_ERR_UTF8, gw_spec_check(spec, &err));
  CHECK_HAS(error_message(), "queue: ");
  OK(gw_spec_set_queue(spec, NULL));
  OK(gw_client_add_job(client, spec, &id, &err));
  ANSWERS(GW_ERR_UTF8, gw_spec_add_flag(spec, "\xff"));
  OK(gw_spec_add_flag(spec, "another")); /* Adds another flag; the refused one is still an error. */
  ANSWERS(GW_ERR_UTF8, gw_spec_check(spec, &err));
  gw_spec_free(spec), gw_spec_free(good);
  gw_client_free(client);
}
