//! Jobs that the caller runs: their fields and their outcomes.

use super::boundary::{millis, put, read};
use super::call::{call, status_of};
use super::client::gw_client_t;
use super::error::gw_error_t;
use super::failure::Failure;
use super::handle::{self, KindSlab, Use, Value};
use super::status::{GW_ERR_ALREADY_FINISHED, GW_ERR_CLOSED, GW_ERR_STATE, GW_OK, gw_status_t};
use super::{json, text};
use crate::tasks::batch;
use crate::tasks::{StartedJob, WorkerContext};
use parking_lot::Mutex;
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A job. Thread-safe. The caller owns a handle from `gw_worker_next` or `gw_job_retain`, and frees it with
/// `gw_job_free`. The handle that a task function receives is borrowed until the function returns.
pub struct gw_job_t;

pub(super) struct JobValue {
    life: Arc<Life>,
    /// Lent to a task function, which cannot free it.
    borrowed: bool,
}

impl Value for JobValue {
    const KIND: u64 = 6;
    const NAME: &'static str = "job";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<JobValue> = KindSlab::new();
        &SLAB
    }

    fn tag(&self) -> i64 {
        self.life.context.job().id()
    }
}

/// What all handles of one job share. If the last of them is dropped without an outcome, the job fails.
pub(super) struct Life {
    context: WorkerContext,
    /// `None` if the handle only reports that a job is cancelled; it cannot end the job.
    started: Option<StartedJob>,
    /// The error text for a task function that returns GW_TASK_FAILED.
    error: Mutex<Option<String>>,
    home: Arc<Home>,
    task: OnceLock<CString>,
    key: OnceLock<Option<CString>>,
    payload: OnceLock<CString>,
}

/// What the jobs of one start of a worker share.
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

    /// Ends the job. An error if the job has already ended, or its worker has.
    pub(super) fn finish(&self, result: Result<(), String>) -> Result<gw_status_t, Failure> {
        match self.started()?.finish(result) {
            true => Ok(GW_OK),
            false => Err(self.finished()),
        }
    }

    /// The job, if it has not ended: snooze, retry delay and error text must be set before the outcome.
    fn open(&self) -> Result<&WorkerContext, Failure> {
        match self.started()?.is_open() {
            true => Ok(&self.context),
            false => Err(self.finished()),
        }
    }

    fn started(&self) -> Result<&StartedJob, Failure> {
        let text = "this handle only reports that the job is cancelled; end the job with its first handle";
        self.started.as_ref().ok_or_else(|| Failure::new(GW_ERR_STATE, text))
    }

    fn finished(&self) -> Failure {
        match self.home.over.load(Ordering::Acquire) {
            true => Failure::new(GW_ERR_CLOSED, "the worker of this job has stopped; the job was given back"),
            false => Failure::new(
                GW_ERR_ALREADY_FINISHED,
                "this job already has an outcome, or this worker no longer holds it and another worker may run it",
            ),
        }
    }
}

/// Makes a handle that the caller owns.
pub(super) fn give(life: Arc<Life>) -> Result<*mut gw_job_t, Failure> {
    handle::try_give(JobValue { life, borrowed: false })
}

/// Lends a job to a task function. Frees the handle when the function has returned.
pub(super) fn lend<T>(life: &Arc<Life>, function: impl FnOnce(*mut gw_job_t) -> T) -> Result<T, Failure> {
    let job: *mut gw_job_t = handle::try_give(JobValue { life: life.clone(), borrowed: true })?;
    let answer = function(job);
    handle::free::<JobValue, _>(job)?;
    Ok(answer)
}

fn look(job: *const gw_job_t) -> Result<Use<JobValue>, Failure> {
    handle::look(job)
}

fn context<T>(job: *const gw_job_t, otherwise: T, read_value: impl FnOnce(&WorkerContext) -> T) -> T {
    read(otherwise, || Ok(read_value(&look(job)?.life.context)))
}

/// The id of the job's row. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_id(job: *const gw_job_t) -> i64 {
    // Without `read`: nothing here can panic, and callers read the id often.
    handle::tag::<JobValue, _>(job).unwrap_or(0)
}

/// The name of the job's task. Valid until this handle is freed. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_task(job: *const gw_job_t) -> *const c_char {
    read(ptr::null(), || {
        let life = &look(job)?.life;
        Ok(life.task.get_or_init(|| text::owned(life.context.job().task_identifier())).as_ptr())
    })
}

/// The key under which the job was added; NULL if it has none. Valid until this handle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_key(job: *const gw_job_t) -> *const c_char {
    read(ptr::null(), || {
        let life = &look(job)?.life;
        let key = life.key.get_or_init(|| life.context.job().key().map(text::owned));
        Ok(key.as_ref().map_or(ptr::null(), |key| key.as_ptr()))
    })
}

/// The id under which the worker locks the job. Valid until this handle is freed. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_worker_id(job: *const gw_job_t) -> *const c_char {
    read(ptr::null(), || Ok(look(job)?.life.home.worker_id.as_ptr()))
}

/// The number of this attempt, from 1. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_attempts(job: *const gw_job_t) -> i32 {
    context(job, 0, |ctx| ctx.job().attempts().into())
}

/// The number of failed attempts after which the job fails permanently. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_max_attempts(job: *const gw_job_t) -> i32 {
    context(job, 0, |ctx| ctx.job().max_attempts().into())
}

/// The priority: jobs with a lower number run first. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_priority(job: *const gw_job_t) -> i32 {
    context(job, 0, |ctx| ctx.job().priority().into())
}

/// How often the job was added again under its key. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_revision(job: *const gw_job_t) -> i32 {
    context(job, 0, |ctx| ctx.job().revision())
}

/// The time before which the job was not to start, in microseconds since 1970. A time outside the years 1 to 9999, such
/// as infinity, is returned as the nearest time within. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_run_at(job: *const gw_job_t) -> i64 {
    context(job, 0, |ctx| ctx.job().run_at().timestamp_micros())
}

/// The time at which the job was first added, in microseconds since 1970. A time outside the years 1 to 9999, such as
/// infinity, is returned as the nearest time within. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_created_at(job: *const gw_job_t) -> i64 {
    context(job, 0, |ctx| ctx.job().created_at().timestamp_micros())
}

/// The payload: JSON text as the database holds it, byte for byte, ending with NUL. Its length in bytes, without the
/// NUL, is written to `len`, unless `len` is NULL. Valid until this handle is freed. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_payload(job: *const gw_job_t, len: *mut usize) -> *const c_char {
    read(ptr::null(), || {
        let life = &look(job)?.life;
        let payload = life.payload.get_or_init(|| text::owned(life.context.payload()));
        // SAFETY: see "Rules" in the header.
        unsafe { put(len, payload.as_bytes().len()) };
        Ok(payload.as_ptr())
    })
}

/// The job as a JSON object, with its payload: id, task_identifier, job_queue_id, payload, priority, run_at, attempts,
/// max_attempts, created_at, key, revision, flags. The caller frees it with `gw_string_free`. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_json(job: *const gw_job_t) -> *mut c_char {
    context(job, ptr::null_mut(), |ctx| text::give(json::job_text(ctx.job())))
}

/// The W3C trace context of the job; NULL if it has none. The caller frees it with `gw_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_traceparent(job: *const gw_job_t) -> *mut c_char {
    context(job, ptr::null_mut(), |ctx| ctx.traceparent().map_or(ptr::null_mut(), text::give))
}

/// The client of the job's worker, for adding further jobs. Borrowed. Valid until the worker's next start or
/// `gw_worker_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_client(job: *const gw_job_t) -> *mut gw_client_t {
    read(ptr::null_mut(), || Ok(ptr::without_provenance_mut(look(job)?.life.home.client)))
}

/// Whether the job should end early: a stop's grace period is over, its task's timeout is over, or another worker has
/// taken the job. If the job then fails, the attempt is not counted, unless it timed out. false on a bad handle. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_is_cancelled(job: *const gw_job_t) -> bool {
    look(job).is_ok_and(|job| job.life.context.is_cancelled())
}

/// Sets the text that becomes the job's `last_error` if its task function returns GW_TASK_FAILED. `len` is in bytes and
/// may be GW_NUL. Bytes that are not UTF-8 are replaced. GW_ERR_ALREADY_FINISHED if the job has an outcome.
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

/// If the job succeeds, runs it again no earlier than `delay_ms` milliseconds later. The attempt is not counted. At
/// most 100 years; the last call counts. GW_ERR_ALREADY_FINISHED if the job has an outcome.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_snooze(job: *mut gw_job_t, delay_ms: i64) -> gw_status_t {
    status_of(|| {
        look(job)?.life.open()?.snooze(millis("delay_ms", delay_ms)?);
        Ok(())
    })
}

/// If the job fails, retries it after `delay_ms` milliseconds, instead of its task's backoff. At most 100 years; the
/// last call counts. GW_ERR_ALREADY_FINISHED if the job has an outcome.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_retry_after(job: *mut gw_job_t, delay_ms: i64) -> gw_status_t {
    status_of(|| {
        look(job)?.life.open()?.retry_after(millis("delay_ms", delay_ms)?);
        Ok(())
    })
}

/// Reports that the job succeeded. Never blocks: the library writes the outcome soon, see `gw_worker_flush`. The handle
/// must still be freed.
///
/// Only the first outcome counts: later ones return GW_ERR_ALREADY_FINISHED. GW_ERR_CLOSED if the worker has stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_complete(job: *mut gw_job_t, err: *mut *mut gw_error_t) -> gw_status_t {
    call(err, || look(job)?.life.finish(Ok(())))
}

/// Reports that the attempt failed; `message` becomes `last_error`. The job is retried by its task's backoff while it
/// has attempts left. `len` is in bytes and may be GW_NUL. Bytes that are not UTF-8 are replaced. Otherwise as
/// `gw_job_complete`.
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

/// Reports the result of a batch job, whose payload is a JSON array. `errors` has `count` entries, one for each item:
/// NULL if the item is done, or the reason why it failed. Only failed items stay for the next attempt.
///
/// If `count` is not the number of items, the attempt fails with all items. Otherwise as `gw_job_complete`.
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
            // SAFETY: the caller promises the same for each text.
            false => Ok(Err(unsafe { text::repaired("errors", *error, text::GW_NUL) }?)),
        };
        let results = errors.iter().map(result).collect::<Result<Vec<Result<(), String>>, Failure>>()?;
        job.life.finish(batch::outcome(&job.life.context, &results))
    })
}

/// Makes another handle of the same job, which the caller owns. NULL on a bad handle. A task function that returns
/// GW_TASK_PENDING calls this first and passes the handle to the code that ends the job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_retain(job: *mut gw_job_t) -> *mut gw_job_t {
    read(ptr::null_mut(), || give(look(job)?.life.clone()))
}

/// Frees a handle. If it is the last handle of a job without an outcome, the job fails with "handle dropped without a
/// result"; after its worker has stopped, nothing happens. NULL and borrowed handles do nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_job_free(job: *mut gw_job_t) {
    read((), || if look(job)?.borrowed { Ok(()) } else { handle::free::<JobValue, _>(job) });
}
