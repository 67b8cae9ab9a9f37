//! Managing existing jobs, queues and workers with a client. Results are JSON.

use super::boundary::{millis, put, wanted};
use super::call::call;
use super::client::{gw_client_t, look};
use super::error::gw_error_t;
use super::failure::Failure;
use super::spec::time;
use super::status::{GW_ERR_JSON, GW_NOT_FOUND, GW_OK, gw_status_t};
use super::text;
use crate::{CleanupTask, JobState, ListJobsOptions, RescheduleJobOptions, SweepStaleWorkersOptions, WorkerUtils};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::c_char;

/// Cleanup: delete jobs that have failed permanently.
pub const GW_CLEANUP_DELETE_PERMAFAILED: u32 = 1;
/// Cleanup: delete tasks that have no job.
pub const GW_CLEANUP_GC_TASKS: u32 = 2;
/// Cleanup: delete named queues that have no job.
pub const GW_CLEANUP_GC_QUEUES: u32 = 4;

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
