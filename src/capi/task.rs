//! Task functions of the host's: how one is called, and what its answer means.

use super::job::{Home, Life, gw_job_t};
use super::user_data::UserData;
use super::{inside, job};
use crate::tasks::StartedJob;
use log::error;
use std::ffi::c_void;
use std::sync::Arc;

/// How a task function ended. No number that is returned by accident is one of them.
pub type gw_outcome_t = i32;

/// Outcome of a task function: the job is done.
pub const GW_TASK_DONE: gw_outcome_t = 0x6A01;
/// Outcome of a task function: the attempt failed; `gw_job_set_error` says why.
pub const GW_TASK_FAILED: gw_outcome_t = 0x6A02;
/// Outcome of a task function: somebody else ends the job later, with the handle that `gw_job_retain` gave. Without one
/// the job fails at once.
pub const GW_TASK_PENDING: gw_outcome_t = 0x6A03;

/// Runs one job, on a thread of the library's; may block. `job` is borrowed until it returns. What it answers counts only
/// if the job has not ended by then; a number that is no GW_TASK_... fails it. Neither exceptions nor longjmp may leave
/// it.
pub type gw_task_fn = Option<unsafe extern "C" fn(job: *mut gw_job_t, user_data: *mut c_void) -> gw_outcome_t>;

pub(super) struct TaskFunction {
    pub(super) function: unsafe extern "C" fn(*mut gw_job_t, *mut c_void) -> gw_outcome_t,
    pub(super) user_data: UserData,
}

impl TaskFunction {
    /// Calls the function with a job, and ends the job unless somebody else is to.
    pub(super) fn run(&self, started: StartedJob, home: &Arc<Home>) {
        let life = Life::of_started(started, home.clone());
        // SAFETY: the host gave both together, and the job is lent until it returns.
        let function = |job| inside(|| unsafe { (self.function)(job, self.user_data.pointer) });
        let result = match job::lend(&life, function) {
            Ok(GW_TASK_PENDING) => return,
            Ok(GW_TASK_DONE) => Ok(()),
            Ok(GW_TASK_FAILED) => {
                Err(life.take_error().unwrap_or_else(|| "the task failed without saying why".to_owned()))
            }
            Ok(other) => Err(format!("the task returned {other}, which is no GW_TASK_... outcome")),
            Err(failure) => {
                error!(error = failure.message.as_str(); "a task function could not be called");
                Err(failure.message)
            }
        };
        // It may have been ended within the function; that counts then.
        let _ = life.finish(result);
    }
}
