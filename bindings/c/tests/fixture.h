/* fixture.h: what the tests share: a queue for each test, clients, workers, latches, reading JSON.
 * It does not decide what is correct. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include <graphile_worker.h>
#include <pthread.h>
#include <stdlib.h>

#include "check.h"

/* The error object that the macros below read; each thread has its own. */
extern _Thread_local gw_error_t *err;

/* A call that must return GW_OK, or another status. error_message() then has the message of an expected error. */
#define OK(call) ANSWERS(GW_OK, call)
#define ANSWERS(status, call) (forget_error(), check_status(__FILE__, __LINE__, #call, (call), (status)))
void forget_error(void);
void check_status(const char *file, int line, const char *call, gw_status_t actual, gw_status_t expected);

/* The message, and the SQLSTATE or NULL, of the last call of ANSWERS on this thread. */
const char *error_message(void);
const char *error_sqlstate(void);

/* A config for this test's own queue. The caller frees it. */
gw_config_t *a_config(void);
/* The same with keys set: a_config_with("concurrency", "2", NULL). */
gw_config_t *a_config_with(const char *key, ...);
/* The schema of this test's queue, and the URL of the database. */
const char *schema(void);
const char *database_url(void);

/* A client and a worker for this test's queue. The client has installed the schema. The caller frees both. */
gw_client_t *a_client(void);
gw_worker_t *a_worker(void);
gw_worker_t *a_worker_with(const char *key, ...);

/* Registers a task; starts a worker. */
void add_task(gw_worker_t *worker, const char *name, gw_task_fn task, void *user_data);
void start(gw_worker_t *worker);
/* Stops a worker gracefully, waits for its end, and frees it. */
void end(gw_worker_t *worker);
/* Runs the due jobs of the queue with this task, and waits for the end. */
void run_once(const char *name, gw_task_fn task, void *user_data);

int64_t add_job(gw_client_t *client, const char *task, const char *payload);
/* The same, with one attempt only. */
int64_t add_job_once(gw_client_t *client, const char *task, const char *payload);
void add_jobs(gw_client_t *client, const char *task, size_t count);

/* Whether a job has a row; the value of one of its fields (JSON text without quotes; the caller frees it). */
bool job_exists(gw_client_t *client, int64_t id);
char *job_field(gw_client_t *client, int64_t id, const char *field);
#define CHECK_JOB(client, id, field, expected)           \
  do {                                                   \
    char *found_ = job_field(client, id, field);         \
    CHECK_TEXT(found_, expected);                        \
    free(found_);                                        \
  } while (0)
/* The value of a field of a JSON object, at any depth; NULL if there is no such field. The caller frees it. */
char *json_field(const char *json, const char *field);
long long json_number(const char *json, const char *field);

/* Runs a script with psql. Returns its output, which the caller frees. */
char *psql(const char *script);

gw_stats_t stats_of(gw_worker_t *worker);

/* Counts events on other threads, and waits for them. */
struct latch {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  size_t count;
};
#define LATCH {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}
void count_up(struct latch *latch);
size_t counted(struct latch *latch);
void wait_for(struct latch *latch, size_t count); /* The test fails after 30 s. */

int64_t now_us(void);  /* Since the epoch. */
int64_t clock_ns(void); /* Monotonic. */
pthread_t start_thread(void *(*run)(void *), void *argument);

/* A gw_free_fn that counts: its user data is a latch. */
void count_free(void *latch);

/* Simple tasks. */
gw_outcome_t succeed(gw_job_t *job, void *user_data);
gw_outcome_t fail(gw_job_t *job, void *user_data);
/* Counts up `user_data`, a latch, and succeeds. */
gw_outcome_t count_and_succeed(gw_job_t *job, void *user_data);

#endif
