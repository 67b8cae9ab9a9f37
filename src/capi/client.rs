//! Clients: adding jobs, and managing those that are there.

use super::config::{ConfigValue, gw_config_t};
use super::handle::{self, Slab, Slabs, Use, Value};
use super::keys::Reader;
use super::spec::{SpecValue, gw_spec_t, time};
use super::status::{Failure, GW_ERR_JSON, GW_NOT_FOUND, GW_OK, gw_error_t, gw_status_t};
use super::{call, put, read, text, wanted};
use crate::client::DEADLINE;
use crate::db::given_or_environment;
use crate::{
    CleanupTask, JobState, ListJobsOptions, RescheduleJobOptions, Schema, SweepStaleWorkersOptions, WorkerUtils,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::c_char;
use std::time::Duration;

/// Cleanup: jobs that have failed for good are deleted.
pub const GW_CLEANUP_DELETE_PERMAFAILED: u32 = 1;
/// Cleanup: tasks that no job is of are deleted.
pub const GW_CLEANUP_GC_TASKS: u32 = 2;
/// Cleanup: named queues that no job belongs to are deleted.
pub const GW_CLEANUP_GC_QUEUES: u32 = 4;

/// Adds and manages jobs, on connections of its own. Thread-safe; freed with `gw_client_free`.
pub struct gw_client_t;

pub(super) struct ClientValue {
    pub(super) utils: WorkerUtils,
    /// Belongs to a worker, and goes with it: the host only borrows it.
    pub(super) borrowed: bool,
}

impl Value for ClientValue {
    const KIND: u64 = 5;
    const NAME: &'static str = "client";

    fn slab(slabs: &Slabs) -> &Slab<Self> {
        &slabs.clients
    }
}

fn look(client: *const gw_client_t) -> Result<Use<ClientValue>, Failure> {
    handle::look(client)
}

/// A client, connected once, so that a wrong address or password is told at once. Reads the keys `database_url`,
/// `schema`, `max_pg_conn` (default 10 here), `database_timeout` and `dry_run`. Blocks on the network. The caller
/// frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_new(
    config: *const gw_config_t,
    out: *mut *mut gw_client_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("out", out)?;
        super::worker::prepare();
        let values = handle::look::<ConfigValue, _>(config)?.values();
        let values = Reader(&values);
        let missing = "database_url: missing; set it, to \"\" for the defaults of libpq";
        let url = given_or_environment(values.text("database_url"), missing)?;
        let schema = values.text("schema").map(Schema::new).transpose()?.unwrap_or_default();
        let _blocked = super::worker::SignalsBlocked::now();
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

/// Frees a client. NULL does nothing, and so does a client that belongs to a worker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_free(client: *mut gw_client_t) {
    read((), || if look(client)?.borrowed { Ok(()) } else { handle::free::<ClientValue, _>(client) });
}

/// Asks the database for a sign of life, for at most `timeout_ms` (below 0: the configured time).
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

/// Installs the schema, or takes over the one that is there. Safe at every start, from many processes at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_migrate(client: *mut gw_client_t, err: *mut *mut gw_error_t) -> gw_status_t {
    call(err, || {
        look(client)?.utils.migrate()?;
        Ok(GW_OK)
    })
}

/// Adds a job; its id is written to `id` unless that is NULL. GW_ERR_CONFIG names a field and its limit, and nothing was
/// sent. GW_ERR_CONNECT and GW_ERR_DATABASE_TIMEOUT: it was not added. GW_ERR_UNKNOWN_OUTCOME: the reply to the commit was
/// lost and the database could not be asked for the outcome in time, so it may or may not have been added.
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

/// Adds many jobs, all or none; their ids are written to `ids`, in the order of `specs`, unless it is NULL.
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
                // SAFETY: the header says that it has room for `count` ids.
                unsafe { *ids.add(place) = job.id() };
            }
        }
        Ok(GW_OK)
    })
}

/// Removes the job with a key; one that runs goes on and is not tried again. GW_NOT_FOUND if there is none.
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

/// Answers with JSON, whose names are those of `graphile-worker --json`.
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

/// Reads options that come as a JSON object; NULL: none are set. An error names the option, line and column.
///
/// # Safety
/// As [`text::optional`].
unsafe fn options<T: DeserializeOwned + Default>(options: *const c_char) -> Result<T, Failure> {
    // SAFETY: the caller says so.
    match unsafe { text::optional("options", options) }? {
        None => Ok(T::default()),
        Some(text) => serde_json::from_str(text).map_err(|e| {
            let option = wrong_option::<T>(text).map(|name| format!(".{name}")).unwrap_or_default();
            Failure::new(GW_ERR_JSON, format!("options{option}: {e}"))
        }),
    }
}

/// Which of an object's fields `T` does not take, as it takes each of them alone: serde does not tell.
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

/// Lists jobs as they stand, by id. `options`: NULL, or a JSON object with any of task, queue, state (ready, scheduled,
/// locked, failed), limit, offset.
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

/// Shows a job as it stands. GW_NOT_FOUND if there is none.
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
            // SAFETY: `answer` has just written a text of ours there.
            unsafe {
                text::gw_string_free(*json);
                *json = std::ptr::null_mut();
            }
            GW_NOT_FOUND
        }
        _ => status,
    }
}

/// Counts jobs by state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_stats(
    client: *mut gw_client_t,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| Ok(utils.stats()?))
}

/// Lists the named queues.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_queues(
    client: *mut gw_client_t,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| Ok(utils.queues()?))
}

/// Lists the workers that hold jobs or queues.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_locked_workers(
    client: *mut gw_client_t,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| Ok(utils.locked_workers()?))
}

/// Lists the workers that say, or said, that they live; stale are those that were silent for longer than the threshold.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_client_active_workers(
    client: *mut gw_client_t,
    sweep_threshold_ms: i64,
    json: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    answer(client, json, err, |utils| {
        Ok(utils.list_active_workers(super::millis("sweep_threshold_ms", sweep_threshold_ms)?)?)
    })
}

/// Completes jobs by hand; answers those that were. Jobs that workers hold are left alone.
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

/// Fails jobs for good by hand, with a reason; answers those that were. Jobs that workers hold are left alone.
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

/// Changes jobs that wait or have failed; answers those that were. `options`: a JSON object with any of run_at ("now", a
/// time as in RFC 3339, or microseconds since 1970), priority, attempts (0 brings a failed job back), max_attempts.
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
                        "run_at: is neither \"now\", nor a time as in RFC 3339, nor microseconds",
                    ));
                }
            }),
        };
        let RescheduleOptions { priority, attempts, max_attempts, .. } = wanted;
        Ok(utils.reschedule_jobs(ids, RescheduleJobOptions { run_at, now, priority, attempts, max_attempts })?)
    })
}

/// Takes jobs and queues away from workers that are known to be dead; answers how many.
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
        // SAFETY: the same, for each of them.
        let ids = ids.iter().map(|id| unsafe { text::required("worker_ids", *id) }).collect::<Result<Vec<_>, _>>()?;
        Ok(utils.force_unlock_workers(&ids)?)
    })
}

/// Deletes what nobody needs any more: `tasks` is one or several of GW_CLEANUP_..., or-ed. Answers how many rows.
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

/// Finds dead workers and gives their jobs back; answers which, and how many jobs. `options`: NULL, or a JSON object with
/// any of sweep_threshold_ms, recovery_delay_ms, dry_run. No worker is dead before three of its own heartbeats are missing;
/// where the threshold is too short for a living worker, the JSON names it in raised_thresholds.
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
        let time = |name, millis: Option<i64>| millis.map(|millis| super::millis(name, millis)).transpose();
        Ok(utils.sweep_stale_workers(SweepStaleWorkersOptions {
            sweep_threshold: time("sweep_threshold_ms", wanted.sweep_threshold_ms)?,
            recovery_delay: time("recovery_delay_ms", wanted.recovery_delay_ms)?,
            dry_run: wanted.dry_run,
        })?)
    })
}
