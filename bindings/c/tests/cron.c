/* Crontab text: previews, and errors with line and column. */
#include <stdio.h>
#include <string.h>

#include "fixture.h"

static gw_crontab_t *parsed(const char *text) {
  gw_crontab_t *crontab = NULL;
  OK(gw_crontab_parse(text, &crontab, &err));
  return crontab;
}

static void item_is(const gw_crontab_t *crontab, size_t index, const char *identifier, const char *task) {
  char *json = gw_crontab_item_json(crontab, index);
  char *named = json_field(json, "identifier"), *of_task = json_field(json, "task");
  CHECK_TEXT(named, identifier);
  CHECK_TEXT(of_task, task);
  free(named), free(of_task);
  gw_string_free(json);
}

TEST(a_crontab_lists_its_entries) {
  gw_crontab_t *crontab = parsed("# every morning\n0 8 * * * report\n\n*/5 * * * * poll ?id=often {\"a\": 1}\n");
  CHECK_INT(gw_crontab_len(crontab), 2);
  item_is(crontab, 0, "report", "report");
  item_is(crontab, 1, "often", "poll");
  CHECK(gw_crontab_item_json(crontab, 2) == NULL);
  gw_crontab_free(crontab);
}

#define SECONDS(seconds) ((int64_t)(seconds) * 1000000)

TEST(preview_returns_the_next_times_of_an_entry) {
  gw_crontab_t *crontab = parsed("0 8 * * 1 report"); /* Mondays at eight. */
  int64_t times[3] = {0};
  CHECK_INT(gw_crontab_next(crontab, 0, SECONDS(1763974800), times, 3), 3); /* Monday, 24 November 2025, 09:00 UTC */
  CHECK_INT(times[0], SECONDS(1764576000));                                 /* 1 December, 08:00 */
  CHECK_INT(times[1], SECONDS(1764576000 + 7 * 86400));
  CHECK_INT(times[2], SECONDS(1764576000 + 14 * 86400));
  CHECK_INT(gw_crontab_next(crontab, 0, SECONDS(1764576000), times, 1), 1);
  CHECK_INT(times[0], SECONDS(1764576000 + 7 * 86400)); /* Later than `after_us`, never equal. */
  gw_crontab_free(crontab);
}

TEST(preview_uses_the_time_zone_of_the_entry) {
  gw_crontab_t *crontab = parsed("0 8 * * * report ?tz=Europe/Berlin");
  int64_t times[2] = {0};
  CHECK_INT(gw_crontab_next(crontab, 0, SECONDS(1774598400), times, 2), 2); /* 27 March 2026, 08:00 UTC */
  CHECK_INT(times[0], SECONDS(1774681200));                                 /* 28 March, 07:00 UTC: winter time */
  CHECK_INT(times[1], SECONDS(1774764000));                                 /* 29 March, 06:00 UTC: summer time */
  gw_crontab_free(crontab);
}

TEST(entry_that_is_never_due_has_no_times) {
  gw_crontab_t *crontab = parsed("0 0 30 2 * never");
  int64_t time = -1;
  CHECK_INT(gw_crontab_next(crontab, 0, 0, &time, 1), 0);
  CHECK_INT(time, -1);
  gw_crontab_free(crontab);
}

static void refused(const char *text, const char *where) {
  gw_crontab_t *crontab = NULL;
  gw_worker_t *worker = a_worker();
  ANSWERS(GW_ERR_CRONTAB, gw_crontab_parse(text, &crontab, &err));
  CHECK(crontab == NULL);
  CHECK_HAS(error_message(), where);
  ANSWERS(GW_ERR_CRONTAB, gw_worker_add_crontab(worker, text, &err));
  CHECK_HAS(error_message(), where);
  gw_worker_free(worker);
}

TEST(crontab_error_has_line_and_column) {
  refused("0 8 * * * report\n61 * * * * often\n", "line 2, column 1");
  refused("0 25 * * * report", "line 1, column 3");
  refused("0 8 * * *", "line 1");
  refused("0 8 * * * report ?colour=red", "colour");
  refused("0 8 * * * report {not json", "line 1");
}

TEST(worker_schedules_crontabs_of_config_and_add_crontab) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("crontab", "0 0 1 1 * task ?id=config", NULL);
  char query[128];
  OK(gw_worker_add_crontab(worker, "0 0 1 1 * task ?id=added", &err));
  add_task(worker, "task", succeed, NULL);
  start(worker);
  snprintf(query, sizeof query, "select identifier from %s._private_known_crontabs order by 1", schema());
  /* The scheduler registers them on its own thread. There is no event to wait for. */
  for (int64_t until = clock_ns() + 30000000000; ; ) {
    char *known = psql(query);
    bool registered = strcmp(known, "added\nconfig\n") == 0;
    free(known);
    if (registered) break;
    CHECK(clock_ns() < until);
  }
  end(worker);
  gw_client_free(client);
}

TEST(config_refuses_an_invalid_crontab) {
  gw_config_t *config = gw_config_new();
  ANSWERS(GW_ERR_CRONTAB, gw_config_set(config, "crontab", "0 25 * * * report", &err));
  CHECK_HAS(error_message(), "line 1, column 3");
  gw_config_free(config);
}
