/* adapter.c: executes the commands of tests/it/conformance.rs through the C API. One command per line on stdin, one
 * reply per line on stdout, fields separated by tabs. Decides nothing. */
#define _POSIX_C_SOURCE 200809L
#include <graphile_worker.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 256 };

static gw_client_t *client;
static gw_worker_t *worker;
static gw_spec_t *remembered[MOST]; /* For add_many. */
static size_t remembered_count;

/* The notes of tasks for `ran`, and of observers for `events`. Threads of the library write them. */
struct notes {
  pthread_mutex_t lock;
  char *texts[4 * MOST];
  size_t count;
};
static struct notes ran = {.lock = PTHREAD_MUTEX_INITIALIZER}, events = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note(struct notes *notes, const char *text) {
  pthread_mutex_lock(&notes->lock);
  if (notes->count < sizeof notes->texts / sizeof *notes->texts) notes->texts[notes->count++] = strdup(text);
  pthread_mutex_unlock(&notes->lock);
}

/* ---- Replies. ---- */

static void print_flat(const char *text) {
  for (; *text; text++) putchar(*text == '\n' || *text == '\r' || *text == '\t' ? ' ' : *text);
}

static void end_reply(void) {
  putchar('\n');
  fflush(stdout);
}

static void reply_error(gw_status_t status, const char *sqlstate, const char *message) {
  printf("error\t%s\t%s\t", gw_status_name(status), sqlstate ? sqlstate : "-");
  print_flat(message);
  end_reply();
}

/* Returns whether the call succeeded. If not, replies with the error. `error` is the call's error object, or NULL. */
static bool well(gw_status_t status, gw_error_t **error) {
  gw_error_t *cause = error ? *error : NULL;
  if (status >= 0) return true;
  reply_error(status, gw_error_sqlstate(cause), cause ? gw_error_message(cause) : gw_status_text(status));
  gw_error_free(cause);
  return false;
}

static void reply_ok(const char *value) {
  printf("ok");
  if (value) putchar('\t'), print_flat(value);
  end_reply();
}

/* Replies with the JSON of a call, or with its error. */
static void reply_json(gw_status_t status, char *json, gw_error_t *error) {
  if (well(status, &error)) reply_ok(json);
  gw_string_free(json);
}

static void reply_notes(struct notes *notes) {
  pthread_mutex_lock(&notes->lock);
  printf("ok");
  for (size_t i = 0; i < notes->count; i++) {
    putchar('\t'), print_flat(notes->texts[i]);
    free(notes->texts[i]);
  }
  notes->count = 0;
  end_reply();
  pthread_mutex_unlock(&notes->lock);
}

/* ---- The standard tasks. ---- */

static void sleep_ms(long ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&left, &left) != 0) continue;
}

static void note_run(const char *task, gw_job_t *job, const char *what) {
  size_t length = strlen(task) + strlen(what) + 32;
  char *text = malloc(length);
  snprintf(text, length, "%s:%d:%s", task, gw_job_attempts(job), what);
  note(&ran, text);
  free(text);
}

static gw_outcome_t fail_with(gw_job_t *job, const char *message) {
  gw_job_set_error(job, message, GW_NUL);
  return GW_TASK_FAILED;
}

static gw_outcome_t run_wait(gw_job_t *job) {
  while (!gw_job_is_cancelled(job)) sleep_ms(2);
  note(&ran, "wait:cancelled:");
  return fail_with(job, "cancelled");
}

static gw_outcome_t run_spawn(gw_job_t *job) {
  gw_error_t *error = NULL;
  gw_outcome_t outcome = GW_TASK_DONE;
  gw_spec_t *spec = gw_spec_new("ok");
  gw_spec_set_payload(spec, gw_job_payload(job, NULL), GW_NUL);
  if (gw_client_add_job(gw_job_client(job), spec, NULL, &error) < 0) outcome = fail_with(job, gw_error_message(error));
  gw_error_free(error);
  gw_spec_free(spec);
  return outcome;
}

static gw_outcome_t run_batch(gw_job_t *job) {
  const char *errors[MOST];
  size_t count = 0;
  const char *at = gw_job_payload(job, NULL) + 1; /* After the bracket. */
  for (char *end; count < MOST; at = end + strspn(end, ", ")) {
    long item = strtol(at, &end, 10);
    if (end == at) break;
    errors[count++] = item < 0 ? "negative" : NULL;
  }
  gw_job_complete_items(job, errors, count, NULL);
  return GW_TASK_DONE; /* The outcome is ignored: gw_job_complete_items has set it. */
}

/* Runs all tasks. The job has the name of its task. */
static gw_outcome_t run(gw_job_t *job, void *unused) {
  const char *task = gw_job_task(job), *payload = gw_job_payload(job, NULL);
  char text[32];
  (void)unused;
  if (strcmp(task, "trace") == 0) {
    char *traceparent = gw_job_traceparent(job);
    note_run(task, job, traceparent ? traceparent : "");
    gw_string_free(traceparent);
    return GW_TASK_DONE;
  }
  note_run(task, job, payload);
  if (strcmp(task, "fail") == 0) return fail_with(job, payload);
  if (strcmp(task, "throw") == 0) return 12345;
  if (strcmp(task, "fail_twice") == 0 && gw_job_attempts(job) < 3) {
    snprintf(text, sizeof text, "attempt %d", gw_job_attempts(job));
    return fail_with(job, text);
  }
  if (strcmp(task, "wait") == 0) return run_wait(job);
  if (strcmp(task, "sleep") == 0) sleep_ms(atol(payload));
  if (strcmp(task, "snooze") == 0) gw_job_snooze(job, 3600000);
  if (strcmp(task, "later") == 0) {
    gw_job_retry_after(job, 3600000);
    return fail_with(job, "later");
  }
  if (strcmp(task, "spawn") == 0) return run_spawn(job);
  if (strcmp(task, "batch") == 0) return run_batch(job);
  return GW_TASK_DONE;
}

static const char *const standard_tasks[] = {"ok",     "fail",  "throw", "fail_twice", "wait", "sleep",
                                             "snooze", "later", "spawn", "batch",      "trace"};

static void record(const gw_event_t *event, void *unused) {
  (void)unused;
  note(&events, gw_event_name(event));
}

static int32_t record_and_continue(const gw_event_t *event, gw_decision_t *decision, void *unused) {
  (void)decision;
  record(event, unused);
  return GW_DECIDE_CONTINUE;
}

static bool decides(const char *event) {
  return strncmp(event, "Before", 6) == 0 || strcmp(event, "AfterJobRun") == 0 || strcmp(event, "JobRecovery") == 0;
}

/* ---- Commands. `fields` ends with NULL; fields[0] is the command. ---- */

/* Splits k=v in place; returns v. */
static char *value_of(char *pair) {
  char *equals = strchr(pair, '=');
  if (!equals) return pair + strlen(pair);
  *equals = '\0';
  return equals + 1;
}

static gw_config_t *new_config(void) {
  gw_config_t *config = gw_config_new();
  if (getenv("DATABASE_URL")) gw_config_set(config, "database_url", getenv("DATABASE_URL"), NULL);
  return config;
}

static void make_client(char **fields) {
  gw_error_t *error = NULL;
  gw_config_t *config = new_config();
  bool good = true;
  for (char **pair = fields + 1; good && *pair; pair++) {
    const char *value = value_of(*pair);
    good = well(gw_config_set(config, *pair, value, &error), &error);
  }
  gw_client_free(client);
  client = NULL;
  if (good && well(gw_client_new(config, &client, &error), &error)) reply_ok(NULL);
  gw_config_free(config);
}

static int32_t key_mode(const char *name) {
  if (strcmp(name, "preserve_run_at") == 0) return GW_KEY_PRESERVE_RUN_AT;
  if (strcmp(name, "unsafe_dedupe") == 0) return GW_KEY_UNSAFE_DEDUPE;
  return GW_KEY_REPLACE;
}

/* Returns a job to add, or NULL after it has replied with an error. */
static gw_spec_t *new_spec(char **fields) {
  gw_spec_t *spec = gw_spec_new(fields[1]);
  gw_status_t status = spec ? gw_spec_set_payload(spec, fields[2], GW_NUL) : GW_ERR_UTF8;
  const char *key = NULL, *mode = NULL;
  for (char **pair = fields + 3; status == GW_OK && *pair; pair++) {
    const char *value = value_of(*pair);
    if (strcmp(*pair, "queue") == 0) status = gw_spec_set_queue(spec, value);
    if (strcmp(*pair, "run_at_us") == 0) status = gw_spec_set_run_at(spec, atoll(value));
    if (strcmp(*pair, "max_attempts") == 0) status = gw_spec_set_max_attempts(spec, atoi(value));
    if (strcmp(*pair, "priority") == 0) status = gw_spec_set_priority(spec, atoi(value));
    if (strcmp(*pair, "flag") == 0) status = gw_spec_add_flag(spec, value);
    if (strcmp(*pair, "traceparent") == 0) status = gw_spec_set_traceparent(spec, value);
    if (strcmp(*pair, "key") == 0) key = value;
    if (strcmp(*pair, "key_mode") == 0) mode = value;
  }
  if (status == GW_OK && (key || mode)) status = gw_spec_set_key(spec, key, key_mode(mode ? mode : "replace"));
  if (well(status, NULL)) return spec;
  gw_spec_free(spec);
  return NULL;
}

static void add(char **fields) {
  gw_error_t *error = NULL;
  int64_t id = 0;
  gw_spec_t *spec = new_spec(fields);
  if (spec && well(gw_client_add_job(client, spec, &id, &error), &error)) {
    printf("ok\t%lld", (long long)id);
    end_reply();
  }
  gw_spec_free(spec);
}

static void remember(char **fields) {
  gw_spec_t *spec = new_spec(fields);
  if (!spec) return;
  remembered[remembered_count++] = spec;
  reply_ok(NULL);
}

static void add_many(void) {
  gw_error_t *error = NULL;
  int64_t ids[MOST];
  if (well(gw_client_add_jobs(client, (const gw_spec_t *const *)remembered, remembered_count, ids, &error), &error)) {
    printf("ok");
    for (size_t i = 0; i < remembered_count; i++) printf("\t%lld", (long long)ids[i]);
    end_reply();
  }
  while (remembered_count > 0) gw_spec_free(remembered[--remembered_count]);
}

static void remove_key(const char *key) {
  gw_error_t *error = NULL;
  gw_status_t status = gw_client_remove_job(client, key, &error);
  if (well(status, &error)) reply_ok(status == GW_OK ? "true" : "false");
}

static void show_job(int64_t id) {
  gw_error_t *error = NULL;
  char *json = NULL;
  gw_status_t status = gw_client_job(client, id, &json, &error);
  if (status == GW_NOT_FOUND) reply_ok("none");
  else reply_json(status, json, error);
}

/* Splits at commas, in place. */
static size_t split(char *list, const char **items) {
  size_t count = 0;
  for (char *item = strtok(list, ","); item && count < MOST; item = strtok(NULL, ",")) items[count++] = item;
  return count;
}

/* Executes a command whose reply is JSON. Returns false for other commands. */
static bool administer(char **fields) {
  gw_error_t *error = NULL;
  char *json = NULL;
  gw_status_t status;
  const char *items[MOST], *command = fields[0];
  int64_t ids[MOST];
  bool by_id = strcmp(command, "complete") == 0 || strcmp(command, "fail") == 0 || strcmp(command, "reschedule") == 0;
  bool has_list = by_id || strcmp(command, "unlock") == 0 || strcmp(command, "cleanup") == 0;
  size_t count = has_list && fields[1] ? split(fields[1], items) : 0;
  uint32_t tasks = 0;
  for (size_t i = 0; by_id && i < count; i++) ids[i] = atoll(items[i]);
  for (size_t i = 0; i < count; i++) {
    if (strcmp(items[i], "delete_permafailed") == 0) tasks |= GW_CLEANUP_DELETE_PERMAFAILED;
    if (strcmp(items[i], "gc_tasks") == 0) tasks |= GW_CLEANUP_GC_TASKS;
    if (strcmp(items[i], "gc_queues") == 0) tasks |= GW_CLEANUP_GC_QUEUES;
  }

  if (strcmp(command, "list") == 0) status = gw_client_list_jobs(client, fields[1], &json, &error);
  else if (strcmp(command, "stats") == 0) status = gw_client_stats(client, &json, &error);
  else if (strcmp(command, "queues") == 0) status = gw_client_queues(client, &json, &error);
  else if (strcmp(command, "locked_workers") == 0) status = gw_client_locked_workers(client, &json, &error);
  else if (strcmp(command, "active_workers") == 0) status = gw_client_active_workers(client, atoll(fields[1]), &json, &error);
  else if (strcmp(command, "complete") == 0) status = gw_client_complete_jobs(client, ids, count, &json, &error);
  else if (strcmp(command, "fail") == 0) status = gw_client_fail_jobs(client, ids, count, fields[2], &json, &error);
  else if (strcmp(command, "reschedule") == 0) status = gw_client_reschedule_jobs(client, ids, count, fields[2], &json, &error);
  else if (strcmp(command, "unlock") == 0) status = gw_client_force_unlock(client, items, count, &json, &error);
  else if (strcmp(command, "cleanup") == 0) status = gw_client_cleanup(client, tasks, &json, &error);
  else if (strcmp(command, "sweep") == 0) status = gw_client_sweep_stale_workers(client, fields[1], &json, &error);
  else return false;
  reply_json(status, json, error);
  return true;
}

static void next_runs(char **fields) {
  gw_error_t *error = NULL;
  gw_crontab_t *crontab = NULL;
  int64_t times[MOST];
  size_t wanted = (size_t)atoi(fields[3]);
  if (!well(gw_crontab_parse(fields[1], &crontab, &error), &error)) return;
  size_t count = gw_crontab_next(crontab, 0, atoll(fields[2]), times, wanted < MOST ? wanted : MOST);
  printf("ok");
  for (size_t i = 0; i < count; i++) printf("\t%lld", (long long)times[i]);
  end_reply();
  gw_crontab_free(crontab);
}

/* Whether a field is for the worker itself and not for its config. */
static bool of_the_worker(const char *key) {
  return strncmp(key, "task.", 5) == 0 || strcmp(key, "hook") == 0 || strcmp(key, "tasks") == 0 || strcmp(key, "crontab") == 0;
}

/* Sets a field that is not a config key: task.<name>.<option>, hook, crontab. */
static bool set_up(const char *key, const char *value) {
  gw_error_t *error = NULL;
  if (strcmp(key, "crontab") == 0) return well(gw_worker_add_crontab(worker, value, &error), &error);
  if (strcmp(key, "hook") == 0) {
    gw_status_t status = decides(value)
                             ? gw_worker_intercept(worker, value, record_and_continue, NULL, NULL, &error)
                             : gw_worker_on_event(worker, value, record, NULL, NULL, &error);
    return well(status, &error);
  }
  if (strncmp(key, "task.", 5) == 0) {
    char name[200];
    const char *option = strrchr(key, '.') + 1;
    snprintf(name, sizeof name, "%.*s", (int)(option - key) - 6, key + 5);
    return well(gw_worker_set_task_option(worker, name, option, value, &error), &error);
  }
  return true;
}

static void make_worker(char **fields) {
  gw_error_t *error = NULL;
  gw_config_t *config = new_config();
  const char *names[MOST], *values[MOST];
  size_t task_count = sizeof standard_tasks / sizeof *standard_tasks;
  bool good = true;
  memcpy(names, standard_tasks, sizeof standard_tasks);
  for (size_t i = 1; good && fields[i]; i++) {
    values[i] = value_of(fields[i]);
    if (!of_the_worker(fields[i])) good = well(gw_config_set(config, fields[i], values[i], &error), &error);
    if (strcmp(fields[i], "tasks") == 0) task_count = split((char *)(uintptr_t)values[i], names);
  }
  gw_worker_free(worker);
  worker = NULL;
  good = good && well(gw_worker_new(config, &worker, &error), &error);
  gw_config_free(config);
  for (size_t i = 0; good && i < task_count; i++)
    good = well(gw_worker_add_task(worker, names[i], run, NULL, NULL, &error), &error);
  for (size_t i = 1; good && fields[i]; i++) good = !of_the_worker(fields[i]) || set_up(fields[i], values[i]);
  if (good) reply_ok(NULL);
}

static void start(int32_t mode) {
  gw_error_t *error = NULL;
  if (well(gw_worker_start(worker, mode, &error), &error)) reply_ok(NULL);
}

static void stop(const char *mode) {
  gw_worker_request_stop(worker, strcmp(mode, "abort") == 0 ? GW_STOP_ABORT : GW_STOP_GRACEFUL);
  reply_ok(NULL);
}

static void wait_for_end(int64_t timeout_ms) {
  gw_error_t *error = NULL;
  gw_status_t status = gw_worker_wait(worker, timeout_ms, &error);
  if (well(status, &error)) reply_ok(status == GW_OK ? "ended" : "timeout");
}

static void worker_stats(void) {
  char *json = gw_worker_stats_json(worker);
  reply_ok(json);
  gw_string_free(json);
}

static void close_all(void) {
  gw_worker_free(worker);
  gw_client_free(client);
  worker = NULL;
  client = NULL;
}

static void obey(char **fields) {
  const char *command = fields[0];
  if (strcmp(command, "client") == 0) make_client(fields);
  else if (strcmp(command, "add") == 0) add(fields);
  else if (strcmp(command, "and") == 0) remember(fields);
  else if (strcmp(command, "add_many") == 0) add_many();
  else if (strcmp(command, "remove") == 0) remove_key(fields[1]);
  else if (strcmp(command, "job") == 0) show_job(atoll(fields[1]));
  else if (strcmp(command, "next_runs") == 0) next_runs(fields);
  else if (strcmp(command, "worker") == 0) make_worker(fields);
  else if (strcmp(command, "start") == 0) start(GW_RUN_FOREVER);
  else if (strcmp(command, "start_once") == 0) start(GW_RUN_ONCE);
  else if (strcmp(command, "stop") == 0) stop(fields[1]);
  else if (strcmp(command, "wait") == 0) wait_for_end(atoll(fields[1]));
  else if (strcmp(command, "ran") == 0) reply_notes(&ran);
  else if (strcmp(command, "events") == 0) reply_notes(&events);
  else if (strcmp(command, "worker_stats") == 0) worker_stats();
  else if (strcmp(command, "worker_id") == 0) reply_ok(gw_worker_id(worker));
  else if (strcmp(command, "close") == 0) close_all(), reply_ok(NULL);
  else if (!administer(fields)) reply_error(GW_ERR_UNSUPPORTED, NULL, "unknown command");
}

int main(void) {
  char *line = NULL;
  size_t capacity = 0;
  while (getline(&line, &capacity, stdin) > 0) {
    char *fields[MOST] = {NULL}, *rest = line;
    size_t count = 0;
    line[strcspn(line, "\n")] = '\0';
    while (rest && count < MOST - 1) { /* Empty fields count. */
      char *tab = strchr(rest, '\t');
      if (tab) *tab = '\0';
      fields[count++] = rest;
      rest = tab ? tab + 1 : NULL;
    }
    if (strcmp(fields[0], "quit") == 0) break;
    obey(fields);
  }
  free(line);
  while (remembered_count > 0) gw_spec_free(remembered[--remembered_count]);
  close_all();
  return 0;
}
