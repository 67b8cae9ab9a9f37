/* The log sink: for the whole process, replaceable at any time, and not called after it was replaced. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"

struct sink {
  struct latch lines, freed;
  int32_t worst, finest; /* The most and the least severe level received. */
  bool well_formed;
};
#define SINK {LATCH, LATCH, GW_LOG_TRACE, GW_LOG_ERROR, true}

static void note_line(const gw_log_record_t *line, void *user_data) {
  struct sink *sink = user_data;
  pthread_mutex_lock(&sink->lines.lock);
  if (line->level < sink->worst) sink->worst = line->level;
  if (line->level > sink->finest) sink->finest = line->level;
  sink->well_formed = sink->well_formed && line->struct_size >= sizeof *line && line->target && line->message &&
                      line->message[0] && line->fields && line->fields[0] == '{' && line->time_us > 1700000000000000;
  pthread_mutex_unlock(&sink->lines.lock);
  count_up(&sink->lines);
}

static void count_sink_freed(void *user_data) { count_up(&((struct sink *)user_data)->freed); }

static void work_a_little(void) {
  gw_client_t *client = a_client();
  add_job(client, "task", "{}");
  run_once("task", fail, "to be logged");
  gw_client_free(client);
}

TEST(sink_receives_complete_records_and_is_freed_once) {
  struct sink info = SINK, all = SINK;
  OK(gw_log_set_sink(note_line, &info, count_sink_freed, GW_LOG_INFO));
  work_a_little();
  OK(gw_log_set_sink(note_line, &all, count_sink_freed, GW_LOG_TRACE));
  CHECK_INT(counted(&info.freed), 1);
  CHECK(counted(&info.lines) > 0);
  CHECK(info.finest <= GW_LOG_INFO);
  CHECK(info.well_formed);
  work_a_little();
  OK(gw_log_set_sink(NULL, NULL, NULL, GW_LOG_OFF));
  CHECK_INT(counted(&all.freed), 1);
  CHECK(all.finest >= GW_LOG_DEBUG);
  CHECK(all.well_formed);
  size_t lines = counted(&all.lines);
  work_a_little();
  CHECK_INT(counted(&all.lines), lines);
}

TEST(unknown_log_level_is_refused_and_user_data_freed) {
  struct sink sink = SINK;
  ANSWERS(GW_ERR_INVALID, gw_log_set_sink(note_line, &sink, count_sink_freed, 99));
  CHECK_INT(counted(&sink.freed), 1);
}

TEST(without_a_sink_warnings_go_to_stderr_and_nothing_goes_to_stdout) {
  char text[4096] = "";
  FILE *errors = tmpfile(), *output = tmpfile();
  dup2(fileno(errors), STDERR_FILENO);
  dup2(fileno(output), STDOUT_FILENO);
  OK(gw_log_set_sink(NULL, NULL, NULL, GW_LOG_INFO));
  work_a_little();
  fflush(NULL);
  CHECK_INT(lseek(fileno(output), 0, SEEK_END), 0);
  rewind(errors);
  CHECK(fread(text, 1, sizeof text - 1, errors) > 0);
  CHECK_HAS(text, "to be logged");
  CHECK(strstr(text, "\033[") == NULL);
}

TEST(log_can_be_pulled_until_a_sink_is_set) {
  gw_event_t *line = NULL;
  ANSWERS(GW_STOPPED, gw_log_next(0, &line, &err));
  ANSWERS(GW_ERR_INVALID, gw_log_set_queue(99));
  OK(gw_log_set_queue(GW_LOG_INFO));
  work_a_little();
  OK(gw_log_next(10000, &line, &err));
  CHECK(!strcmp(gw_event_name(line), "info") || !strcmp(gw_event_name(line), "warn"));
  CHECK_HAS(gw_event_json(line), "\"time_us\"");
  CHECK_HAS(gw_event_json(line), "\"target\"");
  CHECK_HAS(gw_event_json(line), "\"message\"");
  CHECK_HAS(gw_event_json(line), "\"fields\"");
  gw_event_free(line);
  OK(gw_log_set_sink(NULL, NULL, NULL, GW_LOG_OFF));
  ANSWERS(GW_STOPPED, gw_log_next(0, &line, &err));
}

static void *take_the_next_line(void *status) {
  gw_event_t *line = NULL;
  *(gw_status_t *)status = gw_log_next(-1, &line, NULL);
  return NULL;
}

TEST(ending_the_log_queue_wakes_waiting_threads) {
  gw_status_t status = GW_OK;
  struct timespec moment = {0, 50000000};
  OK(gw_log_set_queue(GW_LOG_ERROR));
  pthread_t thread = start_thread(take_the_next_line, &status);
  nanosleep(&moment, NULL); /* Gives the thread time to wait; the result is the same without. */
  OK(gw_log_set_sink(NULL, NULL, NULL, GW_LOG_OFF));
  pthread_join(thread, NULL);
  CHECK_INT(status, GW_STOPPED);
}

static void replace_the_sink(const gw_log_record_t *line, void *user_data) {
  struct sink *sink = user_data;
  (void)line;
  ANSWERS(GW_ERR_DEADLOCK, gw_log_set_sink(NULL, sink, count_sink_freed, GW_LOG_OFF));
  ANSWERS(GW_ERR_DEADLOCK, gw_log_set_queue(GW_LOG_OFF));
  count_up(&sink->lines);
}

TEST(replacing_the_sink_from_within_is_a_deadlock_error) {
  struct sink sink = SINK;
  OK(gw_log_set_sink(replace_the_sink, &sink, NULL, GW_LOG_INFO));
  work_a_little();
  OK(gw_log_set_sink(NULL, NULL, NULL, GW_LOG_OFF));
  CHECK(counted(&sink.lines) > 0);
  CHECK_INT(counted(&sink.freed), counted(&sink.lines)); /* Each call freed its user data. */
}

/* A sink that blocks in its first call. */
struct slow_sink {
  struct latch inside, release, done, freed;
};

static void wait_inside(const gw_log_record_t *line, void *user_data) {
  struct slow_sink *sink = user_data;
  (void)line;
  if (counted(&sink->inside) > 0) return;
  count_up(&sink->inside);
  wait_for(&sink->release, 1);
  count_up(&sink->done);
}

static void check_done_then_freed(void *user_data) {
  struct slow_sink *sink = user_data;
  CHECK_INT(counted(&sink->done), 1);
  count_up(&sink->freed);
}

static void *work(void *unused) {
  (void)unused;
  work_a_little();
  return NULL;
}

static void *take_away(void *user_data) {
  struct slow_sink *sink = user_data;
  OK(gw_log_set_sink(NULL, NULL, NULL, GW_LOG_OFF));
  CHECK_INT(counted(&sink->done), 1);
  CHECK_INT(counted(&sink->freed), 1);
  return NULL;
}

TEST(replacing_a_sink_returns_only_when_no_thread_is_in_the_old_one) {
  struct slow_sink sink = {LATCH, LATCH, LATCH, LATCH};
  struct timespec moment = {0, 50000000};
  OK(gw_log_set_sink(wait_inside, &sink, check_done_then_freed, GW_LOG_TRACE));
  pthread_t worker = start_thread(work, NULL);
  wait_for(&sink.inside, 1);
  pthread_t replacer = start_thread(take_away, &sink);
  nanosleep(&moment, NULL); /* Gives a wrong replacement time to return too early. */
  CHECK_INT(counted(&sink.freed), 0);
  count_up(&sink.release);
  pthread_join(replacer, NULL);
  pthread_join(worker, NULL);
}

/* The user data of one sink, freed with it. */
struct counter {
  int alive;
  struct latch *lines;
};

static void count_line(const gw_log_record_t *line, void *user_data) {
  struct counter *counter = user_data;
  (void)line;
  CHECK_INT(counter->alive, 0x600d);
  count_up(counter->lines);
}

static void bury(void *user_data) {
  struct counter *counter = user_data;
  counter->alive = 0xdead;
  free(counter);
}

TEST(sink_can_be_replaced_repeatedly_while_threads_log) {
  size_t count = check_scaled(300);
  struct latch lines = LATCH;
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  add_task(worker, "task", fail, NULL);
  start(worker);
  for (size_t i = 0; i < count; i++) {
    struct counter *counter = malloc(sizeof *counter);
    counter->alive = 0x600d;
    counter->lines = &lines;
    OK(gw_log_set_sink(count_line, counter, bury, GW_LOG_TRACE));
    add_job_once(client, "task", "{}");
  }
  end(worker);
  OK(gw_log_set_sink(NULL, NULL, NULL, GW_LOG_OFF));
  CHECK(counted(&lines) > 0);
  gw_client_free(client);
}

/* Installs a schema, which is logged, and would call this function again. */
static void log_within_the_log(const gw_log_record_t *line, void *user_data) {
  static _Thread_local bool within;
  char another[80];
  gw_client_t *client = NULL;
  (void)line;
  CHECK(!within);
  within = true;
  snprintf(another, sizeof another, "%s_%zu", schema(), counted(user_data));
  gw_config_t *config = a_config_with("schema", another, NULL);
  OK(gw_client_new(config, &client, &err));
  OK(gw_client_migrate(client, &err));
  gw_client_free(client);
  gw_config_free(config);
  count_up(user_data);
  within = false;
}

TEST(records_logged_within_a_sink_are_dropped) {
  struct latch lines = LATCH;
  gw_client_t *client = NULL;
  gw_config_t *config = a_config();
  OK(gw_client_new(config, &client, &err));
  OK(gw_log_set_sink(log_within_the_log, &lines, NULL, GW_LOG_INFO));
  OK(gw_client_migrate(client, &err));
  OK(gw_log_set_sink(NULL, NULL, NULL, GW_LOG_OFF));
  CHECK_INT(counted(&lines), 1);
  gw_client_free(client);
  gw_config_free(config);
}

static void *start_it(void *worker) {
  start(worker);
  return NULL;
}

/* The child does not have the thread that is in the sink, so that thread never leaves it there. */
TEST_THAT_FORKS_BESIDE_THREADS(child_forked_during_a_sink_call_can_set_its_own_sink) {
  struct slow_sink sink = {LATCH, LATCH, LATCH, LATCH};
  int status = 0;
  gw_client_free(a_client()); /* Installs first. Otherwise the installation would log, and the child would wait for its locks. */
  OK(gw_log_set_sink(wait_inside, &sink, NULL, GW_LOG_INFO));
  gw_worker_t *worker = a_worker();
  add_task(worker, "task", succeed, NULL);
  pthread_t starter = start_thread(start_it, worker);
  wait_for(&sink.inside, 1);
  pid_t child = check_fork();
  CHECK(child >= 0);
  if (child == 0) {
    struct sink own = SINK;
    alarm(check_times_count() ? 20 : 120);
    OK(gw_log_set_sink(note_line, &own, NULL, GW_LOG_INFO));
    work_a_little();
    CHECK(counted(&own.lines) > 0);
    raise(SIGKILL); /* Leak checkers must not run in the child. */
  }
  CHECK_INT(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  count_up(&sink.release);
  pthread_join(starter, NULL);
  end(worker);
}
