/* The library as a whole: versions, stable numbers, statuses, errors. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fixture.h"

TEST(header_and_library_have_the_same_version) {
  char expected[32];
  snprintf(expected, sizeof expected, "%u.%u.%u", gw_version() >> 16, gw_version() >> 8 & 0xff, gw_version() & 0xff);
  CHECK_TEXT(gw_version_string(), expected);
  CHECK_INT(gw_version(), GW_VERSION);
  CHECK_INT(gw_abi_version(), GW_ABI_VERSION);
  CHECK_INT(GW_ABI_VERSION, 1);
}

TEST(the_build_info_is_a_json_object) {
  const char *info = gw_build_info();
  CHECK_INT(info[0], '{');
  CHECK_INT(info[strlen(info) - 1], '}');
  CHECK(info == gw_build_info());
}

static const struct {
  gw_status_t status;
  const char *name;
} statuses[] = {
    {0, "GW_OK"},
    {1, "GW_TIMEOUT"},
    {2, "GW_STOPPED"},
    {3, "GW_WOKEN"},
    {4, "GW_NOT_FOUND"},
    {5, "GW_CANCELLED"},
    {-1, "GW_ERR_INVALID"},
    {-2, "GW_ERR_STATE"},
    {-3, "GW_ERR_ALREADY_FINISHED"},
    {-4, "GW_ERR_CLOSED"},
    {-5, "GW_ERR_FORKED"},
    {-6, "GW_ERR_DEADLOCK"},
    {-7, "GW_ERR_ABI"},
    {-8, "GW_ERR_NOMEM"},
    {-9, "GW_ERR_HANDLE"},
    {-10, "GW_ERR_STUCK"},
    {-20, "GW_ERR_CONFIG"},
    {-21, "GW_ERR_CRONTAB"},
    {-22, "GW_ERR_JSON"},
    {-23, "GW_ERR_UTF8"},
    {-40, "GW_ERR_CONNECT"},
    {-41, "GW_ERR_AUTH"},
    {-42, "GW_ERR_TLS"},
    {-43, "GW_ERR_DATABASE"},
    {-44, "GW_ERR_SCHEMA"},
    {-45, "GW_ERR_DATABASE_TIMEOUT"},
    {-46, "GW_ERR_CONFLICT"},
    {-47, "GW_ERR_UNKNOWN_OUTCOME"},
    {-48, "GW_ERR_SKIPPED"},
    {-49, "GW_ERR_REFUSED"},
    {-80, "GW_ERR_UNSUPPORTED"},
    {-99, "GW_ERR_PANIC"},
};
enum { STATUSES = sizeof statuses / sizeof *statuses };

TEST(every_status_has_number_name_and_text) {
  for (size_t i = 0; i < STATUSES; i++) {
    CHECK_TEXT(gw_status_name(statuses[i].status), statuses[i].name);
    CHECK(strlen(gw_status_text(statuses[i].status)) > 0);
    for (size_t other = 0; other < i; other++)
      CHECK(strcmp(gw_status_text(statuses[i].status), gw_status_text(statuses[other].status)) != 0);
  }
  CHECK_INT(GW_ERR_PANIC, -99);
  CHECK_TEXT(gw_status_name(12345), "GW_UNKNOWN");
  CHECK_TEXT(gw_status_name(INT_MIN), "GW_UNKNOWN");
  CHECK(gw_status_text(12345) != NULL);
}

TEST(status_at_enumerates_all_statuses) {
  size_t count = 0;
  for (; gw_status_at(count) != INT32_MIN; count++) {
    bool known = false;
    for (size_t i = 0; i < STATUSES; i++) known = known || statuses[i].status == gw_status_at(count);
    if (!known) check_fail(__FILE__, __LINE__, "%s is not in the list", gw_status_name(gw_status_at(count)));
  }
  CHECK_INT(count, STATUSES);
  CHECK_INT(gw_status_at((size_t)-1), INT32_MIN);
}

TEST(the_constants_have_their_documented_numbers) {
  CHECK_INT(GW_TASK_DONE, 0x6A01);
  CHECK_INT(GW_TASK_FAILED, 0x6A02);
  CHECK_INT(GW_TASK_PENDING, 0x6A03);
  CHECK_INT(GW_STOP_GRACEFUL, 1);
  CHECK_INT(GW_STOP_ABORT, 2);
  CHECK_INT(GW_RUN_FOREVER, 1);
  CHECK_INT(GW_RUN_ONCE, 2);
  CHECK_INT(GW_STATE_NEW, 0);
  CHECK_INT(GW_STATE_RUNNING, 1);
  CHECK_INT(GW_STATE_STOPPING, 2);
  CHECK_INT(GW_STATE_STOPPED, 3);
  CHECK_INT(GW_STATE_FAILED, 4);
  CHECK_INT(GW_LOG_OFF, 0);
  CHECK_INT(GW_LOG_ERROR, 1);
  CHECK_INT(GW_LOG_WARN, 2);
  CHECK_INT(GW_LOG_INFO, 3);
  CHECK_INT(GW_LOG_DEBUG, 4);
  CHECK_INT(GW_LOG_TRACE, 5);
  CHECK_INT(GW_KEY_REPLACE, 1);
  CHECK_INT(GW_KEY_PRESERVE_RUN_AT, 2);
  CHECK_INT(GW_KEY_UNSAFE_DEDUPE, 3);
  CHECK_INT(GW_CLEANUP_DELETE_PERMAFAILED, 1);
  CHECK_INT(GW_CLEANUP_GC_TASKS, 2);
  CHECK_INT(GW_CLEANUP_GC_QUEUES, 4);
  CHECK_INT(GW_SQL_DOLLAR, 1);
  CHECK_INT(GW_SQL_FORMAT, 2);
  CHECK_INT(GW_SQL_NAMED, 3);
  CHECK_INT(GW_SQL_PYFORMAT, 4);
  CHECK_INT(GW_DECIDE_CONTINUE, 0x6B01);
  CHECK_INT(GW_DECIDE_SKIP, 0x6B02);
  CHECK_INT(GW_DECIDE_FAIL, 0x6B03);
  CHECK_INT(GW_DECIDE_PAYLOAD, 0x6B04);
  CHECK_INT(GW_DECIDE_RESCHEDULE, 0x6B05);
  CHECK_INT(GW_DECIDE_FAIL_WITH_BACKOFF, 0x6B06);
  CHECK(GW_NUL == (size_t)-1);
}

TEST(the_public_structs_have_their_documented_layout) {
  CHECK_INT(sizeof(gw_status_t), 4);
  CHECK_INT(sizeof(gw_outcome_t), 4);
  CHECK_INT(offsetof(gw_log_record_t, struct_size), 0);
  CHECK_INT(offsetof(gw_log_record_t, time_us), 8);
  CHECK_INT(offsetof(gw_log_record_t, level), 16);
  CHECK_INT(offsetof(gw_log_record_t, target), 24);
  CHECK_INT(offsetof(gw_log_record_t, message), 24 + sizeof(void *));
  CHECK_INT(offsetof(gw_log_record_t, fields), 24 + 2 * sizeof(void *));
  CHECK_INT(sizeof(gw_log_record_t), 24 + 3 * sizeof(void *));
  CHECK_INT(offsetof(gw_stats_t, struct_size), 0);
  CHECK_INT(offsetof(gw_stats_t, claimed), 8);
  CHECK_INT(offsetof(gw_stats_t, completed), 16);
  CHECK_INT(offsetof(gw_stats_t, failed), 24);
  CHECK_INT(offsetof(gw_stats_t, retried), 32);
  CHECK_INT(offsetof(gw_stats_t, permanently_failed), 40);
  CHECK_INT(offsetof(gw_stats_t, returned), 48);
  CHECK_INT(offsetof(gw_stats_t, snoozed), 56);
  CHECK_INT(offsetof(gw_stats_t, timed_out), 64);
  CHECK_INT(offsetof(gw_stats_t, stuck), 72);
  CHECK_INT(offsetof(gw_stats_t, lost), 80);
  CHECK_INT(offsetof(gw_stats_t, reconciled), 88);
  CHECK_INT(offsetof(gw_stats_t, database_errors), 96);
  CHECK_INT(offsetof(gw_stats_t, held), 104);
  CHECK_INT(offsetof(gw_stats_t, running), 112);
  CHECK_INT(offsetof(gw_stats_t, in_flight), 120);
  CHECK_INT(offsetof(gw_stats_t, settle_lag_us), 128);
  CHECK_INT(offsetof(gw_stats_t, events_dropped), 136);
  CHECK(sizeof(gw_stats_t) >= 144);
}

TEST(stats_are_written_up_to_the_callers_struct_size) {
  gw_worker_t *worker = a_worker();
  gw_stats_t stats;
  memset(&stats, 0x5a, sizeof stats);
  stats.struct_size = offsetof(gw_stats_t, failed); /* As a program that was compiled when there were two counters. */
  OK(gw_worker_stats(worker, &stats));
  CHECK_INT(stats.claimed, 0);
  CHECK_INT(stats.completed, 0);
  CHECK(stats.failed == 0x5a5a5a5a5a5a5a5aULL);
  stats.struct_size = 0; /* Not set. */
  ANSWERS(GW_ERR_INVALID, gw_worker_stats(worker, &stats));
  gw_worker_free(worker);
}

TEST(error_has_status_message_and_sqlstate) {
  gw_config_t *config = gw_config_new();
  gw_error_t *error = (gw_error_t *)"not written";
  CHECK_INT(gw_config_set(config, "concurrency", "2", &error), GW_OK);
  CHECK(error == NULL);

  CHECK_INT(gw_config_set(config, "concurrency", "many", &error), GW_ERR_CONFIG);
  CHECK_INT(gw_error_status(error), GW_ERR_CONFIG);
  CHECK_HAS(gw_error_message(error), "concurrency");
  CHECK(gw_error_sqlstate(error) == NULL);
  CHECK(!gw_error_is_retryable(error));
  gw_error_free(error);

  CHECK_INT(gw_config_set(config, "concurrency", "many", NULL), GW_ERR_CONFIG);
  gw_config_free(config);
}
