/* libgraphile_worker: Graphile Worker's PostgreSQL job queue for C, and for languages that can call C.
 *
 * Generated from src/capi by `make header`. Do not edit.
 *
 * Rules
 *
 * - Threads: every function may be called from any thread. Only functions marked ASYNC-SIGNAL-SAFE may be called from
 *   a signal handler.
 * - Handles are opaque. The library detects NULL, freed handles, handles of another kind and those of a parent process.
 *   Calls then return GW_ERR_INVALID, GW_ERR_HANDLE or GW_ERR_FORKED; accessors return NULL, 0, -1 or false. Freeing
 *   NULL does nothing.
 * - A call that can fail returns a status. 0: success. Above 0: no error, but no result either. Below 0: an error.
 * - The last parameter `err` may be NULL. Otherwise it is always written: NULL, or an error that the caller frees with
 *   gw_error_free.
 * - Other results are written if the call returns GW_OK, and in further cases that the function names. The pointer to a
 *   result may be NULL only if the function says so. Otherwise NULL is GW_ERR_INVALID, and the call does nothing.
 * - Text is UTF-8. A text argument ends with NUL, or has a length in bytes, which may be GW_NUL. The library copies it
 *   before the call returns. A text has at most GW_TEXT_MAX bytes, and a list at most GW_LIST_MAX entries.
 * - `const char *` results are borrowed: valid until the handle that they were read from is freed. The caller owns
 *   `char *` results, and frees them with gw_string_free.
 * - Times are microseconds since 1970, UTC. Timeouts and delays are milliseconds. A timeout below 0 waits without
 *   limit, 0 does not wait.
 * - Every `user_data` has a function that frees it, or NULL. It is called once, on any thread, also if the call that
 *   received the `user_data` failed. The library uses the same pointer on several threads.
 * - The library calls functions of the caller's on its own threads, with all signals blocked. Interceptors and some
 *   observers may also run on the thread of the caller whose call causes the event. Within such a function, calls that
 *   wait (run, wait, flush, next with a timeout) return GW_ERR_DEADLOCK. No exception and no longjmp may leave it.
 * - The library installs no signal handlers (unless `listen_os_shutdown_signals` is set), no atexit functions, and
 *   writes nothing to standard output.
 * - After a fork, the child must make its own handles.
 */

#ifndef GRAPHILE_WORKER_H
#define GRAPHILE_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef GW_API
#define GW_API
#endif

/* The version of this header. */
#define GW_VERSION_MAJOR 0
#define GW_VERSION_MINOR 1
#define GW_VERSION_PATCH 0
#define GW_VERSION (GW_VERSION_MAJOR << 16 | GW_VERSION_MINOR << 8 | GW_VERSION_PATCH)

/* As a length: the text ends with NUL. */
#define GW_NUL ((size_t)-1)

/**
 * The version of the binary interface, and the number in the library's file name. It changes only if existing programs
 * would stop working.
 */
#define GW_ABI_VERSION 1

/**
 * The most bytes of a text argument: 1 GiB, as in PostgreSQL. GW_ERR_INVALID for a longer one.
 */
#define GW_TEXT_MAX (1 << 30)

/**
 * The most entries of a list argument or of a list to fill: 16777216. GW_ERR_INVALID for a longer one.
 */
#define GW_LIST_MAX (1 << 24)

/**
 * Log level: no records.
 */
#define GW_LOG_OFF 0

/**
 * Log level: a person must act.
 */
#define GW_LOG_ERROR 1

/**
 * Log level: something failed and is retried.
 */
#define GW_LOG_WARN 2

/**
 * Log level: the life of workers and jobs.
 */
#define GW_LOG_INFO 3

/**
 * Log level: decisions.
 */
#define GW_LOG_DEBUG 4

/**
 * Log level: all records.
 */
#define GW_LOG_TRACE 5

/**
 * Key mode: the new job's settings replace all settings of a waiting job with this key.
 */
#define GW_KEY_REPLACE 1

/**
 * Key mode: as GW_KEY_REPLACE, but a job that was never tried keeps its run_at.
 */
#define GW_KEY_PRESERVE_RUN_AT 2

/**
 * Key mode: if any job has this key, nothing changes, even if that job runs or has failed permanently.
 */
#define GW_KEY_UNSAFE_DEDUPE 3

/**
 * SQL style: parameters are `$1` to `$9`.
 */
#define GW_SQL_DOLLAR 1

/**
 * SQL style: parameters are `%s`, in order.
 */
#define GW_SQL_FORMAT 2

/**
 * SQL style: parameters are `:identifier`, `:payload` and so on.
 */
#define GW_SQL_NAMED 3

/**
 * SQL style: parameters are `%(identifier)s`, `%(payload)s` and so on.
 */
#define GW_SQL_PYFORMAT 4

/**
 * Cleanup: delete jobs that have failed permanently.
 */
#define GW_CLEANUP_DELETE_PERMAFAILED 1

/**
 * Cleanup: delete tasks that have no job.
 */
#define GW_CLEANUP_GC_TASKS 2

/**
 * Cleanup: delete named queues that have no job.
 */
#define GW_CLEANUP_GC_QUEUES 4

/**
 * Stop mode: the worker claims no more jobs. Running jobs may go on for `shutdown_grace_period`.
 */
#define GW_STOP_GRACEFUL 1

/**
 * Stop mode: the worker claims no more jobs, and running jobs are cancelled at once.
 */
#define GW_STOP_ABORT 2

/**
 * Run mode: the worker runs until a stop.
 */
#define GW_RUN_FOREVER 1

/**
 * Run mode: the worker ends when no job is due.
 */
#define GW_RUN_ONCE 2

/**
 * Worker state: not started.
 */
#define GW_STATE_NEW 0

/**
 * Worker state: running.
 */
#define GW_STATE_RUNNING 1

/**
 * Worker state: a stop was requested, and the worker has not ended.
 */
#define GW_STATE_STOPPING 2

/**
 * Worker state: ended without an error.
 */
#define GW_STATE_STOPPED 3

/**
 * Worker state: ended with an error, which `gw_worker_wait` returns.
 */
#define GW_STATE_FAILED 4

/**
 * Decision: continue. The next interceptor decides; if there is none, nothing changes.
 */
#define GW_DECIDE_CONTINUE 27393

/**
 * Decision: the job counts as done (BeforeJobRun, AfterJobRun), is not added (BeforeJobSchedule), or stays locked
 * (JobRecovery).
 */
#define GW_DECIDE_SKIP 27394

/**
 * Decision: the attempt fails (BeforeJobRun, AfterJobRun) or the job is not added (BeforeJobSchedule). The reason is
 * the text of `gw_decision_set_text`.
 */
#define GW_DECIDE_FAIL 27395

/**
 * Decision: the job is added with the payload from `gw_decision_set_text`.
 */
#define GW_DECIDE_PAYLOAD 27396

/**
 * Decision: the job of a dead worker runs again at the time from `gw_decision_set_run_at`.
 */
#define GW_DECIDE_RESCHEDULE 27397

/**
 * Decision: the attempt of a dead worker's job counts as failed, and the job is retried after its backoff.
 */
#define GW_DECIDE_FAIL_WITH_BACKOFF 27398

/**
 * Adds and manages jobs, on database connections of its own. Thread-safe. The caller frees it with `gw_client_free`.
 *
 * Each call blocks until the database replies, at most for `database_timeout` (default 10 s).
 */
typedef struct gw_client_t gw_client_t;

/**
 * A configuration. Thread-safe. Clients and workers copy it. The caller frees it with `gw_config_free`.
 */
typedef struct gw_config_t gw_config_t;

/**
 * A parsed crontab. Immutable and thread-safe. The caller frees it with `gw_crontab_free`.
 */
typedef struct gw_crontab_t gw_crontab_t;

/**
 * The details of an interceptor's decision, borrowed until the interceptor returns.
 */
typedef struct gw_decision_t gw_decision_t;

/**
 * An error. Immutable and thread-safe. The caller frees it with `gw_error_free`.
 */
typedef struct gw_error_t gw_error_t;

/**
 * An event. Immutable and thread-safe. The caller owns an event from `gw_worker_next_event` or `gw_log_next`, and
 * frees it with `gw_event_free`. Observers and interceptors receive a borrowed event, valid until they return.
 */
typedef struct gw_event_t gw_event_t;

/**
 * A job. Thread-safe. The caller owns a handle from `gw_worker_next` or `gw_job_retain`, and frees it with
 * `gw_job_free`. The handle that a task function receives is borrowed until the function returns.
 */
typedef struct gw_job_t gw_job_t;

/**
 * The specification of a job to add. Thread-safe. It can be used for any number of jobs. The caller frees it with
 * `gw_spec_free`.
 */
typedef struct gw_spec_t gw_spec_t;

/**
 * A worker. Thread-safe. The caller frees it with `gw_worker_free`.
 */
typedef struct gw_worker_t gw_worker_t;

/**
 * The result of a call. 0: success. Above 0: no error, but no result either. Below 0: an error. New numbers may be
 * added: treat an unknown one above 0 as "try again later", and one below 0 as an error.
 */
typedef int32_t gw_status_t;

/**
 * A log record. All its texts are valid within the call only. New fields are only added at the end.
 */
typedef struct {
  /**
   * The size of this struct in bytes, as the library was compiled.
   */
  size_t struct_size;
  /**
   * The time, in microseconds since 1970.
   */
  int64_t time_us;
  /**
   * One of GW_LOG_...
   */
  int32_t level;
  /**
   * Zero.
   */
  int32_t reserved;
  /**
   * The part of the library that logs.
   */
  const char *target;
  /**
   * The message. It is the same text for every event of one kind.
   */
  const char *message;
  /**
   * The details as a JSON object: job_id, task, queue, attempt, worker_id, error and others.
   */
  const char *fields;
} gw_log_record_t;

/**
 * Receives a log record, on the thread that logs it; several threads may call it at once. It must be quick, and must
 * not call the library. Records that this thread logs during the call are dropped.
 */
typedef void (*gw_log_fn)(const gw_log_record_t *record, void *user_data);

/**
 * Frees what a `user_data` points to. Called once, on any thread, also if the call that received it failed.
 */
typedef void (*gw_free_fn)(void *user_data);

/**
 * The outcome of a task function. The values are unusual, so that a number returned by mistake is none of them.
 */
typedef int32_t gw_outcome_t;

/**
 * Runs one job, on a thread of the library. It may block, and runs on several threads at once. `job` is borrowed until
 * the function returns.
 *
 * The outcome counts only if the job has not ended before. A number other than GW_TASK_... fails the job. No exception
 * and no longjmp may leave the function.
 */
typedef gw_outcome_t (*gw_task_fn)(gw_job_t *job, void *user_data);

/**
 * Counters of a worker since its last start, and its current load. Set `struct_size` before the call. New fields are
 * only added at the end.
 */
typedef struct {
  /**
   * The size of this struct in bytes, as the caller was compiled: `sizeof(gw_stats_t)`.
   */
  size_t struct_size;
  /**
   * Jobs claimed.
   */
  uint64_t claimed;
  /**
   * Jobs that succeeded and were deleted.
   */
  uint64_t completed;
  /**
   * Attempts that failed, the last ones included.
   */
  uint64_t failed;
  /**
   * Attempts that failed and are retried.
   */
  uint64_t retried;
  /**
   * Jobs that failed permanently.
   */
  uint64_t permanently_failed;
  /**
   * Jobs given back before they started, or interrupted by a stop.
   */
  uint64_t returned;
  /**
   * Jobs whose handler asked to run again later, without using an attempt.
   */
  uint64_t snoozed;
  /**
   * Jobs that were cancelled because they ran longer than their task's timeout.
   */
  uint64_t timed_out;
  /**
   * Jobs that went on for longer than the grace period after their timeout.
   */
  uint64_t stuck;
  /**
   * Outcomes that the database refused because the worker no longer held the job.
   */
  uint64_t lost;
  /**
   * Jobs that the database held for the worker without the worker's knowledge, given back.
   */
  uint64_t reconciled;
  /**
   * Database calls that failed and were retried.
   */
  uint64_t database_errors;
  /**
   * Jobs claimed and waiting for a thread, now.
   */
  uint64_t held;
  /**
   * Jobs running, now.
   */
  uint64_t running;
  /**
   * Jobs claimed and not settled, now: held, running, or waiting to be settled.
   */
  uint64_t in_flight;
  /**
   * How long the oldest outcome has been waiting to be written, now, in microseconds; 0 if none waits.
   */
  uint64_t settle_lag_us;
  /**
   * Events that were dropped because the observers could not keep up.
   */
  uint64_t events_dropped;
} gw_stats_t;

/**
 * Observes an event, on a thread of the library. Events wait while it runs, so it should be quick. `event` is
 * borrowed.
 */
typedef void (*gw_event_fn)(const gw_event_t *event, void *user_data);

/**
 * Decides, on the thread where the event happens. Returns one of GW_DECIDE_...; another number counts as a failure of
 * the interceptor. `event` and `decision` are borrowed.
 */
typedef int32_t (*gw_decide_fn)(const gw_event_t *event, gw_decision_t *decision, void *user_data);

/**
 * Success.
 */
#define GW_OK 0

/**
 * The timeout ended before there was a result.
 */
#define GW_TIMEOUT 1

/**
 * The worker or the log queue delivers nothing more.
 */
#define GW_STOPPED 2

/**
 * `gw_worker_wakeup` was called.
 */
#define GW_WOKEN 3

/**
 * The named thing does not exist.
 */
#define GW_NOT_FOUND 4

/**
 * A job that was handed out earlier should end early.
 */
#define GW_CANCELLED 5

/**
 * An argument is NULL, or a number is outside its range; the message names the argument.
 */
#define GW_ERR_INVALID -1

/**
 * The call is not possible in this state: the worker already runs, or does not run.
 */
#define GW_ERR_STATE -2

/**
 * The job already has an outcome, or this worker no longer holds it.
 */
#define GW_ERR_ALREADY_FINISHED -3

/**
 * The worker of this job has stopped.
 */
#define GW_ERR_CLOSED -4

/**
 * The handle belongs to the parent process.
 */
#define GW_ERR_FORKED -5

/**
 * The call would wait for the thread that makes it.
 */
#define GW_ERR_DEADLOCK -6

/**
 * Library and header do not fit together.
 */
#define GW_ERR_ABI -7

/**
 * Memory, handles or threads are used up.
 */
#define GW_ERR_NOMEM -8

/**
 * The handle was freed, or is of another kind.
 */
#define GW_ERR_HANDLE -9

/**
 * The worker has stopped, but handlers did not return or outcomes could not be written; the message names the jobs.
 */
#define GW_ERR_STUCK -10

/**
 * An option or a field is outside its limits; the message names it. Nothing was written.
 */
#define GW_ERR_CONFIG -20

/**
 * A crontab is wrong; the message has line and column.
 */
#define GW_ERR_CRONTAB -21

/**
 * A text is not the JSON that is needed; the message names the field, line and column.
 */
#define GW_ERR_JSON -22

/**
 * A text is not UTF-8, or has a NUL in it.
 */
#define GW_ERR_UTF8 -23

/**
 * The database could not be reached, or the connection broke.
 */
#define GW_ERR_CONNECT -40

/**
 * Authentication failed: wrong password, unknown role or database, or no right to connect.
 */
#define GW_ERR_AUTH -41

/**
 * TLS could not be set up as configured.
 */
#define GW_ERR_TLS -42

/**
 * The database returned an error; see `gw_error_sqlstate`.
 */
#define GW_ERR_DATABASE -43

/**
 * The schema is missing, incomplete, too old or too new, or the role lacks a right on it.
 */
#define GW_ERR_SCHEMA -44

/**
 * The database did not reply in time.
 */
#define GW_ERR_DATABASE_TIMEOUT -45

/**
 * A worker took the keyed job at every attempt, and nothing was added.
 */
#define GW_ERR_CONFLICT -46

/**
 * The reply to the commit was lost, and the library could not query the outcome: the change may or may not have been
 * made.
 */
#define GW_ERR_UNKNOWN_OUTCOME -47

/**
 * An interceptor skipped the job to add.
 */
#define GW_ERR_SKIPPED -48

/**
 * An interceptor refused the job to add.
 */
#define GW_ERR_REFUSED -49

/**
 * Not supported by this build or on this system.
 */
#define GW_ERR_UNSUPPORTED -80

/**
 * A bug in the library, caught in the C API; please report it.
 */
#define GW_ERR_PANIC -99

/**
 * Outcome of a task function: the job succeeded.
 */
#define GW_TASK_DONE 27137

/**
 * Outcome of a task function: the attempt failed; `gw_job_set_error` gives the reason.
 */
#define GW_TASK_FAILED 27138

/**
 * Outcome of a task function: the job ends later, through a handle from `gw_job_retain`. If no such handle exists, the
 * job fails at once.
 */
#define GW_TASK_PENDING 27139

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the loaded library: major * 65536 + minor * 256 + patch, as GW_VERSION of the header.
 */
GW_API uint32_t gw_version(void);

/**
 * The version of the loaded library as text: `"0.1.0"`. Static text.
 */
GW_API const char *gw_version_string(void);

/**
 * The binary interface of the loaded library. Compare it with GW_ABI_VERSION before any other call, and stop if they
 * differ.
 */
GW_API
uint32_t gw_abi_version(void);

/**
 * Build information as a JSON object: version, abi, tls, schema. Static text.
 */
GW_API const char *gw_build_info(void);

/**
 * Frees a text that the library returned as `char *`. NULL does nothing. Free each text once.
 */
GW_API void gw_string_free(char *text);

/**
 * The name of a status: `"GW_ERR_CONNECT"`. `"GW_UNKNOWN"` for an unknown number. Static text.
 */
GW_API const char *gw_status_name(gw_status_t status);

/**
 * A short text that explains a status. Static text.
 */
GW_API const char *gw_status_text(gw_status_t status);

/**
 * The status at `index`, from 0; INT32_MIN after the last. For generating bindings.
 */
GW_API gw_status_t gw_status_at(size_t index);

/**
 * The status of the call that returned this error. GW_ERR_INVALID if `error` is NULL.
 */
GW_API gw_status_t gw_error_status(const gw_error_t *error);

/**
 * The message: what went wrong, and what to do about it. It contains no passwords and no payloads. Valid until the
 * error is freed. NULL on a bad handle.
 */
GW_API
const char *gw_error_message(const gw_error_t *error);

/**
 * PostgreSQL's SQLSTATE, five characters; NULL if the error does not come from the database. Valid until the error is
 * freed.
 */
GW_API
const char *gw_error_sqlstate(const gw_error_t *error);

/**
 * Whether the same call may succeed later: after a broken connection, a deadlock, or while a server starts. false on a
 * bad handle.
 */
GW_API
bool gw_error_is_retryable(const gw_error_t *error);

/**
 * Frees an error. NULL does nothing.
 */
GW_API void gw_error_free(gw_error_t *error);

/**
 * Sends log records up to `max_level` to `sink`, for the whole process. If `sink` is NULL, they go to standard error.
 * Without any call, warnings and errors go to standard error. Payloads and passwords are never logged.
 *
 * The call waits until no thread is in the previous function, and frees that function's `user_data` before it returns.
 * GW_ERR_DEADLOCK within a log function. GW_ERR_INVALID for an unknown level.
 */
GW_API
gw_status_t gw_log_set_sink(gw_log_fn sink,
                            void *user_data,
                            gw_free_fn free_fn,
                            int32_t max_level);

/**
 * Keeps log records up to `max_level` for `gw_log_next`, for the whole process. For runtimes that cannot run functions
 * on threads of the library. At most 1024 records wait; an event `EventsDropped` reports how many were dropped.
 * `gw_log_set_sink` ends the queue.
 */
GW_API
gw_status_t gw_log_set_queue(int32_t max_level);

/**
 * Writes the next waiting log record to `record`: an event whose name is its level (`error`, `warn`, `info`, `debug`,
 * `trace`), and whose JSON has time_us, target, message and fields. The caller frees it with `gw_event_free`.
 *
 * GW_OK; GW_TIMEOUT after `timeout_ms`; GW_STOPPED if records are not queued, or no longer. GW_ERR_DEADLOCK if called
 * with a timeout within a function that the library calls.
 */
GW_API
gw_status_t gw_log_next(int64_t timeout_ms,
                        gw_event_t **record,
                        gw_error_t **err);

/**
 * Makes a configuration without any key set. The caller frees it with `gw_config_free`. NULL if no handles are left.
 */
GW_API
gw_config_t *gw_config_new(void);

/**
 * Sets a key; both texts are copied.
 *
 * Durations have a unit (`250ms`, `30s`, `5m`, `2h`, `1d`). Booleans are `true` or `false` (also on and off, yes and
 * no, 1 and 0). Lists are separated by commas.
 *
 * GW_ERR_CONFIG for an unknown key, naming the closest one, or for a value of another form. The limits of a value are
 * checked when a client or a worker is made of the configuration.
 */
GW_API
gw_status_t gw_config_set(gw_config_t *config,
                          const char *key,
                          const char *value,
                          gw_error_t **err);

/**
 * Writes the value of a key to `value`, or its default if the key is not set. GW_NOT_FOUND if it has neither. The
 * caller frees `value` with `gw_string_free`.
 */
GW_API
gw_status_t gw_config_get(const gw_config_t *config,
                          const char *key,
                          char **value,
                          gw_error_t **err);

/**
 * Sets keys from the environment: `database_url` from DATABASE_URL unless that is empty, and each key from the
 * variable GRAPHILE_WORKER_ with the key in capitals (GRAPHILE_WORKER_CONCURRENCY).
 *
 * A name that differs from such a variable by at most two letters is GW_ERR_CONFIG, and the message names the key. Any
 * other unknown GRAPHILE_WORKER_ variable is logged as a warning. Without `database_url`, the PG* variables give the
 * database. Do not call this while other threads change the environment.
 */
GW_API
gw_status_t gw_config_load_env(gw_config_t *config,
                               gw_error_t **err);

/**
 * The key at `index`, from 0; NULL after the last. Static text.
 */
GW_API const char *gw_config_key_at(size_t index);

/**
 * A description of a key as a JSON object: key, type (text, number, bool, duration, list, crontab), default (null if
 * it has none), for (worker, client, both), doc. NULL for an unknown key. Static text.
 */
GW_API
const char *gw_config_key_info(const char *key);

/**
 * Frees a configuration. NULL does nothing.
 */
GW_API void gw_config_free(gw_config_t *config);

/**
 * Makes a specification for a job of this task, 1 to 128 characters, with payload `{}` and the defaults of the
 * database. The length is checked when the job is checked or added. NULL if `task` is NULL or not UTF-8. The caller
 * frees it with `gw_spec_free`.
 */
GW_API
gw_spec_t *gw_spec_new(const char *task);

/**
 * Sets the payload: JSON text, copied and stored byte for byte. `len` is in bytes and may be GW_NUL. GW_ERR_JSON if it
 * is not JSON; `gw_spec_check` then reports line and column.
 */
GW_API
gw_status_t gw_spec_set_payload(gw_spec_t *spec,
                                const char *payload,
                                size_t len);

/**
 * Sets the named queue, at most 128 characters. Jobs of one queue run one after the other. NULL sets none, the
 * default.
 */
GW_API
gw_status_t gw_spec_set_queue(gw_spec_t *spec,
                              const char *queue);

/**
 * Sets the time before which the job does not start, in microseconds since 1970, within the years 1 to 9999. Default:
 * now, by the database's clock.
 */
GW_API
gw_status_t gw_spec_set_run_at(gw_spec_t *spec,
                               int64_t unix_us);

/**
 * Sets how often the job is tried, 1 to 32767. Default: 25.
 */
GW_API gw_status_t gw_spec_set_max_attempts(gw_spec_t *spec, int32_t max_attempts);

/**
 * Sets the priority, -32768 to 32767. Jobs with a lower number run first. Default: 0.
 */
GW_API gw_status_t gw_spec_set_priority(gw_spec_t *spec, int32_t priority);

/**
 * Sets the key, 1 to 512 characters, and the key mode: GW_KEY_REPLACE, GW_KEY_PRESERVE_RUN_AT or GW_KEY_UNSAFE_DEDUPE.
 * The mode decides what happens if a job with this key exists. A NULL key sets none, the default.
 */
GW_API
gw_status_t gw_spec_set_key(gw_spec_t *spec,
                            const char *key,
                            int32_t mode);

/**
 * Adds a flag. Workers can be configured to run only jobs with certain flags, or to leave them out. May be called
 * repeatedly.
 */
GW_API
gw_status_t gw_spec_add_flag(gw_spec_t *spec,
                             const char *flag);

/**
 * Sets the W3C trace context of the job. It is stored in the payload as `_trace.traceparent`, so the payload must be a
 * JSON object. NULL sets none, the default.
 */
GW_API
gw_status_t gw_spec_set_traceparent(gw_spec_t *spec,
                                    const char *traceparent);

/**
 * Checks all fields against their limits, as adding the job does. GW_ERR_CONFIG names the field and the limit.
 *
 * If a setter has refused a value, this call returns that error. The job is not added until the field is set again.
 * Does not use the network.
 */
GW_API
gw_status_t gw_spec_check(const gw_spec_t *spec,
                          gw_error_t **err);

/**
 * Frees a spec. NULL does nothing.
 */
GW_API void gw_spec_free(gw_spec_t *spec);

/**
 * Writes the SQL statement that adds a job to `sql`, for a transaction of the caller's own. The caller frees it with
 * `gw_string_free`. Does not use the network.
 *
 * The parameters, in this order and with these names: identifier text, payload text (JSON), queue_name text, run_at
 * timestamptz, max_attempts int4, job_key text, priority int4, flags text[], job_key_mode text (`replace`,
 * `preserve_run_at` or `unsafe_dedupe`). All but the first two may be null. The statement casts each, so a driver may
 * send text. Check the values with `gw_spec_check` first.
 *
 * `schema` NULL means `graphile_worker`. `style` is one of GW_SQL_DOLLAR, GW_SQL_FORMAT, GW_SQL_NAMED,
 * GW_SQL_PYFORMAT. In all styles but GW_SQL_DOLLAR, a `:` or `%` in the schema's name is written as a Unicode escape,
 * so that no driver takes it for a parameter.
 *
 * The statement returns one row, the job, with its id first. If it returns no row, a worker has just taken the job
 * with this key, and nothing was added. In a READ COMMITTED transaction, repeat the statement at most 20 times, some
 * milliseconds apart. Under another isolation level, only a new transaction can succeed.
 */
GW_API
gw_status_t gw_sql_add_job(const char *schema,
                           int32_t style,
                           char **sql,
                           gw_error_t **err);

/**
 * Makes a client, connects once to check address and password, and writes the client to `out`. The configuration is
 * copied. Blocks on the network.
 *
 * Reads the keys `database_url`, `schema`, `max_pg_conn` (default 10 here), `database_timeout` and `dry_run`. With
 * `dry_run`, calls that change jobs undo their change and return what it would be; adding jobs and migrating return
 * GW_ERR_STATE. The caller frees the client with `gw_client_free`.
 */
GW_API
gw_status_t gw_client_new(const gw_config_t *config,
                          gw_client_t **out,
                          gw_error_t **err);

/**
 * Frees a client. NULL does nothing, nor does the borrowed client of a worker.
 */
GW_API void gw_client_free(gw_client_t *client);

/**
 * Checks that the database replies within `timeout_ms` milliseconds. 0 counts as 1 ms; below 0 means
 * `database_timeout`.
 */
GW_API gw_status_t gw_client_check(gw_client_t *client, int64_t timeout_ms, gw_error_t **err);

/**
 * Installs the schema, or updates the existing one. Safe to repeat, also from many processes at once.
 */
GW_API gw_status_t gw_client_migrate(gw_client_t *client, gw_error_t **err);

/**
 * Adds a job. Its id is written to `id`, unless `id` is NULL. The caller keeps `spec`.
 *
 * - GW_ERR_CONFIG names a field and its limit; nothing was sent.
 * - GW_ERR_CONNECT, GW_ERR_DATABASE_TIMEOUT: the job was not added.
 * - GW_ERR_UNKNOWN_OUTCOME: the job may or may not have been added. The reply to the commit was lost, and the library
 *   could not query the outcome in time.
 */
GW_API
gw_status_t gw_client_add_job(gw_client_t *client,
                              const gw_spec_t *spec,
                              int64_t *id,
                              gw_error_t **err);

/**
 * Adds `count` jobs, all or none. Their ids are written to `ids` in the order of `specs`, unless `ids` is NULL; `ids`
 * has room for `count` numbers. `count` is at most GW_LIST_MAX. Errors as for `gw_client_add_job`; the message names
 * the job's place in the list, from 0.
 */
GW_API
gw_status_t gw_client_add_jobs(gw_client_t *client,
                               const gw_spec_t *const *specs,
                               size_t count,
                               int64_t *ids,
                               gw_error_t **err);

/**
 * Removes the job with a key. If the job runs, it keeps running and is not retried. GW_NOT_FOUND if no job has the key.
 */
GW_API
gw_status_t gw_client_remove_job(gw_client_t *client,
                                 const char *key,
                                 gw_error_t **err);

/**
 * Writes a JSON array of jobs to `json`, ordered by id. `options` is NULL or a JSON object with any of task, queue,
 * state (ready, scheduled, locked, failed), limit (default 50), offset (default 0). The caller frees `json` with
 * `gw_string_free`.
 */
GW_API
gw_status_t gw_client_list_jobs(gw_client_t *client,
                                const char *options,
                                char **json,
                                gw_error_t **err);

/**
 * Writes a job as a JSON object to `json`. GW_NOT_FOUND if no job has this id; `json` is then NULL. The caller frees
 * `json` with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_job(gw_client_t *client,
                          int64_t id,
                          char **json,
                          gw_error_t **err);

/**
 * Writes the number of jobs in each state to `json`: total, ready, scheduled, locked, failed. The caller frees `json`
 * with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_stats(gw_client_t *client,
                            char **json,
                            gw_error_t **err);

/**
 * Writes a JSON array of the named queues to `json`, ordered by name: id, queue_name, locked_at, locked_by, job_count,
 * ready_count. The caller frees `json` with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_queues(gw_client_t *client,
                             char **json,
                             gw_error_t **err);

/**
 * Writes a JSON array of the workers that hold jobs or queues to `json`: worker_id, locked_jobs, locked_queues. The
 * caller frees `json` with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_locked_workers(gw_client_t *client,
                                     char **json,
                                     gw_error_t **err);

/**
 * Writes a JSON array of the workers that have sent a heartbeat to `json`: worker_id, last_heartbeat_at, started_at,
 * metadata, is_stale. A worker is stale if its last heartbeat is longer ago than `sweep_threshold_ms` milliseconds and
 * three of its own heartbeat intervals. The caller frees `json` with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_active_workers(gw_client_t *client,
                                     int64_t sweep_threshold_ms,
                                     char **json,
                                     gw_error_t **err);

/**
 * Deletes jobs as if they had succeeded, and writes a JSON array of the deleted jobs to `json`. Jobs that a worker
 * holds are left unchanged. `count` is at most GW_LIST_MAX. The caller frees `json` with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_complete_jobs(gw_client_t *client,
                                    const int64_t *ids,
                                    size_t count,
                                    char **json,
                                    gw_error_t **err);

/**
 * Fails jobs permanently with a reason, and writes a JSON array of these jobs to `json`. Jobs that a worker holds are
 * left unchanged. `count` is at most GW_LIST_MAX. The caller frees `json` with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_fail_jobs(gw_client_t *client,
                                const int64_t *ids,
                                size_t count,
                                const char *reason,
                                char **json,
                                gw_error_t **err);

/**
 * Changes jobs that wait or have failed, and writes a JSON array of the changed jobs to `json`. Jobs that a worker
 * holds are left unchanged.
 *
 * `options` is a JSON object with at least one of run_at ("now", an RFC 3339 time, or microseconds since 1970),
 * priority, attempts (0 makes a failed job available again), max_attempts. `count` is at most GW_LIST_MAX. The caller
 * frees `json` with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_reschedule_jobs(gw_client_t *client,
                                      const int64_t *ids,
                                      size_t count,
                                      const char *options,
                                      char **json,
                                      gw_error_t **err);

/**
 * Unlocks the jobs and queues of workers that are known to be dead, and writes how many to `json`: jobs, queues. If
 * such a worker is alive, its jobs run twice. `count` is at most GW_LIST_MAX. The caller frees `json` with
 * `gw_string_free`.
 */
GW_API
gw_status_t gw_client_force_unlock(gw_client_t *client,
                                   const char *const *worker_ids,
                                   size_t count,
                                   char **json,
                                   gw_error_t **err);

/**
 * Deletes rows that are no longer needed, and writes how many to `json`: jobs, tasks, queues. `tasks` is one or more
 * of GW_CLEANUP_..., joined with `|`. The caller frees `json` with `gw_string_free`.
 */
GW_API
gw_status_t gw_client_cleanup(gw_client_t *client,
                              uint32_t tasks,
                              char **json,
                              gw_error_t **err);

/**
 * Recovers the jobs of dead workers, and writes the result to `json`: worker_ids, recovered_count, and
 * raised_thresholds if there are any. The caller frees `json` with `gw_string_free`.
 *
 * `options` is NULL or a JSON object with any of sweep_threshold_ms, recovery_delay_ms, dry_run. A worker is dead only
 * after three of its own heartbeats are missing. If the threshold is too short for a living worker, raised_thresholds
 * names that worker.
 */
GW_API
gw_status_t gw_client_sweep_stale_workers(gw_client_t *client,
                                          const char *options,
                                          char **json,
                                          gw_error_t **err);

/**
 * The id of the job's row. 0 on a bad handle.
 */
GW_API int64_t gw_job_id(const gw_job_t *job);

/**
 * The name of the job's task. Valid until this handle is freed. NULL on a bad handle.
 */
GW_API const char *gw_job_task(const gw_job_t *job);

/**
 * The key under which the job was added; NULL if it has none. Valid until this handle is freed.
 */
GW_API const char *gw_job_key(const gw_job_t *job);

/**
 * The id under which the worker locks the job. Valid until this handle is freed. NULL on a bad handle.
 */
GW_API const char *gw_job_worker_id(const gw_job_t *job);

/**
 * The number of this attempt, from 1. 0 on a bad handle.
 */
GW_API int32_t gw_job_attempts(const gw_job_t *job);

/**
 * The number of failed attempts after which the job fails permanently. 0 on a bad handle.
 */
GW_API int32_t gw_job_max_attempts(const gw_job_t *job);

/**
 * The priority: jobs with a lower number run first. 0 on a bad handle.
 */
GW_API int32_t gw_job_priority(const gw_job_t *job);

/**
 * How often the job was added again under its key. 0 on a bad handle.
 */
GW_API int32_t gw_job_revision(const gw_job_t *job);

/**
 * The time before which the job was not to start, in microseconds since 1970. A time outside the years 1 to 9999, such
 * as infinity, is returned as the nearest time within. 0 on a bad handle.
 */
GW_API
int64_t gw_job_run_at(const gw_job_t *job);

/**
 * The time at which the job was first added, in microseconds since 1970. A time outside the years 1 to 9999, such as
 * infinity, is returned as the nearest time within. 0 on a bad handle.
 */
GW_API
int64_t gw_job_created_at(const gw_job_t *job);

/**
 * The payload: JSON text as the database holds it, byte for byte, ending with NUL. Its length in bytes, without the
 * NUL, is written to `len`, unless `len` is NULL. Valid until this handle is freed. NULL on a bad handle.
 */
GW_API
const char *gw_job_payload(const gw_job_t *job,
                           size_t *len);

/**
 * The job as a JSON object, with its payload: id, task_identifier, job_queue_id, payload, priority, run_at, attempts,
 * max_attempts, created_at, key, revision, flags. The caller frees it with `gw_string_free`. NULL on a bad handle.
 */
GW_API
char *gw_job_json(const gw_job_t *job);

/**
 * The W3C trace context of the job; NULL if it has none. The caller frees it with `gw_string_free`.
 */
GW_API char *gw_job_traceparent(const gw_job_t *job);

/**
 * The client of the job's worker, for adding further jobs. Borrowed. Valid until the worker's next start or
 * `gw_worker_free`.
 */
GW_API gw_client_t *gw_job_client(const gw_job_t *job);

/**
 * Whether the job should end early: a stop's grace period is over, its task's timeout is over, or another worker has
 * taken the job. If the job then fails, the attempt is not counted, unless it timed out. false on a bad handle. Never
 * blocks.
 */
GW_API
bool gw_job_is_cancelled(const gw_job_t *job);

/**
 * Sets the text that becomes the job's `last_error` if its task function returns GW_TASK_FAILED. `len` is in bytes and
 * may be GW_NUL. Bytes that are not UTF-8 are replaced. GW_ERR_ALREADY_FINISHED if the job has an outcome.
 */
GW_API
gw_status_t gw_job_set_error(gw_job_t *job,
                             const char *message,
                             size_t len);

/**
 * If the job succeeds, runs it again no earlier than `delay_ms` milliseconds later. The attempt is not counted. At
 * most 100 years; the last call counts. GW_ERR_ALREADY_FINISHED if the job has an outcome.
 */
GW_API
gw_status_t gw_job_snooze(gw_job_t *job,
                          int64_t delay_ms);

/**
 * If the job fails, retries it after `delay_ms` milliseconds, instead of its task's backoff. At most 100 years; the
 * last call counts. GW_ERR_ALREADY_FINISHED if the job has an outcome.
 */
GW_API
gw_status_t gw_job_retry_after(gw_job_t *job,
                               int64_t delay_ms);

/**
 * Reports that the job succeeded. Never blocks: the library writes the outcome soon, see `gw_worker_flush`. The handle
 * must still be freed.
 *
 * Only the first outcome counts: later ones return GW_ERR_ALREADY_FINISHED. GW_ERR_CLOSED if the worker has stopped.
 */
GW_API
gw_status_t gw_job_complete(gw_job_t *job,
                            gw_error_t **err);

/**
 * Reports that the attempt failed; `message` becomes `last_error`. The job is retried by its task's backoff while it
 * has attempts left. `len` is in bytes and may be GW_NUL. Bytes that are not UTF-8 are replaced. Otherwise as
 * `gw_job_complete`.
 */
GW_API
gw_status_t gw_job_fail(gw_job_t *job,
                        const char *message,
                        size_t len,
                        gw_error_t **err);

/**
 * Reports the result of a batch job, whose payload is a JSON array. `errors` has `count` entries, one for each item:
 * NULL if the item is done, or the reason why it failed. Only failed items stay for the next attempt.
 *
 * If `count` is not the number of items, the attempt fails with all items. Otherwise as `gw_job_complete`.
 */
GW_API
gw_status_t gw_job_complete_items(gw_job_t *job,
                                  const char *const *errors,
                                  size_t count,
                                  gw_error_t **err);

/**
 * Makes another handle of the same job, which the caller owns. NULL on a bad handle. A task function that returns
 * GW_TASK_PENDING calls this first and passes the handle to the code that ends the job.
 */
GW_API
gw_job_t *gw_job_retain(gw_job_t *job);

/**
 * Frees a handle. If it is the last handle of a job without an outcome, the job fails with "handle dropped without a
 * result"; after its worker has stopped, nothing happens. NULL and borrowed handles do nothing.
 */
GW_API
void gw_job_free(gw_job_t *job);

/**
 * Makes a worker without tasks and writes it to `out`. The configuration is copied. Does not use the network.
 *
 * GW_ERR_CONFIG if an option is outside its limits, GW_ERR_NOMEM if no sockets or handles are left. The caller frees
 * the worker with `gw_worker_free`.
 */
GW_API
gw_status_t gw_worker_new(const gw_config_t *config,
                          gw_worker_t **out,
                          gw_error_t **err);

/**
 * Registers a task. Only before the start.
 *
 * `task` is called for each of the task's jobs, on threads of the library, several at once. If `task` is NULL, the
 * caller pulls the jobs with `gw_worker_next`. All tasks of one worker must be of the same kind: called or pulled.
 *
 * `free_fn(user_data)` is called once, as soon as the library no longer needs the function, also if this call fails.
 * GW_ERR_CONFIG if the task is already registered. GW_ERR_STATE if the worker was started or the kinds differ.
 */
GW_API
gw_status_t gw_worker_add_task(gw_worker_t *worker,
                               const char *name,
                               gw_task_fn task,
                               void *user_data,
                               gw_free_fn free_fn,
                               gw_error_t **err);

/**
 * Sets an option of a registered task. Only before the start.
 *
 * - `timeout`: a duration such as `30s`. The library cancels a job that runs longer.
 * - `backoff`: how long a failed job waits for its next attempt: `fixed 10s`, `linear 10s 1h` or `exponential 10s 1h`.
 *   The first duration is the first delay, the second one the longest.
 *
 * GW_ERR_CONFIG for an unknown task, an unknown option or a value of another form. GW_ERR_STATE after the start.
 */
GW_API
gw_status_t gw_worker_set_task_option(gw_worker_t *worker,
                                      const char *task,
                                      const char *key,
                                      const char *value,
                                      gw_error_t **err);

/**
 * Makes the worker add jobs by the clock: `crontab` is lines of crontab text, as for `gw_crontab_parse`. May be called
 * repeatedly, only before the start. GW_ERR_CRONTAB names line and column.
 */
GW_API
gw_status_t gw_worker_add_crontab(gw_worker_t *worker,
                                  const char *crontab,
                                  gw_error_t **err);

/**
 * Checks the options, connects, installs the schema or updates the existing one, starts all threads, and returns.
 *
 * `mode`: GW_RUN_FOREVER, until a stop; GW_RUN_ONCE, until no job is due. If the start fails, nothing runs:
 * GW_ERR_CONFIG, GW_ERR_CONNECT, GW_ERR_AUTH, GW_ERR_SCHEMA and others. GW_ERR_STATE if the worker runs or another
 * start is in progress. A worker that has ended can be started again.
 */
GW_API
gw_status_t gw_worker_start(gw_worker_t *worker,
                            int32_t mode,
                            gw_error_t **err);

/**
 * Calls `gw_worker_start` with GW_RUN_FOREVER, then `gw_worker_wait` without a timeout.
 */
GW_API gw_status_t gw_worker_run(gw_worker_t *worker, gw_error_t **err);

/**
 * Calls `gw_worker_start` with GW_RUN_ONCE, then `gw_worker_wait` without a timeout. If the tasks are pulled, other
 * threads must pull the jobs. Such a run adds no jobs of the crontab, not even those that `fill` would make up for. It
 * recovers no jobs of dead workers.
 */
GW_API
gw_status_t gw_worker_run_once(gw_worker_t *worker,
                               gw_error_t **err);

/**
 * Requests a stop, and returns at once. ASYNC-SIGNAL-SAFE.
 *
 * `mode`: GW_STOP_GRACEFUL or GW_STOP_ABORT; every other number counts as GW_STOP_GRACEFUL. An abort may follow a
 * graceful stop. If the worker is not running, the next start stops as soon as the worker runs. A bad handle does
 * nothing.
 */
GW_API
void gw_worker_request_stop(gw_worker_t *worker,
                            int32_t mode);

/**
 * Waits until the worker has ended: GW_OK, or GW_TIMEOUT after `timeout_ms`. Later calls return the same result until
 * the next start.
 *
 * GW_ERR_STUCK, naming job, task and thread, if handlers did not return in time; their jobs were given back.
 * GW_ERR_STUCK, naming job, task and outcome, if outcomes could not be written; these jobs may run again. GW_ERR_STATE
 * if the worker was not started. After a stop, a worker ends within `shutdown_grace_period` and one second.
 */
GW_API
gw_status_t gw_worker_wait(gw_worker_t *worker,
                           int64_t timeout_ms,
                           gw_error_t **err);

/**
 * Waits until the database has every outcome that was reported before the call: GW_OK, or GW_TIMEOUT after
 * `timeout_ms`. Returns GW_OK if the worker was never started.
 */
GW_API gw_status_t gw_worker_flush(gw_worker_t *worker, int64_t timeout_ms, gw_error_t **err);

/**
 * Frees a worker. If it runs, the call aborts it and waits until its stop is over. NULL does nothing.
 *
 * Handles of its jobs stay valid and must still be freed. When this call returns, every `user_data` of the worker has
 * been freed, unless one of its functions still runs or a handle of one of its jobs is left. Within a function that
 * the library calls, a running worker is only stopped, and nothing is freed.
 */
GW_API
void gw_worker_free(gw_worker_t *worker);

/**
 * Returns one of GW_STATE_..., or -1 on a bad handle. Never waits.
 */
GW_API int32_t gw_worker_state(const gw_worker_t *worker);

/**
 * The id under which the worker locks jobs. Each start has a new one. NULL before the first start. Valid until the
 * next start or `gw_worker_free`.
 */
GW_API
const char *gw_worker_id(const gw_worker_t *worker);

/**
 * The worker's client, borrowed: `gw_client_free` does nothing to it. NULL before the first start. Valid until the
 * next start or `gw_worker_free`.
 */
GW_API
gw_client_t *gw_worker_client(gw_worker_t *worker);

/**
 * Pulls the next job, already started, and writes it to `job`. The caller ends it with `gw_job_complete` or
 * `gw_job_fail`, and frees it with `gw_job_free`. Several threads may call this at once. At most `concurrency` jobs
 * without an outcome are handed out at once.
 *
 * - GW_OK: `job` has a job.
 * - GW_TIMEOUT: no job was available within `timeout_ms`.
 * - GW_WOKEN: `gw_worker_wakeup` was called.
 * - GW_STOPPED: the worker hands out no more jobs. Every call returns this until the next start.
 * - GW_CANCELLED, only with the option `deliver_cancellations`: `job` has a further handle of a job that was handed
 *   out earlier and should end early. The caller frees it; it cannot end the job.
 * - GW_ERR_STATE: the worker was not started, or its tasks are called.
 */
GW_API
gw_status_t gw_worker_next(gw_worker_t *worker,
                           int64_t timeout_ms,
                           gw_job_t **job,
                           gw_error_t **err);

/**
 * Pulls up to `capacity` jobs at once. Waits for the first one only. `capacity` is 1 to GW_LIST_MAX, and `jobs` has
 * room for as many handles. The number of handles is written to `count`. Otherwise as `gw_worker_next`.
 *
 * Does not deliver cancelled jobs: if one waits and no job is available, it returns GW_WOKEN, and `gw_worker_next`
 * delivers it.
 */
GW_API
gw_status_t gw_worker_next_batch(gw_worker_t *worker,
                                 int64_t timeout_ms,
                                 gw_job_t **jobs,
                                 size_t capacity,
                                 size_t *count,
                                 gw_error_t **err);

/**
 * A file descriptor to poll for reading. It is readable while `gw_worker_next` with a timeout of 0 would return
 * anything but GW_TIMEOUT. It may also be readable once when there is nothing.
 *
 * The library owns it: do not read or close it. An edge-triggered poller calls `gw_worker_next` after each wakeup
 * until GW_TIMEOUT. The descriptor stays the same from `gw_worker_new` to `gw_worker_free`. -1 on a bad handle.
 */
GW_API
int32_t gw_worker_fd(const gw_worker_t *worker);

/**
 * Makes one waiting or later `gw_worker_next` return GW_WOKEN. ASYNC-SIGNAL-SAFE. A bad handle does nothing.
 */
GW_API void gw_worker_wakeup(gw_worker_t *worker);

/**
 * Writes the worker's statistics to `stats`; all 0 before the first start. The caller sets `stats->struct_size`, and
 * only the fields within that size are written. GW_ERR_INVALID if it is not set.
 */
GW_API
gw_status_t gw_worker_stats(const gw_worker_t *worker,
                            gw_stats_t *stats);

/**
 * All statistics as a JSON object: also the open sessions, and the sizes and times of claims, statements and handlers.
 * The caller frees it with `gw_string_free`. NULL on a bad handle.
 */
GW_API
char *gw_worker_stats_json(const gw_worker_t *worker);

/**
 * Observes an event by its name: one of `gw_event_name_at` that cannot be intercepted. Only before the start.
 *
 * `handler` is called on a thread for events, one event after the other. For `WorkerInit` and `JobStart`, it is called
 * on the thread where they happen. If `handler` is NULL, the event waits for `gw_worker_next_event`. At most 1024
 * events wait; an event `EventsDropped` reports how many were dropped.
 *
 * `free_fn(user_data)` is called once, as soon as the library no longer needs the function, also if this call fails.
 */
GW_API
gw_status_t gw_worker_on_event(gw_worker_t *worker,
                               const char *name,
                               gw_event_fn handler,
                               void *user_data,
                               gw_free_fn free_fn,
                               gw_error_t **err);

/**
 * Registers an interceptor for one of these events. Only before the start.
 *
 * - `BeforeJobRun` and `AfterJobRun`: continue, skip, fail.
 * - `BeforeJobSchedule`: continue, skip, fail, payload. Called for jobs that are added through this worker's client.
 * - `JobRecovery`: continue, skip, reschedule, fail with backoff.
 *
 * `decide` is called on the thread where the event happens, which waits for it. Interceptors of one event are called
 * in the order of their registration. `free_fn(user_data)` is called once, as soon as the library no longer needs the
 * function, also if this call fails.
 */
GW_API
gw_status_t gw_worker_intercept(gw_worker_t *worker,
                                const char *name,
                                gw_decide_fn decide,
                                void *user_data,
                                gw_free_fn free_fn,
                                gw_error_t **err);

/**
 * Sets the text of a decision: for GW_DECIDE_FAIL the reason, for GW_DECIDE_PAYLOAD the JSON. The text is copied.
 * `len` is in bytes and may be GW_NUL.
 */
GW_API
gw_status_t gw_decision_set_text(gw_decision_t *decision,
                                 const char *text,
                                 size_t len);

/**
 * For GW_DECIDE_RESCHEDULE: sets the time at which the job runs again, in microseconds since 1970, and its number of
 * used attempts. `attempts` below 0 leaves them unchanged. GW_ERR_CONFIG for a time outside the years 1 to 9999, or
 * attempts above 32767.
 */
GW_API
gw_status_t gw_decision_set_run_at(gw_decision_t *decision,
                                   int64_t unix_us,
                                   int32_t attempts);

/**
 * The name of the event at `index`, from 0; NULL after the last. The last four names are those that can be
 * intercepted. Static text.
 */
GW_API const char *gw_event_name_at(size_t index);

/**
 * Writes the next event to `event`, of those registered without a handler. GW_OK, or GW_TIMEOUT after `timeout_ms`, or
 * GW_STOPPED if the worker has ended and all its events were delivered. GW_ERR_DEADLOCK if called with a timeout
 * within a function that the library calls. The caller frees the event with `gw_event_free`.
 */
GW_API
gw_status_t gw_worker_next_event(gw_worker_t *worker,
                                 int64_t timeout_ms,
                                 gw_event_t **event,
                                 gw_error_t **err);

/**
 * A file descriptor to poll for reading. It is readable while `gw_worker_next_event` with a timeout of 0 would return
 * anything but GW_TIMEOUT. The rules are those of `gw_worker_fd`.
 */
GW_API
int32_t gw_worker_event_fd(const gw_worker_t *worker);

/**
 * The event's name: `"JobComplete"`. Static text. NULL on a bad handle.
 */
GW_API const char *gw_event_name(const gw_event_t *event);

/**
 * The event's fields as a JSON object. Valid until the event is freed. NULL on a bad handle.
 */
GW_API const char *gw_event_json(const gw_event_t *event);

/**
 * The id of the event's job; 0 if the event is not about a job.
 */
GW_API int64_t gw_event_job_id(const gw_event_t *event);

/**
 * Frees an event. NULL and borrowed events do nothing.
 */
GW_API void gw_event_free(gw_event_t *event);

/**
 * Parses crontab text and writes the crontab to `out`. Each line has five fields, a task, options and a payload, as in
 * Node's graphile-worker. `tz=Area/City` is a further option. A task's name may be in quotes.
 *
 * GW_ERR_CRONTAB names line and column. The caller frees the crontab with `gw_crontab_free`.
 */
GW_API
gw_status_t gw_crontab_parse(const char *crontab,
                             gw_crontab_t **out,
                             gw_error_t **err);

/**
 * The number of entries. 0 on a bad handle.
 */
GW_API size_t gw_crontab_len(const gw_crontab_t *crontab);

/**
 * The entry at `index`, from 0, as a JSON object: identifier (its id, or else its task), task. NULL after the last
 * entry. The caller frees it with `gw_string_free`.
 */
GW_API
char *gw_crontab_item_json(const gw_crontab_t *crontab,
                           size_t index);

/**
 * Writes the next times at which an entry is due to `out`, at most `capacity`, and returns how many it wrote.
 * `after_us` and the times are microseconds since 1970; each time is later than `after_us`. `out` has room for
 * `capacity` numbers.
 *
 * Returns 0 if `out` is NULL, `capacity` is above GW_LIST_MAX, the handle is bad, or the entry is never due.
 */
GW_API
size_t gw_crontab_next(const gw_crontab_t *crontab,
                       size_t index,
                       int64_t after_us,
                       int64_t *out,
                       size_t capacity);

/**
 * Frees a crontab. NULL does nothing.
 */
GW_API void gw_crontab_free(gw_crontab_t *crontab);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GRAPHILE_WORKER_H */
