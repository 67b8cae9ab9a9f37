/* The client: connecting, adding, removing, administration. */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"

/* The URL of the test database with one part replaced. */
static char *url_with(const char *from, const char *to) {
  const char *url = database_url(), *at = strstr(url, from);
  if (!at) check_fail(__FILE__, __LINE__, "no %s in %s", from, url);
  char *changed = malloc(strlen(url) + strlen(to) + 1);
  sprintf(changed, "%.*s%s%s", (int)(at - url), url, to, at + strlen(from));
  return changed;
}

static void connecting_answers(gw_status_t expected, const char *sqlstate, const char *url) {
  gw_config_t *config = a_config_with("database_url", url, NULL);
  gw_client_t *client = NULL;
  int64_t start = clock_ns();
  ANSWERS(expected, gw_client_new(config, &client, &err));
  CHECK_TEXT(error_sqlstate(), sqlstate);
  CHECK(client == NULL);
  if (check_times_count()) CHECK(clock_ns() - start < 2000000000); /* Before any timeout. */
  gw_config_free(config);
}

TEST(connect_to_silent_server_fails_after_database_timeout) {
  int listener = socket(AF_INET, SOCK_STREAM, 0); /* Accepts connections, and never replies. */
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  char url[80];
  gw_client_t *client = NULL;
  CHECK_INT(bind(listener, (struct sockaddr *)&address, length), 0);
  CHECK_INT(listen(listener, 8), 0);
  CHECK_INT(getsockname(listener, (struct sockaddr *)&address, &length), 0);
  snprintf(url, sizeof url, "postgres://postgres@127.0.0.1:%d/postgres", ntohs(address.sin_port));
  gw_config_t *config = a_config_with("database_url", url, "database_timeout", "200ms", NULL);
  int64_t start = clock_ns();
  ANSWERS(GW_ERR_DATABASE_TIMEOUT, gw_client_new(config, &client, &err));
  if (check_times_count()) CHECK(clock_ns() - start < 5000000000);
  CHECK(client == NULL);
  gw_config_free(config);
  close(listener);
}

TEST(unreachable_server_or_refused_login_fails_at_once) {
  char *nobody = url_with("postgres@", "nobody_of_that_name@");
  connecting_answers(GW_ERR_CONNECT, NULL, "postgres://postgres@127.0.0.1:1/postgres");
  connecting_answers(GW_ERR_AUTH, "28000", nobody);
  connecting_answers(GW_ERR_CONFIG, NULL, "postgres://[not a host");
  free(nobody);
}

TEST(client_check_succeeds_while_the_database_replies) {
  gw_client_t *client = a_client();
  OK(gw_client_check(client, 5000, &err));
  OK(gw_client_migrate(client, &err)); /* Safe to repeat. */
  gw_client_free(client);
}

TEST(missing_schema_is_named_in_the_error) {
  gw_config_t *config = a_config_with("migrate", "false", NULL);
  gw_client_t *client = NULL;
  gw_spec_t *spec = gw_spec_new("task");
  OK(gw_client_new(config, &client, &err));
  ANSWERS(GW_ERR_SCHEMA, gw_client_add_job(client, spec, NULL, &err));
  CHECK_HAS(error_message(), schema());
  gw_spec_free(spec);
  gw_client_free(client);
  gw_config_free(config);
}

TEST(job_is_stored_with_all_fields_of_its_spec) {
  gw_client_t *client = a_client();
  gw_spec_t *spec = gw_spec_new("send_email");
  int64_t id = 0;
  OK(gw_spec_set_payload(spec, "{\"to\": \"Zoë\", \"amount\": 1.50}", GW_NUL));
  OK(gw_spec_set_queue(spec, "mail"));
  OK(gw_spec_set_run_at(spec, 1924995845000000)); /* 2031-01-01T01:04:05Z */
  OK(gw_spec_set_max_attempts(spec, 3));
  OK(gw_spec_set_priority(spec, -5));
  OK(gw_spec_set_key(spec, "welcome", GW_KEY_REPLACE));
  OK(gw_spec_add_flag(spec, "slow"));
  OK(gw_spec_add_flag(spec, "gpu"));
  OK(gw_spec_check(spec, &err));
  OK(gw_client_add_job(client, spec, &id, &err));
  gw_spec_free(spec);

  CHECK_JOB(client, id, "task_identifier", "send_email");
  CHECK_JOB(client, id, "payload", "{\"to\": \"Zoë\", \"amount\": 1.50}");
  CHECK_JOB(client, id, "queue_name", "mail");
  CHECK_JOB(client, id, "run_at", "2031-01-01T01:04:05Z");
  CHECK_JOB(client, id, "max_attempts", "3");
  CHECK_JOB(client, id, "priority", "-5");
  CHECK_JOB(client, id, "key", "welcome");
  CHECK_JOB(client, id, "state", "scheduled");
  char *flags = job_field(client, id, "flags");
  CHECK_HAS(flags, "\"gpu\"");
  CHECK_HAS(flags, "\"slow\"");
  free(flags);
  gw_client_free(client);
}

TEST(payload_ends_at_its_length_or_its_nul) {
  gw_client_t *client = a_client();
  gw_spec_t *spec = gw_spec_new("task");
  int64_t id = 0;
  OK(gw_spec_set_payload(spec, "[1, 2]and more", 6));
  OK(gw_client_add_job(client, spec, &id, &err));
  CHECK_JOB(client, id, "payload", "[1, 2]");
  OK(gw_spec_set_payload(spec, "[3]", GW_NUL));
  OK(gw_client_add_job(client, spec, &id, &err));
  CHECK_JOB(client, id, "payload", "[3]");
  gw_spec_free(spec);
  spec = gw_spec_new("task"); /* Without a payload. */
  OK(gw_client_add_job(client, spec, &id, &err));
  CHECK_JOB(client, id, "payload", "{}");
  gw_spec_free(spec);
  gw_client_free(client);
}

static void spec_refused(gw_spec_t *spec, gw_status_t expected, const char *field) {
  ANSWERS(expected, gw_spec_check(spec, &err));
  CHECK_HAS(error_message(), field);
  gw_spec_free(spec);
}

static gw_spec_t *spec_of(gw_status_t status, gw_spec_t *spec) {
  OK(status);
  return spec;
}

TEST(invalid_spec_names_its_field) {
  char longer[600];
  gw_spec_t *spec;
  memset(longer, 'x', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  spec_refused(gw_spec_new(""), GW_ERR_CONFIG, "task");
  longer[129] = '\0';
  spec_refused(gw_spec_new(longer), GW_ERR_CONFIG, "task");
  spec = gw_spec_new("task");
  spec_refused(spec_of(gw_spec_set_queue(spec, longer), spec), GW_ERR_CONFIG, "queue");
  spec = gw_spec_new("task");
  spec_refused(spec_of(gw_spec_set_max_attempts(spec, 0), spec), GW_ERR_CONFIG, "max_attempts");
  spec = gw_spec_new("task");
  spec_refused(spec_of(gw_spec_set_max_attempts(spec, 32768), spec), GW_ERR_CONFIG, "max_attempts");
  spec = gw_spec_new("task");
  spec_refused(spec_of(gw_spec_set_priority(spec, 40000), spec), GW_ERR_CONFIG, "priority");
  spec = gw_spec_new("task");
  ANSWERS(GW_ERR_JSON, gw_spec_set_payload(spec, "{not json", GW_NUL));
  gw_spec_free(spec);
  longer[129] = 'x';
  spec = gw_spec_new("task");
  spec_refused(spec_of(gw_spec_set_key(spec, longer, GW_KEY_REPLACE), spec), GW_ERR_CONFIG, "key");
}

TEST(add_jobs_adds_all_in_order_or_none) {
  gw_client_t *client = a_client();
  gw_spec_t *good = gw_spec_new("good"), *other = gw_spec_new("other"), *third = gw_spec_new("third"), *bad = gw_spec_new("");
  const gw_spec_t *three[] = {good, other, third}, *one_bad[] = {good, bad};
  int64_t ids[3] = {0};
  char *json = NULL;
  OK(gw_client_add_jobs(client, three, 3, ids, &err));
  CHECK_JOB(client, ids[0], "task_identifier", "good");
  CHECK_JOB(client, ids[1], "task_identifier", "other");
  CHECK_JOB(client, ids[2], "task_identifier", "third");
  ANSWERS(GW_ERR_CONFIG, gw_client_add_jobs(client, one_bad, 2, NULL, &err));
  OK(gw_client_add_jobs(client, three, 0, NULL, &err));
  OK(gw_client_add_jobs(client, NULL, 0, NULL, &err));
  OK(gw_client_stats(client, &json, &err));
  CHECK_INT(json_number(json, "total"), 3);
  gw_string_free(json);
  gw_spec_free(good), gw_spec_free(other), gw_spec_free(third), gw_spec_free(bad);
  gw_client_free(client);
}

static int64_t add_with_key(gw_client_t *client, const char *payload, int32_t mode) {
  int64_t id = 0;
  gw_spec_t *spec = gw_spec_new("task");
  OK(gw_spec_set_payload(spec, payload, GW_NUL));
  OK(gw_spec_set_key(spec, "the key", mode));
  OK(gw_client_add_job(client, spec, &id, &err));
  gw_spec_free(spec);
  return id;
}

TEST(key_replaces_keeps_or_removes_the_waiting_job) {
  gw_client_t *client = a_client();
  int64_t id = add_with_key(client, "1", GW_KEY_REPLACE);
  CHECK_INT(add_with_key(client, "2", GW_KEY_REPLACE), id);
  CHECK_JOB(client, id, "payload", "2");
  CHECK_INT(add_with_key(client, "3", GW_KEY_PRESERVE_RUN_AT), id);
  CHECK_JOB(client, id, "payload", "3");
  CHECK_INT(add_with_key(client, "4", GW_KEY_UNSAFE_DEDUPE), id);
  CHECK_JOB(client, id, "payload", "3");
  OK(gw_client_remove_job(client, "the key", &err));
  CHECK(!job_exists(client, id));
  ANSWERS(GW_NOT_FOUND, gw_client_remove_job(client, "the key", &err));
  gw_client_free(client);
}

TEST(preserve_run_at_keeps_the_time_of_the_waiting_job) {
  gw_client_t *client = a_client();
  gw_spec_t *spec = gw_spec_new("task");
  int64_t id = 0;
  OK(gw_spec_set_run_at(spec, 1924995845000000)); /* 2031-01-01T01:04:05Z */
  OK(gw_spec_set_key(spec, "the key", GW_KEY_REPLACE));
  OK(gw_client_add_job(client, spec, &id, &err));
  gw_spec_free(spec);
  CHECK_INT(add_with_key(client, "2", GW_KEY_PRESERVE_RUN_AT), id);
  CHECK_JOB(client, id, "run_at", "2031-01-01T01:04:05Z");
  CHECK_INT(add_with_key(client, "3", GW_KEY_REPLACE), id);
  CHECK_JOB(client, id, "state", "ready");
  gw_client_free(client);
}

TEST(error_reports_whether_a_retry_may_succeed) {
  gw_config_t *config = a_config_with("database_url", "postgres://postgres@127.0.0.1:1/postgres", NULL);
  gw_client_t *client = NULL;
  gw_error_t *error = NULL;
  CHECK_INT(gw_client_new(config, &client, &error), GW_ERR_CONNECT);
  CHECK(gw_error_is_retryable(error));
  gw_error_free(error);
  OK(gw_config_set(config, "database_url", "postgres://[not a host", &err));
  CHECK_INT(gw_client_new(config, &client, &error), GW_ERR_CONFIG);
  CHECK(!gw_error_is_retryable(error));
  gw_error_free(error);
  gw_config_free(config);
}

TEST(trace_context_is_stored_in_the_payload) {
  static const char context[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  gw_job_t *job = NULL;
  gw_spec_t *spec = gw_spec_new("task");
  OK(gw_spec_set_payload(spec, "{\"a\": 1}", GW_NUL));
  OK(gw_spec_set_traceparent(spec, context));
  OK(gw_client_add_job(client, spec, NULL, &err));
  OK(gw_spec_set_payload(spec, "[1]", GW_NUL)); /* An array cannot hold it. */
  ANSWERS(GW_ERR_CONFIG, gw_client_add_job(client, spec, NULL, &err));
  gw_spec_free(spec);
  add_job(client, "task", "{}");

  add_task(worker, "task", NULL, NULL);
  start(worker);
  OK(gw_worker_next(worker, -1, &job, &err));
  char *found = gw_job_traceparent(job);
  CHECK_TEXT(found, context);
  gw_string_free(found);
  OK(gw_job_complete(job, &err));
  gw_job_free(job);
  OK(gw_worker_next(worker, -1, &job, &err));
  CHECK(gw_job_traceparent(job) == NULL);
  OK(gw_job_complete(job, &err));
  gw_job_free(job);
  end(worker);
  gw_client_free(client);
}

TEST(jobs_are_listed_counted_completed_failed_and_rescheduled) {
  gw_client_t *client = a_client();
  int64_t done = add_job(client, "a", "1"), lost = add_job(client, "b", "2"), late = add_job(client, "b", "3");
  char *json = NULL;
  OK(gw_client_list_jobs(client, "{\"task\": \"b\", \"limit\": 1, \"offset\": 1}", &json, &err));
  CHECK_INT(json_number(json, "id"), late);
  gw_string_free(json);
  OK(gw_client_complete_jobs(client, &done, 1, &json, &err));
  CHECK_INT(json_number(json, "id"), done);
  gw_string_free(json);
  CHECK(!job_exists(client, done));
  OK(gw_client_fail_jobs(client, &lost, 1, "gave up", &json, &err));
  CHECK_INT(json_number(json, "id"), lost);
  gw_string_free(json);
  CHECK_JOB(client, lost, "last_error", "gave up");
  CHECK_JOB(client, lost, "state", "failed");
  OK(gw_client_reschedule_jobs(client, &late, 1, "{\"run_at\": 1924995845000000, \"priority\": 7}", &json, &err));
  gw_string_free(json);
  CHECK_JOB(client, late, "run_at", "2031-01-01T01:04:05Z");
  CHECK_JOB(client, late, "priority", "7");
  OK(gw_client_reschedule_jobs(client, &late, 1, "{\"run_at\": \"2032-01-01T00:00:00Z\"}", &json, &err));
  gw_string_free(json);
  CHECK_JOB(client, late, "run_at", "2032-01-01T00:00:00Z");
  OK(gw_client_stats(client, &json, &err));
  CHECK_INT(json_number(json, "total"), 2);
  CHECK_INT(json_number(json, "failed"), 1);
  CHECK_INT(json_number(json, "scheduled"), 1);
  gw_string_free(json);
  OK(gw_client_cleanup(client, GW_CLEANUP_DELETE_PERMAFAILED | GW_CLEANUP_GC_TASKS | GW_CLEANUP_GC_QUEUES, &json, &err));
  gw_string_free(json);
  CHECK(!job_exists(client, lost));
  gw_client_free(client);
}

TEST(invalid_or_unknown_options_are_refused_by_name) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "a", "1");
  char *json = NULL;
  ANSWERS(GW_ERR_JSON, gw_client_list_jobs(client, "{task", &json, &err));
  ANSWERS(GW_ERR_JSON, gw_client_list_jobs(client, "{\"taks\": \"a\"}", &json, &err));
  CHECK_HAS(error_message(), "taks");
  ANSWERS(GW_ERR_CONFIG, gw_client_list_jobs(client, "{\"state\": \"lost\"}", &json, &err));
  CHECK_HAS(error_message(), "state");
  ANSWERS(GW_ERR_JSON, gw_client_reschedule_jobs(client, &id, 1, "{\"prio\": 1}", &json, &err));
  CHECK_HAS(error_message(), "prio");
  ANSWERS(GW_ERR_INVALID, gw_client_cleanup(client, 64, &json, &err));
  CHECK(json == NULL);
  gw_client_free(client);
}

TEST(client_with_dry_run_changes_nothing) {
  gw_client_t *client = a_client(), *dry = NULL;
  gw_config_t *config = a_config_with("dry_run", "true", NULL);
  int64_t id = add_job(client, "task", "{}");
  char *json = NULL;
  OK(gw_client_new(config, &dry, &err));
  OK(gw_client_complete_jobs(dry, &id, 1, &json, &err));
  CHECK_INT(json_number(json, "id"), id); /* The job as it would be. */
  gw_string_free(json);
  CHECK(job_exists(client, id));
  gw_client_free(dry);
  gw_config_free(config);
  gw_client_free(client);
}

TEST(locked_workers_are_listed_and_can_be_unlocked) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  gw_spec_t *spec = gw_spec_new("task");
  gw_job_t *job = NULL;
  char *json = NULL;
  OK(gw_spec_set_queue(spec, "serial"));
  OK(gw_client_add_job(client, spec, NULL, &err));
  gw_spec_free(spec);
  add_task(worker, "task", NULL, NULL);
  start(worker);
  OK(gw_worker_next(worker, -1, &job, &err));
  int64_t id = gw_job_id(job);
  const char *holder = gw_worker_id(worker);
  CHECK_TEXT(gw_job_worker_id(job), holder);
  CHECK_JOB(client, id, "locked_by", holder);
  OK(gw_client_locked_workers(client, &json, &err));
  CHECK_HAS(json, holder);
  gw_string_free(json);
  OK(gw_client_queues(client, &json, &err));
  CHECK_HAS(json, "\"serial\"");
  CHECK_HAS(json, holder);
  gw_string_free(json);
  OK(gw_client_active_workers(client, 60000, &json, &err));
  CHECK_HAS(json, holder);
  gw_string_free(json);
  OK(gw_client_sweep_stale_workers(client, "{\"sweep_threshold_ms\": 3600000, \"dry_run\": true}", &json, &err));
  CHECK(strstr(json, holder) == NULL); /* The worker is alive. */
  gw_string_free(json);
  OK(gw_client_force_unlock(client, &holder, 1, &json, &err));
  CHECK_INT(json_number(json, "jobs"), 1); /* The worker may take it again at once. */
  gw_string_free(json);
  gw_job_complete(job, NULL);
  gw_job_free(job);
  end(worker);
  gw_client_free(client);
}

TEST(statement_adds_a_job_when_the_callers_transaction_commits) {
  gw_client_t *client = a_client();
  char *sql = NULL, *json = NULL, script[8192];
  OK(gw_sql_add_job(schema(), GW_SQL_DOLLAR, &sql, &err));
  snprintf(script, sizeof script,
           "prepare add(text, text, text, timestamptz, int, text, int, text[], text) as %s;\n"
           "begin;\nexecute add('undone', '{}', null, null, null, null, null, null, null);\nrollback;\n"
           "begin;\nexecute add('kept', '{\"a\": 1}', 'q', '2031-01-01T01:04:05Z', 3, 'k', -5, '{f}', 'replace');\ncommit;",
           sql);
  gw_string_free(sql);
  char *printed = psql(script);
  OK(gw_client_list_jobs(client, NULL, &json, &err));
  CHECK(strstr(json, "undone") == NULL);
  int64_t id = json_number(json, "id");
  gw_string_free(json);
  const char *second_row = strchr(printed, '\n') + 1;
  CHECK_INT(atoll(second_row), id);
  CHECK_JOB(client, id, "task_identifier", "kept");
  CHECK_JOB(client, id, "queue_name", "q");
  CHECK_JOB(client, id, "run_at", "2031-01-01T01:04:05Z");
  CHECK_JOB(client, id, "max_attempts", "3");
  CHECK_JOB(client, id, "key", "k");
  CHECK_JOB(client, id, "priority", "-5");
  free(printed);
  gw_client_free(client);
}

/* The statement has these parameters, in this order, and no others. */
static void statement_has(int32_t style, char sigil, const char *const parameters[9]) {
  char *sql = NULL;
  OK(gw_sql_add_job("a%b:c", style, &sql, &err));
  /* Drivers with other styles may find parameters within quotes too. */
  CHECK_HAS(sql, sigil == '$' ? "\"a%b:c\".add_job(" : "U&\"a\\0025b\\003ac\".add_job(");
  const char *at = strstr(sql, ".add_job(");
  for (int i = 0; i < 9; i++) {
    at = strstr(at, "cast(");
    while (strncmp(at, "cast(cast(", 10) == 0) at += 5;
    at += 5;
    if (strncmp(at, parameters[i], strlen(parameters[i])) != 0 || at[strlen(parameters[i])] != ' ')
      check_fail(__FILE__, __LINE__, "'%.30s' is not '%s'", at, parameters[i]);
  }
  CHECK(strstr(at, "cast(") == NULL);
  gw_string_free(sql);
}

TEST(statement_has_the_parameter_style_of_the_driver) {
  statement_has(GW_SQL_DOLLAR, '$', (const char *const[]){"$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9"});
  statement_has(GW_SQL_FORMAT, '%', (const char *const[]){"%s", "%s", "%s", "%s", "%s", "%s", "%s", "%s", "%s"});
  statement_has(GW_SQL_NAMED, ':', (const char *const[]){":identifier", ":payload", ":queue_name", ":run_at", ":max_attempts",
                                                         ":job_key", ":priority", ":flags", ":job_key_mode"});
  statement_has(GW_SQL_PYFORMAT, '%', (const char *const[]){"%(identifier)s", "%(payload)s", "%(queue_name)s", "%(run_at)s",
                                                            "%(max_attempts)s", "%(job_key)s", "%(priority)s", "%(flags)s",
                                                            "%(job_key_mode)s"});
}

TEST(jobs_are_listed_by_queue_and_state_and_rescheduled) {
  gw_client_t *client = a_client();
  gw_spec_t *spec = gw_spec_new("queued");
  int64_t failed = add_job(client, "a", "1"), queued = 0;
  char *json = NULL;
  OK(gw_spec_set_queue(spec, "serial"));
  OK(gw_spec_set_run_at(spec, 1924995845000000));
  OK(gw_client_add_job(client, spec, &queued, &err));
  gw_spec_free(spec);
  OK(gw_client_list_jobs(client, "{\"queue\": \"serial\"}", &json, &err));
  CHECK_INT(json_number(json, "id"), queued);
  gw_string_free(json);
  OK(gw_client_list_jobs(client, "{\"state\": \"scheduled\"}", &json, &err));
  CHECK_INT(json_number(json, "id"), queued);
  gw_string_free(json);
  OK(gw_client_fail_jobs(client, &failed, 1, "gave up", &json, &err));
  gw_string_free(json);
  OK(gw_client_reschedule_jobs(client, &failed, 1, "{\"attempts\": 2, \"max_attempts\": 5}", &json, &err));
  gw_string_free(json);
  CHECK_JOB(client, failed, "attempts", "2");
  CHECK_JOB(client, failed, "max_attempts", "5");
  OK(gw_client_reschedule_jobs(client, &queued, 1, "{\"run_at\": \"now\"}", &json, &err));
  CHECK_INT(json_number(json, "id"), queued);
  gw_string_free(json);
  CHECK_JOB(client, queued, "state", "ready");
  OK(gw_client_fail_jobs(client, &failed, 1, "gave up", &json, &err));
  gw_string_free(json);
  OK(gw_client_cleanup(client, GW_CLEANUP_GC_TASKS, &json, &err)); /* Deletes tasks only. */
  gw_string_free(json);
  CHECK(job_exists(client, failed));
  gw_client_free(client);
}
