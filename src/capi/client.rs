//! Clients: adding jobs and managing existing jobs.

use super::boundary::{millis, put, read, wanted};
use super::call::call;
use super::config::{ConfigValue, gw_config_t};
use super::error::gw_error_t;
use super::failure::Failure;
use super::handle::{self, KindSlab, Use, Value};
use super::keys::Reader;
use super::process::{SignalsBlocked, prepare};
use super::spec::{SpecValue, gw_spec_t, time};
use super::status::{GW_ERR_JSON, GW_NOT_FOUND, GW_OK, gw_status_t};
use super::text;
use crate::client::DEADLINE;
use crate::db::given_or_environment;
use crate::{
    CleanupTask, JobState, ListJobsOptions, RescheduleJobOptions, Schema, SweepStaleWorkersOptions, WorkerUtils,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::c_char;
use std::time::Duration;

/// Cleanup: delete jobs that have failed permanently.
pub const GW_CLEANUP_DELETE_PERMAFAILED: u32 = 1;
/// Cleanup: delete tasks that have no job.
pub const GW_CLEANUP_GC_TASKS: u32 = 2;
/// Cleanup: delete named queues that have no job.
pub const GW_CLEANUP_GC_QUEUES: u32 = 4;

/// Adds and manages jobs, on database connections of its own. Thread-safe. The caller frees it with `gw_client_free`.
///
/// Each call blocks until the database replies, at most for `database_timeout` (default 10 s).
pub struct gw_client_t;

pub(super) struct ClientValue {
    pub(super) utils: WorkerUtils,
    /// Belongs to a worker and is freed with it: `gw_client_free` does nothing.
    pub(super) borrowed: bool,
}

impl Value for ClientValue {
    const KIND: u64 = 5;
    const NAME: &'static str = "client";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<ClientValue> = KindSlab::new();
        &SLAB
    }
}

fn look(client: *const gw_client_t) -> Result<Use<ClientValue>, Failure> {
    handle::look(client)
}

/// Makes a client, connects once to check address and password, and writes the client to `out`. The configuration is
/// copied. Blocks on the network.
///
/// Reads the keys `database_url`, `schema`, `max_pg_conn` (default 10 here), `database_timeout` and `dry_run`. With
/// `dry_run`, calls that change jobs undo their change and return what it would be; adding jobs and migrating return
/// GW_ERR_STATE. The caller frees the client with `gw_client_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_new(
    config: *const gw_config_t,
    out: *mut *mut gw_client_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("out", out)?;
        prepare();
        let values = handle::look::<ConfigValue, _>(config)?.values();
        let values = Reader(&values);
        let missing = "database_url: missing; set it, to \"\" for the defaults of libpq";
        let url = given_or_environment(values.text("database_url"), missing)?;
        let schema = values.text("schema").map(Schema::new).transpose()?.unwrap_or_default();
        let _blocked = SignalsBlocked::now();
        let timeout = values.duration("database_timeout")?.unwrap_or(DEADLINE);
        let mut utils = WorkerUtils::connect_within(url, values.connections(10)?, timeout)?.schema(schema);
        if values.boolean("dry_run")?.unwrap_or(false) {
            utils = utils.dry_run();
        }
        // SAFETY: see "Rules" in the header.
        unsafe { put(out, handle::try_give(ClientValue { utils, borrowed: false })?) };
        Ok(GW_OK)
    })
}

/// Frees a client. NULL does nothing, nor does the borrowed client of a worker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_free(client: *mut gw_client_t) {
    read((), || if look(client)?.borrowed { Ok(()) } else { handle::free::<ClientValue, _>(client) });
}

/// Checks that the database replies within `timeout_ms` milliseconds. 0 counts as 1 ms; below 0 means
/// `database_timeout`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_check(
    client: *mut gw_client_t,
    timeout_ms: i64,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        let utils = client.utils.clone();
        let utils = match u64::try_from(timeout_ms) {
            Ok(millis) => utils.timeout(Duration::from_millis(millis.clamp(1, 1 << 40))),
            Err(_) => utils,
        };
        utils.ping()?;
        Ok(GW_OK)
    })
}

/// Installs the schema, or updates the existing one. Safe to repeat, also from many processes at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_migrate(client: *mut gw_client_t, err: *mut *mut gw_error_t) -> gw_status_t {
    call(err, || {
        look(client)?.utils.migrate()?;
        Ok(GW_OK)
    })
}

/// Adds a job. Its id is written to `id`, unless `id` is NULL. The caller keeps `spec`.
///
/// - GW_ERR_CONFIG names a field and its limit; nothing was sent.
/// - GW_ERR_CONNECT, GW_ERR_DATABASE_TIMEOUT: the job was not added.
/// - GW_ERR_UNKNOWN_OUTCOME: the job may or may not have been added. The reply to the commit was lost, and the library
///   could not query the outcome in time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_add_job(
    client: *mut gw_client_t,
    spec: *const gw_spec_t,
    id: *mut i64,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        let job = handle::look::<SpecValue, _>(spec)?.checked()?;
        let added = client.utils.add_raw_jobs(vec![job])?;
        // SAFETY: see "Rules" in the header.
        unsafe { put(id, added[0].id()) };
        Ok(GW_OK)
    })
}

/// Adds `count` jobs, all or none. Their ids are written to `ids` in the order of `specs`, unless `ids` is NULL; `ids`
/// has room for `count` numbers. `count` is at most GW_LIST_MAX. Errors as for `gw_client_add_job`; the message names
/// the job's place in the list, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_add_jobs(
    client: *mut gw_client_t,
    specs: *const *const gw_spec_t,
    count: usize,
    ids: *mut i64,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        // SAFETY: see "Rules" in the header.
        let specs = unsafe { text::list("specs", specs, count) }?;
        let jobs = specs.iter().enumerate().map(|(place, spec)| {
            let checked = handle::look::<SpecValue, _>(*spec).and_then(|spec| spec.checked());
            checked.map_err(|failure| failure.within(format_args!("job {place}")))
        });
        let added = client.utils.add_raw_jobs(jobs.collect::<Result<_, _>>()?)?;
        if !ids.is_null() {
            for (place, job) in added.iter().enumerate() {
                // SAFETY: the caller promises room for `count` ids.
                unsafe { *ids.add(place) = job.id() };
            }
        }
        Ok(GW_OK)
    })
}

/// Removes the job with a key. If the job runs, it keeps running and is not retried. GW_NOT_FOUND if no job has the key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_remove_job(
    client: *mut gw_client_t,
    key: *const c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        // SAFETY: see "Rules" in the header.
        let key = unsafe { text::required("key", key) }?;
        Ok(if client.utils.remove_job(key)? { GW_OK } else { GW_NOT_FOUND })
    })
}

/// Writes the result of `work` to `json`, as JSON with the field names of `graphile-worker --json`.
fn answer<T: Serialize>(
    client: *mut gw_client_t,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
    work: impl FnOnce(&WorkerUtils) -> Result<T, Failure>,
) -> gw_status_t {
    call(err, || {
        let client = look(client)?;
        wanted("json", json)?;
        let answer = work(&client.utils)?;
        let answer = serde_json::to_string(&answer).map_err(|e| Failure::new(GW_ERR_JSON, e.to_string()))?;
        // SAFETY: see "Rules" in the header.
        unsafe { put(json, text::give(answer)) };
        Ok(GW_OK)
    })
}

/// Reads options from a JSON object; NULL sets none. An error names the option, line and column.
///
/// # Safety
/// As [`text::optional`].
unsafe fn options<T: DeserializeOwned + Default>(options: *const c_char) -> Result<T, Failure> {
    // SAFETY: the caller promises what `text::optional` needs.
    match unsafe { text::optional("options", options) }? {
        None => Ok(T::default()),
        Some(text) => serde_json::from_str(text).map_err(|e| {
            let option = wrong_option::<T>(text).map(|name| format!(".{name}")).unwrap_or_default();
            Failure::new(GW_ERR_JSON, format!("options{option}: {e}"))
        }),
    }
}

/// Finds the field of an object that `T` refuses. serde does not name it, so each field is tried alone.
fn wrong_option<T: DeserializeOwned>(text: &str) -> Option<String> {
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let is_wrong = |(name, value): &(&String, &_)| T::deserialize(serde_json::json!({ *name: value })).is_err();
    fields.iter().find(is_wrong).map(|(name, _)| name.clone())
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ListOptions {
    task: Option<String>,
    queue: Option<String>,
    state: Option<String>,
    limit: Option<i64>,
    offset: Option<i64>,
}

/// Writes a JSON array of jobs to `json`, ordered by id. `options` is NULL or a JSON object with any of task, queue,
/// state (ready, scheduled, locked, failed), limit (default 50), offset (default 0). The caller frees `json` with
/// `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_list_jobs(
    client: *mut gw_client_t,
    options: *const c_char,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| {
        // SAFETY: see "Rules" in the header.
        let wanted: ListOptions = unsafe { self::options(options) }?;
        let state = |name: String| {
            let found = JobState::ALL.into_iter().find(|state| state.as_str() == name);
            found.ok_or_else(|| Failure::config(format!("state: {name:?} is none of ready, scheduled, locked, failed")))
        };
        let defaults = ListJobsOptions::default();
        Ok(utils.list_jobs(&ListJobsOptions {
            identifier: wanted.task,
            queue: wanted.queue,
            state: wanted.state.map(state).transpose()?,
            limit: wanted.limit.unwrap_or(defaults.limit),
            offset: wanted.offset.unwrap_or(defaults.offset),
        })?)
    })
}

/// Writes a job as a JSON object to `json`. GW_NOT_FOUND if no job has this id; `json` is then NULL. The caller frees
/// `json` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_job(
    client: *mut gw_client_t,
    id: i64,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    let mut found = true;
    let status = answer(client, json, err, |utils| {
        let job = utils.job(id)?;
        found = job.is_some();
        Ok(job)
    });
    match (status, found) {
        (GW_OK, false) => {
            // SAFETY: `answer` has just written a text of this library there.
            unsafe {
                text::gw_string_free(*json);
                *json = std::ptr::null_mut();
            }
            GW_NOT_FOUND
        }
        _ => status,
    }
}

/// Writes the number of jobs in each state to `json`: total, ready, scheduled, locked, failed. The caller frees `json`
/// with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_stats(
    client: *mut gw_client_t,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| Ok(utils.stats()?))
}

/// Writes a JSON array of the named queues to `json`, ordered by name: id, queue_name, locked_at, locked_by, job_count,
/// ready_count. The caller frees `json` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_queues(
    client: *mut gw_client_t,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| Ok(utils.queues()?))
}

/// Writes a JSON array of the workers that hold jobs or queues to `json`: worker_id, locked_jobs, locked_queues. The
/// caller frees `json` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_locked_workers(
    client: *mut gw_client_t,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| Ok(utils.locked_workers()?))
}

/// Writes a JSON array of the workers that have sent a heartbeat to `json`: worker_id, last_heartbeat_at, started_at,
/// metadata, is_stale. A worker is stale if its last heartbeat is longer ago than `sweep_threshold_ms` milliseconds and
/// three of its own heartbeat intervals. The caller frees `json` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_active_workers(
    client: *mut gw_client_t,
    sweep_threshold_ms: i64,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| Ok(utils.list_active_workers(millis("sweep_threshold_ms", sweep_threshold_ms)?)?))
}

/// Deletes jobs as if they had succeeded, and writes a JSON array of the deleted jobs to `json`. Jobs that a worker
/// holds are left unchanged. `count` is at most GW_LIST_MAX. The caller frees `json` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_complete_jobs(
    client: *mut gw_client_t,
    ids: *const i64,
    count: usize,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    // SAFETY: see "Rules" in the header.
    answer(client, json, err, |utils| Ok(utils.complete_jobs(unsafe { text::list("ids", ids, count) }?)?))
}

/// Fails jobs permanently with a reason, and writes a JSON array of these jobs to `json`. Jobs that a worker holds are
/// left unchanged. `count` is at most GW_LIST_MAX. The caller frees `json` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_fail_jobs(
    client: *mut gw_client_t,
    ids: *const i64,
    count: usize,
    reason: *const c_char,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| {
        // SAFETY: see "Rules" in the header.
        let (ids, reason) = unsafe { (text::list("ids", ids, count)?, text::required("reason", reason)?) };
        Ok(utils.permanently_fail_jobs(ids, reason)?)
    })
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RescheduleOptions {
    run_at: Option<serde_json::Value>,
    priority: Option<i32>,
    attempts: Option<i32>,
    max_attempts: Option<i32>,
}

/// Changes jobs that wait or have failed, and writes a JSON array of the changed jobs to `json`. Jobs that a worker
/// holds are left unchanged.
///
/// `options` is a JSON object with at least one of run_at ("now", an RFC 3339 time, or microseconds since 1970),
/// priority, attempts (0 makes a failed job available again), max_attempts. `count` is at most GW_LIST_MAX. The caller
/// frees `json` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_reschedule_jobs(
    client: *mut gw_client_t,
    ids: *const i64,
    count: usize,
    options: *const c_char,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| {
        // SAFETY: see "Rules" in the header.
        let (ids, wanted) = unsafe { (text::list("ids", ids, count)?, self::options::<RescheduleOptions>(options)?) };
        let now = wanted.run_at.as_ref().is_some_and(|at| at == "now");
        let run_at = match &wanted.run_at {
            None => None,
            Some(_) if now => None,
            Some(at) => Some(match (at.as_i64(), at.as_str().map(chrono::DateTime::parse_from_rfc3339)) {
                (Some(micros), _) => time("run_at", micros)?,
                (_, Some(Ok(at))) => at.with_timezone(&chrono::Utc),
                _ => {
                    return Err(Failure::config(
                        "run_at: is not \"now\", an RFC 3339 time, or microseconds since 1970",
                    ));
                }
            }),
        };
        let RescheduleOptions { priority, attempts, max_attempts, .. } = wanted;
        Ok(utils.reschedule_jobs(ids, RescheduleJobOptions { run_at, now, priority, attempts, max_attempts })?)
    })
}

/// Unlocks the jobs and queues of workers that are known to be dead, and writes how many to `json`: jobs, queues. If
/// such a worker is alive, its jobs run twice. `count` is at most GW_LIST_MAX. The caller frees `json` with
/// `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_force_unlock(
    client: *mut gw_client_t,
    worker_ids: *const *const c_char,
    count: usize,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| {
        // SAFETY: see "Rules" in the header.
        let ids = unsafe { text::list("worker_ids", worker_ids, count) }?;
        // SAFETY: the caller promises the same for each id.
        let ids = ids.iter().map(|id| unsafe { text::required("worker_ids", *id) }).collect::<Result<Vec<_>, _>>()?;
        Ok(utils.force_unlock_workers(&ids)?)
    })
}

/// Deletes rows that are no longer needed, and writes how many to `json`: jobs, tasks, queues. `tasks` is one or more
/// of GW_CLEANUP_..., joined with `|`. The caller frees `json` with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_cleanup(
    client: *mut gw_client_t,
    tasks: u32,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| {
        let known = [
            (GW_CLEANUP_DELETE_PERMAFAILED, CleanupTask::DeletePermanentlyFailedJobs),
            (GW_CLEANUP_GC_TASKS, CleanupTask::GcTaskIdentifiers),
            (GW_CLEANUP_GC_QUEUES, CleanupTask::GcJobQueues),
        ];
        let all = known.iter().fold(0, |all, (flag, _)| all | flag);
        if tasks == 0 || tasks & !all != 0 {
            return Err(Failure::invalid(format!("tasks: {tasks} is no combination of GW_CLEANUP_...")));
        }
        let asked: Vec<_> = known.iter().filter(|(flag, _)| tasks & flag != 0).map(|(_, task)| *task).collect();
        Ok(utils.cleanup(&asked)?)
    })
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SweepOptions {
    sweep_threshold_ms: Option<i64>,
    recovery_delay_ms: Option<i64>,
    dry_run: bool,
}

/// Recovers the jobs of dead workers, and writes the result to `json`: worker_ids, recovered_count, and
/// raised_thresholds if there are any. The caller frees `json` with `gw_string_free`.
///
/// `options` is NULL or a JSON object with any of sweep_threshold_ms, recovery_delay_ms, dry_run. A worker is dead only
/// after three of its own heartbeats are missing. If the threshold is too short for a living worker, raised_thresholds
/// names that worker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_sweep_stale_workers(
    client: *mut gw_client_t,
    options: *const c_char,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| {
        // SAFETY: see "Rules" in the header.
        let wanted: SweepOptions = unsafe { self::options(options) }?;
        let time = |name, given: Option<i64>| given.map(|given| millis(name, given)).transpose();
        Ok(utils.sweep_stale_workers(SweepStaleWorkersOptions {
            sweep_threshold: time("sweep_threshold_ms", wanted.sweep_threshold_ms)?,
            recovery_delay: time("recovery_delay_ms", wanted.recovery_delay_ms)?,
            dry_run: wanted.dry_run,
        })?)
    })
}
