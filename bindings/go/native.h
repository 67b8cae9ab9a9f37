/* Calls of the library for each job and each event. Each function makes several calls, because every call from Go into C
 * has a cost. Knows nothing of Go: C never calls a function of Go. */
#ifndef GRAPHILEWORKER_NATIVE_H
#define GRAPHILEWORKER_NATIVE_H

#include <graphile_worker.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if GW_ABI_VERSION != 1
#error "this version of the Go package needs the graphile_worker.h of GW_ABI_VERSION 1"
#endif

/* A job that gw_worker_next has returned. The texts belong to the handle. */
typedef struct {
  gw_job_t *handle;
  const char *task, *key, *worker_id, *payload;
  size_t payload_len;
  int64_t id, run_at, created_at;
  int32_t attempts, max_attempts, priority, revision;
} gwgo_job;

static inline void gwgo_read(gw_job_t *handle, gwgo_job *job) {
  job->handle = handle;
  job->task = gw_job_task(handle);
  job->key = gw_job_key(handle);
  job->worker_id = gw_job_worker_id(handle);
  job->payload_len = 0;
  job->payload = gw_job_payload(handle, &job->payload_len);
  job->id = gw_job_id(handle);
  job->run_at = gw_job_run_at(handle);
  job->created_at = gw_job_created_at(handle);
  job->attempts = gw_job_attempts(handle);
  job->max_attempts = gw_job_max_attempts(handle);
  job->priority = gw_job_priority(handle);
  job->revision = gw_job_revision(handle);
}

enum { GWGO_BATCH = 64 };

/* Takes the available jobs without waiting. If it returns GW_OK, there are `count` new jobs. If it returns GW_CANCELLED,
 * jobs[0] has id and attempt of a job that was returned earlier. Otherwise it returns the status of gw_worker_next. */
static inline gw_status_t gwgo_pull(gw_worker_t *worker, gwgo_job *jobs, size_t *count, gw_error_t **err) {
  gw_job_t *handles[GWGO_BATCH];
  gw_status_t status;
  size_t more = 0, i;
  do
    status = gw_worker_next(worker, 0, &handles[0], err);
  while (status == GW_WOKEN);
  if (status == GW_CANCELLED) {
    jobs[0].id = gw_job_id(handles[0]);
    jobs[0].attempts = gw_job_attempts(handles[0]);
    gw_job_free(handles[0]);
  }
  if (status != GW_OK) return status;
  /* Another status is dropped here: the next call returns it again. */
  if (gw_worker_next_batch(worker, 0, handles + 1, GWGO_BATCH - 1, &more, NULL) != GW_OK) more = 0;
  *count = 1 + more;
  for (i = 0; i < *count; i++) gwgo_read(handles[i], &jobs[i]);
  return GW_OK;
}

static inline gw_status_t gwgo_complete(gw_job_t *job, gw_error_t **err) {
  gw_status_t status = gw_job_complete(job, err);
  gw_job_free(job);
  return status;
}

/* Fails a job. It is retried after retry_ms, or after its task's own delay if retry_ms is negative. */
static inline gw_status_t gwgo_fail(gw_job_t *job, const char *message, size_t len, int64_t retry_ms, gw_error_t **err) {
  gw_status_t status;
  if (retry_ms >= 0) gw_job_retry_after(job, retry_ms);
  status = gw_job_fail(job, message, len, err);
  gw_job_free(job);
  return status;
}

static inline gw_status_t gwgo_complete_items(gw_job_t *job, char **errors, size_t count, int64_t retry_ms, gw_error_t **err) {
  gw_status_t status;
  if (retry_ms >= 0) gw_job_retry_after(job, retry_ms);
  status = gw_job_complete_items(job, (const char *const *)errors, count, err);
  gw_job_free(job);
  return status;
}

/* An event. The texts belong to the handle. */
typedef struct {
  gw_event_t *handle;
  const char *name, *json;
  int64_t job_id;
} gwgo_event;

/* Takes an event if there is one. */
static inline gw_status_t gwgo_next_event(gw_worker_t *worker, gwgo_event *event, gw_error_t **err) {
  gw_status_t status = gw_worker_next_event(worker, 0, &event->handle, err);
  if (status != GW_OK) return status;
  event->name = gw_event_name(event->handle);
  event->json = gw_event_json(event->handle);
  event->job_id = gw_event_job_id(event->handle);
  return GW_OK;
}

/* Duplicates a descriptor of the library, so that Go's netpoller can own and close the copy. */
static inline int gwgo_dup(int fd) {
  return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* The header of a log record on the pipe. Its three texts follow. */
typedef struct {
  int64_t time_us;
  int32_t level;
  uint32_t target_len, message_len, fields_len;
  uint32_t lost; /* the number of records that were dropped before this one */
} gwgo_log_header;

typedef struct {
  int fd;
  atomic_uint lost;
} gwgo_log_pipe;

enum {
  GWGO_LOG_MAX = 4096, /* PIPE_BUF: a write is all or nothing */
  GWGO_LOG_TIMEOUT_MS = 100
};

static inline uint32_t gwgo_fit(size_t len, size_t *room) {
  uint32_t fits = (uint32_t)(len < *room ? len : *room);
  *room -= fits;
  return fits;
}

/* A log sink that writes to a pipe. If the pipe is full, it waits up to GWGO_LOG_TIMEOUT_MS, then drops the record and
 * counts it. After that, no call waits until a record has been written again. */
static inline void gwgo_log_write(const gw_log_record_t *record, void *user_data) {
  gwgo_log_pipe *log = user_data;
  char text[GWGO_LOG_MAX], *end = text + sizeof(gwgo_log_header);
  size_t room = sizeof text - sizeof(gwgo_log_header);
  size_t fields_len = record->fields ? strlen(record->fields) : 0;
  gwgo_log_header header;
  memset(&header, 0, sizeof header);
  header.time_us = record->time_us;
  header.level = record->level;
  header.target_len = gwgo_fit(strlen(record->target), &room);
  header.message_len = gwgo_fit(strlen(record->message), &room);
  header.fields_len = fields_len <= room ? (uint32_t)fields_len : 0; /* half a JSON object cannot be parsed */
  header.lost = atomic_exchange(&log->lost, 0);
  memcpy(text, &header, sizeof header);
  memcpy(end, record->target, header.target_len), end += header.target_len;
  memcpy(end, record->message, header.message_len), end += header.message_len;
  if (header.fields_len) memcpy(end, record->fields, header.fields_len), end += header.fields_len;
  for (;;) {
    struct pollfd writable = {log->fd, POLLOUT, 0};
    if (write(log->fd, text, (size_t)(end - text)) >= 0) return;
    if (errno == EINTR) continue;
    if (errno != EAGAIN || header.lost || poll(&writable, 1, GWGO_LOG_TIMEOUT_MS) != 1) break;
  }
  atomic_fetch_add(&log->lost, header.lost + 1);
}

static inline void gwgo_log_close(void *user_data) {
  gwgo_log_pipe *log = user_data;
  close(log->fd);
  free(log);
}

/* Sends the library's log to the pipe. The sink owns the writing end from now on, also if this call fails. */
static inline gw_status_t gwgo_log_to(int fd, int32_t max_level) {
  gwgo_log_pipe *log = malloc(sizeof *log);
  if (!log) {
    close(fd);
    return GW_ERR_NOMEM;
  }
  log->fd = fd;
  atomic_init(&log->lost, 0);
  return gw_log_set_sink(gwgo_log_write, log, gwgo_log_close, max_level);
}

#endif
