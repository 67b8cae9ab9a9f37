//! The statistics of a worker, as a struct and as JSON.

use super::boundary::{read, wanted};
use super::call::status_of;
use super::failure::Failure;
use super::status::gw_status_t;
use super::worker::{gw_worker_t, look};
use super::{json, text};
use crate::WorkerStats;
use std::ffi::c_char;
use std::ptr;

/// Counters of a worker since its last start, and its current load. Set `struct_size` before the call. New fields are
/// only added at the end.
#[repr(C)]
pub struct gw_stats_t {
    /// The size of this struct in bytes, as the caller was compiled: `sizeof(gw_stats_t)`.
    pub struct_size: usize,
    /// Jobs claimed.
    pub claimed: u64,
    /// Jobs that succeeded and were deleted.
    pub completed: u64,
    /// Attempts that failed, the last ones included.
    pub failed: u64,
    /// Attempts that failed and are retried.
    pub retried: u64,
    /// Jobs that failed permanently.
    pub permanently_failed: u64,
    /// Jobs given back before they started, or interrupted by a stop.
    pub returned: u64,
    /// Jobs whose handler asked to run again later, without using an attempt.
    pub snoozed: u64,
    /// Jobs that were cancelled because they ran longer than their task's timeout.
    pub timed_out: u64,
    /// Jobs that went on for longer than the grace period after their timeout.
    pub stuck: u64,
    /// Outcomes that the database refused because the worker no longer held the job.
    pub lost: u64,
    /// Jobs that the database held for the worker without the worker's knowledge, given back.
    pub reconciled: u64,
    /// Database calls that failed and were retried.
    pub database_errors: u64,
    /// Jobs claimed and waiting for a thread, now.
    pub held: u64,
    /// Jobs running, now.
    pub running: u64,
    /// Jobs claimed and not settled, now: held, running, or waiting to be settled.
    pub in_flight: u64,
    /// How long the oldest outcome has been waiting to be written, now, in microseconds; 0 if none waits.
    pub settle_lag_us: u64,
    /// Events that were dropped because the observers could not keep up.
    pub events_dropped: u64,
}

fn statistics(worker: *const gw_worker_t) -> Result<WorkerStats, Failure> {
    let worker = look(worker)?.0.current.read_recursive().as_ref().map(|current| current.worker.clone());
    Ok(worker.map(|worker| worker.stats()).unwrap_or_default())
}

/// Writes the worker's statistics to `stats`; all 0 before the first start. The caller sets `stats->struct_size`, and
/// only the fields within that size are written. GW_ERR_INVALID if it is not set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_stats(worker: *const gw_worker_t, stats: *mut gw_stats_t) -> gw_status_t {
    status_of(|| {
        wanted("stats", stats)?;
        let read = statistics(worker)?;
        // SAFETY: `stats` is not NULL, and the caller promises that `struct_size` is set.
        let struct_size = unsafe { (*stats).struct_size };
        if struct_size < size_of::<usize>() {
            return Err(Failure::invalid("stats->struct_size: is not set"));
        }
        let full = gw_stats_t {
            struct_size,
            claimed: read.claimed,
            completed: read.completed,
            failed: read.failed,
            retried: read.retried,
            permanently_failed: read.permanently_failed,
            returned: read.returned,
            snoozed: read.snoozed,
            timed_out: read.timed_out,
            stuck: read.stuck,
            lost: read.lost,
            reconciled: read.reconciled,
            database_errors: read.database_errors,
            held: read.held,
            running: read.running,
            in_flight: read.in_flight,
            settle_lag_us: read.settle_lag.as_micros() as u64,
            events_dropped: read.events_dropped,
        };
        let known = struct_size.min(size_of::<gw_stats_t>());
        // SAFETY: the caller's struct and `full` have at least `known` bytes.
        unsafe { ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), stats.cast::<u8>(), known) };
        Ok(())
    })
}

/// All statistics as a JSON object: also the open sessions, and the sizes and times of claims, statements and handlers.
/// The caller frees it with `gw_string_free`. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_stats_json(worker: *const gw_worker_t) -> *mut c_char {
    read(ptr::null_mut(), || Ok(text::give(json::stats(&statistics(worker)?).to_string())))
}
