/* Deferred jobs: a task keeps its job and returns PENDING. Another thread ends the job, or no thread does. */
#include <stdio.h>
#include <string.h>

#include "fixture.h"

/* Passes a job from a task to the test. */
struct deferred {
  gw_job_t *job;
  struct latch sent, completed;
};

static gw_outcome_t send_it(gw_job_t *job, void *user_data) {
  struct deferred *deferred = user_data;
  deferred->job = gw_job_retain(job);
  CHECK(deferred->job != NULL);
  count_up(&deferred->sent);
  return GW_TASK_PENDING;
}

static void deferred_is(gw_status_t (*finish)(gw_job_t *), const char *last_error) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct deferred deferred = {NULL, LATCH, LATCH};
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", send_it, &deferred);
  start(worker);
  wait_for(&deferred.sent, 1);
  OK(finish(deferred.job));
  OK(gw_worker_flush(worker, -1, &err));
  if (last_error) {
    CHECK_JOB(client, id, "last_error", last_error);
  } else {
    CHECK(!job_exists(client, id));
  }
  gw_job_free(deferred.job);
  end(worker);
  gw_client_free(client);
}

static gw_status_t complete(gw_job_t *job) { return gw_job_complete(job, NULL); }
static gw_status_t refuse(gw_job_t *job) { return gw_job_fail(job, "refused and more", 7, NULL); }

TEST(deferred_job_succeeds_when_another_thread_completes_it) { deferred_is(complete, NULL); }
TEST(deferred_job_fails_when_another_thread_fails_it) { deferred_is(refuse, "refused"); }

TEST(a_deferred_job_stays_locked_until_its_outcome) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct deferred deferred = {NULL, LATCH, LATCH};
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", send_it, &deferred);
  start(worker);
  wait_for(&deferred.sent, 1);
  CHECK_JOB(client, id, "locked_by", gw_worker_id(worker));
  CHECK_INT(gw_job_id(deferred.job), id);
  OK(gw_job_complete(deferred.job, &err));
  gw_job_free(deferred.job);
  end(worker);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

static void *complete_and_signal(void *user_data) {
  struct deferred *deferred = user_data;
  wait_for(&deferred->sent, 1);
  OK(gw_job_complete(deferred->job, &err));
  gw_job_free(deferred->job);
  count_up(&deferred->completed);
  return NULL;
}

static gw_outcome_t wait_until_it_is_complete(gw_job_t *job, void *user_data) {
  struct deferred *deferred = user_data;
  gw_outcome_t outcome = send_it(job, user_data);
  wait_for(&deferred->completed, 1);
  return outcome;
}

TEST(job_may_be_complete_before_its_task_returns_pending) {
  gw_client_t *client = a_client();
  struct deferred deferred = {NULL, LATCH, LATCH};
  int64_t id = add_job(client, "task", "{}");
  pthread_t thread = start_thread(complete_and_signal, &deferred);
  run_once("task", wait_until_it_is_complete, &deferred);
  pthread_join(thread, NULL);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

TEST(second_outcome_is_refused_and_changes_nothing) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct deferred deferred = {NULL, LATCH, LATCH};
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", send_it, &deferred);
  start(worker);
  wait_for(&deferred.sent, 1);
  OK(gw_job_complete(deferred.job, &err));
  ANSWERS(GW_ERR_ALREADY_FINISHED, gw_job_complete(deferred.job, &err));
  ANSWERS(GW_ERR_ALREADY_FINISHED, gw_job_fail(deferred.job, "no", GW_NUL, &err));
  ANSWERS(GW_ERR_ALREADY_FINISHED, gw_job_complete_items(deferred.job, NULL, 0, &err));
  ANSWERS(GW_ERR_ALREADY_FINISHED, gw_job_snooze(deferred.job, 1));
  ANSWERS(GW_ERR_ALREADY_FINISHED, gw_job_retry_after(deferred.job, 1));
  ANSWERS(GW_ERR_ALREADY_FINISHED, gw_job_set_error(deferred.job, "no", GW_NUL));
  gw_job_free(deferred.job);
  end(worker);
  CHECK(!job_exists(client, id));
  gw_client_free(client);
}

TEST(freeing_the_last_handle_without_an_outcome_fails_the_job) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct deferred deferred = {NULL, LATCH, LATCH};
  int64_t id = add_job(client, "task", "{}");
  add_task(worker, "task", send_it, &deferred);
  start(worker);
  wait_for(&deferred.sent, 1);
  gw_job_t *another = gw_job_retain(deferred.job);
  gw_job_free(deferred.job);
  ANSWERS(GW_ERR_HANDLE, gw_job_complete(deferred.job, &err));
  CHECK_INT(gw_job_id(another), id);
  OK(gw_worker_flush(worker, -1, &err));
  CHECK_JOB(client, id, "last_error", "null"); /* One handle is left. */
  gw_job_free(another);
  end(worker);
  CHECK_JOB(client, id, "last_error", "handle dropped without a result");
  gw_client_free(client);
}

static gw_outcome_t forget_to_retain(gw_job_t *job, void *user_data) {
  (void)job, (void)user_data;
  return GW_TASK_PENDING;
}

TEST(pending_without_a_retained_handle_fails_at_once) {
  gw_client_t *client = a_client();
  int64_t id = add_job(client, "task", "{}");
  run_once("task", forget_to_retain, NULL);
  char *text = job_field(client, id, "last_error");
  CHECK_HAS(text, "handle");
  free(text);
  CHECK_JOB(client, id, "attempts", "1");
  gw_client_free(client);
}

TEST(freed_job_handle_is_refused) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker();
  struct deferred deferred = {NULL, LATCH, LATCH};
  add_job(client, "task", "{}");
  add_task(worker, "task", send_it, &deferred);
  start(worker);
  wait_for(&deferred.sent, 1);
  OK(gw_job_complete(deferred.job, &err));
  gw_job_free(deferred.job);
  end(worker);
  ANSWERS(GW_ERR_HANDLE, gw_job_complete(deferred.job, &err));
  CHECK(gw_job_task(deferred.job) == NULL);
  gw_client_free(client);
}

TEST(job_handle_outlives_its_worker_and_returns_closed) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("shutdown_grace_period", "50ms", NULL);
  struct deferred deferred = {NULL, LATCH, LATCH};
  int64_t id = add_job(client, "task", "{\"a\": 1}");
  add_task(worker, "task", send_it, &deferred);
  start(worker);
  wait_for(&deferred.sent, 1);
  gw_worker_free(worker);
  CHECK_INT(gw_job_id(deferred.job), id);
  CHECK_TEXT(gw_job_payload(deferred.job, NULL), "{\"a\": 1}");
  CHECK(gw_job_is_cancelled(deferred.job));
  ANSWERS(GW_ERR_CLOSED, gw_job_complete(deferred.job, &err)); /* The job was given back. */
  ANSWERS(GW_ERR_CLOSED, gw_job_fail(deferred.job, "no", GW_NUL, &err));
  gw_job_free(deferred.job);
  /* A stop waits for the database only for a limited time, so on a slow machine the job may stay locked. */
  if (check_times_count()) CHECK_JOB(client, id, "locked_by", "null");
  gw_client_free(client);
}

TEST(pending_job_holds_a_slot_but_no_thread) {
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("concurrency", "3", "threads", "1", NULL);
  struct deferred jobs[3] = {{NULL, LATCH, LATCH}, {NULL, LATCH, LATCH}, {NULL, LATCH, LATCH}};
  struct latch ran = LATCH;
  add_job(client, "a", "{}");
  add_job(client, "b", "{}");
  add_job(client, "c", "{}");
  add_task(worker, "a", send_it, &jobs[0]);
  add_task(worker, "b", send_it, &jobs[1]);
  add_task(worker, "c", send_it, &jobs[2]);
  add_task(worker, "d", count_and_succeed, &ran);
  start(worker);
  for (int i = 0; i < 3; i++) wait_for(&jobs[i].sent, 1); /* On one thread. */
  add_job(client, "d", "{}");
  OK(gw_worker_flush(worker, -1, &err));
  CHECK_INT(counted(&ran), 0); /* All three slots are taken. */
  OK(gw_job_complete(jobs[0].job, &err));
  wait_for(&ran, 1); /* A slot became free. */
  OK(gw_job_complete(jobs[1].job, &err));
  OK(gw_job_complete(jobs[2].job, &err));
  for (int i = 0; i < 3; i++) gw_job_free(jobs[i].job);
  end(worker);
  gw_client_free(client);
}

/* Many deferred jobs at once, ended by several threads in random order. */
struct crowd {
  pthread_mutex_t lock;
  gw_job_t **jobs;
  size_t came, left, count, done, failed;
  struct latch all_came;
};

static gw_outcome_t join_the_crowd(gw_job_t *job, void *user_data) {
  struct crowd *crowd = user_data;
  pthread_mutex_lock(&crowd->lock);
  crowd->jobs[crowd->came++] = gw_job_retain(job);
  crowd->left++;
  pthread_mutex_unlock(&crowd->lock);
  if (crowd->came == crowd->count) count_up(&crowd->all_came);
  return GW_TASK_PENDING;
}

/* Takes a random job; NULL if none is left. */
static gw_job_t *take_one(struct crowd *crowd, unsigned *seed) {
  gw_job_t *job = NULL;
  pthread_mutex_lock(&crowd->lock);
  if (crowd->left > 0) {
    size_t at = (size_t)rand_r(seed) % crowd->left;
    job = crowd->jobs[at];
    crowd->jobs[at] = crowd->jobs[--crowd->left];
  }
  pthread_mutex_unlock(&crowd->lock);
  return job;
}

static void *finish_some(void *user_data) {
  struct crowd *crowd = user_data;
  unsigned seed = (unsigned)(uintptr_t)pthread_self();
  size_t done = 0, failed = 0;
  for (gw_job_t *job; (job = take_one(crowd, &seed)) != NULL;) {
    switch (rand_r(&seed) % 3) {
      case 0: OK(gw_job_complete(job, &err)), done++; break;
      case 1: OK(gw_job_fail(job, "no", GW_NUL, &err)), failed++; break;
      default: failed++; /* Freed without an outcome. */
    }
    gw_job_free(job);
  }
  pthread_mutex_lock(&crowd->lock);
  crowd->done += done;
  crowd->failed += failed;
  pthread_mutex_unlock(&crowd->lock);
  return NULL;
}

TEST(ten_thousand_deferred_jobs_all_get_their_outcome) {
  size_t count = check_scaled(10000);
  gw_client_t *client = a_client();
  gw_worker_t *worker = a_worker_with("concurrency", "10000", "threads", "2", NULL);
  struct crowd crowd = {.lock = PTHREAD_MUTEX_INITIALIZER, .jobs = calloc(count, sizeof(gw_job_t *)), .count = count,
                        .all_came = LATCH};
  pthread_t threads[4];
  char *json = NULL;
  add_jobs(client, "task", count);
  add_task(worker, "task", join_the_crowd, &crowd);
  start(worker);
  wait_for(&crowd.all_came, 1);
  for (int i = 0; i < 4; i++) threads[i] = start_thread(finish_some, &crowd);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  OK(gw_worker_flush(worker, -1, &err));
  gw_stats_t stats = stats_of(worker);
  CHECK_INT(crowd.done + crowd.failed, count);
  CHECK_INT(stats.completed, crowd.done);
  CHECK_INT(stats.permanently_failed, crowd.failed);
  CHECK_INT(stats.in_flight, 0);
  json = gw_worker_stats_json(worker);
  /* Deferred jobs occupy no thread, so the worker claims jobs by hundreds and not one by one. */
  CHECK(json_number(json, "claims") < (long long)(100 + count / 50));
  gw_string_free(json);
  end(worker);
  OK(gw_client_stats(client, &json, &err));
  CHECK_INT(json_number(json, "total"), crowd.failed);
  CHECK_INT(json_number(json, "failed"), crowd.failed);
  gw_string_free(json);
  free(crowd.jobs);
  gw_client_free(client);
}
