/* libgraphile_worker: Graphile Worker's PostgreSQL job queue for C, and for whoever can call C.
 *
 * Generated from src/capi by `make header`. Do not edit.
 *
 * Rules
 *
 * - Handles are opaque. NULL, freed handles, handles of another kind and those of a parent process are found out:
 *   calls answer GW_ERR_INVALID, GW_ERR_HANDLE or GW_ERR_FORKED, accessors NULL, 0 or false. Freeing NULL does nothing.
 * - A call that can fail answers a status: 0 well, above 0 no error but not as hoped, below 0 an error. Its last
 *   parameter `err` may be NULL; else it is always written: NULL, or an error that the caller frees with
 *   gw_error_free. Other results are written when it went well, and as said where more is so. Where they are written
 *   to may be NULL only if that is said; else the call answers GW_ERR_INVALID and does nothing.
 * - Text is UTF-8. What goes in ends with NUL, or comes with its length, which may be GW_NUL; it is copied before the
 *   call returns. It has at most GW_TEXT_MAX bytes, and a list at most GW_LIST_MAX entries. `const char *` results are
 *   borrowed: valid until the handle that they were read from is freed. `char *` results are the caller's, for
 *   gw_string_free.
 * - Times are microseconds since 1970, UTC. Timeouts and delays are milliseconds; a timeout below 0 is for ever, 0
 *   does not wait.
 * - Every `user_data` comes with a function that frees it (or NULL): called once, on any thread, also when the call that
 *   was given it failed. The same pointer is used on many threads.
 * - Functions of the caller's are called on threads of the library, which have all signals blocked. From within them,
 *   calls that wait (run, wait, flush, next with a timeout) answer GW_ERR_DEADLOCK. Neither exceptions nor
 *   longjmp may leave them.
 * - The library installs no signal handlers (unless `listen_os_shutdown_signals` is set), no atexit functions, and
 *   writes nothing to standard output.
 * - After a fork, the child makes handles of its own.
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

/* In place of a length: the text ends with NUL. */
#define GW_NUL ((size_t)-1)

/**
 * The version of the binary interface, and the number in the library's file name. It changes only when something that
 * worked would not work any more.
 */
#define GW_ABI_VERSION 1

/**
 * The most bytes of a text that goes in: 1 GiB, as in PostgreSQL. GW_ERR_INVALID for a longer one.
 */
#define GW_TEXT_MAX (1 << 30)

/**
 * The most entries of a list that goes in or is filled. GW_ERR_INVALID for a longer one.
 */
#define GW_LIST_MAX (1 << 24)

/**
 * Level of log records: none at all.
 */
#define GW_LOG_OFF 0

/**
 * Level of log records: a person must act.
 */
#define GW_LOG_ERROR 1

/**
 * Level of log records: something failed and is tried again.
 */
#define GW_LOG_WARN 2

/**
 * Level of log records: a worker's or a job's life.
 */
#define GW_LOG_INFO 3

/**
 * Level of log records: decisions.
 */
#define GW_LOG_DEBUG 4

/**
 * Level of log records: everything.
 */
#define GW_LOG_TRACE 5

/**
 * Key mode: a waiting job of the same key takes over everything of the new one.
 */
#define GW_KEY_REPLACE 1

/**
 * Key mode: the same, but a job that was never tried keeps its time.
 */
#define GW_KEY_PRESERVE_RUN_AT 2

/**
 * Key mode: nothing changes if any job has the key, also one that runs or has failed for good.
 */
#define GW_KEY_UNSAFE_DEDUPE 3

/**
 * Style of a statement: parameters are `$1` to `$9`.
 */
#define GW_SQL_DOLLAR 1

/**
 * Style of a statement: parameters are `%s`, in order.
 */
#define GW_SQL_FORMAT 2

/**
 * Style of a statement: parameters are `:identifier`, `:payload` and so on.
 */
#define GW_SQL_NAMED 3

/**
 * Style of a statement: parameters are `%(identifier)s`, `%(payload)s` and so on.
 */
#define GW_SQL_PYFORMAT 4

/**
 * Cleanup: jobs that have failed for good are deleted.
 */
#define GW_CLEANUP_DELETE_PERMAFAILED 1

/**
 * Cleanup: tasks that no job is of are deleted.
 */
#define GW_CLEANUP_GC_TASKS 2

/**
 * Cleanup: named queues that no job belongs to are deleted.
 */
#define GW_CLEANUP_GC_QUEUES 4

/**
 * Stop: nothing more is claimed, running jobs have the grace period.
 */
#define GW_STOP_GRACEFUL 1

/**
 * Stop: the same, and running jobs are cancelled at once.
 */
#define GW_STOP_ABORT 2

/**
 * Run: until a stop.
 */
#define GW_RUN_FOREVER 1

/**
 * Run: until no job is due.
 */
#define GW_RUN_ONCE 2

/**
 * State: not started yet.
 */
#define GW_STATE_NEW 0

/**
 * State: it runs.
 */
#define GW_STATE_RUNNING 1

/**
 * State: it was asked to stop, and has not ended.
 */
#define GW_STATE_STOPPING 2

/**
 * State: it has ended.
 */
#define GW_STATE_STOPPED 3

/**
 * State: it has ended with an error, which `gw_worker_wait` tells.
 */
#define GW_STATE_FAILED 4

/**
 * Decision: go on; the next interceptor decides, or nothing changes.
 */
#define GW_DECIDE_CONTINUE 27393

/**
 * Decision: the job counts as done, or is not added, or stays locked.
 */
#define GW_DECIDE_SKIP 27394

/**
 * Decision: the attempt fails, or the job is not added, for the reason that `gw_decision_set_text` gave.
 */
#define GW_DECIDE_FAIL 27395

/**
 * Decision: the job is added with the payload that `gw_decision_set_text` gave.
 */
#define GW_DECIDE_PAYLOAD 27396

/**
 * Decision: the job of a dead worker runs again when `gw_decision_set_run_at` says.
 */
#define GW_DECIDE_RESCHEDULE 27397

/**
 * Decision: the job of a dead worker has failed, and is tried again after its backoff.
 */
#define GW_DECIDE_FAIL_WITH_BACKOFF 27398

/**
 * Adds and manages jobs, on connections of its own. Thread-safe; freed with `gw_client_free`.
 */
typedef struct gw_client_t gw_client_t;

/**
 * A configuration. Thread-safe; copied by what is made of it, and freed with `gw_config_free`.
 */
typedef struct gw_config_t gw_config_t;

/**
 * A crontab that was read. Immutable, for any thread; freed with `gw_crontab_free`.
 */
typedef struct gw_crontab_t gw_crontab_t;

/**
 * Where an interceptor says more than its answer does. Borrowed within it.
 */
typedef struct gw_decision_t gw_decision_t;

/**
 * What went wrong. Immutable, for any thread; freed with `gw_error_free`.
 */
typedef struct gw_error_t gw_error_t;

/**
 * Something that happened. Immutable, for any thread; owned where `gw_worker_next_event` gives one, borrowed within a
 * function that observes or decides.
 */
typedef struct gw_event_t gw_event_t;

/**
 * A job. Thread-safe. Owned where `gw_worker_next` and `gw_job_retain` give one, borrowed within a task function.
 */
typedef struct gw_job_t gw_job_t;

/**
 * A job to add. Thread-safe; freed with `gw_spec_free`. It can be added again and again.
 */
typedef struct gw_spec_t gw_spec_t;

/**
 * A worker. Thread-safe; freed with `gw_worker_free`.
 */
typedef struct gw_worker_t gw_worker_t;

/**
 * How a call ended: 0 well; above 0 without an error, but not as hoped; below 0 with an error. New numbers may come:
 * take an unknown one above 0 for "try again later", one below for an error.
 */
typedef int32_t gw_status_t;

/**
 * A log record. All of it is valid within the call only. Fields are only ever added, at the end.
 */
typedef struct {
  /**
   * The size of the record as this library knows it.
   */
  size_t struct_size;
  /**
   * When, in microseconds since 1970.
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
   * Which part of the library says it.
   */
  const char *target;
  /**
   * What it says; the text of one kind of event is always the same.
   */
  const char *message;
  /**
   * What it says it of, as a JSON object: job_id, task, queue, attempt, worker_id, error and others.
   */
  const char *fields;
} gw_log_record_t;

/**
 * Takes a log record, on whatever thread it comes from. Must be quick, and must not call the library; records that
 * arise meanwhile on the same thread are dropped.
 */
typedef void (*gw_log_fn)(const gw_log_record_t *record, void *user_data);

/**
 * Frees what a `user_data` points to. Called once, on any thread, also if the call that was given it failed.
 */
typedef void (*gw_free_fn)(void *user_data);

/**
 * How a task function ended. No number that is returned by accident is one of them.
 */
typedef int32_t gw_outcome_t;

/**
 * Runs one job, on a thread of the library's; may block. `job` is borrowed until it returns. What it answers counts only
 * if the job has not ended by then; a number that is no GW_TASK_... fails it. Neither exceptions nor longjmp may leave
 * it.
 */
typedef gw_outcome_t (*gw_task_fn)(gw_job_t *job, void *user_data);

/**
 * What a worker has done since its last start, and what it is doing. Set `struct_size` before the call; fields are only
 * ever added, at the end.
 */
typedef struct {
  /**
   * The size of this struct as the caller knows it.
   */
  size_t struct_size;
  /**
   * Jobs claimed.
   */
  uint64_t claimed;
  /**
   * Jobs that succeeded.
   */
  uint64_t completed;
  /**
   * Attempts that failed.
   */
  uint64_t failed;
  /**
   * Attempts that failed and are tried again.
   */
  uint64_t retried;
  /**
   * Jobs that failed for good.
   */
  uint64_t permanently_failed;
  /**
   * Jobs given back before they started, or interrupted by a stop.
   */
  uint64_t returned;
  /**
   * Jobs that asked to be run again later.
   */
  uint64_t snoozed;
  /**
   * Jobs that took longer than their task may.
   */
  uint64_t timed_out;
  /**
   * Jobs that went on after that.
   */
  uint64_t stuck;
  /**
   * Outcomes that the database refused, because the job was no longer this worker's.
   */
  uint64_t lost;
  /**
   * Jobs that the database held for the worker without its knowing.
   */
  uint64_t reconciled;
  /**
   * Database calls that failed and were tried again.
   */
  uint64_t database_errors;
  /**
   * Jobs that wait for a thread, now.
   */
  uint64_t held;
  /**
   * Jobs that run, now.
   */
  uint64_t running;
  /**
   * Jobs claimed and not settled, now.
   */
  uint64_t in_flight;
  /**
   * For how long the oldest outcome has waited to be written, in microseconds.
   */
  uint64_t settle_lag_us;
  /**
   * Events that nobody was told of.
   */
  uint64_t events_dropped;
} gw_stats_t;

/**
 * Observes an event, on a thread of the library's; should be quick.
 */
typedef void (*gw_event_fn)(const gw_event_t *event, void *user_data);

/**
 * Decides, on the thread where the thing happens: answers one of GW_DECIDE_...; another number counts as a failure of
 * the interceptor itself.
 */
typedef int32_t (*gw_decide_fn)(const gw_event_t *event, gw_decision_t *decision, void *user_data);

/**
 * It went well.
 */
#define GW_OK 0

/**
 * Nothing came in time.
 */
#define GW_TIMEOUT 1

/**
 * Nothing will come any more.
 */
#define GW_STOPPED 2

/**
 * `gw_worker_wakeup` was called.
 */
#define GW_WOKEN 3

/**
 * There is none.
 */
#define GW_NOT_FOUND 4

/**
 * A job that was given out earlier is to end early.
 */
#define GW_CANCELLED 5

/**
 * An argument is NULL, or a number outside its range; the message names it.
 */
#define GW_ERR_INVALID -1

/**
 * Not now: the worker runs already, or does not run.
 */
#define GW_ERR_STATE -2

/**
 * The job has its outcome, or is no longer this worker's.
 */
#define GW_ERR_ALREADY_FINISHED -3

/**
 * The worker of this job has stopped.
 */
#define GW_ERR_CLOSED -4

/**
 * The handle is the parent process's.
 */
#define GW_ERR_FORKED -5

/**
 * The call would wait for the very thread that makes it.
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
 * The worker has stopped, but handlers did not return, or outcomes could not be written; the message names the jobs.
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
 * A text is not UTF-8, or has a NUL within it.
 */
#define GW_ERR_UTF8 -23

/**
 * The database could not be reached, or the connection broke.
 */
#define GW_ERR_CONNECT -40

/**
 * The database refused who we are.
 */
#define GW_ERR_AUTH -41

/**
 * TLS could not be set up as asked.
 */
#define GW_ERR_TLS -42

/**
 * The database answered an error; see `gw_error_sqlstate`.
 */
#define GW_ERR_DATABASE -43

/**
 * The schema is missing, incomplete, too old or too new, or the role lacks a right on it.
 */
#define GW_ERR_SCHEMA -44

/**
 * The database did not answer in time.
 */
#define GW_ERR_DATABASE_TIMEOUT -45

/**
 * A keyed job was taken by a worker again and again, and nothing was added.
 */
#define GW_ERR_CONFLICT -46

/**
 * The reply to the commit was lost, and the database could not be asked for the outcome: the change may have been made.
 */
#define GW_ERR_UNKNOWN_OUTCOME -47

/**
 * An interceptor skipped the job that was to be added.
 */
#define GW_ERR_SKIPPED -48

/**
 * An interceptor refused the job that was to be added.
 */
#define GW_ERR_REFUSED -49

/**
 * Not in this build, or not on this system.
 */
#define GW_ERR_UNSUPPORTED -80

/**
 * A bug of the library, caught at its door; please report it.
 */
#define GW_ERR_PANIC -99

/**
 * Outcome of a task function: the job is done.
 */
#define GW_TASK_DONE 27137

/**
 * Outcome of a task function: the attempt failed; `gw_job_set_error` says why.
 */
#define GW_TASK_FAILED 27138

/**
 * Outcome of a task function: somebody else ends the job later, with the handle that `gw_job_retain` gave. Without one
 * the job fails at once.
 */
#define GW_TASK_PENDING 27139

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that is loaded: major * 65536 + minor * 256 + patch, as GW_VERSION of the header.
 */
GW_API
uint32_t gw_version(void);

/**
 * The same as text: `"0.1.0"`. Static.
 */
GW_API const char *gw_version_string(void);

/**
 * The binary interface of the library that is loaded. Compare it with GW_ABI_VERSION before anything else, and refuse
 * to go on if they differ.
 */
GW_API
uint32_t gw_abi_version(void);

/**
 * What was built, as JSON: version, abi, tls. Static text.
 */
GW_API const char *gw_build_info(void);

/**
 * Frees a text that the library gave as `char *`. NULL does nothing. Free it once only.
 */
GW_API void gw_string_free(char *text);

/**
 * The name of a status: `"GW_ERR_CONNECT"`; `"GW_UNKNOWN"` if it has none. Static text.
 */
GW_API const char *gw_status_name(gw_status_t status);

/**
 * What a status means, in a few words. Static text.
 */
GW_API const char *gw_status_text(gw_status_t status);

/**
 * Every status, by its place from 0 on; INT32_MIN after the last. For those who generate bindings.
 */
GW_API gw_status_t gw_status_at(size_t index);

/**
 * The status of the call that gave this error. GW_ERR_INVALID if it is NULL.
 */
GW_API gw_status_t gw_error_status(const gw_error_t *error);

/**
 * What went wrong, and what to do about it. Carries neither passwords nor payloads. Valid until the error is freed.
 */
GW_API
const char *gw_error_message(const gw_error_t *error);

/**
 * The five characters by which PostgreSQL named the error; NULL if it was not the database that answered one. Valid
 * until the error is freed.
 */
GW_API
const char *gw_error_sqlstate(const gw_error_t *error);

/**
 * Whether trying the same again later may work: a broken connection, a deadlock, a server that is starting.
 */
GW_API bool gw_error_is_retryable(const gw_error_t *error);

/**
 * Frees an error. NULL does nothing.
 */
GW_API void gw_error_free(gw_error_t *error);

/**
 * Sends log records up to a level to a function of the host's, for the whole process; NULL: to standard error. Without
 * a call, warnings and errors go to standard error. Returns when the function before is not called any more, and has
 * freed its `user_data`. GW_ERR_DEADLOCK within such a function. Payloads and passwords are never logged.
 */
GW_API
gw_status_t gw_log_set_sink(gw_log_fn sink,
                            void *user_data,
                            gw_free_fn free_fn,
                            int32_t max_level);

/**
 * Keeps log records up to a level for `gw_log_next`, for the whole process, instead of calling a function on threads of
 * the library's: for runtimes that cannot have that. At most 1024 wait; an event `EventsDropped` tells how many found
 * no room. `gw_log_set_sink` ends it.
 */
GW_API
gw_status_t gw_log_set_queue(int32_t max_level);

/**
 * Gives the next log record that waits: an event whose name is its level (`error`, `warn`, `info`, `debug`, `trace`), and
 * whose JSON has time_us, target, message and fields. GW_OK, GW_TIMEOUT, or GW_STOPPED if none are kept, or not any
 * more. The caller frees it.
 */
GW_API
gw_status_t gw_log_next(int64_t timeout_ms,
                        gw_event_t **record,
                        gw_error_t **err);

/**
 * A configuration with nothing set. The caller frees it.
 */
GW_API gw_config_t *gw_config_new(void);

/**
 * Sets a key. Durations have a unit (`250ms`, `30s`, `5m`, `2h`, `1d`), booleans are `true` or `false` (or
 * on and off, yes and no, 1 and 0), lists have commas. GW_ERR_CONFIG for an unknown key, naming the likeliest, or a value of another form; limits are checked by
 * what is made of the configuration.
 */
GW_API
gw_status_t gw_config_set(gw_config_t *config,
                          const char *key,
                          const char *value,
                          gw_error_t **err);

/**
 * Gives what a key was set to, or else its default, for the caller to free. GW_NOT_FOUND if there is neither.
 */
GW_API gw_status_t gw_config_get(const gw_config_t *config, const char *key, char **value, gw_error_t **err);

/**
 * Sets what the environment has: DATABASE_URL unless it is empty, and GRAPHILE_WORKER_ with the key in capitals
 * (GRAPHILE_WORKER_CONCURRENCY). GRAPHILE_WORKER_CONCURENCY, or any other name that is a key but for two letters, is
 * GW_ERR_CONFIG and names the key; another unknown GRAPHILE_WORKER_ variable is a warning in the log. Without a
 * database_url the PG* variables say where the database is. Call it before other threads change the environment.
 */
GW_API
gw_status_t gw_config_load_env(gw_config_t *config,
                               gw_error_t **err);

/**
 * Every key, by its place from 0 on; NULL after the last. Static text.
 */
GW_API const char *gw_config_key_at(size_t index);

/**
 * What a key is, as JSON: key, type (text, number, bool, duration, list, crontab), default (null if it has none), for
 * (worker, client, both), doc. NULL for an unknown key. Static text.
 */
GW_API
const char *gw_config_key_info(const char *key);

/**
 * Frees a configuration. NULL does nothing.
 */
GW_API void gw_config_free(gw_config_t *config);

/**
 * A job of this task, with payload `{}` and the database's defaults. NULL if the name is NULL or not UTF-8; its
 * length is checked when it is added. The caller frees it.
 */
GW_API
gw_spec_t *gw_spec_new(const char *task);

/**
 * Sets the payload: JSON text, stored byte for byte. `len` may be GW_NUL. GW_ERR_JSON if it is none;
 * `gw_spec_check` then tells line and column.
 */
GW_API gw_status_t gw_spec_set_payload(gw_spec_t *spec, const char *payload, size_t len);

/**
 * Sets the named queue: its jobs run one after the other. At most 128 characters. NULL: none, the default.
 */
GW_API gw_status_t gw_spec_set_queue(gw_spec_t *spec, const char *queue);

/**
 * Sets before when the job does not start, within the years 1 to 9999. Default: now, by the database's clock.
 */
GW_API gw_status_t gw_spec_set_run_at(gw_spec_t *spec, int64_t unix_us);

/**
 * Sets how often it is tried, 1 to 32767. Default: 25.
 */
GW_API gw_status_t gw_spec_set_max_attempts(gw_spec_t *spec, int32_t max_attempts);

/**
 * Sets the priority, -32768 to 32767, lower first. Default: 0.
 */
GW_API gw_status_t gw_spec_set_priority(gw_spec_t *spec, int32_t priority);

/**
 * Sets the key, 1 to 512 characters, and what happens to a waiting job of the same key: one of GW_KEY_REPLACE,
 * GW_KEY_PRESERVE_RUN_AT, GW_KEY_UNSAFE_DEDUPE. NULL: no key, the default.
 */
GW_API
gw_status_t gw_spec_set_key(gw_spec_t *spec,
                            const char *key,
                            int32_t mode);

/**
 * Adds a flag, by which workers can leave the job to others.
 */
GW_API gw_status_t gw_spec_add_flag(gw_spec_t *spec, const char *flag);

/**
 * Sets the W3C trace context that the job belongs to. It travels in the payload, as `_trace.traceparent`, so that must
 * be a JSON object. NULL: none, the default.
 */
GW_API
gw_status_t gw_spec_set_traceparent(gw_spec_t *spec,
                                    const char *traceparent);

/**
 * Checks everything against its limits, as adding it would: GW_ERR_CONFIG names the field and the limit. What a setter
 * refused is told here, and the job is not added, until that field is set again.
 */
GW_API
gw_status_t gw_spec_check(const gw_spec_t *spec,
                          gw_error_t **err);

/**
 * Frees a spec. NULL does nothing.
 */
GW_API void gw_spec_free(gw_spec_t *spec);

/**
 * The statement that adds a job, for a transaction of the caller's own. Parameters, in this order and by these names:
 * identifier text, payload text (JSON), queue_name text, run_at timestamptz, max_attempts int4, job_key text, priority
 * int4, flags text[], job_key_mode text (`replace`, `preserve_run_at` or `unsafe_dedupe`). All but the first two may be
 * null; each is cast by the statement, so a driver may send text. `schema` NULL: `graphile_worker`. `style`: one of
 * GW_SQL_DOLLAR, GW_SQL_FORMAT, GW_SQL_NAMED, GW_SQL_PYFORMAT. A `:` or `%` in the schema's name is written as a Unicode
 * escape in all but the first, so that no driver takes it for a parameter.
 *
 * It answers one row, the job's, its id first. No row: a worker has just taken the job of this key, and nothing was
 * added. Repeat it then, at most 20 times and some milliseconds apart, while the transaction is READ COMMITTED;
 * under another isolation only a new transaction can succeed. Check what is sent with `gw_spec_check` before.
 */
GW_API
gw_status_t gw_sql_add_job(const char *schema,
                           int32_t style,
                           char **sql,
                           gw_error_t **err);

/**
 * A client, connected once, so that a wrong address or password is told at once. Reads the keys `database_url`,
 * `schema`, `max_pg_conn` (default 10 here), `database_timeout` and `dry_run`. Blocks on the network. The caller
 * frees it.
 */
GW_API
gw_status_t gw_client_new(const gw_config_t *config,
                          gw_client_t **out,
                          gw_error_t **err);

/**
 * Frees a client. NULL does nothing, and so does a client that belongs to a worker.
 */
GW_API void gw_client_free(gw_client_t *client);

/**
 * Asks the database for a sign of life, for at most `timeout_ms` (below 0: the configured time).
 */
GW_API gw_status_t gw_client_check(gw_client_t *client, int64_t timeout_ms, gw_error_t **err);

/**
 * Installs the schema, or takes over the one that is there. Safe at every start, from many processes at once.
 */
GW_API gw_status_t gw_client_migrate(gw_client_t *client, gw_error_t **err);

/**
 * Adds a job; its id is written to `id` unless that is NULL. GW_ERR_CONFIG names a field and its limit, and nothing was
 * sent. GW_ERR_CONNECT and GW_ERR_DATABASE_TIMEOUT: it was not added. GW_ERR_UNKNOWN_OUTCOME: the reply to the commit was
 * lost and the database could not be asked for the outcome in time, so it may or may not have been added.
 */
GW_API
gw_status_t gw_client_add_job(gw_client_t *client,
                              const gw_spec_t *spec,
                              int64_t *id,
                              gw_error_t **err);

/**
 * Adds many jobs, all or none; their ids are written to `ids`, in the order of `specs`, unless it is NULL.
 */
GW_API
gw_status_t gw_client_add_jobs(gw_client_t *client,
                               const gw_spec_t *const *specs,
                               size_t count,
                               int64_t *ids,
                               gw_error_t **err);

/**
 * Removes the job with a key; one that runs goes on and is not tried again. GW_NOT_FOUND if there is none.
 */
GW_API gw_status_t gw_client_remove_job(gw_client_t *client, const char *key, gw_error_t **err);

/**
 * Lists jobs as they stand, by id. `options`: NULL, or a JSON object with any of task, queue, state (ready, scheduled,
 * locked, failed), limit, offset.
 */
GW_API
gw_status_t gw_client_list_jobs(gw_client_t *client,
                                const char *options,
                                char **json,
                                gw_error_t **err);

/**
 * Shows a job as it stands. GW_NOT_FOUND if there is none.
 */
GW_API gw_status_t gw_client_job(gw_client_t *client, int64_t id, char **json, gw_error_t **err);

/**
 * Counts jobs by state.
 */
GW_API gw_status_t gw_client_stats(gw_client_t *client, char **json, gw_error_t **err);

/**
 * Lists the named queues.
 */
GW_API gw_status_t gw_client_queues(gw_client_t *client, char **json, gw_error_t **err);

/**
 * Lists the workers that hold jobs or queues.
 */
GW_API gw_status_t gw_client_locked_workers(gw_client_t *client, char **json, gw_error_t **err);

/**
 * Lists the workers that say, or said, that they live; stale are those that were silent for longer than the threshold.
 */
GW_API
gw_status_t gw_client_active_workers(gw_client_t *client,
                                     int64_t sweep_threshold_ms,
                                     char **json,
                                     gw_error_t **err);

/**
 * Completes jobs by hand; answers those that were. Jobs that workers hold are left alone.
 */
GW_API
gw_status_t gw_client_complete_jobs(gw_client_t *client,
                                    const int64_t *ids,
                                    size_t count,
                                    char **json,
                                    gw_error_t **err);

/**
 * Fails jobs for good by hand, with a reason; answers those that were. Jobs that workers hold are left alone.
 */
GW_API
gw_status_t gw_client_fail_jobs(gw_client_t *client,
                                const int64_t *ids,
                                size_t count,
                                const char *reason,
                                char **json,
                                gw_error_t **err);

/**
 * Changes jobs that wait or have failed; answers those that were. `options`: a JSON object with any of run_at ("now", a
 * time as in RFC 3339, or microseconds since 1970), priority, attempts (0 brings a failed job back), max_attempts.
 */
GW_API
gw_status_t gw_client_reschedule_jobs(gw_client_t *client,
                                      const int64_t *ids,
                                      size_t count,
                                      const char *options,
                                      char **json,
                                      gw_error_t **err);

/**
 * Takes jobs and queues away from workers that are known to be dead; answers how many.
 */
GW_API
gw_status_t gw_client_force_unlock(gw_client_t *client,
                                   const char *const *worker_ids,
                                   size_t count,
                                   char **json,
                                   gw_error_t **err);

/**
 * Deletes what nobody needs any more: `tasks` is one or several of GW_CLEANUP_..., or-ed. Answers how many rows.
 */
GW_API
gw_status_t gw_client_cleanup(gw_client_t *client,
                              uint32_t tasks,
                              char **json,
                              gw_error_t **err);

/**
 * Finds dead workers and gives their jobs back; answers which, and how many jobs. `options`: NULL, or a JSON object with
 * any of sweep_threshold_ms, recovery_delay_ms, dry_run. No worker is dead before three of its own heartbeats are missing;
 * where the threshold is too short for a living worker, the JSON names it in raised_thresholds.
 */
GW_API
gw_status_t gw_client_sweep_stale_workers(gw_client_t *client,
                                          const char *options,
                                          char **json,
                                          gw_error_t **err);

/**
 * The row's id. 0 on a bad handle.
 */
GW_API int64_t gw_job_id(const gw_job_t *job);

/**
 * The task. Valid until this handle is freed.
 */
GW_API const char *gw_job_task(const gw_job_t *job);

/**
 * The key under which it was added; NULL if it has none. Valid until this handle is freed.
 */
GW_API const char *gw_job_key(const gw_job_t *job);

/**
 * The id under which the worker holds it. Valid until this handle is freed.
 */
GW_API const char *gw_job_worker_id(const gw_job_t *job);

/**
 * Which attempt this is, from 1.
 */
GW_API int32_t gw_job_attempts(const gw_job_t *job);

/**
 * After how many failed attempts it stays failed.
 */
GW_API int32_t gw_job_max_attempts(const gw_job_t *job);

/**
 * Its priority, lower first.
 */
GW_API int32_t gw_job_priority(const gw_job_t *job);

/**
 * How often it was added again under its key.
 */
GW_API int32_t gw_job_revision(const gw_job_t *job);

/**
 * Before when it was not to start, in microseconds since 1970. A time outside of the years 1 to 9999, as infinity, is the
 * nearest within.
 */
GW_API
int64_t gw_job_run_at(const gw_job_t *job);

/**
 * When it was first added, in microseconds since 1970. A time outside of the years 1 to 9999, as infinity, is the
 * nearest within.
 */
GW_API
int64_t gw_job_created_at(const gw_job_t *job);

/**
 * The payload: JSON text as the database holds it, byte for byte, ending with NUL. Its length is written to `len` unless
 * that is NULL. Valid until this handle is freed.
 */
GW_API
const char *gw_job_payload(const gw_job_t *job,
                           size_t *len);

/**
 * The job as a JSON object, payload included: id, task_identifier, job_queue_id, payload, priority, run_at, attempts,
 * max_attempts, created_at, key, revision, flags. The caller frees it.
 */
GW_API
char *gw_job_json(const gw_job_t *job);

/**
 * The W3C trace context that the job belongs to; NULL if there is none. The caller frees it.
 */
GW_API char *gw_job_traceparent(const gw_job_t *job);

/**
 * The client of the job's worker, for further jobs. Borrowed: it goes with the worker.
 */
GW_API gw_client_t *gw_job_client(const gw_job_t *job);

/**
 * Whether the job should end early: a stop whose grace period is over, its task's timeout, or it was lost to another
 * worker. A job that fails then counts no attempt, unless it timed out.
 */
GW_API
bool gw_job_is_cancelled(const gw_job_t *job);

/**
 * Sets the text that becomes the job's `last_error` if its task function answers GW_TASK_FAILED. `len` may be GW_NUL.
 * What is not UTF-8 in it is replaced.
 */
GW_API
gw_status_t gw_job_set_error(gw_job_t *job,
                             const char *message,
                             size_t len);

/**
 * Runs the job again no earlier than after `delay_ms`, if it succeeds: the attempt is not counted.
 */
GW_API gw_status_t gw_job_snooze(gw_job_t *job, int64_t delay_ms);

/**
 * Tries the job again after `delay_ms`, if it fails: instead of what its task's backoff says.
 */
GW_API gw_status_t gw_job_retry_after(gw_job_t *job, int64_t delay_ms);

/**
 * The job succeeded. Never blocks: the outcome is written soon, see `gw_worker_flush`. Of several outcomes the first
 * counts, the others answer GW_ERR_ALREADY_FINISHED; GW_ERR_CLOSED if the worker has stopped. The handle stays
 * to be freed.
 */
GW_API
gw_status_t gw_job_complete(gw_job_t *job,
                            gw_error_t **err);

/**
 * The job failed, for this reason; it is tried again as its task and its attempts have it. `len` may be GW_NUL; what is
 * not UTF-8 is replaced. Otherwise as `gw_job_complete`.
 */
GW_API
gw_status_t gw_job_fail(gw_job_t *job,
                        const char *message,
                        size_t len,
                        gw_error_t **err);

/**
 * A batch job has ended: its payload is a JSON array, and `errors` has for each item NULL if it is done, or why it failed.
 * Only items that failed are left for the next attempt. Another `count` than there are items fails the attempt with
 * all of them. Otherwise as `gw_job_complete`.
 */
GW_API
gw_status_t gw_job_complete_items(gw_job_t *job,
                                  const char *const *errors,
                                  size_t count,
                                  gw_error_t **err);

/**
 * One more handle of the same job, owned by the caller. NULL on a bad handle. A task function that answers
 * GW_TASK_PENDING takes one before, for whoever ends the job.
 */
GW_API gw_job_t *gw_job_retain(gw_job_t *job);

/**
 * Frees a handle. When the last of a job goes and it has no outcome, it fails; after its worker has stopped, nothing
 * happens. NULL does nothing, and so does a handle that is only borrowed.
 */
GW_API
void gw_job_free(gw_job_t *job);

/**
 * A worker with this configuration, without any task. No network yet. The caller frees it.
 */
GW_API gw_status_t gw_worker_new(const gw_config_t *config, gw_worker_t **out, gw_error_t **err);

/**
 * Registers a task: `task` is called for each of its jobs, or NULL: they are pulled with `gw_worker_next`. A worker's
 * tasks are either all called or all pulled. Before the start only.
 */
GW_API
gw_status_t gw_worker_add_task(gw_worker_t *worker,
                               const char *name,
                               gw_task_fn task,
                               void *user_data,
                               gw_free_fn free_fn,
                               gw_error_t **err);

/**
 * Sets an option of a task. `timeout`: how long one of its jobs may take before it is cancelled, as `30s`. `backoff`: how
 * long a failed job waits: `fixed 10s`, `linear 10s 1h`, `exponential 10s 1h` (first, and most). Before the start only.
 */
GW_API
gw_status_t gw_worker_set_task_option(gw_worker_t *worker,
                                      const char *task,
                                      const char *key,
                                      const char *value,
                                      gw_error_t **err);

/**
 * Adds jobs by the clock: lines of crontab text. GW_ERR_CRONTAB names line and column. Before the start only.
 */
GW_API gw_status_t gw_worker_add_crontab(gw_worker_t *worker, const char *crontab, gw_error_t **err);

/**
 * Checks, connects, installs or takes over the schema, starts all threads, and returns. `mode`: GW_RUN_FOREVER, until a
 * stop, or GW_RUN_ONCE, until no job is due. Errors as they are found: GW_ERR_CONFIG, GW_ERR_CONNECT, GW_ERR_AUTH,
 * GW_ERR_SCHEMA and others; nothing runs then. A worker that has ended can be started again.
 */
GW_API
gw_status_t gw_worker_start(gw_worker_t *worker,
                            int32_t mode,
                            gw_error_t **err);

/**
 * `gw_worker_start` with GW_RUN_FOREVER, and `gw_worker_wait` for ever.
 */
GW_API gw_status_t gw_worker_run(gw_worker_t *worker, gw_error_t **err);

/**
 * `gw_worker_start` with GW_RUN_ONCE, and `gw_worker_wait` for ever. Where jobs are pulled, other threads must do so.
 * Such a run adds no jobs of the crontab, those that `fill` would make up for included, and recovers no jobs of dead workers.
 */
GW_API
gw_status_t gw_worker_run_once(gw_worker_t *worker,
                               gw_error_t **err);

/**
 * Asks the worker to stop, and returns at once. ASYNC-SIGNAL-SAFE. `mode`: GW_STOP_GRACEFUL, or GW_STOP_ABORT, also after
 * it. Before the start: it will stop as soon as it was started.
 */
GW_API
void gw_worker_request_stop(gw_worker_t *worker,
                            int32_t mode);

/**
 * Waits until the worker has ended: GW_OK, or GW_TIMEOUT. GW_ERR_STUCK, naming job, task and thread, if handlers did not
 * return in time: their jobs were given back. GW_ERR_STUCK, naming job, task and outcome, also if outcomes could not be
 * written: these jobs may run again. A worker ends within its grace period and a second after a stop.
 */
GW_API
gw_status_t gw_worker_wait(gw_worker_t *worker,
                           int64_t timeout_ms,
                           gw_error_t **err);

/**
 * Waits until every outcome that was given by now is in the database: GW_OK, or GW_TIMEOUT.
 */
GW_API gw_status_t gw_worker_flush(gw_worker_t *worker, int64_t timeout_ms, gw_error_t **err);

/**
 * Frees a worker; one that runs is aborted first, and waited for until its stop is over. NULL does nothing. Handles of
 * its jobs stay good. What came with its functions has been freed when this returns, if none of them still runs and no
 * handle of a job is left. From within a function that the library calls it stops the worker, and frees nothing.
 */
GW_API
void gw_worker_free(gw_worker_t *worker);

/**
 * One of GW_STATE_.... -1 on a bad handle.
 */
GW_API int32_t gw_worker_state(const gw_worker_t *worker);

/**
 * The id under which the worker holds jobs, a new one at each start. NULL before the first. Valid until the next start.
 */
GW_API
const char *gw_worker_id(const gw_worker_t *worker);

/**
 * The worker's client. Borrowed; NULL before the first start, good until the next one.
 */
GW_API gw_client_t *gw_worker_client(gw_worker_t *worker);

/**
 * Gives the next job, started; the caller ends it with `gw_job_complete` or `gw_job_fail`, and frees it. At most
 * `concurrency` jobs that have not ended are out at once. GW_TIMEOUT: none came in time. GW_WOKEN: `gw_worker_wakeup`
 * was called. GW_STOPPED: none will come any more, which every caller is told, for ever. With `deliver_cancellations`
 * GW_CANCELLED: `*job` is a further handle, to be freed, of a job that was given out earlier and is to end early.
 */
GW_API
gw_status_t gw_worker_next(gw_worker_t *worker,
                           int64_t timeout_ms,
                           gw_job_t **job,
                           gw_error_t **err);

/**
 * The same for up to `capacity` jobs at once; how many came is written to `count`. Waits for the first only. Tells of no
 * cancelled jobs: those come by `gw_worker_next`, for which GW_WOKEN says that one waits.
 */
GW_API
gw_status_t gw_worker_next_batch(gw_worker_t *worker,
                                 int64_t timeout_ms,
                                 gw_job_t **jobs,
                                 size_t capacity,
                                 size_t *count,
                                 gw_error_t **err);

/**
 * A file descriptor to poll for reading: readable while `gw_worker_next` with a timeout of 0 would not answer GW_TIMEOUT,
 * and perhaps once too often. It is the library's: neither read nor close it. Edge-triggered pollers call
 * `gw_worker_next` after each wake until GW_TIMEOUT. The same from `gw_worker_new` to `gw_worker_free`; -1 on a bad
 * handle.
 */
GW_API
int32_t gw_worker_fd(const gw_worker_t *worker);

/**
 * Lets one waiting or later `gw_worker_next` answer GW_WOKEN. ASYNC-SIGNAL-SAFE.
 */
GW_API void gw_worker_wakeup(gw_worker_t *worker);

/**
 * Reads the worker's statistics; all zero before the first start. `stats->struct_size` says how much the caller knows.
 */
GW_API
gw_status_t gw_worker_stats(const gw_worker_t *worker,
                            gw_stats_t *stats);

/**
 * All statistics as JSON, with open sessions and the sizes and times of claims, statements and handlers. NULL on a bad
 * handle. The caller frees it.
 */
GW_API
char *gw_worker_stats_json(const gw_worker_t *worker);

/**
 * Observes an event, by its name: one of `gw_event_name_at` that is not an interceptor's. `handler` is called on a thread
 * for events (`WorkerInit` and `JobStart`: where it happens); NULL: the event waits for `gw_worker_next_event`. At most
 * 1024 wait; an event `EventsDropped` tells how many found no room. Before the start only.
 */
GW_API
gw_status_t gw_worker_on_event(gw_worker_t *worker,
                               const char *name,
                               gw_event_fn handler,
                               void *user_data,
                               gw_free_fn free_fn,
                               gw_error_t **err);

/**
 * Decides at an event: `BeforeJobRun` and `AfterJobRun` (continue, skip, fail), `BeforeJobSchedule` (continue, skip, fail,
 * payload; asked for what is added through this worker's client), `JobRecovery` (continue, skip, reschedule, fail with
 * backoff). Called where the thing happens, and holds it up. Before the start only.
 */
GW_API
gw_status_t gw_worker_intercept(gw_worker_t *worker,
                                const char *name,
                                gw_decide_fn decide,
                                void *user_data,
                                gw_free_fn free_fn,
                                gw_error_t **err);

/**
 * Says more than the answer does: for GW_DECIDE_FAIL the reason, for GW_DECIDE_PAYLOAD the JSON. `len` may be GW_NUL.
 */
GW_API
gw_status_t gw_decision_set_text(gw_decision_t *decision,
                                 const char *text,
                                 size_t len);

/**
 * For GW_DECIDE_RESCHEDULE: when the job runs again, in microseconds since 1970, and how many attempts count as used;
 * below 0: as they are. GW_ERR_CONFIG for a time outside of the calendar, or attempts above 32767.
 */
GW_API
gw_status_t gw_decision_set_run_at(gw_decision_t *decision,
                                   int64_t unix_us,
                                   int32_t attempts);

/**
 * The name of every event, by its place from 0 on, those of interceptors last; NULL after them. Static text.
 */
GW_API const char *gw_event_name_at(size_t index);

/**
 * Gives the next event that was registered for without a handler: GW_OK, GW_TIMEOUT, or GW_STOPPED once the worker has
 * ended and all were given. The caller frees it.
 */
GW_API
gw_status_t gw_worker_next_event(gw_worker_t *worker,
                                 int64_t timeout_ms,
                                 gw_event_t **event,
                                 gw_error_t **err);

/**
 * A file descriptor to poll for reading: readable while `gw_worker_next_event` with a timeout of 0 would not answer
 * GW_TIMEOUT. Rules as for `gw_worker_fd`.
 */
GW_API
int32_t gw_worker_event_fd(const gw_worker_t *worker);

/**
 * The event's name: `"JobComplete"`. Static text.
 */
GW_API const char *gw_event_name(const gw_event_t *event);

/**
 * What it tells, as a JSON object. Valid until the event is freed.
 */
GW_API const char *gw_event_json(const gw_event_t *event);

/**
 * The job it is about; 0 if it is about none.
 */
GW_API int64_t gw_event_job_id(const gw_event_t *event);

/**
 * Frees an event. NULL does nothing, and so does one that is only borrowed.
 */
GW_API void gw_event_free(gw_event_t *event);

/**
 * Reads crontab text: lines of five fields, a task, options and a payload, as Node's graphile-worker has them, and
 * `tz=Area/City` beside its options. A task's name may stand in quotes. GW_ERR_CRONTAB names line and column. The caller
 * frees it.
 */
GW_API
gw_status_t gw_crontab_parse(const char *crontab,
                             gw_crontab_t **out,
                             gw_error_t **err);

/**
 * How many entries it has.
 */
GW_API size_t gw_crontab_len(const gw_crontab_t *crontab);

/**
 * An entry as JSON: identifier (its id, or else its task), task. NULL after the last. The caller frees it.
 */
GW_API char *gw_crontab_item_json(const gw_crontab_t *crontab, size_t index);

/**
 * Writes when an entry is due next after `after_us`, up to `capacity` times; answers how many were written: 0 if `out` is
 * NULL or `capacity` above GW_LIST_MAX.
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
