//! Jobs in the host's hands: what they are, and how they ended.

use super::client::gw_client_t;
use super::handle::{self, Slab, Slabs, Use, Value};
use super::status::{Failure, GW_ERR_ALREADY_FINISHED, GW_ERR_CLOSED, GW_ERR_STATE, GW_OK, gw_error_t, gw_status_t};
use super::{call, json, millis, read, status_of, text};
use crate::tasks::batch;
use crate::tasks::{StartedJob, WorkerContext};
use parking_lot::Mutex;
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A job. Thread-safe. Owned where `gw_worker_next` and `gw_job_retain` give one, borrowed within a task function.
pub struct gw_job_t;

pub(super) struct JobValue {
    life: Arc<Life>,
    /// Lent to a task function, which cannot free it.
    borrowed: bool,
}

impl Value for JobValue {
    const KIND: u64 = 6;
    const NAME: &'static str = "job";

    fn slab(slabs: &Slabs) -> &Slab<Self> {
        &slabs.jobs
    }

    fn tag(&self) -> i64 {
        self.life.context.job().id()
    }
}

/// What all handles of one job share. The job fails when the last of them goes without having ended it.
pub(super) struct Life {
    context: WorkerContext,
    /// `None` where the handle only tells of a job that others end.
    started: Option<StartedJob>,
    /// The text for a task function that answers GW_TASK_FAILED.
    error: Mutex<Option<String>>,
    home: Arc<Home>,
    task: OnceLock<CString>,
    key: OnceLock<Option<CString>>,
    payload: OnceLock<CString>,
}

/// What the jobs of one start of a worker have in common.
pub(super) struct Home {
    pub(super) worker_id: CString,
    /// The address of the worker's client handle.
    pub(super) client: usize,
    /// The worker has ended.
    pub(super) over: AtomicBool,
}

impl Life {
    pub(super) fn of_started(started: StartedJob, home: Arc<Home>) -> Arc<Self> {
        Self::new(started.context().clone(), Some(started), home)
    }

    pub(super) fn of_context(context: WorkerContext, home: Arc<Home>) -> Arc<Self> {
        Self::new(context, None, home)
    }

    fn new(context: WorkerContext, started: Option<StartedJob>, home: Arc<Home>) -> Arc<Self> {
        Arc::new(Self {
            context,
            started,
            error: Mutex::default(),
            home,
            task: OnceLock::new(),
            key: OnceLock::new(),
            payload: OnceLock::new(),
        })
    }

    pub(super) fn take_error(&self) -> Option<String> {
        self.error.lock().take()
    }

    /// Ends the job; an error if it has ended already, or its worker has.
    pub(super) fn finish(&self, result: Result<(), String>) -> Result<gw_status_t, Failure> {
        match self.started()?.finish(result) {
            true => Ok(GW_OK),
            false => Err(self.finished()),
        }
    }

    /// The job, if it has not ended: what else is asked for must come before.
    fn open(&self) -> Result<&WorkerContext, Failure> {
        match self.started()?.is_open() {
            true => Ok(&self.context),
            false => Err(self.finished()),
        }
    }

    fn started(&self) -> Result<&StartedJob, Failure> {
        let text = "this handle only tells of the job; end it by the one it came with";
        self.started.as_ref().ok_or_else(|| Failure::new(GW_ERR_STATE, text))
    }

    fn finished(&self) -> Failure {
        match self.home.over.load(Ordering::Acquire) {
            true => Failure::new(GW_ERR_CLOSED, "the worker of this job has stopped; the job was given back"),
            false => Failure::new(
                GW_ERR_ALREADY_FINISHED,
                "this job has its outcome already, or is no longer this worker's: it will run elsewhere, or has",
            ),
        }
    }
}

/// A handle that the host owns.
pub(super) fn give(life: Arc<Life>) -> Result<*mut gw_job_t, Failure> {
    handle::try_give(JobValue { life, borrowed: false })
}

/// Lends a job to a task function; takes the handle back when that has returned.
pub(super) fn lend<T>(life: &Arc<Life>, function: impl FnOnce(*mut gw_job_t) -> T) -> Result<T, Failure> {
    let job: *mut gw_job_t = handle::try_give(JobValue { life: life.clone(), borrowed: true })?;
    let answer = function(job);
    handle::free::<JobValue, _>(job)?;
    Ok(answer)
}

fn look(job: *const gw_job_t) -> Result<Use<JobValue>, Failure> {
    handle::look(job)
}

fn context<T>(job: *const gw_job_t, otherwise: T, tell: impl FnOnce(&WorkerContext) -> T) -> T {
    read(otherwise, || Ok(tell(&look(job)?.life.context)))
}

/// The row's id. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_id(job: *const gw_job_t) -> i64 {
    // Nothing here can panic, and hosts ask often.
    handle::tag::<JobValue, _>(job).unwrap_or(0)
}

/// The task. Valid until this handle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_task(job: *const gw_job_t) -> *const c_char {
    read(ptr::null(), || {
        let life = &look(job)?.life;
        Ok(life.task.get_or_init(|| text::owned(life.context.job().task_identifier())).as_ptr())
    })
}

/// The key under which it was added; NULL if it has none. Valid until this handle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_key(job: *const gw_job_t) -> *const c_char {
    read(ptr::null(), || {
        let life = &look(job)?.life;
        let key = life.key.get_or_init(|| life.context.job().key().map(text::owned));
        Ok(key.as_ref().map_or(ptr::null(), |key| key.as_ptr()))
    })
}

/// The id under which the worker holds it. Valid until this handle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_worker_id(job: *const gw_job_t) -> *const c_char {
    read(ptr::null(), || Ok(look(job)?.life.home.worker_id.as_ptr()))
}

/// Which attempt this is, from 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_attempts(job: *const gw_job_t) -> i32 {
    context(job, 0, |ctx| ctx.job().attempts().into())
}

/// After how many failed attempts it stays failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_max_attempts(job: *const gw_job_t) -> i32 {
    context(job, 0, |ctx| ctx.job().max_attempts().into())
}

/// Its priority, lower first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_priority(job: *const gw_job_t) -> i32 {
    context(job, 0, |ctx| ctx.job().priority().into())
}

/// How often it was added again under its key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_revision(job: *const gw_job_t) -> i32 {
    context(job, 0, |ctx| ctx.job().revision())
}

/// Before when it was not to start, in microseconds since 1970. A time outside of the years 1 to 9999, as infinity, is the
/// nearest within.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_run_at(job: *const gw_job_t) -> i64 {
    context(job, 0, |ctx| ctx.job().run_at().timestamp_micros())
}

/// When it was first added, in microseconds since 1970. A time outside of the years 1 to 9999, as infinity, is the
/// nearest within.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_created_at(job: *const gw_job_t) -> i64 {
    context(job, 0, |ctx| ctx.job().created_at().timestamp_micros())
}

/// The payload: JSON text as the database holds it, byte for byte, ending with NUL. Its length is written to `len` unless
/// that is NULL. Valid until this handle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_payload(job: *const gw_job_t, len: *mut usize) -> *const c_char {
    read(ptr::null(), || {
        let life = &look(job)?.life;
        let payload = life.payload.get_or_init(|| text::owned(life.context.payload()));
        // SAFETY: see "Rules" in the header.
        unsafe { super::put(len, payload.as_bytes().len()) };
        Ok(payload.as_ptr())
    })
}

/// The job as a JSON object, payload included: id, task_identifier, job_queue_id, payload, priority, run_at, attempts,
/// max_attempts, created_at, key, revision, flags. The caller frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_json(job: *const gw_job_t) -> *mut c_char {
    context(job, ptr::null_mut(), |ctx| text::give(json::job_text(ctx.job())))
}

/// The W3C trace context that the job belongs to; NULL if there is none. The caller frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_traceparent(job: *const gw_job_t) -> *mut c_char {
    context(job, ptr::null_mut(), |ctx| ctx.traceparent().map_or(ptr::null_mut(), text::give))
}

/// The client of the job's worker, for further jobs. Borrowed: it goes with the worker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_client(job: *const gw_job_t) -> *mut gw_client_t {
    read(ptr::null_mut(), || Ok(ptr::without_provenance_mut(look(job)?.life.home.client)))
}

/// Whether the job should end early: a stop whose grace period is over, its task's timeout, or it was lost to another
/// worker. A job that fails then counts no attempt, unless it timed out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_is_cancelled(job: *const gw_job_t) -> bool {
    look(job).is_ok_and(|job| job.life.context.is_cancelled())
}

/// Sets the text that becomes the job's `last_error` if its task function answers GW_TASK_FAILED. `len` may be GW_NUL.
/// What is not UTF-8 in it is replaced.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_set_error(job: *mut gw_job_t, message: *const c_char, len: usize) -> gw_status_t {
    status_of(|| {
        let job = look(job)?;
        // SAFETY: see "Rules" in the header.
        let message = unsafe { text::repaired("message", message, len) }?;
        job.life.open()?;
        *job.life.error.lock() = Some(message);
        Ok(())
    })
}

/// Runs the job again no earlier than after `delay_ms`, if it succeeds: the attempt is not counted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_snooze(job: *mut gw_job_t, delay_ms: i64) -> gw_status_t {
    status_of(|| {
        look(job)?.life.open()?.snooze(millis("delay_ms", delay_ms)?);
        Ok(())
    })
}

/// Tries the job again after `delay_ms`, if it fails: instead of what its task's backoff says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_retry_after(job: *mut gw_job_t, delay_ms: i64) -> gw_status_t {
    status_of(|| {
        look(job)?.life.open()?.retry_after(millis("delay_ms", delay_ms)?);
        Ok(())
    })
}

/// The job succeeded. Never blocks: the outcome is written soon, see `gw_worker_flush`. Of several outcomes the first
/// counts, the others answer GW_ERR_ALREADY_FINISHED; GW_ERR_CLOSED if the worker has stopped. The handle stays
/// to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_complete(job: *mut gw_job_t, err: *mut *mut gw_error_t) -> gw_status_t {
    call(err, || look(job)?.life.finish(Ok(())))
}

/// The job failed, for this reason; it is tried again as its task and its attempts have it. `len` may be GW_NUL; what is
/// not UTF-8 is replaced. Otherwise as `gw_job_complete`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_fail(
    job: *mut gw_job_t,
    message: *const c_char,
    len: usize,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let job = look(job)?;
        // SAFETY: see "Rules" in the header.
        let message = unsafe { text::repaired("message", message, len) }?;
        job.life.finish(Err(message))
    })
}

/// A batch job has ended: its payload is a JSON array, and `errors` has for each item NULL if it is done, or why it failed.
/// Only items that failed are left for the next attempt. Another `count` than there are items fails the attempt with
/// all of them. Otherwise as `gw_job_complete`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_complete_items(
    job: *mut gw_job_t,
    errors: *const *const c_char,
    count: usize,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let job = look(job)?;
        // SAFETY: see "Rules" in the header.
        let errors = unsafe { text::list("errors", errors, count) }?;
        let result = |error: &*const c_char| match error.is_null() {
            true => Ok(Ok(())),
            // SAFETY: the same, for each of them.
            false => Ok(Err(unsafe { text::repaired("errors", *error, text::GW_NUL) }?)),
        };
        let results = errors.iter().map(result).collect::<Result<Vec<Result<(), String>>, Failure>>()?;
        job.life.finish(batch::outcome(&job.life.context, &results))
    })
}

/// One more handle of the same job, owned by the caller. NULL on a bad handle. A task function that answers
/// GW_TASK_PENDING takes one before, for whoever ends the job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_retain(job: *mut gw_job_t) -> *mut gw_job_t {
    read(ptr::null_mut(), || give(look(job)?.life.clone()))
}

/// Frees a handle. When the last of a job goes and it has no outcome, it fails; after its worker has stopped, nothing
/// happens. NULL does nothing, and so does a handle that is only borrowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_free(job: *mut gw_job_t) {
    read((), || if look(job)?.borrowed { Ok(()) } else { handle::free::<JobValue, _>(job) });
}
