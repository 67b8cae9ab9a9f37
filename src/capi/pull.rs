//! Pulling jobs from a worker, one at a time or in batches.

use super::boundary::{put, wanted};
use super::call::call;
use super::error::gw_error_t;
use super::failure::Failure;
use super::inside::not_inside;
use super::job::{self, Life, gw_job_t};
use super::status::{GW_CANCELLED, GW_OK, GW_STOPPED, GW_TIMEOUT, GW_WOKEN, gw_status_t};
use super::text;
use super::wakeup::deadline;
use super::worker::{Current, Inner, gw_worker_t, look, state_error};
use crate::engine::pull::Next;
use std::sync::atomic::Ordering;

impl Inner {
    /// Calls `find` until it finds something or the timeout is over.
    fn pull<T>(
        &self,
        timeout_ms: i64,
        mut find: impl FnMut(&Current) -> Result<Found<T>, Failure>,
    ) -> Result<Found<T>, Failure> {
        if timeout_ms != 0 {
            not_inside("wait for a job")?;
        }
        let look = || match self.look(&mut find) {
            Ok(Found::Status(GW_TIMEOUT)) => None,
            found => Some(found),
        };
        let found = self.wakeup.wait_for(deadline(timeout_ms), look).unwrap_or(Ok(Found::Status(GW_TIMEOUT)));
        if matches!(found, Ok(Found::Status(GW_STOPPED))) {
            // Every later call returns the same, so the descriptor stays readable.
            self.wakeup.notify();
        }
        found
    }

    /// Looks once, without waiting.
    fn look<T>(&self, find: &mut impl FnMut(&Current) -> Result<Found<T>, Failure>) -> Result<Found<T>, Failure> {
        if self.woken.swap(false, Ordering::AcqRel) {
            return Ok(Found::Status(GW_WOKEN));
        }
        match &*self.current.read_recursive() {
            None => state_error("the worker was not started"),
            Some(current) if current.source.shared.config.pull.is_none() => {
                state_error("the tasks of this worker are called; add them with NULL to pull their jobs")
            }
            Some(current) if current.home.over.load(Ordering::Acquire) => Ok(Found::Status(GW_STOPPED)),
            Some(current) => find(current),
        }
    }
}

/// The result of a pull.
enum Found<T> {
    Something(gw_status_t, T),
    Status(gw_status_t),
}

/// Pulls the next job, already started, and writes it to `job`. The caller ends it with `gw_job_complete` or
/// `gw_job_fail`, and frees it with `gw_job_free`. Several threads may call this at once. At most `concurrency` jobs
/// without an outcome are handed out at once.
///
/// - GW_OK: `job` has a job.
/// - GW_TIMEOUT: no job was available within `timeout_ms`.
/// - GW_WOKEN: `gw_worker_wakeup` was called.
/// - GW_STOPPED: the worker hands out no more jobs. Every call returns this until the next start.
/// - GW_CANCELLED, only with the option `deliver_cancellations`: `job` has a further handle of a job that was handed
///   out earlier and should end early. The caller frees it; it cannot end the job.
/// - GW_ERR_STATE: the worker was not started, or its tasks are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_next(
    worker: *mut gw_worker_t,
    timeout_ms: i64,
    job: *mut *mut gw_job_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("job", job)?;
        let inner = look(worker)?.0.clone();
        let found = inner.pull(timeout_ms, |current| {
            let (status, life) = match current.source.next() {
                Next::Job(started) => (GW_OK, Life::of_started(started, current.home.clone())),
                Next::Cancelled(context) => (GW_CANCELLED, Life::of_context(context, current.home.clone())),
                Next::Nothing => return Ok(Found::Status(GW_TIMEOUT)),
                Next::Over => return Ok(Found::Status(GW_STOPPED)),
            };
            Ok(Found::Something(status, job::give(life)?))
        })?;
        match found {
            Found::Status(status) => Ok(status),
            Found::Something(status, found) => {
                // SAFETY: `job` is not NULL; see "Rules" in the header.
                unsafe { put(job, found) };
                Ok(status)
            }
        }
    })
}

/// Pulls up to `capacity` jobs at once. Waits for the first one only. `capacity` is 1 to GW_LIST_MAX, and `jobs` has
/// room for as many handles. The number of handles is written to `count`. Otherwise as `gw_worker_next`.
///
/// Does not deliver cancelled jobs: if one waits and no job is available, it returns GW_WOKEN, and `gw_worker_next`
/// delivers it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_next_batch(
    worker: *mut gw_worker_t,
    timeout_ms: i64,
    jobs: *mut *mut gw_job_t,
    capacity: usize,
    count: *mut usize,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("jobs", jobs)?;
        wanted("count", count)?;
        if capacity == 0 {
            return Err(Failure::invalid("capacity: is 0"));
        }
        text::entries("capacity", capacity)?;
        let inner = look(worker)?.0.clone();
        let found = inner.pull(timeout_ms, |current| {
            let mut came = 0;
            while came < capacity {
                match current.source.next_job() {
                    Next::Job(started) => match job::give(Life::of_started(started, current.home.clone())) {
                        Ok(given) => {
                            // SAFETY: the caller promises room for `capacity` jobs.
                            unsafe { *jobs.add(came) = given };
                            came += 1;
                        }
                        Err(failure) if came == 0 => return Err(failure),
                        // The caller gets the jobs before the failure.
                        Err(_) => break,
                    },
                    Next::Over if came == 0 => return Ok(Found::Status(GW_STOPPED)),
                    Next::Over | Next::Nothing | Next::Cancelled(_) => break,
                }
            }
            Ok(match came {
                // A notice is left for `gw_worker_next`. This pull drained the descriptor, so it must report it.
                0 if current.source.has_notices() => Found::Status(GW_WOKEN),
                0 => Found::Status(GW_TIMEOUT),
                _ => Found::Something(GW_OK, came),
            })
        })?;
        match found {
            Found::Status(status) => Ok(status),
            Found::Something(status, came) => {
                // SAFETY: `count` is not NULL; see "Rules" in the header.
                unsafe { put(count, came) };
                Ok(status)
            }
        }
    })
}

/// A file descriptor to poll for reading. It is readable while `gw_worker_next` with a timeout of 0 would return
/// anything but GW_TIMEOUT. It may also be readable once when there is nothing.
///
/// The library owns it: do not read or close it. An edge-triggered poller calls `gw_worker_next` after each wakeup
/// until GW_TIMEOUT. The descriptor stays the same from `gw_worker_new` to `gw_worker_free`. -1 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_fd(worker: *const gw_worker_t) -> i32 {
    look(worker).map_or(-1, |worker| worker.0.wakeup.fd())
}

/// Makes one waiting or later `gw_worker_next` return GW_WOKEN. ASYNC-SIGNAL-SAFE. A bad handle does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_wakeup(worker: *mut gw_worker_t) {
    let Ok(worker) = look(worker) else { return };
    worker.0.woken.store(true, Ordering::Release);
    worker.0.wakeup.notify();
}
