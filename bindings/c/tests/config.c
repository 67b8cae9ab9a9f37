/* Configuration: every key has a description, its values are checked when set, and workers copy the configuration. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fixture.h"

TEST(every_key_has_info_can_be_set_to_its_default_and_read_back) {
  gw_config_t *config = gw_config_new();
  size_t count = 0;
  for (const char *key; (key = gw_config_key_at(count)) != NULL; count++) {
    const char *info = gw_config_key_info(key);
    char *value = NULL;
    if (!info) check_fail(__FILE__, __LINE__, "%s has no info", key);
    char *named = json_field(info, "key"), *initial = json_field(info, "default");
    char *type = json_field(info, "type"), *whose = json_field(info, "for"), *doc = json_field(info, "doc");
    CHECK_TEXT(named, key);
    CHECK(type && type[0]);
    CHECK(doc && strlen(doc) > 10);
    CHECK(whose && (!strcmp(whose, "worker") || !strcmp(whose, "client") || !strcmp(whose, "both")));
    CHECK(initial != NULL);
    if (strcmp(initial, "null") == 0) { /* No default: not found before it is set. */
      ANSWERS(GW_NOT_FOUND, gw_config_get(config, key, &value, &err));
      CHECK(value == NULL);
    } else {
      OK(gw_config_get(config, key, &value, &err));
      CHECK_TEXT(value, initial);
      OK(gw_config_set(config, key, value, &err));
      gw_string_free(value);
      OK(gw_config_get(config, key, &value, &err));
      CHECK_TEXT(value, initial);
      gw_string_free(value);
    }
    free(named), free(initial), free(type), free(whose), free(doc);
  }
  CHECK(count >= 34);
  CHECK(gw_config_key_at((size_t)-1) == NULL);
  gw_config_free(config);
}

TEST(documented_keys_exist) {
  static const char *const keys[] = {
      "database_url", "max_pg_conn", "database_timeout", "schema", "migrate", "concurrency", "threads", "poll_interval",
      "use_notification_delivery", "use_local_time", "shutdown_grace_period", "shutdown_interrupted_job_retry_delay",
      "listen_os_shutdown_signals", "complete_job_batch_delay", "fail_job_batch_delay", "local_queue_size",
      "local_queue_count", "local_queue_ttl", "local_queue_refetch_delay", "local_queue_refetch_threshold",
      "local_queue_refetch_max_abort_threshold", "max_held_bytes", "forbidden_flags", "accepted_flags", "worker_recovery",
      "heartbeat_interval", "sweep_interval", "sweep_threshold", "recovery_delay",
      "resilient_sweep_threshold_multiplier", "resilient_job_flags", "max_recoveries", "crontab",
      "deliver_cancellations", "dry_run"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (!gw_config_key_info(keys[i])) check_fail(__FILE__, __LINE__, "there is no key %s", keys[i]);
}

TEST(an_unknown_key_is_refused_by_name) {
  gw_config_t *config = gw_config_new();
  char *value = NULL;
  ANSWERS(GW_ERR_CONFIG, gw_config_set(config, "concurency", "2", &err));
  CHECK_HAS(error_message(), "concurency");
  ANSWERS(GW_ERR_CONFIG, gw_config_get(config, "concurency", &value, &err));
  CHECK_HAS(error_message(), "concurency");
  CHECK(gw_config_key_info("concurency") == NULL);
  CHECK(gw_config_key_info(NULL) == NULL);
  gw_config_free(config);
}

static void refused(const char *key, const char *value) {
  gw_config_t *config = gw_config_new();
  if (gw_config_set(config, key, value, NULL) == GW_OK) check_fail(__FILE__, __LINE__, "%s = '%s' is accepted", key, value);
  ANSWERS(GW_ERR_CONFIG, gw_config_set(config, key, value, &err));
  CHECK_HAS(error_message(), key);
  gw_config_free(config);
}

TEST(value_of_wrong_form_is_refused_when_set) {
  refused("concurrency", "many");
  refused("concurrency", "");
  refused("poll_interval", "2"); /* The unit is missing. */
  refused("poll_interval", "2 fortnights");
  refused("poll_interval", "-2s");
  refused("migrate", "perhaps");
}

static void kept(const char *key, const char *value) {
  gw_config_t *config = gw_config_new();
  char *found = NULL;
  OK(gw_config_set(config, key, value, &err));
  OK(gw_config_get(config, key, &found, &err));
  CHECK_TEXT(found, value);
  gw_string_free(found);
  gw_config_free(config);
}

TEST(value_outside_its_limits_is_refused_by_worker_new) {
  gw_config_t *config = a_config_with("concurrency", "0", NULL);
  gw_worker_t *worker = NULL;
  ANSWERS(GW_ERR_CONFIG, gw_worker_new(config, &worker, &err));
  CHECK_HAS(error_message(), "concurrency");
  CHECK(worker == NULL);
  gw_config_free(config);
}

TEST(every_form_of_value_is_read_back_as_it_was_set) {
  kept("poll_interval", "250ms");
  kept("poll_interval", "30s");
  kept("poll_interval", "5m");
  kept("poll_interval", "2h");
  kept("poll_interval", "1d");
  kept("complete_job_batch_delay", "0");
  kept("migrate", "false");
  kept("forbidden_flags", "gpu,slow");
  kept("schema", "Anna's queue");
}

TEST(the_environment_sets_keys_and_a_wrong_value_names_its_variable) {
  gw_config_t *config = gw_config_new();
  char *value = NULL;
  setenv("DATABASE_URL", "postgres://somewhere/else", 1);
  setenv("GRAPHILE_WORKER_CONCURRENCY", "17", 1);
  OK(gw_config_load_env(config, &err));
  OK(gw_config_get(config, "database_url", &value, &err));
  CHECK_TEXT(value, "postgres://somewhere/else");
  gw_string_free(value);
  OK(gw_config_get(config, "concurrency", &value, &err));
  CHECK_TEXT(value, "17");
  gw_string_free(value);
  setenv("GRAPHILE_WORKER_POLL_INTERVAL", "often", 1);
  ANSWERS(GW_ERR_CONFIG, gw_config_load_env(config, &err));
  CHECK_HAS(error_message(), "GRAPHILE_WORKER_POLL_INTERVAL");
  unsetenv("GRAPHILE_WORKER_POLL_INTERVAL");
  setenv("GRAPHILE_WORKER_CONCURENCY", "17", 1);
  ANSWERS(GW_ERR_CONFIG, gw_config_load_env(config, &err));
  CHECK_HAS(error_message(), "did you mean GRAPHILE_WORKER_CONCURRENCY?");
  unsetenv("GRAPHILE_WORKER_CONCURENCY");
  setenv("GRAPHILE_WORKER_SERVICE_HOST", "10.0.0.1", 1); /* Kubernetes sets such names. */
  OK(gw_config_load_env(config, &err));
  gw_config_free(config);
}

TEST(worker_copies_its_config_when_it_is_made) {
  gw_client_t *client = a_client();
  gw_config_t *config = a_config();
  gw_worker_t *worker = NULL;
  struct latch ran = LATCH;
  OK(gw_worker_new(config, &worker, &err));
  OK(gw_config_set(config, "schema", "another", &err));
  OK(gw_config_set(config, "database_url", "postgres://nowhere:1/", &err));
  gw_config_free(config);
  add_job(client, "hello", "{}");
  add_task(worker, "hello", count_and_succeed, &ran);
  OK(gw_worker_run_once(worker, &err));
  CHECK_INT(counted(&ran), 1);
  gw_worker_free(worker);
  gw_client_free(client);
}

TEST(without_a_url_libpq_variables_select_the_database) {
  gw_config_t *config = gw_config_new();
  gw_client_t *client = NULL;
  char *value = NULL;
  setenv("DATABASE_URL", "", 1);
  OK(gw_config_load_env(config, &err));
  ANSWERS(GW_NOT_FOUND, gw_config_get(config, "database_url", &value, &err));
  setenv("PGHOST", "127.0.0.1", 1);
  setenv("PGPORT", "1", 1);
  ANSWERS(GW_ERR_CONNECT, gw_client_new(config, &client, &err));
  CHECK_HAS(error_message(), "127.0.0.1:1");
  unsetenv("PGHOST");
  unsetenv("PGPORT");
  ANSWERS(GW_ERR_CONFIG, gw_client_new(config, &client, &err));
  CHECK_HAS(error_message(), "PGHOST");
  gw_config_free(config);
}

TEST(missing_database_url_or_task_is_named) {
  gw_config_t *config = gw_config_new();
  gw_worker_t *worker = NULL;
  gw_client_t *client = NULL;
  ANSWERS(GW_ERR_CONFIG, gw_client_new(config, &client, &err));
  CHECK_HAS(error_message(), "database_url");
  CHECK(client == NULL);
  gw_config_free(config);

  worker = a_worker();
  ANSWERS(GW_ERR_CONFIG, gw_worker_start(worker, GW_RUN_FOREVER, &err));
  CHECK_HAS(error_message(), "task");
  gw_worker_free(worker);
}
