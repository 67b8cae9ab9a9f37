/* What Go asks of the library for each job and each event, several calls in one, since entering C is what costs.
 * Knows nothing of Go: no function of Go is ever called from C. */
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

/* A job as it was handed out. The texts belong to the handle. */
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

/* Takes what there is without waiting. OK: `count` new jobs. CANCELLED: jobs[0] has id and attempt of one that was
 * handed out earlier. Otherwise what gw_worker_next answers. */
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
  /* Whatever this says, the next look at the worker says it again. */
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

/* Fails a job, to be tried again after retry_ms, or after its task's own delay if that is negative. */
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

/* A copy of a descriptor that the library owns, for Go's netpoller to have and to close. */
static inline int gwgo_dup(int fd) {
  return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* What precedes the three texts of a log record on the pipe. */
typedef struct {
  int64_t time_us;
  int32_t level;
  uint32_t target_len, message_len, fields_len;
  uint32_t lost; /* how many records before this one found no room */
} gwgo_log_header;

typedef struct {
  int fd;
  atomic_uint lost;
} gwgo_log_pipe;

enum {
  GWGO_LOG_MAX = 4096, /* PIPE_BUF: written as a whole or not at all */
  GWGO_LOG_PATIENCE_MS = 100
};

static inline uint32_t gwgo_fit(size_t len, size_t *room) {
  uint32_t fits = (uint32_t)(len < *room ? len : *room);
  *room -= fits;
  return fits;
}

/* A log sink that writes to a pipe. Waits a moment for a slow reader, then drops the record and counts it; until there
 * is room again, nobody waits any more. */
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
  header.fields_len = fields_len <= room ? (uint32_t)fields_len : 0; /* half an object is none */
  header.lost = atomic_exchange(&log->lost, 0);
  memcpy(text, &header, sizeof header);
  memcpy(end, record->target, header.target_len), end += header.target_len;
  memcpy(end, record->message, header.message_len), end += header.message_len;
  if (header.fields_len) memcpy(end, record->fields, header.fields_len), end += header.fields_len;
  for (;;) {
    struct pollfd writable = {log->fd, POLLOUT, 0};
    if (write(log->fd, text, (size_t)(end - text)) >= 0) return;
    if (errno == EINTR) continue;
    if (errno != EAGAIN || header.lost || poll(&writable, 1, GWGO_LOG_PATIENCE_MS) != 1) break;
  }
  atomic_fetch_add(&log->lost, header.lost + 1);
}

static inline void gwgo_log_close(void *user_data) {
  gwgo_log_pipe *log = user_data;
  close(log->fd);
  free(log);
}

/* Sends the library's log to the pipe, whose writing end is the sink's from now on. */
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
