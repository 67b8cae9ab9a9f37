/* fixture.c: see fixture.h. */
#define _GNU_SOURCE
#include "fixture.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

_Thread_local gw_error_t *err;
static _Thread_local char message[4096], sqlstate[6];

const char *error_message(void) { return message; }
const char *error_sqlstate(void) { return sqlstate[0] ? sqlstate : NULL; }

void forget_error(void) { message[0] = sqlstate[0] = '\0'; }

void check_status(const char *file, int line, const char *call, gw_status_t actual, gw_status_t expected) {
  if (err) {
    const char *state = gw_error_sqlstate(err);
    snprintf(message, sizeof message, "%s", gw_error_message(err));
    snprintf(sqlstate, sizeof sqlstate, "%s", state ? state : "");
    if (gw_error_status(err) != actual)
      check_fail(file, line, "%s returns %s, but an error with %s", call, gw_status_name(actual),
                 gw_status_name(gw_error_status(err)));
    gw_error_free(err);
    err = NULL;
  }
  if (actual != expected)
    check_fail(file, line, "%s is %s, not %s: %s", call, gw_status_name(actual), gw_status_name(expected), message);
}

const char *database_url(void) {
  const char *url = getenv("DATABASE_URL");
  if (!url) check_fail(__FILE__, __LINE__, "DATABASE_URL is not set; `graphile-worker dev` starts a database");
  return url;
}

const char *schema(void) {
  static char name[60];
  if (!name[0]) snprintf(name, sizeof name, "test_%ld_%lld", (long)getpid(), (long long)now_us()); /* Each test is a process. */
  return name;
}

static void set_all(gw_config_t *config, const char *key, va_list pairs) {
  for (; key; key = va_arg(pairs, const char *)) OK(gw_config_set(config, key, va_arg(pairs, const char *), &err));
}

gw_config_t *a_config(void) {
  gw_config_t *config = gw_config_new();
  OK(gw_config_set(config, "database_url", database_url(), &err));
  OK(gw_config_set(config, "schema", schema(), &err));
  OK(gw_config_set(config, "concurrency", "2", &err));
  return config;
}

gw_config_t *a_config_with(const char *key, ...) {
  gw_config_t *config = a_config();
  va_list pairs;
  va_start(pairs, key);
  set_all(config, key, pairs);
  va_end(pairs);
  return config;
}

gw_client_t *a_client(void) {
  gw_config_t *config = a_config();
  gw_client_t *client = NULL;
  OK(gw_client_new(config, &client, &err));
  OK(gw_client_migrate(client, &err));
  gw_config_free(config);
  return client;
}

gw_worker_t *a_worker(void) { return a_worker_with(NULL); }

gw_worker_t *a_worker_with(const char *key, ...) {
  gw_config_t *config = a_config();
  gw_worker_t *worker = NULL;
  va_list pairs;
  va_start(pairs, key);
  set_all(config, key, pairs);
  va_end(pairs);
  OK(gw_worker_new(config, &worker, &err));
  gw_config_free(config);
  return worker;
}

void add_task(gw_worker_t *worker, const char *name, gw_task_fn task, void *user_data) {
  OK(gw_worker_add_task(worker, name, task, user_data, NULL, &err));
}

void start(gw_worker_t *worker) { OK(gw_worker_start(worker, GW_RUN_FOREVER, &err)); }

void end(gw_worker_t *worker) {
  gw_worker_request_stop(worker, GW_STOP_GRACEFUL);
  OK(gw_worker_wait(worker, -1, &err));
  gw_worker_free(worker);
}

void run_once(const char *name, gw_task_fn task, void *user_data) {
  gw_worker_t *worker = a_worker();
  add_task(worker, name, task, user_data);
  OK(gw_worker_run_once(worker, &err));
  gw_worker_free(worker);
}

static int64_t add_spec(gw_client_t *client, const char *task, const char *payload, int32_t max_attempts) {
  int64_t id = 0;
  gw_spec_t *spec = gw_spec_new(task);
  OK(gw_spec_set_payload(spec, payload, GW_NUL));
  OK(gw_spec_set_max_attempts(spec, max_attempts));
  OK(gw_client_add_job(client, spec, &id, &err));
  gw_spec_free(spec);
  CHECK(id > 0);
  return id;
}

int64_t add_job(gw_client_t *client, const char *task, const char *payload) {
  return add_spec(client, task, payload, 25);
}

int64_t add_job_once(gw_client_t *client, const char *task, const char *payload) {
  return add_spec(client, task, payload, 1);
}

void add_jobs(gw_client_t *client, const char *task, size_t count) {
  gw_spec_t *spec = gw_spec_new(task);
  const gw_spec_t **specs = calloc(count, sizeof *specs);
  OK(gw_spec_set_max_attempts(spec, 1));
  for (size_t i = 0; i < count; i++) specs[i] = spec;
  OK(gw_client_add_jobs(client, specs, count, NULL, &err));
  free(specs);
  gw_spec_free(spec);
}

bool job_exists(gw_client_t *client, int64_t id) {
  char *json = NULL;
  gw_status_t status = gw_client_job(client, id, &json, &err);
  if (status != GW_NOT_FOUND) OK(status);
  gw_string_free(json);
  return status == GW_OK;
}

char *job_field(gw_client_t *client, int64_t id, const char *field) {
  char *json = NULL;
  OK(gw_client_job(client, id, &json, &err));
  char *value = json_field(json, field);
  gw_string_free(json);
  return value;
}

char *json_field(const char *json, const char *field) {
  char quoted[80];
  int depth = 0;
  snprintf(quoted, sizeof quoted, "\"%s\"", field);
  const char *at = strstr(json, quoted);
  if (!at) return NULL;
  at += strlen(quoted);
  at += strspn(at, " \n:");
  if (*at == '"') {
    const char *from = ++at;
    while (*at && *at != '"') at += *at == '\\' ? 2 : 1;
    return strndup(from, (size_t)(at - from));
  }
  const char *from = at;
  for (; *at; at++) {
    if (*at == '{' || *at == '[') depth++;
    if (depth == 0 && strchr(",}]\n", *at)) break;
    if ((*at == '}' || *at == ']') && --depth == 0) {
      at++;
      break;
    }
  }
  return strndup(from, (size_t)(at - from));
}

long long json_number(const char *json, const char *field) {
  char *text = json_field(json, field);
  if (!text) check_fail(__FILE__, __LINE__, "no field %s in %s", field, json);
  long long number = atoll(text);
  free(text);
  return number;
}

gw_stats_t stats_of(gw_worker_t *worker) {
  gw_stats_t stats = {.struct_size = sizeof stats};
  OK(gw_worker_stats(worker, &stats));
  return stats;
}

void count_up(struct latch *latch) {
  pthread_mutex_lock(&latch->lock);
  latch->count++;
  pthread_cond_broadcast(&latch->changed);
  pthread_mutex_unlock(&latch->lock);
}

size_t counted(struct latch *latch) {
  pthread_mutex_lock(&latch->lock);
  size_t count = latch->count;
  pthread_mutex_unlock(&latch->lock);
  return count;
}

void wait_for(struct latch *latch, size_t count) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += check_times_count() ? 30 : 300;
  pthread_mutex_lock(&latch->lock);
  while (latch->count < count)
    if (pthread_cond_timedwait(&latch->changed, &latch->lock, &until) == ETIMEDOUT)
      check_fail(__FILE__, __LINE__, "waited for %zu, but the count is only %zu", count, latch->count);
  pthread_mutex_unlock(&latch->lock);
}

char *psql(const char *script) {
  char command[256], *printed = calloc(1, 4096);
  snprintf(command, sizeof command, "psql -X -q -A -t -v ON_ERROR_STOP=1 '%s' <<'END' 2>&1\n", database_url());
  char *whole = malloc(strlen(command) + strlen(script) + 8);
  sprintf(whole, "%s%s\nEND\n", command, script);
  FILE *pipe = popen(whole, "r");
  size_t length = fread(printed, 1, 4095, pipe);
  printed[length] = '\0';
  if (pclose(pipe) != 0) check_fail(__FILE__, __LINE__, "psql: %s", printed);
  free(whole);
  return printed;
}

static int64_t clock_of(clockid_t clock, int64_t per_second) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * per_second + now.tv_nsec / (1000000000 / per_second);
}

int64_t now_us(void) { return clock_of(CLOCK_REALTIME, 1000000); }
int64_t clock_ns(void) { return clock_of(CLOCK_MONOTONIC, 1000000000); }

pthread_t start_thread(void *(*run)(void *), void *argument) {
  pthread_t thread;
  CHECK_INT(pthread_create(&thread, NULL, run, argument), 0);
  return thread;
}

void count_free(void *latch) { count_up(latch); }

gw_outcome_t succeed(gw_job_t *job, void *user_data) {
  (void)job, (void)user_data;
  return GW_TASK_DONE;
}

gw_outcome_t fail(gw_job_t *job, void *user_data) {
  gw_job_set_error(job, user_data ? user_data : "no luck", GW_NUL);
  return GW_TASK_FAILED;
}

gw_outcome_t count_and_succeed(gw_job_t *job, void *user_data) {
  (void)job;
  count_up(user_data);
  return GW_TASK_DONE;
}
