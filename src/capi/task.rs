//! Task functions of the caller's: how one is called, and what its outcome means.

use super::inside::inside;
use super::job;
use super::job::{Home, Life, gw_job_t};
use super::user_data::UserData;
use crate::tasks::StartedJob;
use log::error;
use std::ffi::c_void;
use std::sync::Arc;

/// The outcome of a task function. The values are unusual, so that a number returned by mistake is none of them.
pub type gw_outcome_t = i32;

/// Outcome of a task function: the job succeeded.
pub const GW_TASK_DONE: gw_outcome_t = 0x6A01;
/// Outcome of a task function: the attempt failed; `gw_job_set_error` gives the reason.
pub const GW_TASK_FAILED: gw_outcome_t = 0x6A02;
/// Outcome of a task function: the job ends later, through a handle from `gw_job_retain`. If no such handle exists, the
/// job fails at once.
pub const GW_TASK_PENDING: gw_outcome_t = 0x6A03;

/// Runs one job, on a thread of the library. It may block, and runs on several threads at once. `job` is borrowed until
/// the function returns.
///
/// The outcome counts only if the job has not ended before. A number other than GW_TASK_... fails the job. No exception
/// and no longjmp may leave the function.
pub type gw_task_fn = Option<unsafe extern "C" fn(job: *mut gw_job_t, user_data: *mut c_void) -> gw_outcome_t>;

pub(super) struct TaskFunction {
    pub(super) function: unsafe extern "C" fn(*mut gw_job_t, *mut c_void) -> gw_outcome_t,
    pub(super) user_data: UserData,
}

impl TaskFunction {
    /// Calls the function with a job. Ends the job, unless the outcome is GW_TASK_PENDING.
    pub(super) fn run(&self, started: StartedJob, home: &Arc<Home>) {
        let life = Life::of_started(started, home.clone());
        // SAFETY: the caller passed function and `user_data` together, and `job` is lent until the function returns.
        let function = |job| inside(|| unsafe { (self.function)(job, self.user_data.pointer) });
        let result = match job::lend(&life, function) {
            Ok(GW_TASK_PENDING) => return,
            Ok(GW_TASK_DONE) => Ok(()),
            Ok(GW_TASK_FAILED) => {
                Err(life.take_error().unwrap_or_else(|| "the task failed without an error text".to_owned()))
            }
            Ok(other) => Err(format!("the task returned {other}, which is not a GW_TASK_... outcome")),
            Err(failure) => {
                error!(error = failure.message.as_str(); "a task function could not be called");
                Err(failure.message)
            }
        };
        // If the function has ended the job itself, the first outcome counts.
        let _ = life.finish(result);
    }
}
